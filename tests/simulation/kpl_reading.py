"""KPL aggregated records, written and read by other means than the package's, for producers and checker.

Source: "KPL aggregated record format", aggregation-format.md in the repository awslabs/amazon-kinesis-producer.
"""

from collections.abc import Sequence
from hashlib import md5

MAGIC = b"\xf3\x89\x9a\xc2"


def aggregate(key: str, texts: Sequence[bytes]) -> bytes:
    """User records of one key."""
    body = _field(1, key.encode()) + b"".join(_field(3, b"\x08\x00" + _field(3, text)) for text in texts)
    return MAGIC + body + md5(body, usedforsecurity=False).digest()


def texts_of(data: bytes) -> list[bytes]:
    """The data of each user record, in order; anything else alone."""
    body = data[4:-16]
    if not data.startswith(MAGIC) or md5(body, usedforsecurity=False).digest() != data[-16:]:
        return [data]
    return [text for record in _fields(body, 3) for text in _fields(record, 3)]


def _field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def _fields(message: bytes, wanted: int) -> list[bytes]:
    """The values of the fields with that number which have a length."""
    found, at = [], 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        size, at = _read_varint(message, at)
        if tag & 7 == 2:
            if tag >> 3 == wanted:
                found.append(message[at : at + size])
            at += size
    return found


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
