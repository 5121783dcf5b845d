"""Answers of HTTP: however they are cut they are the same, and what is not whole or not exact is none."""

import gc
import io
import weakref
from collections.abc import Iterable
from http.client import HTTPResponse
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.aws.http_answer import BODY_BYTES_MAX, HEAD_BYTES_MAX, WORDS_MAX, Answered, AnswerReader, NotHttp

CUTS = st.lists(st.integers(1, 50), min_size=1, max_size=20)
OK = b"HTTP/1.1 200 OK\r\n"


class _Socket:
    """What the standard library's parser reads from."""

    def __init__(self, stored: bytes) -> None:
        self._stored = stored

    def makefile(self, _: str) -> io.BytesIO:
        return io.BytesIO(self._stored)


def by_the_standard_library(stored: bytes) -> Answered:
    response = HTTPResponse(_Socket(stored))  # type: ignore[arg-type]
    response.begin()
    headers = {name.lower(): cast("str", response.getheader(name)) for name in response.headers}
    return Answered(response.status, headers, response.read())


def feed(reader: AnswerReader, stored: bytes, cuts: Iterable[int] = (1 << 30,)) -> bool:
    """Whether the answer is whole behind its last byte."""
    is_whole = False
    rest, sizes = stored, list(cuts)
    while rest:
        assert not is_whole, "whole before its end"
        room = reader.space()
        size = min(sizes[0], len(room), len(rest))
        sizes.append(sizes.pop(0))
        assert size > 0
        room[:size] = rest[:size]
        rest = rest[size:]
        is_whole = reader.took(size)
    return is_whole


def why(stored: bytes) -> str:
    with pytest.raises(NotHttp) as caught:
        feed(AnswerReader(), stored)
    return str(caught.value)


