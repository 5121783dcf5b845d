"""A replay from the stream as the pipeline sees it: real shards, bounded by times, and never less than was chosen."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence

import pytest
from memory_world import HERE, PEERS, REGIONS, SOURCE, World
from msgspec.structs import replace

from replicator.adapters.memory_stream import MemorySource, MemoryStream
from replicator.core.kpl import UserRecord, pack
from replicator.core.model import After, LinkName, ShardId
from replicator.errors import ConfigError, first_of
from replicator.ports import Entry, SourceInfo
from replicator.worker.replay import Chosen
from replicator.worker.replay_stream import Share, StreamReplay, stream_replay_name
from replicator.worker.service import Service

[PEER] = PEERS[:1]
LINK = LinkName(f"{SOURCE}:{PEER}")
MADE_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
SINCE_MS, UNTIL_MS = MADE_MS + HOUR_MS, MADE_MS + 2 * HOUR_MS
CHOSEN = Chosen(SINCE_MS, UNTIL_MS)
MARGIN_MS = 10_000
FIRST = ShardId("shardId-000000000000")
FAST = Share(1e9, 1e9)


class Hub:
    """A stream whose clock a test sets."""

    def __init__(self, shards: int = 1, retention_ms: int = 24 * HOUR_MS) -> None:
        self.at_ms = MADE_MS
        self.stream = MemoryStream(self.now_ms, shards, retention_ms)

    def now_ms(self) -> int:
        return self.at_ms

    def put(self, number: int, at_ms: int, key: str = "k", kind: str = "a") -> None:
        self.at_ms = at_ms
        self.stream.store(Entry(b'{"id":"%d","type":"%s"}' % (number, kind.encode()), key))

    def replay(self, chosen: Chosen = CHOSEN, share: Share = FAST) -> StreamReplay:
        return StreamReplay(MemorySource(self.stream), chosen, share, margin_ms=MARGIN_MS, clock=self)


class Promising(MemorySource):
    """Says that it keeps records for an hour."""

    async def describe(self) -> SourceInfo:
        return replace(await super().describe(), retention_ms=HOUR_MS)


async def pages_of(replay: StreamReplay, shard: ShardId = FIRST, size: int = 2) -> AsyncIterator[Sequence[int]]:
    """Up to the shard's end."""
    await replay.describe()
    await replay.shards()
    cursor = await replay.open(shard, replay.start)
    while cursor is not None:
        page = await replay.read(cursor, size)
        yield [json.loads(record.data)["id"] for record in page.records]
        cursor = page.next


async def ids(replay: StreamReplay, shard: ShardId = FIRST) -> list[int]:
    return [int(each) async for page in pages_of(replay, shard) for each in page]


