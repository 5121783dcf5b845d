"""`on_poison: hold_key`: what follows a poison event of its key goes where the poison went, and nothing else does."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from memory_world import PEERS, REGIONS, World

from replicator.adapters.memory_quarantine import MemoryQuarantine
from replicator.core.model import LinkName
from replicator.errors import Refused, StoreUnavailable
from replicator.ports import Entry
from replicator.worker import held_keys
from replicator.worker.held_keys import HeldKeys
from replicator.worker.link import LinkSettings

LINK = LinkName("orders:eu-west-1")
[PEER] = PEERS[:1]


def event(number: int, **more: object) -> bytes:
    return json.dumps({"id": str(number), **more}).encode()


@asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    task = asyncio.create_task(world.service.run())
    yield
    await world.service.drain()
    await task


def holding(quarantine: MemoryQuarantine | None = None) -> World:
    settings = LinkSettings(in_doubt_wait_s=0.0, backoff_base_s=0.01, on_poison="hold_key")
    return World(regions=REGIONS[:2], shards=1, settings=settings, quarantine=quarantine)


def put_away(world: World) -> list[tuple[str, str, bytes]]:
    """Key, reason and bytes, in source order."""
    events = sorted(world.quarantine.events.values(), key=lambda event: event.origin.sequence)
    return [(event.partition_key, event.reason, event.data) for event in events]


async def test_the_later_events_of_a_poison_events_key_follow_it_in_order() -> None:
    world = holding()
    for data, key in ((event(1), "a"), (b"\xff", "a"), (event(2), "b"), (event(3), "a"), (event(4), "a")):
        world.source.store(Entry(data, key))
    async with running(world):
        await world.until(lambda: len(world.ids(PEER)) == 2 and len(world.quarantine.events) == 3)
        await world.until_at_the_tip()
    assert world.ids(PEER) == ["1", "2"]
    assert put_away(world) == [("a", "not_json", b"\xff"), ("a", "key_held", event(3)), ("a", "key_held", event(4))]
    assert world.quarantine.marks.keys() == {(LINK, held_keys.key_digest("a"))}


async def test_what_waits_behind_an_event_that_the_peer_refuses_is_put_away_as_well() -> None:
    world = holding()

    def refuse(entries: Sequence[Entry]) -> None:
        if any(b'"bad"' in entry.data for entry in entries):
            raise Refused("the peer does not like it")

    world.peers[PEER].fault = refuse
    numbers = iter(range(1, 100))
    for key, more in (("a", {}), ("a", {"bad": 1}), ("a", {}), ("b", {}), ("a", {})):
        world.source.store(Entry(event(next(numbers), **more), key))
    async with running(world):
        await world.until(lambda: len(world.ids(PEER)) == 2 and len(world.quarantine.events) == 3)
        await world.until_at_the_tip()
    assert sorted(world.ids(PEER)) == ["1", "4"]
    assert [(key, reason) for key, reason, _ in put_away(world)] == [
        ("a", "refused_by_peer"),
        ("a", "key_held"),
        ("a", "key_held"),
    ]


async def test_an_entry_that_the_peer_refuses_alone_is_put_away_alone_and_the_others_are_sent_once() -> None:
    """The rest of the request is stored, so halving the request would send it twice."""

    def refuse_alone(entries: Sequence[Entry]) -> list[str | Refused | None]:
        return [Refused("the peer does not like this one") if b'"bad"' in e.data else None for e in entries]

    world = holding()
    world.peers[PEER].fault = refuse_alone
    numbers = iter(range(1, 100))
    for key, more in (("a", {}), ("b", {"bad": 1}), ("c", {}), ("b", {}), ("a", {})):
        world.source.store(Entry(event(next(numbers), **more), key))
    async with running(world):
        await world.until(lambda: len(world.ids(PEER)) == 3 and len(world.quarantine.events) == 2)
        await world.until_at_the_tip()
    assert sorted(world.ids(PEER)) == ["1", "3", "5"]
    assert [(key, reason) for key, reason, _ in put_away(world)] == [("b", "refused_by_peer"), ("b", "key_held")]


async def test_what_was_put_away_may_be_written_again_within_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event in quarantine is not done: the claim store must not know it when a person puts it back."""
    monkeypatch.setattr(held_keys, "REFRESH_S", 0.01)
    world = holding()
    refused = True

    def refuse(entries: Sequence[Entry]) -> None:
        if refused and any(b'"bad"' in entry.data for entry in entries):
            raise Refused("the peer does not like it")

    world.peers[PEER].fault = refuse
    events = [event(1, bad=1), event(2)]
    for data in events:
        world.source.store(Entry(data, "a"))
    async with running(world):
        await world.until(lambda: len(world.quarantine.events) == 2)
        await world.until_at_the_tip()
        refused = False
        await world.quarantine.release(LINK, "a")
        await world.until(lambda: world.service.status()["links"][LINK]["held_keys"] == 0)
        for data in events:
            world.source.store(Entry(data, "a"))
        await world.until(lambda: world.ids(PEER) == ["1", "2"])


