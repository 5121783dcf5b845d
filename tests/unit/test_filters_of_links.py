"""Filters in the pipeline: what may not go stays, counted by reason, and the watermark passes it."""

import asyncio
import json

from memory_world import PEERS, REGIONS, World
from msgspec.structs import replace
from test_changes import RULES, record, text

from replicator.core.changes import ChangeFormat
from replicator.core.filters import FilterRules
from replicator.ports import Entry
from replicator.worker.link import LinkSettings

[PEER] = PEERS[:1]


async def test_what_may_not_go_is_dropped_by_reason_and_the_rest_goes_on_in_order() -> None:
    rules = FilterRules(include=[{"type": [{"prefix": "order-"}]}], exclude=[{"pii": [True]}])
    settings = LinkSettings(in_doubt_wait_s=0.0, backoff_base_s=0.01, filters=rules)
    world = World(regions=REGIONS[:2], shards=1, settings=settings)
    events = [
        {"id": "1", "type": "order-placed"},
        {"id": "2", "type": "order-placed", "pii": True},
        {"id": "3", "type": "mail-sent"},
        {"id": "4", "type": "order-paid", "pii": False},
    ]
    for event in events:
        world.source.store(Entry(json.dumps(event).encode(), "k"))
    world.source.store(Entry(b"\xff", "k"))
    world.source.store(Entry(world.replica_from(PEER), "k"))
    task = asyncio.create_task(world.service.run())
    await world.until_at_the_tip()
    links = world.service.status()["links"]
    assert isinstance(links, dict)
    [link] = links.values()
    await world.service.drain()
    await task
    assert world.ids(PEER) == ["1", "4"]
    assert len(world.quarantine.events) == 1
    counts = {name.partition("/")[2]: count for name, count in link["counts"].items() if "dropped" in name}
    assert counts == {"excluded": 1, "not_included": 1, "no_route": 1}


async def test_a_filter_of_a_table_sees_the_event_and_not_the_change_record() -> None:
    rules = FilterRules(include=[{"type": ["orders-deleted"]}])
    world = World(regions=REGIONS[:2], shards=1, settings=LinkSettings(in_doubt_wait_s=0.0, filters=rules))
    [setup] = world.service._sources
    changes = [record(None, {"a": text("1")}, sequence="1"), record({"a": text("1")}, None, sequence="2")]
    for change in changes:
        world.source.store(Entry(change, "k"))
    service = world.service_of(replace(setup, event_format=ChangeFormat(RULES), is_home=True), world.quarantine)
    task = asyncio.create_task(service.run())
    await world.until(lambda: world.arrived(PEER) > 0)
    await asyncio.sleep(0.1)
    await service.drain()
    await task
    [[stored]] = [world.peers[PEER].records(shard.id) for shard in world.peers[PEER].list_shards()]
    assert json.loads(stored.data)["type"] == "orders-deleted"


async def test_what_is_too_old_stays() -> None:
    settings = LinkSettings(in_doubt_wait_s=0.0, backoff_base_s=0.01, filters=FilterRules(age_max_ms=60_000))
    world = World(regions=REGIONS[:2], shards=1, settings=settings)
    now_ms = world.source.now_ms
    world.source.now_ms = lambda: now_ms() - 120_000
    world.source.store(Entry(b'{"id":"1"}', "k"))
    world.source.now_ms = now_ms
    world.source.store(Entry(b'{"id":"2"}', "k"))
    task = asyncio.create_task(world.service.run())
    await world.until_at_the_tip()
    await world.service.drain()
    await task
    assert world.ids(PEER) == ["2"]
