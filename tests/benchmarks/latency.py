"""What replication adds at a low rate: from the home stream's handing an event out to the peer's having stored it.

The endpoints note both times; between them are the worker, its Redis and the loopback. ``whole`` begins at the put of
the event instead and has the wait for the next read in it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from tests.benchmarks.contenders import Contender, Stage, Work
from tests.benchmarks.cpu import naive, worker
from tests.benchmarks.load import event_ids, journal_begins, journal_taken, put_bodies, put_paced
from tests.benchmarks.options import Options
from tests.benchmarks.regions import HOME, PEERS, Regions
from tests.benchmarks.report import Cell, Section, percentile
from tests.benchmarks.rounds import AFTER_S, arrival

RATE = 1_000
"""Events a second."""
EVERY_S = 0.01
SECONDS = 20
READS_PER_S = 4
"""Of each shard: the worker's default, since AWS allows five to all readers together."""
WARM_S = 3


async def latency(regions: Regions, options: Options) -> Section:
    seconds = max(5, round(SECONDS * options.scale))
    work = Work(RATE * seconds)
    polling = {"reads_per_s": READS_PER_S, "idle_read_s": 1 / READS_PER_S}
    specs = [replace(naive(work), poll_s=1 / READS_PER_S), replace(worker(work), limits=polling)]
    async with Stage(regions) as stage:
        contenders = await stage.start(specs)
        rows = [await _measured(regions, contender, seconds) for contender in contenders]
    columns = ("contender", "added p50, ms", "added p99, ms", "whole p50, ms", "whole p99, ms", "CPU, us an event")
    title = f"{RATE:,} events/s of 1 KB, 1 peer, 2 shards with {READS_PER_S} reads/s each, {seconds} s"
    return Section(title, columns, rows, data=[list(row) for row in rows])


async def _measured(regions: Regions, contender: Contender, seconds: int) -> tuple[Cell, ...]:
    home, peer = regions.url(HOME), regions.url(PEERS[0])
    contender.resume()
    await _paced(regions, contender, WARM_S)
    await arrival(regions, contender)
    for url in (home, peer):
        await asyncio.to_thread(journal_begins, url, contender.stream)
    begun_cpu_s = contender.cpu_s()
    await _paced(regions, contender, seconds)
    await arrival(regions, contender)
    await asyncio.sleep(AFTER_S)
    cpu_us = (contender.cpu_s() - begun_cpu_s) / (RATE * seconds) * 1e6
    contender.pause()
    there, here = [await asyncio.to_thread(journal_taken, url, contender.stream) for url in (peer, home)]
    of_home = await asyncio.to_thread(event_ids, home, HOME, contender.stream)
    of_peer = await asyncio.to_thread(event_ids, peer, PEERS[0], contender.stream)
    stored_ns = {of_peer[sequence]: at_ns for sequence, at_ns in there["stored_ns"].items()}
    added, whole = (_delays_ms(of_home, here[name], stored_ns) for name in ("read_ns", "stored_ns"))
    ms = (percentile(values, percent) for values in (added, whole) for percent in (50, 99))
    return (contender.name, *ms, cpu_us)


async def _paced(regions: Regions, contender: Contender, seconds: int) -> None:
    numbers = range(contender.written, contender.written + RATE * seconds)
    bodies = put_bodies(contender.stream, numbers, contender.spec.work.size_bytes, request_max=round(RATE * EVERY_S))
    await asyncio.to_thread(put_paced, regions.url(HOME), HOME, bodies, EVERY_S)
    contender.written = numbers.stop


def _delays_ms(ids: Mapping[str, str], from_ns: Mapping[str, int], until_ns: Mapping[str, int]) -> list[float]:
    """Raises KeyError for an event of this time that the peer did not store meanwhile."""
    return [(until_ns[ids[sequence]] - at_ns) / 1e6 for sequence, at_ns in from_ns.items()]
