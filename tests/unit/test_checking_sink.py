"""A sink with claim checks: a body is stored before its pointer leaves, once, and what fails waits alone."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from memory_world import PEERS, REGIONS, Clock, Silent, World

from replicator.adapters.memory_bodies import MemoryBodies
from replicator.adapters.memory_stream import MemorySink, MemoryStream
from replicator.claim_check import pointer_of, verified
from replicator.core.claim_check import Cloakroom
from replicator.core.egress import Egress, EgressRules
from replicator.core.formats import make_format
from replicator.core.kpl import UserRecord, pack
from replicator.core.model import EventId, LinkName, Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.core.tag import Tag, encode_tag
from replicator.errors import InDoubt, Refused, TransientError
from replicator.ports import Entry, SinkLimits
from replicator.worker.claim_check import EVENT_BYTES_MAX, REMEMBERED_MAX, CheckingSink
from replicator.worker.link import LinkSettings
from replicator.worker.prepare import sender_and_origin

[PEER] = PEERS[:1]
NO_RULES = EgressRules()
LIMITS = SinkLimits(500, 1024 * 1024, 4096)
QUICK = LinkSettings(in_doubt_wait_s=0.0, backoff_base_s=0.01, backoff_max_s=0.1)


class Away(MemoryBodies):
    """Does not take what ``refuses`` names, and says nothing until ``hangs`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses: Callable[[bytes], bool] = lambda _: False
        self.puts = 0
        self.hangs = asyncio.Event()
        self.hangs.set()

    async def put(self, name: str, body: bytes) -> None:
        self.puts += 1
        await self.hangs.wait()
        if self.refuses(body):
            raise TransientError("no answer", code="no_answer")
        await super().put(name, body)


def checking(stream: MemoryStream, bodies: Away, rules: EgressRules = NO_RULES, spare_bytes: int = 0) -> CheckingSink:
    look = sender_and_origin(make_format("json"))

    def origin_of(data: bytes) -> Origin | None:
        seen = look(data)
        return None if seen is None else seen[1]

    return CheckingSink(
        MemorySink(stream, LIMITS),
        bodies,
        Cloakroom(PEER, "bodies", "", rules),
        link=LinkName("orders:eu-west-1"),
        origin_of=origin_of,
        telemetry=Silent(),
        spare_bytes=spare_bytes,
    )


def tagged(number: int, size: int = 10) -> Entry:
    origin = Origin(Region("us-east-1"), SourceName("orders"), "1", ShardId("s"), SequenceNumber(number))
    tag = encode_tag(Tag(1, origin, EventId(str(number)), (Region("us-east-1"),), 1))
    data = b'{"_replicator":%b,"id":"%d","body":"%b"}' % (tag, number, b"x" * size)
    return Entry(data, f"k{number}")


def stored(stream: MemoryStream) -> list[dict[str, Any]]:
    return [json.loads(record.data) for shard in stream.list_shards() for record in stream.records(shard.id)]


@pytest.fixture
def stream() -> MemoryStream:
    return MemoryStream(Clock().now_ms, 1)


@pytest.fixture
def bodies() -> Away:
    return Away()


async def test_what_is_too_large_leaves_as_a_pointer_in_its_place(stream: MemoryStream, bodies: Away) -> None:
    there: list[int] = []
    stream.after_put = lambda _: there.append(len(bodies.objects))
    entries = [tagged(1), tagged(2, 5000), tagged(3)]
    assert list(await checking(stream, bodies).put(entries)) == [None] * 3
    assert there == [1], "the body was stored before the pointer"
    assert [event["id"] for event in stored(stream)] == ["1", "2", "3"]
    assert [len(event.get("body", "")) for event in stored(stream)] == [10, 0, 10]
    pointer = pointer_of(json.dumps(stored(stream)[1]).encode())
    assert pointer is not None
    whole = json.loads(verified(pointer, bodies.objects[pointer.key]))
    assert whole == {"id": "2", "body": "x" * 5000}


async def test_what_fits_is_sent_as_it_is(stream: MemoryStream, bodies: Away) -> None:
    just = tagged(1, 4096 - len(tagged(1).data) - 2 + 10)
    assert len(just.data) + 2 == 4096
    await checking(stream, bodies).put([just])
    assert not bodies.objects
    await checking(stream, bodies, spare_bytes=1).put([just])
    assert bodies.objects


async def test_a_body_that_is_not_taken_holds_up_its_event_alone(stream: MemoryStream, bodies: Away) -> None:
    bodies.refuses = lambda body: b'"2"' in body
    sink = checking(stream, bodies)
    assert list(await sink.put([tagged(1), tagged(2, 5000), tagged(3, 5000)])) == [None, "no_answer", None]
    assert [event["id"] for event in stored(stream)] == ["1", "3"]
    assert list(await sink.put([tagged(2, 5000)])) == ["no_answer"]
    bodies.refuses = lambda _: False
    assert list(await sink.put([tagged(2, 5000)])) == [None]


async def test_while_bodies_are_away_one_entry_tries_and_the_others_do_not_wait(
    stream: MemoryStream, bodies: Away
) -> None:
    bodies.refuses = lambda _: True
    sink = checking(stream, bodies)
    assert list(await sink.put([tagged(1, 5000)])) == ["no_answer"]
    bodies.hangs.clear()
    trying = asyncio.create_task(sink.put([tagged(1, 5000)]))
    async with asyncio.timeout(5.0):
        while bodies.puts < 2:
            await asyncio.sleep(0.001)
        assert list(await sink.put([tagged(2, 5000), tagged(3)])) == ["claim_check", None]
    assert bodies.puts == 2
    bodies.refuses = lambda _: False
    bodies.hangs.set()
    assert list(await trying) == [None]
    assert list(await sink.put([tagged(2, 5000), tagged(4, 5000)])) == [None, None]


async def test_a_request_that_is_repeated_stores_nothing_again(stream: MemoryStream, bodies: Away) -> None:
    sink = checking(stream, bodies)
    stream.fault = lambda entries: ["throttled"] * len(entries)
    assert list(await sink.put([tagged(1, 5000)])) == ["throttled"]
    stream.fault = None
    assert list(await sink.put([tagged(1, 5000)])) == [None]
    assert bodies.puts == 1
    assert len(stored(stream)) == 1


async def test_what_is_remembered_is_bounded(stream: MemoryStream, bodies: Away) -> None:
    sink = checking(stream, bodies)
    for number in range(0, REMEMBERED_MAX + 100, 100):
        await sink.put([tagged(number + n, 5000) for n in range(100)])
    assert len(sink._stored) == REMEMBERED_MAX


@pytest.mark.parametrize(
    "entry",
    [
        Entry(pack([UserRecord(tagged(1, 3000).data, "k")] * 2), "k"),
        Entry(b'{"id":"' + b"x" * 5000 + b'"}', "k"),
        Entry(tagged(1).data[:-1] + b"".join(b',"m%d":"%b"' % (n, b"x" * 900) for n in range(6)) + b"}", "k"),
    ],
    ids=["packed", "untagged", "all small"],
)
async def test_what_can_not_be_checked_in_is_refused_as_oversize(
    stream: MemoryStream, bodies: Away, entry: Entry
) -> None:
    [refused] = await checking(stream, bodies).put([entry])
    assert isinstance(refused, Refused)
    assert refused.reason == "oversize"
    assert not stored(stream)
    assert not bodies.objects


def test_larger_events_pass_the_gate(stream: MemoryStream, bodies: Away) -> None:
    limits = checking(stream, bodies).limits
    assert (limits.record_bytes_max, limits.request_bytes_max) == (EVENT_BYTES_MAX, LIMITS.request_bytes_max)


async def test_in_the_pipeline_redacted_in_order_and_not_twice_though_answers_are_lost(bodies: Away) -> None:
    """Large and small events of one key, the first two answers lost, and the bodies away for a while."""
    redact = EgressRules({"who": "mark"})
    settings = LinkSettings(in_doubt_wait_s=0.0, backoff_base_s=0.01, backoff_max_s=0.1, egress=Egress(redact))
    tried = World(
        regions=REGIONS[:2],
        shards=1,
        settings=settings,
        make_sink=lambda stream: checking(stream, bodies, rules=redact),
    )
    lost: list[int] = []
    refused: list[int] = []

    def lose(entries: Sequence[Entry]) -> None:
        if len(lost) < 2:
            lost.append(len(entries))
            raise InDoubt("no answer", sent_ms=0)

    def away(body: bytes) -> bool:
        refused.append(len(body))
        return len(refused) < 3

    tried.peers[PEER].after_put = lose
    bodies.refuses = away
    events = [{"id": str(n), "who": "Jo", "body": "x" * (5000 * (n % 2))} for n in range(6)]
    for event in events:
        tried.source.store(Entry(json.dumps(event).encode(), "k"))
    task = asyncio.create_task(tried.service.run())
    await tried.until_at_the_tip()
    await tried.service.drain()
    await task
    assert [event["id"] for event in tried.stored(PEER)] == [event["id"] for event in events]
    assert len(lost) == 2
    assert len(tried.quarantine.events) == 0
    pointers = [pointer_of(json.dumps(replica).encode()) for replica in tried.stored(PEER)]
    assert [pointer is not None for pointer in pointers] == [False, True] * 3
    for event, pointer in zip(events, pointers, strict=True):
        if pointer is not None:
            assert pointer.redacted == ("who",)
            assert json.loads(verified(pointer, bodies.objects[pointer.key])) == {**event, "who": "[redacted]"}
    assert len(bodies.objects) == 3


async def test_packed_events_that_are_too_large_together_are_packed_less(bodies: Away) -> None:
    settings = LinkSettings(in_doubt_wait_s=0.0, backoff_base_s=0.01, backoff_max_s=0.1, aggregate="kpl")
    tried = World(regions=REGIONS[:2], shards=1, settings=settings, make_sink=lambda stream: checking(stream, bodies))
    for number in range(40):
        tried.source.store(Entry(json.dumps({"id": str(number), "body": "x" * 300}).encode(), "k"))
    task = asyncio.create_task(tried.service.run())
    await tried.until_at_the_tip()
    await tried.service.drain()
    await task
    assert not tried.quarantine.events
    assert not bodies.objects
    assert tried.arrived(PEER) < 40