async def test_the_bar_of_a_replay_that_goes_on_does_not_begin_at_its_end() -> None:
    hub = Hub()
    hub.put(1, (SINCE_MS + UNTIL_MS) // 2)
    replay = hub.replay()
    assert replay.progress == ", 0 events read [--------------------] 0% of the time"
    await replay.describe()
    [shard] = await replay.shards()
    await replay.read(await replay.open(shard.id, replay.start), 1)
    assert replay.progress == ", 1 events read [####################] 100% of the time"


async def test_what_arrived_at_the_first_bound_is_chosen_and_at_the_last_is_not() -> None:
    hub = Hub()
    for number, at_ms in enumerate((SINCE_MS - 1, SINCE_MS, SINCE_MS + 1, UNTIL_MS - 1, UNTIL_MS, UNTIL_MS + 1)):
        hub.put(number, at_ms)
    assert await ids(hub.replay()) == [1, 2, 3]


async def test_an_open_shard_ends_where_the_time_does_though_more_follows() -> None:
    hub = Hub()
    for number in range(20):
        hub.put(number, SINCE_MS if number < 4 else UNTIL_MS + MARGIN_MS)
    pages = [page async for page in pages_of(hub.replay())]
    assert pages == [["0", "1"], ["2", "3"], []]


async def test_an_arrival_out_of_turn_near_the_bounds_is_not_missed() -> None:
    hub = Hub()
    for number, at_ms in enumerate((SINCE_MS - 5, SINCE_MS, SINCE_MS, UNTIL_MS + 5)):
        hub.put(number, at_ms)
    hub.put(4, UNTIL_MS + 5)
    log = hub.stream.records(FIRST)
    log[4] = replace(log[4], arrival_ms=UNTIL_MS - 5)
    assert [page async for page in pages_of(hub.replay())] == [["1"], ["2"], ["4"]]


@pytest.mark.parametrize("is_closed", [False, True])
async def test_a_shard_without_events_ends_at_once(is_closed: bool) -> None:
    hub = Hub()
    if is_closed:
        hub.stream.split(FIRST)
    hub.at_ms = UNTIL_MS + MARGIN_MS
    assert [page async for page in pages_of(hub.replay())] == [[]]


async def test_only_events_of_the_type_are_chosen_also_within_aggregates() -> None:
    hub = Hub()
    hub.put(1, SINCE_MS, kind="b")
    packed = [UserRecord(b'{"id":"%d","type":"%s"}' % each, "k") for each in ((2, b"a"), (3, b"b"))]
    hub.stream.store(Entry(pack(packed), "k"))
    hub.put(4, SINCE_MS, kind="a")
    assert await ids(hub.replay(replace(CHOSEN, types=("b",)))) == [1, 3]


async def test_a_place_is_the_streams_own_from_which_another_owner_goes_on() -> None:
    hub = Hub()
    for number in range(5):
        hub.put(number, SINCE_MS + number)
    first = hub.replay()
    await first.describe()
    page = await first.read(await first.open(FIRST, first.start), 2)
    again = hub.replay()
    await again.describe()
    rest = await again.read(await again.open(FIRST, After(page.records[-1].sequence)), 9)
    assert [json.loads(record.data)["id"] for record in rest.records] == ["2", "3", "4"]
    assert rest.next is None


async def test_a_time_that_the_stream_no_longer_keeps_is_refused_with_the_earliest_that_it_has() -> None:
    hub = Hub(retention_ms=HOUR_MS)
    hub.put(1, SINCE_MS)
    hub.put(2, SINCE_MS + HOUR_MS // 2)
    hub.at_ms = SINCE_MS + HOUR_MS + 1_000
    with pytest.raises(ConfigError, match=r"earliest time that the stream surely has is 2023-11-14T23:13:31Z"):
        await hub.replay().check()
    with pytest.raises(ConfigError, match=FIRST):
        await ids(hub.replay())


async def test_a_stream_that_is_younger_than_the_time_keeps_all_of_it() -> None:
    hub = Hub(retention_ms=HOUR_MS)
    hub.put(1, SINCE_MS)
    hub.at_ms = SINCE_MS + HOUR_MS - 20_000
    early = replace(CHOSEN, since_ms=MADE_MS - 10 * HOUR_MS)
    assert await hub.replay(early).check() == ""
    assert await ids(hub.replay(early)) == [1]


async def test_what_is_kept_longer_than_promised_is_replayed() -> None:
    """Kinesis trims when it likes: what is older than the time proves that nothing of the time is gone."""
    hub = Hub(retention_ms=10 * HOUR_MS)
    hub.put(0, SINCE_MS - 1)
    hub.put(1, SINCE_MS)
    hub.at_ms = UNTIL_MS + HOUR_MS
    replay = StreamReplay(Promising(hub.stream), CHOSEN, FAST, margin_ms=MARGIN_MS, clock=hub)
    assert await replay.check() == ""
    assert await ids(replay) == [1]


async def test_a_shard_that_keeps_nothing_as_old_as_the_time_is_told() -> None:
    hub = Hub(shards=2)
    key = next(f"k{n}" for n in range(99) if hub.stream.shard_of(f"k{n}") == FIRST)
    hub.put(0, SINCE_MS - 1, key)
    hub.put(1, SINCE_MS + 1, key)
    assert "1 of 2 shards keep nothing that is as old as --since" in await hub.replay().check()


async def test_what_is_trimmed_while_it_is_replayed_ends_the_replay() -> None:
    hub = Hub(retention_ms=HOUR_MS)
    for number in range(6):
        hub.put(number, SINCE_MS + number)
    replay = hub.replay()
    pages = pages_of(replay)
    assert await anext(pages) == ["0", "1"]
    hub.at_ms = SINCE_MS + HOUR_MS + 4
    with pytest.raises(ConfigError, match="may no longer keep all"):
        [page async for page in pages]


async def test_a_place_whose_record_is_kept_is_read_on_from_however_old_it_is() -> None:
    hub = Hub(retention_ms=HOUR_MS)
    for number in range(6):
        hub.put(number, SINCE_MS + number)
    pages = pages_of(hub.replay())
    assert await anext(pages) == ["0", "1"]
    hub.at_ms = SINCE_MS + HOUR_MS + 1  # within the margin of the last record that was read
    assert [page async for page in pages] == [["2", "3"], ["4", "5"]]


async def test_a_shard_that_is_gone_and_a_stream_that_was_made_anew_are_errors() -> None:
    hub = Hub(retention_ms=HOUR_MS)
    hub.put(1, SINCE_MS)
    replay = hub.replay()
    await replay.describe()
    hub.stream.split(FIRST)
    hub.at_ms = SINCE_MS + 2 * HOUR_MS
    with pytest.raises(ConfigError, match=FIRST):
        await replay.open(FIRST, replay.start)
    hub.stream.recreate()
    with pytest.raises(ConfigError, match="made anew"):
        await replay.describe()


async def test_the_rate_holds_over_all_shards_together() -> None:
    hub = Hub(shards=2)
    keys = {hub.stream.shard_of(f"k{number}"): f"k{number}" for number in range(99)}
    for number in range(20):
        for key in keys.values():
            hub.put(number, SINCE_MS, key)
    replay = hub.replay(share=Share(200, 1e9))
    began_s = asyncio.get_running_loop().time()
    both = await asyncio.gather(*[ids(replay, shard) for shard in keys])
    assert [len(each) for each in both] == [20, 20]
    assert asyncio.get_running_loop().time() - began_s >= 38 / 200  # no wait behind the last page


def test_a_replay_from_the_stream_is_another_one_than_from_the_lake() -> None:
    assert stream_replay_name(LINK, CHOSEN) == f"replay.stream.{CHOSEN.id}.{LINK}"


class Replays:
    """Replays of the memory world's own hub."""

    def __init__(self) -> None:
        self.world = World(regions=REGIONS[:2], shards=2)
        self.since_ms = self.world.source.now_ms() - 1000

    def service(self, once_more: str, sent_since_ms: int | None) -> tuple[Service, StreamReplay, str]:
        world = self.world
        chosen = Chosen(self.since_ms, world.source.now_ms() + 1, (), once_more)
        clock = type("Clock", (), {"now_ms": staticmethod(world.source.now_ms)})()
        replay = StreamReplay(MemorySource(world.source), chosen, FAST, margin_ms=0, clock=clock)
        name = stream_replay_name(LINK, chosen)
        setup = replace(
            world.setup,
            name=name,
            source=replay,
            start=lambda _: replay.start,
            sent_since_ms=sent_since_ms,
            replays=SOURCE,
        )
        return world.service_of(setup, world.quarantine), replay, name


@pytest.mark.parametrize("is_forced", [False, True])
async def test_what_the_peer_has_is_not_sent_again_unless_forced_and_parents_go_before_children(
    is_forced: bool,
) -> None:
    replays = Replays()
    world = replays.world
    for number in range(60):
        world.source.store(Entry(b'{"id":"%d"}' % number, f"k{number % 5}"))
        if number == 30:
            world.source.split(world.source.shard_of("k0"))
    for round_number in (1, 2):
        service, replay, name = replays.service(str(round_number), None if is_forced else replays.since_ms)
        running = asyncio.create_task(service.run())
        await world.until(lambda service=service, name=name: service.has_finished(name))
        await service.drain()
        await running
        assert replay.read_number == 60
    times = 2 if is_forced else 1
    sent = world.numbers(PEER)
    assert sorted(number for _, number in sent) == sorted(list(range(60)) * times)
    for key in {key for key, _ in sent}:
        of_key = [number for held, number in sent if held == key]
        assert of_key == sorted(set(of_key)) * times
    origins = {tuple(event["_replicator"]["origin"]) for event in world.stored(PEER)}
    assert origins == {
        (HERE, SOURCE, str(world.source.created_ms), shard.id, record.number, 0)
        for shard in world.source.list_shards()
        for record in world.source.records(shard.id)
    }
    assert len({origin[3] for origin in origins}) > 2, "children held some of them"


async def test_events_of_an_aggregate_are_known_one_by_one() -> None:
    replays = Replays()
    world = replays.world
    world.source.store(Entry(pack([UserRecord(b'{"id":"%d"}' % number, "k") for number in range(3)]), "k"))
    for round_number in (1, 2):
        service, _, name = replays.service(str(round_number), replays.since_ms)
        running = asyncio.create_task(service.run())
        await world.until(lambda service=service, name=name: service.has_finished(name))
        await service.drain()
        await running
    assert [(event["id"], event["_replicator"]["origin"][5]) for event in world.stored(PEER)] == [
        ("0", 0),
        ("1", 1),
        ("2", 2),
    ]


async def test_a_replay_of_what_is_trimmed_ends_with_the_error_and_sends_nothing() -> None:
    replays = Replays()
    world = replays.world
    world.source.created_ms = 1
    world.source.retention_ms = HOUR_MS
    world.source.store(Entry(b'{"id":"1"}', "k"))
    replays.since_ms -= 2 * HOUR_MS
    service, _, _ = replays.service("", None)
    with pytest.raises(ExceptionGroup) as raised:
        await service.run()
    refused = first_of(ConfigError, raised.value)
    assert refused is not None
    assert "may no longer keep all" in str(refused)
    assert world.arrived(PEER) == 0


async def test_a_replay_beside_the_workers_of_the_same_shards_stops_none_of_them() -> None:
    replays = Replays()
    world = replays.world
    live = asyncio.create_task(world.service.run())
    for number in range(10):
        world.source.store(Entry(b'{"id":"%d"}' % number, f"k{number % 5}"))
    await world.until(lambda: world.arrived(PEER) == 10)
    service, _, name = replays.service("forced", None)
    replaying = asyncio.create_task(service.run())
    await world.until(lambda: service.has_finished(name))
    for number in range(10, 20):
        world.source.store(Entry(b'{"id":"%d"}' % number, f"k{number % 5}"))
    await world.until(lambda: world.arrived(PEER) == 30)
    assert not live.done()
    for each, running in ((service, replaying), (world.service, live)):
        await each.drain()
        await running
    assert sorted(number for _, number in world.numbers(PEER)) == sorted([*range(20), *range(10)])
