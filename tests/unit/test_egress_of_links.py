"""Redaction and residency in the pipeline: each link for itself, before anything is claimed; nothing gets around it."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from memory_world import HERE, PEERS, REGIONS, World
from msgspec.structs import replace
from test_redrive import LINK, put_away, source_of

from replicator.adapters.memory_quarantine import MemoryQuarantine
from replicator.core.egress import Egress, EgressRules, Residency
from replicator.core.formats import make_format
from replicator.core.kpl import UserRecord, pack
from replicator.errors import InDoubt
from replicator.ports import Entry
from replicator.worker.link import LinkSettings
from replicator.worker.redrive import Unskimmed, redrive_name

GUARDED, PLAIN = PEERS[:2]
"""In this order, so that what one link did to an event would show on the other."""
QUICK = LinkSettings(in_doubt_wait_s=0.0, backoff_base_s=0.01, backoff_max_s=0.1)
REDACT = Egress(EgressRules({"who.email": "mark"}))
SECRET = "jo@example.org"
EVENT = {"id": "1", "who": {"email": SECRET, "n": 1}, "rest": [1.50]}


def world(egress: Egress, **settings: Any) -> World:
    guarded = replace(QUICK, egress=egress, **settings)
    return World(regions=REGIONS[:3], shards=1, settings=QUICK, settings_of={GUARDED: guarded})


def put(world: World, *events: dict[str, Any] | bytes) -> None:
    for event in events:
        world.source.store(Entry(event if isinstance(event, bytes) else json.dumps(event).encode(), "k"))


async def run(world: World) -> dict[str, int]:
    """The guarded link's counts when everything is done."""
    task = asyncio.create_task(world.service.run())
    await world.until_at_the_tip()
    links: Any = world.service.status()["links"]
    await world.service.drain()
    await task
    counts: dict[str, int] = links[f"orders:{GUARDED}"]["counts"]
    return counts


def without_tags(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in event.items() if name != "_replicator"} for event in events]


async def test_a_link_redacts_and_the_one_beside_it_sends_the_bytes_as_they_are() -> None:
    tried = world(REDACT)
    put(tried, EVENT, {"id": "2"}, pack([UserRecord(json.dumps({**EVENT, "id": "3"}).encode(), "k")] * 2))
    counts = await run(tried)
    marked = {**EVENT, "who": {"email": "[redacted]", "n": 1}}
    expected = [EVENT, {"id": "2"}, {**EVENT, "id": "3"}]
    assert without_tags(tried.stored(PLAIN)) == expected
    assert without_tags(tried.stored(GUARDED)) == [marked, {"id": "2"}, {**marked, "id": "3"}]
    tags = [[event["_replicator"] for event in tried.stored(peer)] for peer in (PLAIN, GUARDED)]
    assert tags[0] == tags[1]
    assert counts["events_redacted_total"] == 3
    assert counts["events_dropped_total/duplicate"] == 1


async def test_what_can_not_be_redacted_is_put_away_with_its_bytes_and_the_others_go_on() -> None:
    tried = world(REDACT)
    hidden = {"id": "1", "who": "COMPRESSEDH4sIAAAAAAAA"}
    put(tried, hidden, {"id": "2"})
    await run(tried)
    assert [event["id"] for event in tried.stored(GUARDED)] == ["2"]
    assert [event["id"] for event in tried.stored(PLAIN)] == ["1", "2"]
    [document] = tried.quarantine.events.values()
    assert (document.reason, json.loads(document.data)) == ("unredactable", hidden)


@pytest.mark.parametrize("violation", ["quarantine", "drop"])
async def test_what_must_stay_where_it_was_born_stays(violation: Any) -> None:
    tried = world(Egress(EgressRules({}, [Residency(["us-*"], ["who.email"], violation)])))
    put(tried, EVENT, {"id": "2"})
    counts = await run(tried)
    assert [event["id"] for event in tried.stored(GUARDED)] == ["2"]
    assert [event["id"] for event in tried.stored(PLAIN)] == ["1", "2"]
    reasons = [document.reason for document in tried.quarantine.events.values()]
    assert reasons == (["residency"] if violation == "quarantine" else [])
    assert counts.get("events_dropped_total/residency", 0) == (violation == "drop")


async def test_rules_of_other_regions_do_not_bind() -> None:
    assert not HERE.startswith("eu-")
    tried = world(Egress(EgressRules({}, [Residency(["eu-*"], ["who.email"])])))
    put(tried, EVENT)
    await run(tried)
    assert tried.stored(GUARDED) == tried.stored(PLAIN)


async def test_the_size_that_counts_is_that_of_what_leaves() -> None:
    tried = world(Egress(EgressRules({"body": "remove"})))
    put(tried, {"id": "1", "body": "x" * (1024 * 1024 - 50)})
    await run(tried)
    assert [document.reason for document in tried.quarantine.events.values()] == ["oversize"]
    assert tried.stored(PLAIN) == []
    assert without_tags(tried.stored(GUARDED)) == [{"id": "1"}]


async def test_what_is_under_way_counts_with_all_it_holds_in_memory() -> None:
    tried = world(Egress(EgressRules({"body": "remove"})), is_paused=True)
    put(tried, *[{"id": str(number), "body": "x" * 10_000} for number in range(10)])
    task = asyncio.create_task(tried.service.run())
    await tried.until(lambda: any(shard["open_bytes"] for shard in tried.shards_of(GUARDED)))
    [shard] = tried.shards_of(GUARDED)
    await tried.service.drain()
    await task
    assert int(str(shard["open_bytes"])) > 100_000


async def test_events_in_doubt_are_found_although_something_was_redacted() -> None:
    """The first requests are stored and their answers lost: they are looked up by origin, and not sent again."""
    tried = world(REDACT)
    lost: list[int] = []

    def lose(entries: Sequence[Entry]) -> None:
        if len(lost) < 2:
            lost.append(len(entries))
            raise InDoubt("no answer", sent_ms=0)

    tried.peers[GUARDED].after_put = lose
    put(tried, EVENT, {**EVENT, "id": "2"})
    counts = await run(tried)
    assert lost == [1, 1]
    assert counts["in_doubt_total"] == 2
    assert [event["id"] for event in tried.stored(GUARDED)] == ["1", "2"]
    assert SECRET not in json.dumps(tried.stored(GUARDED))


async def test_what_is_redriven_is_redacted_as_if_it_had_just_been_read() -> None:
    """The quarantine has the original bytes."""
    quarantine = MemoryQuarantine()
    source, stays = await source_of(
        quarantine, put_away(1, data=json.dumps(EVENT).encode()), put_away(2, data=b'{"id":"2","who":"text"}')
    )
    settings = replace(QUICK, egress=REDACT)
    tried = World(regions=REGIONS[:2], shards=1, settings=settings, quarantine=quarantine)
    redriven = replace(
        tried.setup, name=redrive_name(LINK), source=source, queue=source, event_format=Unskimmed(make_format("json"))
    )
    service = tried.service_of(redriven, stays)
    task = asyncio.create_task(service.run())
    await tried.until(lambda: source.is_over)
    await service.drain()
    await task
    assert without_tags(tried.stored(GUARDED)) == [{**EVENT, "who": {"email": "[redacted]", "n": 1}}]
    assert stays.reasons == {"unredactable": 1}
    assert len(quarantine.events) == 1
