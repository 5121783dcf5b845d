"""A sink that is done with some entries without storing them: dropped, or a conflict, which is reported and no more."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from memory_world import PEERS, REGIONS, World

from replicator.core.convergence import CONFLICT
from replicator.core.outcome import Outcome, Passed
from replicator.errors import Refused
from replicator.ports import Entry
from replicator.worker.link import LinkSettings

OUTCOMES: dict[str, Outcome] = {
    "lost": Passed(CONFLICT, "version 1 lost against 2"),
    "old": Passed("superseded", "version 1 was followed by 2"),
    "bare": Refused("it has no version", reason="not_convergent"),
    "now": None,
}


async def test_conflicts_are_reported_with_their_bytes_and_hold_no_key_and_others_are_counted() -> None:
    settings = LinkSettings(in_doubt_wait_s=0.0, backoff_base_s=0.01, on_poison="hold_key")
    world = World(regions=REGIONS[:2], shards=1, settings=settings)
    asked: list[str] = []

    def answer(entries: Sequence[Entry]) -> Sequence[Outcome]:
        kinds = [json.loads(entry.data)["kind"] for entry in entries]
        asked.extend(kinds)
        return [OUTCOMES[kind] for kind in kinds]

    world.peers[PEERS[0]].fault = answer
    for number, (kind, key) in enumerate(
        [("lost", "a"), ("now", "a"), ("old", "b"), ("now", "b"), ("bare", "c"), ("now", "c")]
    ):
        world.source.store(Entry(json.dumps({"id": str(number), "kind": kind}).encode(), key))
    running = asyncio.create_task(world.service.run())
    await world.until(lambda: len(world.quarantine.events) == 3)
    await world.until_at_the_tip()
    await world.service.drain()
    await running
    # The key of a conflict goes on, that of a poison event is held.
    assert sorted(world.ids(PEERS[0])) == ["1", "3"]
    assert sorted(asked) == ["bare", "lost", "now", "now", "old"]
    reports = {(put.reason, put.partition_key): put for put in world.quarantine.events.values()}
    assert reports.keys() == {("conflict", "a"), ("not_convergent", "c"), ("key_held", "c")}
    conflict = reports["conflict", "a"]
    assert json.loads(conflict.data) == {"id": "0", "kind": "lost"}
    assert conflict.detail == "version 1 lost against 2"
    status: Any = world.service.status()
    [link] = status["links"].values()
    counts = link["counts"]
    assert counts["conflicts_total"] == counts["events_dropped_total/superseded"] == 1
    assert counts["events_quarantined_total/not_convergent"] == 1
    assert counts["events_forwarded_total"] == 2
