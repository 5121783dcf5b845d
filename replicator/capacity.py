"""What `replicator capacity` shows: what each region needs for a load, what bends first, and what it costs a month."""

from collections.abc import Iterator, Sequence

import msgspec
from rich.console import Console
from rich.table import Table

from replicator.config import Config
from replicator.config_sources import KinesisSourceConfig
from replicator.core.capacity import Figures, Load, Need, Prices, need
from replicator.core.leasing import LeaseSettings
from replicator.core.model import Region

LIMITS_SHOWN = 5
NOTE = (
    "Reckoned from measured and assumed figures with list prices of us-east-1, not measured on AWS; check the prices. "
    "The figures and where they are from: ARCHITECTURE.md, Capacity."
)


def load_of(config: Config, region: Region, *, rate: float, size: int, shards: int | None) -> Load:
    """The load together with what the configuration says about it in one region."""
    leases = config.leases
    return Load(
        rate=rate,
        size=size,
        sources=sum(isinstance(source, KinesisSourceConfig) for source in config.sources.values()),
        shards=shards,
        window_s=config.redis_in(region).window_s,
        reads_per_s=config.limits.reads_per_s,
        leases=LeaseSettings(leases.duration_s, leases.renew_s, read_units_per_s=leases.read_units_per_s),
    )


def needs(
    config: Config, *, rate: float, size: int, shards: int | None, figures: Figures
) -> Iterator[tuple[Region, Need]]:
    """By region, for the newest generation. Raises ConfigError (TopologyError)."""
    topologies = config.topologies()
    paths = topologies.generation(topologies.newest).paths
    for region in config.region_names:
        load = load_of(config, region, rate=rate, size=size, shards=shards)
        yield region, need(region, paths, load, figures, Prices())


def capacity_document(
    config: Config, *, rate: float, size: int, shards: int | None, figures: Figures
) -> dict[str, object]:
    """As plain data."""
    regions = {
        region: {
            **msgspec.to_builtins(found),
            "limits": [{**msgspec.to_builtins(limit), "share": limit.share} for limit in found.limits],
        }
        for region, found in needs(config, rate=rate, size=size, shards=shards, figures=figures)
    }
    return {
        "rate": rate,
        "size": size,
        "regions": regions,
        "figures": msgspec.to_builtins(figures),
        "prices": msgspec.to_builtins(Prices()),
        "note": NOTE,
    }


def print_capacity(
    config: Config, console: Console, *, rate: float, size: int, shards: int | None, figures: Figures
) -> None:
    """The same for people; regions that need the same are shown once."""
    alike: dict[str, tuple[Need, list[Region]]] = {}
    for region, found in needs(config, rate=rate, size=size, shards=shards, figures=figures):
        alike.setdefault(repr(found), (found, []))[1].append(region)
    console.print(f"{rate:,.0f} events/s of {size:,} bytes from producers to each source in each region")
    for found, regions in alike.values():
        names = f"Each of {', '.join(regions)} needs" if len(regions) > 1 else f"{regions[0]} needs"
        console.print(_needs_table(found, names))
        console.print(_limits_table(found))
        console.print(_money_table(found, len(regions)))
    console.print(NOTE)


def _needs_table(found: Need, title: str) -> Table:
    redis = f"{found.redis_cores:.1f} cores busy, {_count(found.redis_nodes, 'node')}"
    rows = [
        ("events/s written by producers", f"{found.written:,.0f}", ""),
        ("events/s arriving from peers", f"{found.arriving:,.0f}", "workers read these as well"),
        (
            "events/s forwarded, all links together",
            f"{found.forwarded:,.0f}",
            f"{_count(found.links, 'link')} a source",
        ),
        ("shards of each hub stream", f"{found.shards:,}", f"{found.hub_bytes / 1e6:,.1f} MB/s in all"),
        ("worker tasks of one core", f"{found.tasks:,}", f"{found.cores:.1f} cores busy"),
        ("Kinesis requests/s", f"{found.requests:,.0f}", "fewer and fuller with a lower limits.reads_per_s"),
        (
            "Redis memory",
            _bytes(found.redis_bytes),
            redis,
        ),
        ("Redis calls/s", f"{found.redis_calls:,.0f}", "two for each batch of a link and shard, at most 500 events"),
        (
            "lease table, write units/s",
            f"{found.lease_write_units:,.0f}",
            f"for each source; rows of {found.lease_row_bytes:,} bytes",
        ),
        ("lease table, read units/s", f"{found.lease_read_units:,.0f}", f"for each source; {_listing(found)}"),
        ("sent to peers", f"{_bytes(found.sent_bytes)}/s", "tag, base64 and request framing included"),
    ]
    return _table(title, ("", "", "of which"), rows)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _listing(found: Need) -> str:
    read = "one worker reads for all" if found.is_listing_shared else "each worker reads"
    return f"{read} every {found.lease_period_s:.1f} s"


def _limits_table(found: Need) -> Table:
    rows = [
        (f"{limit.share:.0%}", limit.name, f"{limit.need:,.0f} of {limit.limit:,.0f}", limit.remedy)
        for limit in found.limits[:LIMITS_SHOWN]
    ]
    return _table("What bends first", ("reached", "limit", "", "what helps"), rows)


def _money_table(found: Need, regions: int) -> Table:
    rows = [(what, f"{dollars:,.0f}") for what, dollars in found.dollars.items()]
    rows.append(("together", f"{sum(found.dollars.values()):,.0f}"))
    return _table("US dollars a month" + (", each region" if regions > 1 else ""), ("", ""), rows)


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    return table


def _bytes(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:,.1f} kB"
