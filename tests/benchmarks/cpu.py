"""CPU per event of every contender, at full speed: the matrix of sizes, peers, TLS, shards, workers and tags."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tests.benchmarks.contenders import Contender, Spec, Stage, Work, has_node_peers
from tests.benchmarks.regions import Regions
from tests.benchmarks.report import NAIVE, Section, median, ratio, spread
from tests.benchmarks.rounds import rounds

OURS = "worker, every guarantee"
UNORDERED = "worker, ordering: none"
SIGNED = "worker, signed tags"
FLOOR = "the same bytes only read and sent"
SDK = "Node AWS SDK v3 loop"
LAMBDA = "aws-lambda-stream, batch of 500"


def naive(work: Work) -> Spec:
    return Spec(NAIVE, "naive", work)


def worker(work: Work) -> Spec:
    return Spec(OURS, "worker", work)


def unordered(work: Work) -> Spec:
    return Spec(UNORDERED, "worker", work, link={"ordering": "none"})


def signed(work: Work) -> Spec:
    return Spec(SIGNED, "worker", work, is_signed=True)


def floor(work: Work) -> Spec:
    return Spec(FLOOR, "floor", work)


def sdk(work: Work) -> Spec:
    return Spec(SDK, "node", work)


def aws_lambda_stream(work: Work) -> Spec:
    return Spec(LAMBDA, "aws-lambda-stream", work)


OTHERS = (naive, sdk, aws_lambda_stream)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A row of the matrix: who does the same work."""

    title: str
    work: Work
    who: tuple[Callable[[Work], Spec], ...]


def run_specs(comparison: Comparison, scale: float) -> list[Spec]:
    """Who of them can run here, with so many times the events."""
    work = replace(comparison.work, events=round(comparison.work.events * scale))
    specs = [who(work) for who in comparison.who]
    return [spec for spec in specs if spec.kind in {"naive", "worker", "floor"} or has_node_peers()]


async def compare(regions: Regions, comparisons: Sequence[Comparison], *, count: int, scale: float) -> Section:
    """All of them interleaved, each against the naive loop that does the same work."""
    async with Stage(regions) as stage:
        groups = [(each.title, await stage.start(run_specs(each, scale))) for each in comparisons]
        await rounds(regions, [contender for _, contenders in groups for contender in contenders], count)
    rows = [row for title, contenders in groups for row in _rows(title, contenders)]
    columns = ("case", "contender", "CPU, us an event", "rounds", "naive / this", "events/s")
    figures = {title: {c.name: median(c.cpu_us) for c in contenders} for title, contenders in groups}
    data = {
        title: {c.name: {"cpu_us": c.cpu_us, "events_per_s": c.events_per_s} for c in group} for title, group in groups
    }
    title = f"CPU of the contender's process, medians of {count} rounds"
    return Section(title, columns, rows, data=data, bars=figures)


def _rows(title: str, contenders: Sequence[Contender]) -> list[tuple[str | float | None, ...]]:
    loop = next((median(c.cpu_us) for c in contenders if c.name == NAIVE), None)
    return [
        (
            title,
            c.name,
            median(c.cpu_us),
            spread(c.cpu_us),
            ratio(loop, median(c.cpu_us)),
            round(median(c.events_per_s)),
        )
        for c in contenders
    ]
