"""From the start of a worker's process to the first event it has replicated."""

import time

from tests.benchmarks.contenders import Spec, Stage, Work
from tests.benchmarks.cpu import naive, worker
from tests.benchmarks.options import Options
from tests.benchmarks.regions import Regions
from tests.benchmarks.report import Section, median, spread
from tests.benchmarks.rounds import arrival, fill

STARTS = 3


async def start(regions: Regions, options: Options) -> Section:
    rows = []
    for make in (naive, worker):
        async with Stage(regions) as stage:
            taken_s = [await _taken_s(regions, stage, make(Work(1))) for _ in range(STARTS)]
        rows.append((make(Work(1)).name, median(taken_s), spread(taken_s)))
    columns = ("contender", "s", "starts")
    return Section("Start to first replicated event, an event waiting", columns, rows, data=rows)


async def _taken_s(regions: Regions, stage: Stage, spec: Spec) -> float:
    contender = await stage.prepare(spec)
    await fill(regions, contender, spec.work.events)
    begun_s = time.monotonic()
    child = stage.spawn(contender)
    await arrival(regions, contender)
    taken_s = time.monotonic() - begun_s
    child.kill()
    return taken_s
