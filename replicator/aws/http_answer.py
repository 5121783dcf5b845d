"""An answer of HTTP/1.1 as it arrives: no I/O, only where the next bytes are to be written and what they were.

How it works: bytes are written into `AnswerReader.space`, and `took` is told how many. First that is room for a head;
once its length is known, it is the body itself, so that what is large is copied once, by the kernel.

Why it is strict: who takes half an answer for a whole one, or one request's for another's, settles events that were not
stored. What has two lengths, none, another framing, a bad line or more than was announced is refused: where only the
end of the connection ends an answer, nobody can tell it from one that was cut.
"""

import re
from collections.abc import Callable, Mapping

from msgspec import Struct

HEAD_BYTES_MAX = 64 * 1024
BODY_BYTES_MAX = 64 * 1024 * 1024
"""GetRecords answers up to 10 MiB of data, a third more as base64."""
CHUNK_LINE_MAX = 1024
WORDS_MAX = 16
"""Answers with a status of 1xx before the one that counts."""
PIECE_BYTES = 64 * 1024
STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n]*)?")
NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
LENGTH = re.compile("[0-9]{1,12}", re.ASCII)
CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?")
NO_BODY = frozenset({204, 304})


class NotHttp(Exception):
    """What came is no answer as we read it."""


class Answered(Struct, frozen=True):
    """Names of headers are in lower case; a header that comes twice is joined with a comma."""

    status: int
    headers: Mapping[str, str]
    body: bytes | bytearray


class AnswerReader:
    """Of one answer. `space`, then `took`, until that says that it is whole."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.may_go_on = False
        """Whether the connection may carry another request."""
        self._words = 0
        self._body = bytearray()
        self._raw = bytearray()
        """Of a chunked body, what is not told apart yet."""
        self._room(HEAD_BYTES_MAX)
        # Not a bound method: with that cycle the megabytes of an answer would stay until the garbage collector comes.
        self._next: Callable[[AnswerReader, int], bool] = AnswerReader._in_head

    def _room(self, size: int) -> None:
        self._buffer = bytearray(size)
        self._view = memoryview(self._buffer)
        self._filled = 0

    def space(self) -> memoryview:
        """Where the next bytes go; never empty before the answer is whole."""
        return self._view[self._filled :]

    def took(self, count: int) -> bool:
        """So many bytes stand at the beginning of `space`; true when the answer is whole. Raises NotHttp."""
        self._filled += count
        return self._next(self, count)

    def answered(self) -> Answered:
        return Answered(self.status, self.headers, self._body)

    def _in_head(self, count: int) -> bool:
        end = self._buffer.find(b"\r\n\r\n", max(0, self._filled - count - 3), self._filled)
        if end < 0:
            if self._filled == len(self._buffer):
                raise NotHttp(f"a head of more than {HEAD_BYTES_MAX} bytes")
            return False
        rest = bytes(self._view[end + 4 : self._filled])
        is_1_1 = self._parse(bytes(self._view[:end]))
        if self.status < 200:  # a word in between; the answer follows
            self._words += 1
            if self._words > WORDS_MAX:
                raise NotHttp(f"more than {WORDS_MAX} answers with a status of 1xx")
            self._room(HEAD_BYTES_MAX)
            return self._with(rest)
        self.may_go_on = is_1_1 and "close" not in self.headers.get("connection", "").lower()
        return self._begin(rest)

    def _parse(self, head: bytes) -> bool:
        """Whether it is HTTP/1.1."""
        first, *lines = head.split(b"\r\n")
        found = STATUS.fullmatch(first)
        if found is None or found[2] == b"101":
            raise NotHttp(f"it begins with {first[:80]!r}")
        self.status, self.headers = int(found[2]), {}
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or NAME.fullmatch(name) is None or b"\r" in value or b"\n" in value:
                raise NotHttp(f"header {line[:80]!r}")
            key, text = name.decode("ascii").lower(), value.strip(b" \t").decode("latin-1")
            self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text
        return found[1] == b"1"

    def _begin(self, rest: bytes) -> bool:
        """Of the body, of which ``rest`` came with the head."""
        coding, length = self.headers.get("transfer-encoding"), self.headers.get("content-length")
        if coding is not None:
            if coding.lower() != "chunked" or length is not None:
                raise NotHttp(f"transfer-encoding {coding!r}, content-length {length!r}")
            self._next = AnswerReader._in_chunks
            self._room(PIECE_BYTES)
            return self._with(rest)
        if self.status in NO_BODY:
            length = "0"
        if length is None:
            raise NotHttp(f"status {self.status} without a length")
        if LENGTH.fullmatch(length) is None or int(length) > BODY_BYTES_MAX:
            raise NotHttp(f"content-length {length[:80]!r}")
        self._next = AnswerReader._in_body
        self._room(int(length))
        self._body = self._buffer
        return self._with(rest)

    def _with(self, rest: bytes) -> bool:
        """Go on with bytes that came already."""
        is_whole = self._next(self, 0)
        while rest:
            if is_whole:
                raise NotHttp("more than it announced")
            room = self.space()
            piece, rest = rest[: len(room)], rest[len(room) :]
            room[: len(piece)] = piece
            is_whole = self.took(len(piece))
        return is_whole

    def _in_body(self, _: int) -> bool:
        return self._filled == len(self._body)

    def _keep(self, piece: bytearray) -> None:
        if len(self._body) + len(piece) > BODY_BYTES_MAX:
            raise NotHttp(f"a body of more than {BODY_BYTES_MAX} bytes")
        self._body += piece

    def _in_chunks(self, _: int) -> bool:
        self._raw += self._view[: self._filled]
        self._filled = 0
        while (end := self._raw.find(b"\r\n")) >= 0:
            found = CHUNK_SIZE.fullmatch(self._raw[:end])
            if found is None:
                raise NotHttp(f"a chunk begins with {bytes(self._raw[:80])!r}")
            size = int(found[1], 16)
            if size == 0:
                return self._in_trailers(end)
            if size > BODY_BYTES_MAX:
                raise NotHttp(f"a chunk of {size} bytes")
            if len(self._raw) < end + 2 + size + 2:
                return False
            if self._raw[end + 2 + size : end + 4 + size] != b"\r\n":
                raise NotHttp("a chunk is longer than it announced")
            self._keep(self._raw[end + 2 : end + 2 + size])
            del self._raw[: end + 4 + size]
        if len(self._raw) > CHUNK_LINE_MAX:
            raise NotHttp("a chunk without a size")
        return False

    def _in_trailers(self, start: int) -> bool:
        """What stands behind the last chunk is not looked at."""
        end = self._raw.find(b"\r\n\r\n", start)
        if end < 0:
            if len(self._raw) > HEAD_BYTES_MAX:
                raise NotHttp(f"trailers of more than {HEAD_BYTES_MAX} bytes")
            return False
        if end + 4 != len(self._raw):
            raise NotHttp("more than it announced")
        return True
