"""How fast the endpoint is: what it takes and gives when a driver asks it as fast as it answers.

The driver is a process that does next to nothing: bodies are made beforehand, replies are not looked into. So the
endpoint's own CPU is what bounds these rates, and a contender that is measured at a lower one was not held up by it.
"""

import asyncio
import sys
import time

import msgspec
from msgspec import Struct

from replicator.dev.processes import Child
from tests.benchmarks.load import delete_stream, make_stream, put_bodies, region_stats
from tests.benchmarks.options import Options
from tests.benchmarks.raw import Page, RawKinesis
from tests.benchmarks.regions import HOME, Regions
from tests.benchmarks.report import Cell, Section

STREAM = "driven"
REQUESTS = 80
SIZES = (240, 1024, 10_240)
SHARD = "shardId-000000000000"


class Driven(Struct):
    """What the driver saw: events and the seconds they took, put and read."""

    put: tuple[int, float]
    read: tuple[int, float]
    put_cpu_s: float
    read_cpu_s: float


async def endpoint_speed(regions: Regions, options: Options) -> Section:
    rows: list[tuple[Cell, ...]] = []
    for size in SIZES:
        driven = await _driven(regions, size)
        for what, (events, seconds), cpu_s in (
            ("PutRecords", driven.put, driven.put_cpu_s),
            ("GetRecords", driven.read, driven.read_cpu_s),
        ):
            rows.append((f"{size} B", what, cpu_s / events * 1e6, round(events / seconds)))
    columns = ("event", "operation", "CPU, us an event", "events/s")
    note = "One endpoint process, one driver, 500 records a request. None of it is in a contender's CPU."
    return Section("The endpoint at its fastest", columns, rows, note, data=[list(row) for row in rows])


async def _driven(regions: Regions, size_bytes: int) -> Driven:
    url = regions.url(HOME)
    await asyncio.to_thread(make_stream, url, HOME, STREAM, 1)
    command = [sys.executable, "-m", "tests.benchmarks.endpoint_speed", url, str(size_bytes)]
    with Child("driver", command, regions.workdir / f"driver-{size_bytes}.log") as child:
        driven = await child.ready(_driven_line, 60.0)
    await asyncio.to_thread(delete_stream, url, HOME, STREAM)
    return driven


def _driven_line(line: str) -> Driven | None:
    return msgspec.json.decode(line, type=Driven) if line.startswith('{"put"') else None


def drive(url: str, size_bytes: int) -> Driven:
    chunk = min(500, 4_000_000 // size_bytes)
    bodies = list(put_bodies(STREAM, range(REQUESTS * chunk), size_bytes))
    with RawKinesis(url, HOME) as kinesis:
        kinesis.put(bodies[0])
        begun_cpu_s, begun_s = region_stats(url).cpu_s, time.monotonic()
        for body in bodies[1:]:
            kinesis.call("PutRecords", body)
        put = (len(bodies) - 1) * chunk, time.monotonic() - begun_s
        put_cpu_s = region_stats(url).cpu_s - begun_cpu_s
        iterators = _iterators(kinesis, chunk)
        begun_cpu_s, begun_s = region_stats(url).cpu_s, time.monotonic()
        for iterator in iterators:
            kinesis.raw_page(iterator, chunk)
        read = len(iterators) * chunk, time.monotonic() - begun_s
        return Driven(put, read, put_cpu_s, region_stats(url).cpu_s - begun_cpu_s)


def _iterators(kinesis: RawKinesis, chunk: int) -> list[str]:
    """Where each page of the shard begins, so that no reply has to be looked into when it counts."""
    iterators, page = [kinesis.oldest(STREAM, SHARD)], Page([])
    while len(iterators) < REQUESTS:
        page = kinesis.page(iterators[-1], chunk)
        assert page.next_shard_iterator is not None
        iterators.append(page.next_shard_iterator)
    return iterators


if __name__ == "__main__":
    print(msgspec.json.encode(drive(sys.argv[1], int(sys.argv[2]))).decode(), flush=True)
