"""What every sink promises: what is answered is true, what is not known is said, and what is there is found again."""

import asyncio
import socket

import pytest
from streams import REGION, Stream

from replicator.adapters.kinesis_sink import KinesisSink
from replicator.aws.http import HttpPool
from replicator.aws.kinesis_api import PREFIX, SERVICE, KinesisApi
from replicator.aws.session import AwsSession
from replicator.aws.transport import JsonApi
from replicator.core.kpl import UserRecord, pack
from replicator.core.model import Origin, Region, SequenceNumber, ShardId, SourceName, TrimHorizon
from replicator.dev.proxy import Proxy
from replicator.errors import InDoubt, Misconfigured, Refused, TransientError
from replicator.ports import Entry

FIRST = ShardId("shardId-000000000000")


def entries(*names: str) -> list[Entry]:
    return [Entry(name.encode(), f"key-{name}") for name in names]


def origin_of(data: bytes) -> Origin | None:
    """The tests' events are just their names; names with a dash are of other making."""
    if b"-" in data:
        return None
    number = int.from_bytes(data, "big")
    return Origin(Region("us-east-1"), SourceName("s"), "1", FIRST, SequenceNumber(number))


async def stored(stream: Stream) -> list[bytes]:
    found = []
    for shard in await stream.source.shards():
        page = await stream.source.read(await stream.source.open(shard.id, TrimHorizon()), 10_000)
        found += [record.data for record in page.records]
    return found


async def test_what_is_put_is_there_under_its_key(stream: Stream) -> None:
    assert list(await stream.sink.put([Entry(b'\x00{"a":1}', 'kéy "x"\\')])) == [None]
    [record] = (await stream.source.read(await stream.source.open(FIRST, TrimHorizon()), 10)).records
    assert (record.data, record.partition_key) == (b'\x00{"a":1}', 'kéy "x"\\')


async def test_entries_that_fail_singly_are_named_and_are_not_there(stream: Stream) -> None:
    stream.fault("fail_entries")
    names = [f"e{number}" for number in range(60)]
    codes = await stream.sink.put(entries(*names))
    failed = [name for name, code in zip(names, codes, strict=True) if code]
    assert len(failed) == 1
    assert sorted(await stored(stream)) == sorted(name.encode() for name in names if name not in failed)


async def test_throttling_of_the_whole_request_has_no_effect(stream: Stream) -> None:
    stream.fault("throttle")
    with pytest.raises(TransientError) as caught:
        await stream.sink.put(entries("a"))
    assert caught.value.code == "throttled"
    assert await stored(stream) == []


@pytest.mark.parametrize("kind", ["drop_after", "internal_error_after_effect"])
async def test_a_lost_answer_is_in_doubt_and_the_events_are_there(stream: Stream, kind: str) -> None:
    stream.fault(kind)
    with pytest.raises(InDoubt):
        await stream.sink.put(entries("a", "b"))
    assert sorted(await stored(stream)) == [b"a", b"b"]


async def test_a_record_over_the_limit_is_refused(stream: Stream) -> None:
    with pytest.raises(Refused):
        await stream.sink.put([Entry(b"x" * stream.sink.limits.record_bytes_max, "k")])
    assert await stored(stream) == []


async def test_reading_back_finds_what_was_stored_since_and_only_ours(stream: Stream) -> None:
    since_ms = (await stream.sink.peer_time()).earliest_ms
    await stream.sink.put(entries("a", "b", "not-ours"))
    found = await stream.sink.read_back(since_ms, origin_of, records_max=1000)
    assert found.origins == {origin_of(b"a"), origin_of(b"b")}
    assert (found.is_complete, found.records_read) == (True, 3)


async def test_reading_back_finds_what_stands_inside_aggregates(stream: Stream) -> None:
    since_ms = (await stream.sink.peer_time()).earliest_ms
    packed = pack(UserRecord(name, "k") for name in (b"a", b"not-ours", b"b"))
    await stream.sink.put([Entry(packed, "k"), Entry(b"c", "k")])
    found = await stream.sink.read_back(since_ms, origin_of, records_max=1000)
    assert found.origins == {origin_of(b"a"), origin_of(b"b"), origin_of(b"c")}
    assert (found.is_complete, found.records_read) == (True, 2)


