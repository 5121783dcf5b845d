"""What a record of a hub contains for a consumer who deaggregates: the judge's own reading of the KPL format.

It shares no code with the worker. It knows what stands in a well-formed aggregate and takes everything else for one
plain record, as AWS's consumer libraries do.
"""

import hashlib
from collections import defaultdict

START = bytes.fromhex("f3899ac2")
MD5_BYTES = 16
KEYS, RECORDS = 1, 3
KEY_NUMBER, DATA = 1, 3


def contents(data: bytes, partition_key: str) -> list[tuple[bytes, str]]:
    """The user records of an aggregate with their keys; any other record alone with its own."""
    message, digest = data[len(START) : -MD5_BYTES], data[-MD5_BYTES:]
    if not data.startswith(START) or hashlib.md5(message, usedforsecurity=False).digest() != digest:
        return [(data, partition_key)]
    try:
        fields = _message(message)
        records = [_message(_blob(record)) for record in fields[RECORDS]]
        keys = [_blob(key).decode() for key in fields[KEYS]]
        return [(_blob(record[DATA][-1]), keys[_number(record[KEY_NUMBER][-1])]) for record in records]
    except (IndexError, TypeError, UnicodeDecodeError):
        return [(data, partition_key)]


def _message(raw: bytes) -> dict[int, list[bytes | int]]:
    """All values by field number. Raises IndexError or TypeError for what is no such message."""
    fields: dict[int, list[bytes | int]] = defaultdict(list)
    while raw:
        tag, raw = _leading_number(raw)
        number, raw = _leading_number(raw)
        if tag % 8 == 0:
            fields[tag // 8].append(number)
        elif tag % 8 == 2 and number <= len(raw):
            fields[tag // 8].append(raw[:number])
            raw = raw[number:]
        else:
            raise TypeError(f"tag {tag} is none of this format")
    return fields


def _leading_number(raw: bytes) -> tuple[int, bytes]:
    """Base 128, the lowest digit first; the last one is below 128."""
    digits = 1
    while raw[digits - 1] > 127:
        digits += 1
    return sum((raw[place] % 128) << (7 * place) for place in range(digits)), raw[digits:]


def _blob(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise TypeError("a number where bytes belong")
    return value


def _number(value: bytes | int) -> int:
    if isinstance(value, bytes):
        raise TypeError("bytes where a number belongs")
    return value
