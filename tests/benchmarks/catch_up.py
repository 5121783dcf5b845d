"""A link that was cut while another went on: how fast it catches up, against the full speed of before.

Both go through the same proxy, which runs in this process and bounds neither more than the other.
"""

import asyncio
import time
from dataclasses import replace

from replicator.dev.proxy import Proxy
from tests.benchmarks.contenders import Stage, Work
from tests.benchmarks.cpu import worker
from tests.benchmarks.load import records_in
from tests.benchmarks.options import Options
from tests.benchmarks.regions import PEERS, Regions
from tests.benchmarks.report import Section, shown
from tests.benchmarks.rounds import ARRIVAL_MAX_S, POLL_S, arrival, fill, one_round

CUT, OTHER = PEERS[:2]


async def catch_up(regions: Regions, options: Options) -> Section:
    """``--behind`` events of 1 KB; at full speed as many, up to 100,000."""
    behind = round(options.behind * options.scale)
    work = Work(min(behind, 100_000), peers=2)
    async with Proxy(regions.url(CUT)) as proxy, Stage(regions) as stage:
        contender = await stage.start_one(replace(worker(work), peer_url=proxy.url))
        await one_round(regions, contender)
        steady_us, steady = await one_round(regions, contender)
        proxy.cut()
        contender.resume()
        await fill(regions, contender, behind)
        await arrival(regions, contender, [OTHER])
        missing = contender.written - records_in(regions.url(CUT), contender.stream)
        begun_cpu_s, healed_s = contender.cpu_s(), time.monotonic()
        proxy.heal()
        await _first(regions, contender.stream, contender.written - missing)
        first_s = time.monotonic()
        await arrival(regions, contender)
        rate = missing / (time.monotonic() - first_s)
        cpu_us = (contender.cpu_s() - begun_cpu_s) / missing * 1e6
    rows = [
        ("full speed, both links", work.events, round(steady), steady_us, None),
        ("catch-up of the link that was cut", missing, round(rate), cpu_us, f"{rate / steady:.2f}x"),
    ]
    note = f"{shown(first_s - healed_s)} s passed from the heal to the first event: the link's own next attempt."
    columns = ("1 KB, 2 peers", "events", "events/s", "CPU, us an event", "of full speed")
    return Section("Catch-up after an outage of one link", columns, rows, note, data=rows)


async def _first(regions: Regions, stream: str, before: int) -> None:
    async with asyncio.timeout(ARRIVAL_MAX_S):
        while await asyncio.to_thread(records_in, regions.url(CUT), stream) == before:
            await asyncio.sleep(POLL_S)
