"""The stored state of the Kinesis endpoint behaves as AWS documents it, under a clock the tests move."""

import base64
from collections.abc import Sequence
from dataclasses import replace

import pytest

from replicator.dev import kinesis_wire as wire
from replicator.dev.kinesis_limits import Limits, parse_limits
from replicator.dev.kinesis_state import THROTTLED, KinesisState
from replicator.dev.kinesis_stream import HASH_KEYS
from replicator.dev.kinesis_wire import KinesisError

START_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
SHARD = "shardId-000000000000"


class FakeClock:
    def __init__(self) -> None:
        self.ms = START_MS

    def now_ms(self) -> int:
        return self.ms


class Bench:
    """A state with one stream ``s``, and short ways to use it."""

    def __init__(self, limits: Limits | None = None, shards: int = 1) -> None:
        self.clock = FakeClock()
        self.state = KinesisState("us-east-1", self.clock, limits or parse_limits("off"), b"secret")
        self.state.create_stream(wire.CreateStream(stream_name="s", shard_count=shards))

    def put(self, *payloads: bytes, key: str = "k", at: int | None = None) -> wire.PutRecordsReply:
        hash_key = None if at is None else str(at)
        entries = [wire.PutEntry(base64.b64encode(data).decode(), key, hash_key) for data in payloads]
        return self.state.put_records(wire.PutRecords(stream_name="s", records=entries))

    def iterator(
        self,
        kind: str = "TRIM_HORIZON",
        *,
        shard: str = SHARD,
        number: str | None = None,
        s: float | None = None,
    ) -> str:
        request = wire.GetShardIterator(
            stream_name="s",
            shard_id=shard,
            shard_iterator_type=kind,
            starting_sequence_number=number,
            timestamp=s,
        )
        return self.state.get_shard_iterator(request).shard_iterator

    def read(self, iterator: str, limit: int = 10_000) -> wire.GetRecordsReply:
        return self.state.get_records(wire.GetRecords(iterator, limit))

    def payloads(self, iterator: str) -> list[bytes]:
        return [base64.b64decode(record.data) for record in self.read(iterator).records]

    def shards(self, **more: object) -> Sequence[wire.ShardView]:
        return self.state.list_shards(wire.ListShards(stream_name="s", **more)).shards  # type: ignore[arg-type]  # as given


def numbers(reply: wire.PutRecordsReply) -> list[str]:
    return [str(result.sequence_number) for result in reply.records]


def code(error: pytest.ExceptionInfo[KinesisError]) -> str:
    return error.value.code


