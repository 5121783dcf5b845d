"""A sink that takes some entries of a request, wants others again, and will never take a third kind."""

import asyncio
import json
from collections.abc import Sequence

from memory_world import PEERS, REGIONS, World

from replicator.errors import Refused
from replicator.ports import Entry
from replicator.worker.link import LinkSettings


async def test_what_is_refused_alone_goes_to_quarantine_what_failed_is_sent_again_the_rest_is_stored_once() -> None:
    settings = LinkSettings(in_doubt_wait_s=0.0, backoff_base_s=0.01)
    world = World(regions=REGIONS[:2], shards=1, settings=settings)
    requests = 0

    def answer(entries: Sequence[Entry]) -> Sequence[str | Refused | None]:
        nonlocal requests
        requests += 1
        answers: list[str | Refused | None] = []
        for entry in entries:
            kind = json.loads(entry.data)["kind"]
            if kind == "never":
                answers.append(Refused("no such event"))
            else:
                answers.append("Throttled" if kind == "later" and requests == 1 else None)
        return answers

    world.peers[PEERS[0]].fault = answer
    for number, kind in enumerate(("now", "never", "later", "now")):
        world.source.store(Entry(json.dumps({"id": str(number), "kind": kind}).encode(), f"k{number}"))
    running = asyncio.create_task(world.service.run())
    await world.until(lambda: len(world.ids(PEERS[0])) == 3 and len(world.quarantine.events) == 1)
    await world.until_at_the_tip()
    await world.service.drain()
    await running
    assert sorted(world.ids(PEERS[0])) == ["0", "2", "3"]
    [put_away] = world.quarantine.events.values()
    assert (put_away.reason, put_away.partition_key) == ("refused_by_peer", "k1")
    assert "no such event" in put_away.detail
