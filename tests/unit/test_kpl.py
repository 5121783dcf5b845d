"""KPL aggregates: unpacked whole or not at all, byte for byte AWS's format, and harmless whatever the bytes."""

import tracemalloc
from hashlib import md5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core import kpl
from replicator.core.kpl import MAGIC, USER_RECORDS_MAX, UserRecord, events, pack, unpack, user_records
from replicator.core.model import Record
from replicator.dev.checker_unpacking import contents
from replicator.errors import PoisonEvent

USERS = [UserRecord(b'{"id":"a"}', "k1"), UserRecord(b'{"id":"b"}', "k2"), UserRecord(b"", "k1")]
BY_AWS = bytes.fromhex(
    "f3899ac20a026b310a026b321a0e08001a0a7b226964223a2261227d1a0e08011a0a7b226964223a2262227d1a0408001a00"
    "e5baed90c0373fa6879ffb5a9f9a09cc"
)
"""`USERS` as aws_kinesis_agg 1.2.3, AWS's own aggregator for Python, packs them."""
BY_AWS_WITH_HASH_KEY = bytes.fromhex(
    "f3899ac20a026b310a026b3212033132331a10080010001a0a7b226964223a2261227d1a0e08011a0a7b226964223a2262227d1a0408001a00"
    "04432ef20776a17739e6678b3200a1fb"
)
"""The same with the explicit hash key 123 on the first one."""

KEYS = st.text(min_size=1, max_size=256).filter(lambda key: key.encode("utf-8", "ignore").decode() == key)
USER_RECORDS = st.lists(st.builds(UserRecord, st.binary(max_size=300), KEYS), min_size=1, max_size=20)


def framed(message: bytes) -> bytes:
    return MAGIC + message + md5(message, usedforsecurity=False).digest()


def record(data: bytes) -> Record:
    return Record(data, "outer", "7", 1000)


def why_not(data: bytes) -> str:
    with pytest.raises(PoisonEvent) as caught:
        unpack(data)
    assert caught.value.reason == "bad_aggregate"
    return caught.value.detail


def test_it_reads_and_writes_what_aws_does() -> None:
    assert pack(USERS) == BY_AWS
    assert unpack(BY_AWS) == USERS


def test_explicit_hash_keys_are_read_over() -> None:
    assert unpack(BY_AWS_WITH_HASH_KEY) == USERS


@given(USER_RECORDS)
def test_what_is_packed_is_unpacked(users: list[UserRecord]) -> None:
    assert unpack(pack(users)) == users


@given(USER_RECORDS)
def test_the_judge_reads_the_same_with_code_of_its_own(users: list[UserRecord]) -> None:
    assert contents(pack(users), "outer") == [(user.data, user.partition_key) for user in users]


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=20), KEYS)
def test_the_stated_overheads_are_upper_bounds(datas: list[bytes], key: str) -> None:
    packed = pack(UserRecord(data, key) for data in datas)
    bound = kpl.FRAME_OVERHEAD_MAX + len(key.encode()) + sum(len(d) + kpl.RECORD_OVERHEAD_MAX for d in datas)
    assert len(packed) <= bound


def test_user_records_have_their_own_key_and_sub_sequence_and_the_rest_of_their_record() -> None:
    assert user_records(record(BY_AWS)) == [
        Record(user.data, user.partition_key, "7", 1000, number) for number, user in enumerate(USERS)
    ]


@given(st.binary(max_size=60))
def test_a_plain_record_stays_as_it_is(data: bytes) -> None:
    assert list(user_records(record(data))) == [record(data)]
    assert list(events(data)) == [data]
    assert contents(data, "outer") == [(data, "outer")]


@given(st.integers(0, len(BY_AWS) - 1), st.integers(1, 255))
def test_one_wrong_byte_makes_it_a_plain_record(place: int, change: int) -> None:
    """As for AWS's consumers: what does not verify is a user record by itself, so nothing is lost."""
    wrong = bytearray(BY_AWS)
    wrong[place] ^= change
    assert list(user_records(record(bytes(wrong)))) == [record(bytes(wrong))]
    assert contents(bytes(wrong), "outer") == [(bytes(wrong), "outer")]


PIECES = st.sampled_from(
    [b"\x0a\x01k", b"\x1a\x04\x08\x00\x1a\x00", b"\x1a\x05\x08\x00\x1a\x01x", b"\x08\x00", b"\x12\x0115"]
)


@given(st.lists(PIECES | st.binary(max_size=4), max_size=12).map(b"".join))
def test_hostile_messages_end_in_user_records_or_a_plain_one_and_nothing_else(message: bytes) -> None:
    data = framed(message)
    found = list(events(data))
    assert found
    assert found == [data] or sum(map(len, found)) < len(message)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "no user record"),
        (b"\x0a\x01k", "no user record"),
        (b"\x1a\x04\x08\x00\x1a\x00", "not in its table"),
        (b"\x0a\x01k\x1a\x04\x08\x01\x1a\x00", "not in its table"),
        (b"\x0a\x01k\x1a\x02\x08\x00", "no key or no data"),
        (b"\x0a\x01k\x1a\x02\x1a\x00", "no key or no data"),
        (b"\x0a\x01\xff\x1a\x04\x08\x00\x1a\x00", "no UTF-8"),
        (b"\x0a\x00\x1a\x04\x08\x00\x1a\x00", "0 characters"),
        (b"\x0a\xac\x02" + b"k" * 300 + b"\x1a\x04\x08\x00\x1a\x00", "300 characters"),
        (b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "begins 0 bytes before its end"),
        (b"\xff" * 11, "does not end"),
        (b"\x08", "does not end"),
        (b"\x00\x00", "number 0"),
        (b"\x0b", "wire type 3"),
        (b"\x0d\x01", "begins 1 bytes before its end"),
    ],
)
def test_what_keeps_an_aggregate_from_being_unpacked_is_said(message: bytes, why: str) -> None:
    assert why in why_not(framed(message))


def test_a_record_that_is_too_short_for_a_frame_is_none() -> None:
    assert "no frame" in why_not(MAGIC + b"x" * 15)
    assert "checksum" in why_not(MAGIC + b"x" * 16)


def test_unknown_fields_and_tags_are_read_over_and_the_last_of_two_counts() -> None:
    user = b"\x08\x05\x08\x00\x1a\x01x\x1a\x01y\x22\x03\x0a\x01t\x39" + bytes(8) + b"\x45" + bytes(4)
    message = b"\x1a" + bytes((len(user),)) + user + b"\x28\x07" + b"\x0a\x01k"
    assert unpack(framed(message)) == [UserRecord(b"y", "k")]


@pytest.mark.parametrize("part", [b"\x1a\x04\x08\x00\x1a\x00", b"\x0a\x01k"], ids=["records", "keys"])
def test_the_number_of_user_records_is_bounded_and_so_is_memory(part: bytes) -> None:
    hostile = framed(b"\x0a\x01k" + b"\x1a\x04\x08\x00\x1a\x00" + part * (1024 * 1024 // len(part)))
    tracemalloc.start()
    assert f"more than {USER_RECORDS_MAX}" in why_not(hostile)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 1024 * 1024


def test_an_aggregate_of_the_most_user_records_is_unpacked() -> None:
    users = [UserRecord(b"{}", "k")] * USER_RECORDS_MAX
    assert len(unpack(pack(users))) == USER_RECORDS_MAX
    assert len(list(events(pack([*users, users[0]])))) == 1