@pytest.mark.shards(2)
async def test_reading_back_goes_through_a_reshard(stream: Stream) -> None:
    since_ms = (await stream.sink.peer_time()).earliest_ms
    await stream.sink.put(entries("a", "b", "c", "d"))
    stream.split(FIRST)
    await stream.sink.put(entries("e", "f", "g", "h"))
    found = await stream.sink.read_back(since_ms, origin_of, records_max=1000)
    assert found.origins == {origin_of(name.encode()) for name in "abcdefgh"}


async def test_a_reading_that_hit_its_bound_says_that_it_is_no_proof(stream: Stream) -> None:
    since_ms = (await stream.sink.peer_time()).earliest_ms
    await stream.sink.put(entries("a", "b", "c"))
    assert not (await stream.sink.read_back(since_ms, origin_of, records_max=2)).is_complete


async def test_the_peers_clock_is_a_lower_bound(stream: Stream) -> None:
    await stream.sink.put(entries("a"))
    [record] = (await stream.source.read(await stream.source.open(FIRST, TrimHorizon()), 10)).records
    assert (await stream.sink.peer_time()).earliest_ms - 5000 < record.arrival_ms
    before_ms = (await stream.sink.peer_time()).earliest_ms
    await stream.sink.put(entries("b"))
    page = await stream.source.read(await stream.source.open(FIRST, TrimHorizon()), 10)
    assert page.records[-1].arrival_ms >= before_ms


# --- dates ---------------------------------------------------------------------------------------------------------

WINDOW_MS = 300_000


async def test_the_peer_refuses_a_date_that_is_older_than_its_window_and_takes_one_that_is_not(stream: Stream) -> None:
    peer = await stream.sink.peer_time()
    assert await stream.sink.refuses(peer.earliest_ms - WINDOW_MS)
    assert not await stream.sink.refuses(peer.earliest_ms - WINDOW_MS + 30_000)


async def test_a_request_of_an_expired_date_is_late_and_stores_nothing(stream: Stream) -> None:
    peer = await stream.sink.peer_time()
    with pytest.raises(TransientError) as late:
        await stream.sink.put(entries("a"), signed_ms=peer.earliest_ms - WINDOW_MS)
    assert late.value.code == "late"
    assert not isinstance(late.value, Misconfigured)
    assert await stored(stream) == []
    assert list(await stream.sink.put(entries("a"), signed_ms=peer.earliest_ms - WINDOW_MS + 30_000)) == [None]


# --- over HTTP only ------------------------------------------------------------------------------------------------


async def sink_at(url: str, stream: str, timeout_s: float = 2.0) -> tuple[KinesisSink, object]:
    http = HttpPool(2)
    api = JsonApi(http, AwsSession(), service=SERVICE, region=REGION, url=url, prefix=PREFIX)
    return KinesisSink(KinesisApi(api, stream, timeout_s)), http


async def test_a_refused_connection_had_no_effect() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        sink, http = await sink_at(f"http://127.0.0.1:{free.getsockname()[1]}", "s")
        async with http:
            with pytest.raises(TransientError) as caught:
                await sink.put(entries("a"))
    assert caught.value.code == "connect"
    assert not isinstance(caught.value, InDoubt)


async def test_an_answer_that_never_comes_is_in_doubt(kinesis_url: str) -> None:
    async with Proxy(kinesis_url) as proxy:
        proxy.drop_replies = True
        sink, http = await sink_at(proxy.url, "nobody", 0.3)
        async with http:
            with pytest.raises(InDoubt):
                await sink.put(entries("a"))


async def test_a_connection_cut_while_waiting_is_in_doubt(kinesis_url: str) -> None:
    async with Proxy(kinesis_url) as proxy:
        proxy.drop_replies = True
        sink, http = await sink_at(proxy.url, "nobody", 10.0)
        async with http:
            putting = asyncio.ensure_future(sink.put(entries("a")))
            while not proxy.counters.bytes_up:
                await asyncio.sleep(0.01)
            proxy.cut()
            with pytest.raises(InDoubt):
                await putting


async def test_a_stream_that_is_not_there_is_a_matter_for_an_operator(kinesis_url: str) -> None:
    sink, http = await sink_at(kinesis_url, "no-such-stream")
    async with http:
        with pytest.raises(Misconfigured, match="create it"):
            await sink.put(entries("a"))
