"""What a worker holds in memory: over many events, where it must not grow, and with many shards and peers."""

import asyncio

from tests.benchmarks.contenders import Contender, Stage, Work
from tests.benchmarks.cpu import worker
from tests.benchmarks.load import trim
from tests.benchmarks.options import Options
from tests.benchmarks.processes import peak_rss_bytes, rss_bytes
from tests.benchmarks.regions import Regions
from tests.benchmarks.report import Cell, Section
from tests.benchmarks.rounds import one_round

SLICES = 10
MB = 1_000_000
SHARDS = 100


async def flat(regions: Regions, options: Options) -> Section:
    """``--flat`` events of 240 B through one worker; the streams forget them meanwhile, Redis keeps its window."""
    slice_events = max(1, round(options.flat * options.scale) // SLICES)
    rows: list[tuple[Cell, ...]] = []
    async with Stage(regions) as stage:
        contender = await stage.start_one(worker(Work(slice_events, 240)))
        for number in range(1, SLICES + 1):
            cpu_us, _ = await one_round(regions, contender)
            for region in contender.urls:
                await asyncio.to_thread(trim, regions.url(region), contender.stream)
            worker_mb, redis_mb = (rss_bytes(pid) / MB for pid in (contender.children[0].pid, contender.valkey.pid))
            rows.append((number * slice_events, worker_mb, redis_mb, cpu_us))
    grown = float(rows[-1][1] or 0) - float(rows[1][1] or 0)
    note = f"From the second tenth to the last the worker's memory has changed by {grown:+.1f} MB."
    columns = ("events so far", "worker, MB", "Redis, MB", "CPU, us an event")
    return Section("Memory over many events, 240 B, 1 peer", columns, rows, note, data=[list(row) for row in rows])


async def footprint(regions: Regions, options: Options) -> Section:
    work = Work(round(50_000 * options.scale), peers=3, shards=SHARDS)
    async with Stage(regions) as stage:
        contender = await stage.start_one(worker(work))
        begun = _mb(contender)
        await one_round(regions, contender)
        await one_round(regions, contender)
        rows = [(f"{SHARDS} shards, 3 peers", begun, _mb(contender), peak_rss_bytes(contender.children[0].pid) / MB)]
    columns = ("worker", "started, MB", "after full speed, MB", "peak, MB")
    return Section("Memory of a worker with many shards", columns, rows, data=rows)


def _mb(contender: Contender) -> float:
    return rss_bytes(contender.children[0].pid) / MB
