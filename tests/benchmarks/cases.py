"""The named cases of ``make bench``."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from tests.benchmarks.catch_up import catch_up
from tests.benchmarks.contenders import Spec, Work
from tests.benchmarks.cpu import (
    OTHERS,
    OURS,
    Comparison,
    compare,
    floor,
    naive,
    sdk,
    signed,
    unordered,
    worker,
)
from tests.benchmarks.distance import distance
from tests.benchmarks.endpoint_speed import endpoint_speed
from tests.benchmarks.latency import latency
from tests.benchmarks.memory import flat, footprint
from tests.benchmarks.options import Options
from tests.benchmarks.parts import parts
from tests.benchmarks.redis_cost import redis_cost
from tests.benchmarks.regions import Regions
from tests.benchmarks.report import Section
from tests.benchmarks.start import start
from tests.benchmarks.steps import steps

KB = 1024


@dataclass(frozen=True, slots=True)
class Case:
    """``what`` is for ``--list``; ``is_quick``: part of ``--quick``."""

    what: str
    run: Callable[[Regions, Options], Awaitable[Section]]
    is_quick: bool = False


def matrix(*comparisons: Comparison) -> Callable[[Regions, Options], Awaitable[Section]]:
    async def run(regions: Regions, options: Options) -> Section:
        return await compare(regions, comparisons, count=options.rounds, scale=options.scale)

    return run


async def peers(regions: Regions, options: Options) -> Section:
    """What a further peer adds, from the same rounds."""
    works = {count: Work(20_000, peers=count) for count in (1, 2, 3)}
    groups = (
        Comparison("1 KB, 1 peer", works[1], (naive, worker)),
        Comparison("1 KB, 2 peers", works[2], (worker,)),
        Comparison("1 KB, 3 peers", works[3], (naive, sdk, worker, unordered)),
    )
    section = await compare(regions, groups, count=options.rounds, scale=options.scale)
    one, three = (section.bars[f"1 KB, {count}"][OURS] for count in ("1 peer", "3 peers"))
    return replace(section, note=f"Each further peer adds {(three - one) / 2:.1f} us of CPU an event to the worker.")


def two_workers(work: Work) -> Spec:
    # Asking for leases takes some renewals, and a run should not wait for that.
    return replace(worker(work), name="2 workers, every guarantee", workers=2, renew_s=2.0)


CASES = {
    "endpoint": Case("how fast the endpoint is that all of them talk to", endpoint_speed, is_quick=True),
    "steps": Case("CPU of the single steps of the hot path", steps),
    "240b": Case("240 B, 1 peer", matrix(Comparison("240 B, 1 peer", Work(30_000, 240), (*OTHERS, worker, unordered)))),
    "1kb": Case(
        "1 KB, 1 peer, also with signed tags",
        matrix(Comparison("1 KB, 1 peer", Work(20_000), (*OTHERS, worker, signed, unordered, floor))),
        is_quick=True,
    ),
    "text": Case(
        "1 KB that is one long string, which JSON parsers like",
        matrix(Comparison("1 KB of text, 1 peer", Work(20_000, shape="text"), (*OTHERS, worker))),
    ),
    "10kb": Case(
        "10 KB, 1 peer", matrix(Comparison("10 KB, 1 peer", Work(4_000, 10 * KB), (*OTHERS, worker, unordered)))
    ),
    "peers": Case("1 KB, 1 to 3 peers, and what a further peer adds", peers, is_quick=True),
    "tls": Case(
        "1 KB over TLS, 1 and 3 peers",
        matrix(
            Comparison("1 KB, 1 peer, TLS", Work(20_000, tls=True), (*OTHERS, worker)),
            Comparison("1 KB, 3 peers, TLS", Work(10_000, peers=3, tls=True), (naive, worker)),
        ),
        is_quick=True,
    ),
    "shards": Case(
        "1 KB, 1, 10 and 100 shards",
        matrix(
            *(Comparison(f"1 KB, {count} shards", Work(20_000, shards=count), (naive, worker)) for count in (1, 10)),
            Comparison("1 KB, 100 shards", Work(50_000, shards=100), (naive, sdk, worker)),
        ),
    ),
    "workers": Case(
        "1 KB, 10 shards, 1 and 2 workers",
        matrix(Comparison("1 KB, 10 shards", Work(30_000, shards=10), (naive, worker, two_workers))),
    ),
    "latency": Case("added latency at 1,000 events/s", latency, is_quick=True),
    "distance": Case("Zipf keys and a peer at 150 ms round trip", distance),
    "catch-up": Case("a link that was cut, against full speed (--behind)", catch_up),
    "parts": Case("CPU of every source into its hub, and of every sink from a hub", parts),
    "redis": Case("memory and calls of Redis", redis_cost),
    "flat": Case("memory over many events (--flat)", flat),
    "footprint": Case("memory with 100 shards and 3 peers", footprint),
    "start": Case("start to first replicated event", start, is_quick=True),
}