def test_sequence_numbers_have_56_digits_and_grow_per_shard_and_over_lineage() -> None:
    bench = Bench()
    parent = numbers(bench.put(b"a", b"b", b"c"))
    bench.clock.ms += 1
    parent += numbers(bench.put(b"d"))
    bench.state.split_shard(
        wire.SplitShard(stream_name="s", shard_to_split=SHARD, new_starting_hash_key=str(HASH_KEYS // 2))
    )
    children = numbers(bench.put(b"e", at=0)) + numbers(bench.put(b"f", at=HASH_KEYS - 1))
    values = [int(number) for number in parent + children]
    assert {len(number) for number in parent + children} == {56}
    assert values == sorted(set(values))


def test_a_stream_made_again_within_the_same_millisecond_is_another_incarnation() -> None:
    bench = Bench()
    iterator, number = bench.iterator(), numbers(bench.put(b"a"))[0]
    first = bench.state.streams["s"].created_ms
    bench.state.delete_stream(wire.DeleteStream(stream_name="s"))
    with pytest.raises(KinesisError) as gone:
        bench.read(iterator)
    bench.state.create_stream(wire.CreateStream(stream_name="s"))
    assert bench.state.streams["s"].created_ms > first
    with pytest.raises(KinesisError) as other:
        bench.read(iterator)
    with pytest.raises(KinesisError) as foreign:
        bench.iterator("AFTER_SEQUENCE_NUMBER", number=number)
    assert code(gone) == "ResourceNotFoundException"
    assert code(other) == code(foreign) == "InvalidArgumentException"


def test_iterators_start_where_their_type_says() -> None:
    bench = Bench()
    a, b = numbers(bench.put(b"a", b"b"))
    bench.clock.ms += 1000
    bench.put(b"c")
    latest = bench.iterator("LATEST")
    bench.put(b"d")
    assert bench.payloads(bench.iterator()) == [b"a", b"b", b"c", b"d"]
    assert bench.payloads(latest) == [b"d"]
    assert bench.payloads(bench.iterator("AT_SEQUENCE_NUMBER", number=b)) == [b"b", b"c", b"d"]
    assert bench.payloads(bench.iterator("AFTER_SEQUENCE_NUMBER", number=a)) == [b"b", b"c", b"d"]
    assert bench.payloads(bench.iterator("AT_TIMESTAMP", s=(START_MS + 1) / 1000)) == [b"c", b"d"]
    assert bench.payloads(bench.iterator("AT_TIMESTAMP", s=START_MS / 1000)) == [b"a", b"b", b"c", b"d"]


def test_the_starting_sequence_number_of_a_shard_names_the_place_before_its_first_record() -> None:
    bench = Bench()
    bench.put(b"a")
    start = bench.shards()[0].sequence_number_range.starting_sequence_number
    for kind in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
        assert bench.payloads(bench.iterator(kind, number=start)) == [b"a"]


def test_a_sequence_number_of_another_shard_or_never_issued_is_refused() -> None:
    bench = Bench(shards=2)
    other = numbers(bench.put(b"a", at=HASH_KEYS - 1))[0]
    own = numbers(bench.put(b"a", at=0))[0]
    never_issued = str(int(own) + (1 << 80))
    for number in (other, never_issued, str(int(own) + 1), "1", "x", ""):
        with pytest.raises(KinesisError) as refused:
            bench.iterator("AT_SEQUENCE_NUMBER", number=number)
        assert code(refused) == "InvalidArgumentException"


def test_a_timestamp_in_the_future_is_refused() -> None:
    bench = Bench()
    with pytest.raises(KinesisError, match="timestampInMillis") as refused:
        bench.iterator("AT_TIMESTAMP", s=(START_MS + 1) / 1000)
    assert code(refused) == "InvalidArgumentException"


def test_reading_after_a_trimmed_number_starts_at_the_oldest_record_kept() -> None:
    bench = Bench()
    a, b, _ = numbers(bench.put(b"a", b"b", b"c"))
    behind_a = bench.iterator("AFTER_SEQUENCE_NUMBER", number=a)
    assert bench.state.trim("s", SHARD, b) == 2
    assert bench.payloads(bench.iterator("AFTER_SEQUENCE_NUMBER", number=a)) == [b"c"]
    assert bench.payloads(bench.iterator("AT_SEQUENCE_NUMBER", number=a)) == [b"c"]
    assert bench.payloads(behind_a) == bench.payloads(bench.iterator()) == [b"c"]


def test_records_older_than_the_retention_are_gone_and_numbers_go_on() -> None:
    bench = Bench()
    first = numbers(bench.put(b"a"))[0]
    bench.clock.ms += 23 * HOUR_MS
    bench.put(b"b")
    assert bench.payloads(bench.iterator()) == [b"a", b"b"]
    bench.clock.ms += HOUR_MS + 1000
    assert bench.payloads(bench.iterator()) == [b"b"]
    bench.state.set_retention(wire.RetentionPeriod(stream_name="s", retention_period_hours=48))
    bench.clock.ms += 23 * HOUR_MS
    assert bench.payloads(bench.iterator()) == [b"b"]
    assert int(numbers(bench.put(b"c"))[0]) > int(first)


def test_a_closed_shard_leaves_the_listing_when_its_retention_has_passed() -> None:
    bench = Bench()
    bench.state.split_shard(
        wire.SplitShard(stream_name="s", shard_to_split=SHARD, new_starting_hash_key=str(HASH_KEYS // 2))
    )
    assert len(bench.shards()) == 3
    bench.clock.ms += 25 * HOUR_MS
    assert [shard.shard_id[-1] for shard in bench.shards()] == ["1", "2"]
    assert bench.shards()[0].parent_shard_id == SHARD


def test_a_page_ends_before_it_would_exceed_the_byte_limit_but_never_comes_empty() -> None:
    bench = Bench(replace(parse_limits("off"), get_bytes_max=250))
    bench.put(*[bytes(99)] * 3, bytes(400), bytes(10))
    page, sizes = bench.read(bench.iterator()), []
    while page.records:
        sizes.append(len(page.records))
        page = bench.read(str(page.next_shard_iterator))
    assert sizes == [2, 1, 1, 1]


def test_millis_behind_latest_is_zero_only_at_the_tip() -> None:
    bench = Bench()
    bench.put(b"a", b"b")
    bench.clock.ms += 5000
    first = bench.read(bench.iterator(), limit=1)
    assert first.millis_behind_latest == 5000
    assert bench.read(str(first.next_shard_iterator)).millis_behind_latest == 0


def test_an_iterator_expires_after_five_minutes() -> None:
    bench = Bench()
    iterator = bench.iterator()
    bench.clock.ms += 300_000
    bench.read(iterator)
    bench.clock.ms += 1
    with pytest.raises(KinesisError) as expired:
        bench.read(iterator)
    assert code(expired) == "ExpiredIteratorException"


def test_an_iterator_that_was_tampered_with_is_refused() -> None:
    bench = Bench()
    for text in ("", "x", bench.iterator()[:-8] + "AAAAAAAA"):
        with pytest.raises(KinesisError) as refused:
            bench.read(text)
        assert code(refused) == "InvalidArgumentException"


def test_a_shard_takes_a_thousand_records_a_second_and_fails_the_rest_singly() -> None:
    bench = Bench(Limits())
    for _ in range(2):
        assert bench.put(*[b"x"] * 500).failed_record_count == 0
    reply = bench.put(*[b"x"] * 10)
    assert reply.failed_record_count == 10
    assert {result.error_code for result in reply.records} == {THROTTLED}
    bench.clock.ms += 5
    assert bench.put(*[b"x"] * 10).failed_record_count == 5
    bench.clock.ms += 1000
    assert bench.put(*[b"x"] * 500).failed_record_count == 0
    assert len(bench.read(bench.iterator()).records) == 1505


def test_a_shard_takes_a_mebibyte_a_second() -> None:
    bench = Bench(Limits(), shards=2)
    half = bytes(512 * 1024 - 1)
    assert bench.put(half, half, half, at=0).failed_record_count == 1
    assert bench.put(half, at=HASH_KEYS - 1).failed_record_count == 0


def test_a_shard_answers_five_reads_a_second_then_throttles() -> None:
    bench = Bench(Limits())
    for _ in range(5):
        bench.read(bench.iterator())
    with pytest.raises(KinesisError) as throttled:
        bench.read(bench.iterator())
    assert code(throttled) == THROTTLED
    bench.clock.ms += 200
    bench.read(bench.iterator())


def test_after_a_large_read_a_shard_throttles_until_two_mebibytes_a_second_are_kept() -> None:
    bench = Bench(replace(Limits(), write_bytes_s=None))
    for _ in range(8):
        bench.put(bytes(1024 * 1024 - 1))
    assert len(bench.read(bench.iterator()).records) == 8
    bench.clock.ms += 2900
    with pytest.raises(KinesisError) as throttled:
        bench.read(bench.iterator())
    assert code(throttled) == THROTTLED
    bench.clock.ms += 200
    bench.read(bench.iterator())


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([wire.PutEntry("AAAA", "k")] * 501, "ValidationException"),
        ([], "ValidationException"),
        ([wire.PutEntry(base64.b64encode(bytes(1024 * 1024)).decode(), "k")], "ValidationException"),
        ([wire.PutEntry(base64.b64encode(bytes(1024 * 1023)).decode(), "k")] * 6, "InvalidArgumentException"),
        ([wire.PutEntry("AAAA", "")], "ValidationException"),
        ([wire.PutEntry("AAAA", "k" * 257)], "ValidationException"),
        ([wire.PutEntry("AAA", "k")], "SerializationException"),
        ([wire.PutEntry("AAAA", "k", str(HASH_KEYS))], "InvalidArgumentException"),
    ],
)
def test_a_request_over_a_limit_is_refused_as_a_whole(entries: list[wire.PutEntry], expected: str) -> None:
    bench = Bench()
    with pytest.raises(KinesisError) as refused:
        bench.state.put_records(wire.PutRecords(stream_name="s", records=entries))
    assert code(refused) == expected
    assert bench.read(bench.iterator()).records == []


def test_shards_are_listed_in_pages_whose_token_names_the_stream() -> None:
    bench = Bench(shards=5)
    found, reply = [], bench.state.list_shards(wire.ListShards(stream_name="s", max_results=2))
    while True:
        found += [shard.shard_id for shard in reply.shards]
        if not isinstance(reply.next_token, str):
            break
        reply = bench.state.list_shards(wire.ListShards(next_token=reply.next_token, max_results=2))
    assert found == [f"shardId-{number:012d}" for number in range(5)]
    token = bench.state.list_shards(wire.ListShards(stream_name="s", max_results=1)).next_token
    with pytest.raises(KinesisError, match="together"):
        bench.state.list_shards(wire.ListShards(stream_name="s", next_token=str(token)))
    bench.clock.ms += 300_001
    with pytest.raises(KinesisError) as expired:
        bench.state.list_shards(wire.ListShards(next_token=str(token)))
    assert code(expired) == "ExpiredNextTokenException"


def test_a_shard_filter_selects_by_state_id_and_time() -> None:
    bench = Bench()
    bench.clock.ms += 1000
    bench.state.split_shard(
        wire.SplitShard(stream_name="s", shard_to_split=SHARD, new_starting_hash_key=str(HASH_KEYS // 2))
    )
    bench.clock.ms += 1000

    def listed(kind: str, shard_id: str | None = None, s: float | None = None) -> str:
        shards = bench.shards(shard_filter=wire.ShardFilter(kind, shard_id, s))
        return "".join(shard.shard_id[-1] for shard in shards)

    assert listed("AT_LATEST") == "12"
    assert listed("FROM_TRIM_HORIZON") == "012"
    assert listed("AFTER_SHARD_ID", shard_id="shardId-000000000001") == "2"
    assert listed("AT_TIMESTAMP", s=(START_MS + 500) / 1000) == "0"
    assert listed("FROM_TIMESTAMP", s=(START_MS + 1500) / 1000) == "12"
    with pytest.raises(KinesisError, match="ShardFilter"):
        listed("AFTER_SHARD_ID")


def test_a_stream_settles_before_it_can_be_written_or_reshaped_again() -> None:
    bench = Bench(replace(parse_limits("off"), settle_ms=100))
    summary = wire.DescribeStreamSummary(stream_name="s")

    def status() -> str:
        return bench.state.describe_stream_summary(summary).stream_description_summary.stream_status

    def split(shard: str, at: int) -> None:
        request = wire.SplitShard(stream_name="s", shard_to_split=shard, new_starting_hash_key=str(at))
        bench.state.split_shard(request)

    assert status() == "CREATING"
    with pytest.raises(KinesisError) as early:
        bench.put(b"a")
    assert code(early) == "ResourceNotFoundException"
    bench.clock.ms += 100
    assert status() == "ACTIVE"
    split(SHARD, HASH_KEYS // 2)
    assert status() == "UPDATING"
    assert bench.put(b"a").failed_record_count == 0
    with pytest.raises(KinesisError) as busy:
        split("shardId-000000000001", 5)
    assert code(busy) == "ResourceInUseException"


def test_limits_are_read_from_a_word_or_a_factor() -> None:
    assert parse_limits("aws") == Limits()
    assert parse_limits("off").write_records_s is None
    assert parse_limits("2.5").write_records_s == 2500
    assert parse_limits("2").put_records_max == 500
    for text in ("0", "-1", "fast"):
        with pytest.raises(ValueError):
            parse_limits(text)
