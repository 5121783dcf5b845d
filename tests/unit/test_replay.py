"""A replay as the pipeline sees it: the chosen events of a lake, each once, in order, under numbers that last."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence

import pytest
from memory_world import HERE, PEERS, REGIONS, SOURCE, World
from msgspec.structs import replace

from replicator.adapters.lake_parquet import PARQUET
from replicator.adapters.memory_lake import MemoryLake
from replicator.adapters.memory_stream import MemorySink
from replicator.core.egress import Egress, EgressRules
from replicator.core.formats import make_format
from replicator.core.lake import NDJSON, Archived, LakeFormat, encode_line, is_within, run_of
from replicator.core.model import After, LinkName, Origin, SequenceNumber, ShardEnd, ShardId, SourceName, TrimHorizon
from replicator.errors import StoreUnavailable
from replicator.ports import Entry, Quarantine, SinkLimits
from replicator.replay_command import Replayed
from replicator.worker.link import LinkSettings
from replicator.worker.redrive import PutAway, Unskimmed
from replicator.worker.replay import Chosen, Lake, ReplaySource, replay_name

[PEER] = PEERS[:1]
LINK = LinkName(f"{SOURCE}:{PEER}")
SINCE_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
CHOSEN = Chosen(SINCE_MS, SINCE_MS + HOUR_MS)


def event(number: int, *, shard: int = 0, at_ms: int = SINCE_MS, kind: str = "a") -> Archived:
    name = ShardId(f"shardId-{shard:012}")
    data = b'{"id":"%d","type":"%s"}' % (number, kind.encode())
    origin = Origin(HERE, SOURCE, "17", name, SequenceNumber(number))
    return Archived(origin, str(number), (), at_ms, "17", name, SequenceNumber(number), 0, f"k{number % 3}", data)


async def lake_of(*requests: Sequence[Archived]) -> MemoryLake:
    """One put each."""
    lake = MemoryLake(SOURCE, SinkLimits(5000, 1 << 20, 1 << 20), [PARQUET])
    for events in requests:
        await lake.put([Entry(encode_line(each), each.partition_key) for each in events])
    return lake


async def replayed(world: World, source: ReplaySource, quarantine: Quarantine, since_ms: int | None = SINCE_MS) -> None:
    [shard] = await source.shards()
    setup = replace(
        world.setup,
        name=SourceName(shard.id),
        source=source,
        queue=source,
        event_format=Unskimmed(make_format("json")),
        sent_since_ms=since_ms,
        replay_id="r",
    )
    service = world.service_of(setup, quarantine)
    running = asyncio.create_task(service.run())
    await world.until(lambda: source.is_over)
    await service.drain()
    await running


async def ids(lake: MemoryLake, chosen: Chosen = CHOSEN) -> list[str]:
    return [each.event_id async for each in Lake(lake, SOURCE, REGIONS, chosen).events()]


async def test_events_come_once_in_order_though_objects_overlap_and_shards_mix() -> None:
    foreign = replace(event(4), origin=replace(event(4).origin, region=PEER))
    lake = await lake_of(
        [event(20, shard=1)],
        [event(9), event(10), event(11)],
        [event(2), foreign, event(9)],
        [event(10), event(11), event(12)],
    )
    assert await ids(lake) == ["2", "4", "9", "10", "11", "12", "20"]


async def test_the_bar_tells_how_many_of_the_objects_are_opened() -> None:
    lake = await lake_of(*([event(number)] for number in (1, 2, 3, 4)))
    source = ReplaySource(chosen := Lake(lake, SOURCE, REGIONS, CHOSEN), CHOSEN)
    told = [source.progress, *[source.progress async for _ in chosen.events()]]
    assert [line.removeprefix(", 0 events done ") for line in told] == [
        "[--------------------] 0% of the objects",
        "[##########----------] 50% of the objects",
        "[###############-----] 75% of the objects",
        "[####################] 100% of the objects",
        "[####################] 100% of the objects",
    ]


async def test_only_what_arrived_in_the_time_and_is_of_the_type_is_chosen() -> None:
    late, early = SINCE_MS + HOUR_MS, SINCE_MS - 1
    lake = await lake_of(
        [event(1, at_ms=early), event(2), event(3, kind="b"), event(4, at_ms=late - 1), event(5, at_ms=late)],
        [replace(event(6), data=b"\xff")],
    )
    assert await ids(lake) == ["2", "3", "4", "6"]
    assert await ids(lake, replace(CHOSEN, types=("b", "c"))) == ["3"]


async def test_hours_beside_the_time_are_not_read() -> None:
    lake = await lake_of([event(1, at_ms=SINCE_MS - HOUR_MS), event(2), event(3, at_ms=SINCE_MS + 2 * HOUR_MS)])
    within = [name for name in lake.objects if is_within(name, CHOSEN.since_ms, CHOSEN.until_ms)]
    assert [run.first for name in within if (run := run_of(name))] == [2]
    assert run_of("orders/origin=us-east-1/date=2023-11-14/hour=22/readme.txt") is None


async def test_a_place_is_a_number_from_which_another_owner_goes_on() -> None:
    lake = await lake_of([event(number) for number in range(1, 6)])
    source = ReplaySource(Lake(lake, SOURCE, REGIONS, CHOSEN), CHOSEN)
    [shard] = await source.shards()
    first = await source.read(await source.open(shard.id, TrimHorizon()), 2)
    assert first.next is not None
    again = ReplaySource(Lake(lake, SOURCE, REGIONS, CHOSEN), CHOSEN)
    rest = await again.read(await again.open(shard.id, After(first.records[-1].sequence)), 9)
    assert [record.data for record in (*first.records, *rest.records)] == [event(n).data for n in range(1, 6)]
    assert [record.lasting for record in rest.records] == [event(n).origin for n in (3, 4, 5)]
    assert rest.next is None
    again.done(ShardEnd())
    assert (again.is_over, again.done_number, again.earlier_number) == (True, 5, 2)


async def test_a_lake_whose_format_was_changed_midway_is_read_as_one() -> None:
    lake = await lake_of([event(1), event(2)], [event(5), event(6)])
    lake.format = PARQUET
    for events in ([event(2), event(3)], [event(5), event(6)], [event(4), event(7)]):
        await lake.put([Entry(encode_line(each), each.partition_key) for each in events])
    assert {name.partition(".")[2] for name in lake.objects} == {"ndjson.gz", "parquet"}
    assert [each.event_id async for each in Lake(lake, SOURCE, REGIONS, CHOSEN).events()] == [*"1234567"]


@pytest.mark.parametrize("lake_format", [NDJSON, PARQUET], ids=["ndjson", "parquet"])
async def test_an_object_that_is_damaged_is_named(lake_format: LakeFormat) -> None:
    lake = await lake_of()
    lake.format = lake_format
    await lake.put([Entry(encode_line(event(1)), "k")])
    [name] = lake.objects
    lake.objects[name] = lake.objects[name][:-5]
    with pytest.raises(
        StoreUnavailable, match=r"^lake object orders/origin=us-east-1/.*can't be read: not .*not all of it"
    ):
        await ids(lake)


def test_another_choice_is_another_replay_and_the_same_one_goes_on() -> None:
    names = {
        replay_name(LINK, chosen)
        for chosen in (CHOSEN, replace(CHOSEN, types=("a",)), replace(CHOSEN, once_more="x"), Chosen(1, 2))
    }
    assert len(names) == 4
    assert replay_name(LINK, CHOSEN) == replay_name(LINK, Chosen(CHOSEN.since_ms, CHOSEN.until_ms))


async def test_what_is_poison_by_the_rules_of_now_goes_to_quarantine_and_holds_no_key_of_the_live_link() -> None:
    world = World(regions=REGIONS[:2], settings=LinkSettings(in_doubt_wait_s=0.0, on_poison="hold_key"))
    poison = replace(event(1), data=b"\xff", partition_key="k")
    lake = await lake_of([poison, replace(event(2), partition_key="k"), event(3)])
    put_away = PutAway(world.quarantine)
    await replayed(world, ReplaySource(Lake(lake, SOURCE, REGIONS, CHOSEN), CHOSEN), put_away)
    assert put_away.reasons == {"not_json": 1, "key_held": 1}
    kept = {origin: (each.reason, each.data) for (_, origin), each in world.quarantine.events.items()}
    assert kept == {poison.origin: ("not_json", b"\xff"), event(2).origin: ("key_held", event(2).data)}
    assert not world.quarantine.marks
    assert world.ids(PEER) == ["3"]


@pytest.mark.parametrize("egress", [None, Egress(EgressRules({"who": "mark"}))])
async def test_what_is_too_large_only_for_the_id_of_the_replay_leaves_without(egress: Egress | None) -> None:
    small, large, larger = [
        replace(event(number), data=b'{"id":"%d","who":"%s"}' % (number, b"x" * size), partition_key="k")
        for number, size in ((1, 10), (2, 23), (3, 24))
    ]
    if egress is not None:
        large, larger = [replace(each, data=each.data + b" " * n) for n, each in ((13, large), (14, larger))]
    lake, sizes = await lake_of([small, large, larger]), list[int]()
    for size_max in (1 << 20, 0):
        limits = SinkLimits(500, 1 << 20, size_max or sizes[0])
        world = World(
            regions=REGIONS[:2],
            settings=LinkSettings(in_doubt_wait_s=0.0, egress=egress),
            make_sink=lambda stream, limits=limits: MemorySink(stream, limits),
        )
        await replayed(world, ReplaySource(Lake(lake, SOURCE, REGIONS, CHOSEN), CHOSEN), world.quarantine)
        [shard] = world.peers[PEER].list_shards()
        stored = world.peers[PEER].records(shard.id)
        sizes = [len(record.data) + len(record.partition_key) for record in stored]
    assert [json.loads(record.data)["_replicator"].get("replay") for record in stored] == ["r", None]
    assert sizes == [sizes[0]] * 2
    assert [each.reason for each in world.quarantine.events.values()] == ["oversize"]
    assert [origin.sequence for _, origin in world.quarantine.events] == [3]


def test_the_account_of_a_replay_says_what_became_of_every_event() -> None:
    counts = Counter({"events_forwarded_total": 5, "in_doubt_found_total": 2})
    assert Replayed(7, counts, Counter()).account == "5 sent, 2 were there, none poison"
    dropped = {"duplicate": 1, "done_before": 2, "no_route": 3, "excluded": 1}
    counts |= {f"events_dropped_total/{reason}": number for reason, number in dropped.items()}
    assert Replayed(24, counts, Counter(oversize=4), 6).account == (
        "6 done in an earlier run, 5 sent, 5 were there, 4 oversize poison, put in quarantine,"
        " 4 not for this link (3 no_route, 1 excluded)"
    )


@pytest.mark.parametrize("is_forced", [False, True])
async def test_what_the_peer_has_is_not_sent_again_unless_forced(is_forced: bool) -> None:
    world = World(regions=REGIONS[:2])
    events = [event(number) for number in range(1, 41)]
    lake = await lake_of(events)
    for round_number in (1, 2):
        chosen = replace(CHOSEN, once_more=f"{is_forced}{round_number}")
        source = ReplaySource(Lake(lake, SOURCE, REGIONS, chosen), chosen)
        await replayed(world, source, world.quarantine, None if is_forced else chosen.since_ms)
        assert source.done_number == 40
    sent = world.numbers(PEER)
    assert sorted(number for _, number in sent) == sorted(list(range(1, 41)) * (2 if is_forced else 1))
    for key in ("k0", "k1", "k2"):
        of_key = [number for held, number in sent if held == key]
        assert of_key == sorted(set(of_key)) * (2 if is_forced else 1)
    [shard] = world.peers[PEER].list_shards()
    tags = [json.loads(record.data)["_replicator"]["origin"] for record in world.peers[PEER].records(shard.id)]
    assert {tuple(tag[:5]) for tag in tags} == {
        (HERE, SOURCE, "17", "shardId-000000000000", str(number)) for number in range(1, 41)
    }
