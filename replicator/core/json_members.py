"""Finding one top-level member of a JSON object in its bytes, wherever it stands and however its key is spelt.

Only for events whose tag does not stand where we put it (somebody re-serialised the event), so it is written to be
right rather than quick. The bytes have been accepted by a JSON parser before.
"""

import json
import re
from typing import NamedTuple

STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
SPACE = re.compile(rb"[ \t\r\n]*")
NESTED = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
SCALAR = re.compile(rb"[^,}\s]+")


class Member(NamedTuple):
    """A key with where its text begins, where its value begins, and where the value ends."""

    key: str
    start: int
    value_start: int
    end: int


def members(data: bytes) -> list[Member]:
    """All members of the object in ``data``, which must be a valid JSON object."""
    found = []
    at = _skip(data, _skip(data, 0) + 1)
    while data[at : at + 1] != b"}":
        key_end = _string_end(data, at)
        value_start = _skip(data, _skip(data, key_end) + 1)
        end = _value_end(data, value_start)
        found.append(Member(json.loads(data[at:key_end]), at, value_start, end))
        at = _skip(data, end)
        if data[at : at + 1] == b",":
            at = _skip(data, at + 1)
    return found


def without(data: bytes, member: Member) -> bytes:
    """The object without the member and the comma that belonged to it."""
    after = _skip(data, member.end)
    if data[after : after + 1] == b",":
        return data[: member.start] + data[_skip(data, after + 1) :]
    before = data[: member.start].rstrip(b" \t\r\n")
    return before.removesuffix(b",") + data[member.end :]


def _skip(data: bytes, at: int) -> int:
    space = SPACE.match(data, at)
    return space.end() if space else at


def _string_end(data: bytes, at: int) -> int:
    string = STRING.match(data, at)
    assert string is not None, "a parser accepted these bytes"
    return string.end()


def _value_end(data: bytes, at: int) -> int:
    first = data[at : at + 1]
    if first == b'"':
        return _string_end(data, at)
    if first not in (b"{", b"["):
        scalar = SCALAR.match(data, at)
        assert scalar is not None, "a parser accepted these bytes"
        return scalar.end()
    depth = 0
    for token in NESTED.finditer(data, at):
        if token[0] in (b"{", b"["):
            depth += 1
        elif token[0] in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                return token.end()
    raise AssertionError("a parser accepted these bytes")
