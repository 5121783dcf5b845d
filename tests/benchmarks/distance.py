"""A peer at 150 ms round trip and keys by Zipf's law: what key order costs when one key has every tenth event.

A lane carries one record a round trip; ``aggregate: kpl`` packs a key's waiting events into one record.
"""

from dataclasses import replace

from replicator.dev.proxy import Proxy
from tests.benchmarks.contenders import Stage, Work
from tests.benchmarks.cpu import OURS, naive, unordered, worker
from tests.benchmarks.options import Options
from tests.benchmarks.regions import PEERS, Regions
from tests.benchmarks.report import Section
from tests.benchmarks.rounds import one_round

ONE_WAY_MS = 75
EVENTS = 20_000
LANE_EVENTS = 2_000
"""For the case where the hot key's events go one after the other."""


async def distance(regions: Regions, options: Options) -> Section:
    work, lane_work = (Work(events, is_zipf=True) for events in (EVENTS, LANE_EVENTS))
    rows = []
    async with Proxy(regions.url(PEERS[0]), delay_ms=ONE_WAY_MS) as proxy, Stage(regions) as stage:
        specs = [
            naive(work),
            worker(lane_work),
            replace(worker(work), name=f"{OURS}, aggregate: kpl", link={"aggregate": "kpl"}),
            unordered(work),
        ]
        for contender in await stage.start([replace(spec, peer_url=proxy.url) for spec in specs]):
            await one_round(regions, contender)
            cpu_us, events_per_s = await one_round(regions, contender)
            rows.append((contender.name, contender.spec.work.events, round(events_per_s), cpu_us))
    note = "The naive loop and ordering: none keep no order between requests under way."
    title = f"Zipf keys, 1 KB, a peer at {2 * ONE_WAY_MS} ms round trip"
    return Section(title, ("contender", "events", "events/s", "CPU, us an event"), rows, note, data=rows)
