"""KPL aggregated records: many user records in one Kinesis record, as the Kinesis Producer Library writes them.

Format: ``F3 89 9A C2``, a protobuf message (proto2), the MD5 of the message. Source: "KPL aggregated record format",
aggregation-format.md in the repository awslabs/amazon-kinesis-producer.

    AggregatedRecord: 1 partition_key_table: repeated string, 2 explicit_hash_key_table: repeated string,
                      3 records: repeated Record
    Record:           1 partition_key_index: uint64, 2 explicit_hash_key_index: uint64 (optional), 3 data: bytes,
                      4 tags: repeated (reserved)

Why it is safe: an aggregate is unpacked whole or not at all, so nothing of it can get lost half way. Lengths are
compared with what is there before anything is cut, and the number of user records is bounded, so a hostile one costs
no more memory than its bytes and `USER_RECORDS_MAX` objects. Explicit hash keys are read over, as GetRecords leaves
them out for plain records.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import md5

from msgspec import Struct

from replicator.core.model import Record
from replicator.errors import PoisonEvent

MAGIC = b"\xf3\x89\x9a\xc2"
DIGEST_BYTES = 16
USER_RECORDS_MAX = 20_000
"""User records of one aggregate: 52 bytes each in 1 MiB. The KPL makes aggregates of 50 KiB by default."""
KEY_CHARACTERS_MAX = 256
"""PutRecords: a partition key has 1 to 256 characters (API reference)."""
RECORD_OVERHEAD_MAX = 14
"""Bytes a user record costs besides its data when all have one key: three field tags, an index, two lengths."""
FRAME_OVERHEAD_MAX = len(MAGIC) + DIGEST_BYTES + 4
"""Bytes an aggregate of one key costs besides user records and key: frame, field tag, length of the key."""
PACKED_EVENTS_MAX = 500
"""Events we pack into one record."""
PACKED_BYTES_MAX = 256 * 1024
"""Bytes we pack into one record. Four a second fill a shard, which takes 1 MB a second: more would not be faster, but
throttled more often."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_KEY = 1 << 3 | _LENGTH
_RECORD = 3 << 3 | _LENGTH
_INDEX = 1 << 3 | _VARINT
_DATA = 3 << 3 | _LENGTH
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_VARINT_BITS_MAX = 64


class UserRecord(Struct, frozen=True):
    """What an application handed to the KPL."""

    data: bytes
    partition_key: str


def user_records(record: Record) -> Sequence[Record]:
    """The user records of an aggregate, numbered from 0 by `sub_sequence`; any other record as it is, alone.

    What has the magic but does not verify in full is a plain record, as it is to AWS's own consumers.
    """
    if not record.data.startswith(MAGIC):
        return (record,)
    try:
        users = unpack(record.data)
    except PoisonEvent:
        return (record,)
    return [
        Record(user.data, user.partition_key, record.number, record.arrival_ms, number)
        for number, user in enumerate(users)
    ]


def events(data: bytes) -> Iterable[bytes]:
    """The bytes of each user record of an aggregate; anything else alone."""
    if not data.startswith(MAGIC):
        return (data,)
    try:
        return [user.data for user in unpack(data)]
    except PoisonEvent:
        return (data,)


def unpack(data: bytes) -> Sequence[UserRecord]:
    """The user records in their order, at least one. Raises PoisonEvent ``bad_aggregate``."""
    end = len(data) - DIGEST_BYTES
    if not data.startswith(MAGIC) or end < len(MAGIC):
        raise _bad("it has no frame")
    if md5(data[len(MAGIC) : end], usedforsecurity=False).digest() != data[end:]:
        raise _bad("its checksum does not match")
    keys: list[str] = []
    found: list[tuple[bytes, int]] = []
    for tag, value, value_end in _fields(data, len(MAGIC), end):
        if tag == _KEY:
            keys.append(_key(data[value:value_end]))
        elif tag == _RECORD:
            found.append(_record(data, value, value_end))
        if len(found) > USER_RECORDS_MAX or len(keys) > USER_RECORDS_MAX:
            raise _bad(f"it has more than {USER_RECORDS_MAX} user records or keys")
    if not found:
        raise _bad("it has no user record")
    if max(index for _, index in found) >= len(keys):
        raise _bad("a user record's partition key is not in its table")
    return [UserRecord(user_data, keys[index]) for user_data, index in found]


def pack(records: Iterable[UserRecord]) -> bytes:
    """The aggregate of at least one user record, byte for byte as AWS's own aggregators write it."""
    keys: dict[str, int] = {}
    parts = [_user_record(user, keys.setdefault(user.partition_key, len(keys))) for user in records]
    table = [_field(_KEY, key.encode()) for key in keys]
    message = b"".join((*table, *parts))
    return b"".join((MAGIC, message, md5(message, usedforsecurity=False).digest()))


def _user_record(user: UserRecord, index: int) -> bytes:
    number = _encoded(index)
    length = _encoded(len(user.data))
    size = _encoded(2 + len(number) + len(length) + len(user.data))
    return b"".join((b"\x1a", size, b"\x08", number, b"\x1a", length, user.data))


def _field(tag: int, value: bytes) -> bytes:
    return b"".join((bytes((tag,)), _encoded(len(value)), value))


def _encoded(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _key(raw: bytes) -> str:
    try:
        key = raw.decode()
    except UnicodeDecodeError as exc:
        raise _bad(f"a partition key is no UTF-8: {exc}") from exc
    if not 1 <= len(key) <= KEY_CHARACTERS_MAX:
        raise _bad(f"a partition key has {len(key)} characters")
    return key


def _record(data: bytes, begin: int, end: int) -> tuple[bytes, int]:
    index = user_data = None
    for tag, value, value_end in _fields(data, begin, end):
        if tag == _INDEX:
            index = value
        elif tag == _DATA:
            user_data = data[value:value_end]
    if index is None or user_data is None:
        raise _bad("a user record has no key or no data")
    return user_data, index


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Each field of a message: its tag, a varint's value or where the value begins, and where it ends."""
    while at < end:
        tag, at = _varint(data, at, end)
        kind = tag & 7
        if tag >> 3 == 0:
            raise _bad("a field has the number 0")
        if kind == _VARINT:
            value, at = _varint(data, at, end)
            yield tag, value, at
            continue
        if kind == _LENGTH:
            size, at = _varint(data, at, end)
        elif kind in _FIXED_BYTES:
            size = _FIXED_BYTES[kind]
        else:
            raise _bad(f"a field has the unknown wire type {kind}")
        if size > end - at:
            raise _bad(f"a field of {size} bytes begins {end - at} bytes before its end")
        yield tag, at, at + size
        at += size


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number and where it ends."""
    value = shift = 0
    while at < end and shift < _VARINT_BITS_MAX:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte <= 0x7F:
            return value, at
        shift += 7
    raise _bad("a number does not end")


def _bad(why: str) -> PoisonEvent:
    return PoisonEvent("bad_aggregate", f"this begins as a KPL aggregate, but {why}")