async def test_the_next_owner_holds_the_same_keys() -> None:
    first = holding()
    first.source.store(Entry(b"\xff", "a"))
    async with running(first):
        await first.until(lambda: len(first.quarantine.events) == 1)
    second = holding(first.quarantine)
    second.source.store(Entry(event(1), "a"))
    second.source.store(Entry(event(2), "b"))
    async with running(second):
        await second.until(lambda: second.ids(PEER) == ["2"] and len(second.quarantine.events) == 2)


async def test_with_skip_the_key_goes_on() -> None:
    world = World(regions=REGIONS[:2], shards=1)
    for data in (b"\xff", event(1)):
        world.source.store(Entry(data, "a"))
    async with running(world):
        await world.until(lambda: world.ids(PEER) == ["1"])
    assert [reason for _, reason, _ in put_away(world)] == ["not_json"]
    assert not world.quarantine.marks


async def test_replicas_that_would_only_be_dropped_are_not_put_away() -> None:
    """What came from the peer does not go back there, held key or not."""
    world = holding()
    world.source.store(Entry(b"\xff", "a"))
    world.source.store(Entry(world.replica_from(PEER), "a"))
    world.source.store(Entry(event(2), "b"))
    async with running(world):
        await world.until(lambda: world.ids(PEER) == ["2"])
    assert [reason for _, reason, _ in put_away(world)] == ["not_json"]


async def test_a_released_key_goes_on_after_the_next_look_and_one_marked_meanwhile_stays() -> None:
    quarantine = MemoryQuarantine()
    held = HeldKeys(LINK, quarantine, is_on=True)
    await held.hold("a")
    await held.hold("b")
    await quarantine.release(LINK, "a")
    assert "a" in held
    await held.refresh()
    assert "a" not in held
    assert "b" in held
    await held.hold("a")
    assert await quarantine.held_keys(LINK) == ["a", "b"]


async def test_what_is_marked_while_a_listing_is_read_is_not_lost() -> None:
    class Slow(MemoryQuarantine):
        async def held(self, link: LinkName) -> frozenset[str]:
            listed = await super().held(link)
            self.is_read.set()
            await self.may_answer.wait()
            return listed

        is_read, may_answer = asyncio.Event(), asyncio.Event()

    quarantine = Slow()
    held = HeldKeys(LINK, quarantine, is_on=True)
    reading = [asyncio.create_task(held.refresh()) for _ in range(2)]
    await quarantine.is_read.wait()
    await held.hold("a")
    quarantine.may_answer.set()
    await asyncio.gather(*reading)
    assert "a" in held


async def test_when_too_many_keys_are_held_the_next_poison_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_keys, "HELD_MAX", 2)
    held = HeldKeys(LINK, MemoryQuarantine(), is_on=True)
    await held.hold("a")
    await held.hold("b")
    await held.hold("b")
    with pytest.raises(StoreUnavailable, match="release some"):
        await held.hold("c")
