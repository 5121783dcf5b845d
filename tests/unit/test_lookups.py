"""One reading for all who are in doubt: nobody gets an answer that another's question spoilt."""

import asyncio
from collections.abc import Callable

import pytest
from small_world import HERE, SOURCE, World, in_virtual_time

from replicator.adapters.memory_stream import MemorySink, Operation
from replicator.core.formats import make_format
from replicator.core.model import EventId, Origin, SequenceNumber, ShardId
from replicator.core.tag import Tag, encode_tag
from replicator.errors import TransientError
from replicator.ports import NOT_KEPT, Entry
from replicator.worker.lookups import Lookup, Lookups
from replicator.worker.prepare import sender_and_origin

HOUR_MS = 3_600_000


def origin(number: int) -> Origin:
    return Origin(HERE, SOURCE, "1", ShardId("s"), SequenceNumber(number))


class Peer:
    """Holds events 0, 1, 2 and answers lookups; ``readings`` counts the shards read."""

    def __init__(self, *, records_max: int = 1000) -> None:
        self.world = World()
        for number in range(3):
            tag = encode_tag(Tag(1, origin(number), EventId(f"e{number}"), (HERE,), 1))
            self.world.peer.store(Entry(b'{"_replicator":' + tag + b',"id":"e"}', "k"))
        self.lookups = Lookups(MemorySink(self.world.peer), records_max=records_max, bytes_max=10**9)
        self.readings = 0
        self.trouble: Callable[[], None] = lambda: None
        self.world.peer.before = self._before

    async def _before(self, operation: Operation) -> None:
        assert operation == "read_back"
        self.readings += 1
        await asyncio.sleep(1)
        self.trouble()

    def lookup(self, number: int, *, age_ms: int = 60_000) -> Lookup:
        now_ms = World.now_ms()
        return Lookup(
            here=HERE,
            is_wanted=lambda found: found == origin(number),
            sender_and_origin=sender_and_origin(make_format("json")),
            since_ms=now_ms - age_ms,
            until_ms=now_ms + 60_000,
            keys={"k"},
        )


def test_everybody_gets_their_own_and_those_who_came_meanwhile_share_the_next_reading() -> None:
    async def history() -> None:
        peer = Peer()
        found = await asyncio.gather(*[peer.lookups.find(peer.lookup(number)) for number in (0, 1, 2, 9)])
        assert [answer.origins for answer in found] == [{origin(0)}, {origin(1)}, {origin(2)}, set()]
        assert all(answer.is_complete for answer in found)
        assert peer.readings == 2

    in_virtual_time(history())


def test_what_the_peer_no_longer_keeps_concerns_only_who_asked_for_it() -> None:
    async def history() -> None:
        peer = Peer()
        first = asyncio.ensure_future(peer.lookups.find(peer.lookup(0)))
        await asyncio.sleep(0)
        old, young = await asyncio.gather(
            peer.lookups.find(peer.lookup(1, age_ms=48 * HOUR_MS)), peer.lookups.find(peer.lookup(2))
        )
        assert (old.is_complete, old.why, old.origins) == (False, NOT_KEPT, {origin(1)})
        assert (young.is_complete, young.origins) == (True, {origin(2)})
        assert (await first).is_complete

    in_virtual_time(history())


def test_a_bound_answers_everybody_at_last() -> None:
    async def history() -> None:
        peer = Peer(records_max=1)
        found = await asyncio.gather(*[peer.lookups.find(peer.lookup(number)) for number in range(5)])
        assert not any(answer.is_complete for answer in found)

    in_virtual_time(history())


def test_when_the_one_that_reads_is_cancelled_or_fails_the_next_one_reads() -> None:
    async def history() -> None:
        peer = Peer()
        tasks = [asyncio.ensure_future(peer.lookups.find(peer.lookup(number))) for number in range(3)]
        await asyncio.sleep(0.5)
        tasks[0].cancel()

        def fail_once() -> None:
            peer.trouble = lambda: None
            raise TransientError("away")

        peer.trouble = fail_once
        with pytest.raises(TransientError):
            await tasks[1]
        assert (await tasks[2]).origins == {origin(2)}

    in_virtual_time(history())