def chunked(body: bytes, sizes: list[int], extra: bytes, trailers: bytes) -> bytes:
    parts, sizes = [], list(sizes)
    while body:
        size = min(sizes[0], len(body))
        sizes.append(sizes.pop(0))
        parts.append(b"%x%b\r\n%b\r\n" % (size, extra, body[:size]))
        body = body[size:]
    return b"".join(parts) + b"0\r\n" + trailers + b"\r\n"


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Whole ones that tell where they end."""
    status = draw(st.sampled_from([b"200 OK", b"400 Bad Request", b"503", b"500 "]))
    names = draw(st.lists(st.sampled_from(["Date", "X-Amzn-RequestId", "x-b"]), max_size=3, unique=True))
    told = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
    lines = [f"{name}:{draw(st.sampled_from(['', ' ', '  ']))}{draw(told)}".encode() for name in names]
    body = draw(st.binary(max_size=300))
    if draw(st.booleans()):
        lines.insert(draw(st.integers(0, len(lines))), b"Content-Length: %d" % len(body))
        content = body
    else:
        lines.append(b"transfer-encoding: chunked")
        trailers = draw(st.sampled_from([b"", b"x-checksum: 1\r\n"]))
        content = chunked(body, draw(CUTS), draw(st.sampled_from([b"", b";a=b"])), trailers)
    between = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n"]))
    return between + b"\r\n".join([b"HTTP/1.1 " + status, *lines, b"", content])


@given(answers(), CUTS)
def test_an_answer_is_what_the_standard_library_reads_however_it_is_cut(stored: bytes, cuts: list[int]) -> None:
    reader = AnswerReader()
    assert feed(reader, stored, cuts)
    found = reader.answered()
    assert Answered(found.status, found.headers, bytes(found.body)) == by_the_standard_library(stored)
    assert reader.may_go_on


@given(answers(), st.data())
def test_no_part_of_an_answer_is_one(stored: bytes, data: st.DataObject) -> None:
    reader = AnswerReader()
    assert not feed(reader, stored[: data.draw(st.integers(0, len(stored) - 1))])


@given(answers(), st.binary(min_size=1, max_size=50))
def test_what_follows_an_answer_is_refused_with_it(stored: bytes, more: bytes) -> None:
    assert "more than it announced" in why(stored + more)


@pytest.mark.parametrize(
    "stored",
    [
        OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n",
        OK + b"connection: x, Close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_connection_that_ends_with_its_answer_carries_no_other(stored: bytes) -> None:
    reader = AnswerReader()
    assert feed(reader, stored)
    assert not reader.may_go_on


def test_a_status_that_has_no_body_needs_no_length() -> None:
    reader = AnswerReader()
    assert feed(reader, b"HTTP/1.1 204 No Content\r\n\r\n")
    assert reader.may_go_on


def test_a_body_of_some_megabytes_is_read_whole_from_large_pieces() -> None:
    reader, body = AnswerReader(), bytes(range(256)) * 8000
    assert feed(reader, OK + b"content-length: %d\r\n\r\n" % len(body) + body, (200_000,))
    assert reader.answered().body == body
    reader = AnswerReader()
    stored = OK + b"transfer-encoding: chunked\r\n\r\n" + chunked(body, [100_000, 7], b"", b"")
    assert feed(reader, stored, (200_000,))
    assert reader.answered().body == body


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (b"HTTP/2 200 OK\r\n\r\n", "begins with"),
        (b"HTTP/1.1 20 OK\r\n\r\n", "begins with"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "begins with"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "begins with"),
        (OK + b"\r\n{}", "without a length"),
        (OK + b"connection: close\r\n\r\n", "without a length"),
        (OK + b"no colon\r\n\r\n", "header"),
        (OK + b"a: b\r\n folded\r\n\r\n", "header"),
        (OK + b"content-length : 3\r\n\r\nabc", "header"),
        (OK + b"a: b\nc: d\r\n\r\n", "header"),
        (OK + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabc", "content-length"),
        (OK + b"content-length: -3\r\n\r\n", "content-length"),
        (OK + b"content-length: 3, 3\r\n\r\nabc", "content-length"),
        (OK + b"content-length: \r\n\r\n", "content-length"),
        (OK + b"content-length: \xb2\r\n\r\n", "content-length"),
        (OK + b"content-length: %d\r\n\r\n" % (BODY_BYTES_MAX + 1), "content-length"),
        (OK + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", "transfer-encoding"),
        (OK + b"transfer-encoding: gzip, chunked\r\n\r\n", "transfer-encoding"),
        (OK + b"transfer-encoding: chunked\r\n\r\nxyz\r\n", "chunk"),
        (OK + b"transfer-encoding: chunked\r\n\r\n-1\r\n", "chunk"),
        (OK + b"transfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n", "longer"),
        (OK + b"transfer-encoding: chunked\r\n\r\nfffffff\r\n", "chunk of"),
        (OK + b"transfer-encoding: chunked\r\n\r\n" + b"1" * 2000, "without a size"),
        (OK + b"transfer-encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 20_000, "trailers"),
        (OK + b"a: b\r\n" * (HEAD_BYTES_MAX // 6 + 1), "head of more than"),
    ],
)
def test_what_is_not_exactly_an_answer_is_refused(stored: bytes, reason: str) -> None:
    assert reason in why(stored)


def test_a_chunked_body_is_bounded_too() -> None:
    reader, piece = AnswerReader(), bytes(8 * 1024 * 1024)
    content = b"%x\r\n" % len(piece) + piece + b"\r\n"
    feed(reader, OK + b"transfer-encoding: chunked\r\n\r\n" + content * (BODY_BYTES_MAX // len(piece)))
    with pytest.raises(NotHttp, match="a body of more than"):
        feed(reader, content)


def test_words_before_an_answer_are_bounded_however_many_come_at_once() -> None:
    word = b"HTTP/1.1 100\r\n\r\n"
    assert feed(AnswerReader(), word * WORDS_MAX + OK + b"content-length: 0\r\n\r\n")
    assert "status of 1xx" in why(word * (HEAD_BYTES_MAX // len(word)))


def test_an_answer_is_freed_without_the_garbage_collector() -> None:
    """Which comes rarely in a worker: megabytes would wait for it."""
    reader = AnswerReader()
    assert feed(reader, OK + b"content-length: 3\r\n\r\nabc")
    seen = weakref.ref(reader)
    gc.disable()
    try:
        del reader
        assert seen() is None
    finally:
        gc.enable()
