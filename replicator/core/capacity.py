"""What a region needs for a load, and which limit is reached first: a spreadsheet as functions.

How it works: the routes give the events that pass each link; a hub holds what its producers write and what arrives from
the peers, and every worker reads all of that, forwards its own part and drops the rest. Everything else is figures
times rates. Figures say where they come from: *measured* here, *AWS* (their documents), or *assumed*.

What it does not know: skewed keys, peaks above the given rate, catching up after an outage. Fill and utilisation leave
room for them.
"""

from collections.abc import Mapping
from itertools import pairwise
from math import ceil

from msgspec import Struct
from msgspec.structs import replace

from replicator.core.lease_reading import LINK_BYTES, ROW_BYTES, SHARDS_A_WORKER, UNIT_BYTES, pace, posted_bytes
from replicator.core.lease_reading import listing_units as table_units
from replicator.core.leasing import LeaseSettings
from replicator.core.model import Region

Paths = Mapping[Region, Mapping[Region, tuple[Region, ...]]]
"""Of a topology's generation: by origin and region the way of the events."""

SECONDS_A_MONTH = 730 * 3600
PUT_UNIT_BYTES = 25 * 1024
RECORDS_A_BATCH = 500


BENCH_ONE_PEER_US, BENCH_THREE_PEERS_US, BENCH_TLS_US, BENCH_REDIS_US = 7.93, 11.5, 9.06, 11.1
"""CPU an event at 1 KB as the README's table of `make bench` has it: the worker's to one peer, to three, over TLS to
one; and Redis' own to one peer. The tests hold them against the README: after a new table, put its figures here."""
SLOWER = 1.6
"""Measured: so much longer everything took on the slowest machine of that kind, the naive loop 98 us in place of 63."""


class Figures(Struct, frozen=True):
    """What things cost and allow. Times are CPU microseconds on a core that is `SLOWER` than the README's machine."""

    read_us: float = 2.0
    """Measured at 1 KB: a replica that is read and not forwarded, as most events are where there are many regions."""
    first_link_us: float = SLOWER * BENCH_ONE_PEER_US
    """Measured by `make bench`: an event from reading to settling for one link."""
    next_link_us: float = SLOWER * (BENCH_THREE_PEERS_US - BENCH_ONE_PEER_US) / 2
    """Measured in the same way: another link of the same source."""
    tls_us: float = SLOWER * (BENCH_TLS_US - BENCH_ONE_PEER_US)
    """Measured in the same way: for each event and link, the reading of it included."""
    request_us: float = 200.0
    """Assumed: of a GetRecords or PutRecords whatever is in it; many shards and links make many small ones."""
    redis_call_us: float = 20.0
    """Assumed: Redis' own CPU for a call whatever is in it."""
    utilisation: float = 0.6
    """Assumed: how much of a core, of a worker or of Redis, is used when nothing is wrong."""
    fill: float = 0.8
    """Assumed: how much of a shard's write rate is used."""
    tag_bytes: int = 293
    """Measured: signed, on its first hop, with ids of 36 characters; unsigned 256; 12 to 18 more each hop."""
    request_entry_bytes: int = 66
    """Measured: of an entry of PutRecords around the event, which is base64; with a key of 36 characters."""
    reply_entry_bytes: int = 111
    """Measured: sequence number and shard of one event in PutRecords' reply."""
    redis_bytes: float = 40.0
    """Measured: 25 to 29 for each event and link in the window, with 500 to 3,000,000 of a shard in it."""
    redis_windows: float = 1.5
    """Generations of half a window are dropped as a whole: so much of it is kept at most."""
    redis_us: float = SLOWER * BENCH_REDIS_US
    """Measured by `make bench`: Redis' own CPU for each event and link. It grows with the window of a shard: on a
    quieter machine 8 with 20,000 events in it, 13 with 200,000, 24 with a million."""
    redis_node_bytes: float = 20e9
    """Assumed: what a node of 26 GB holds with room for replication."""
    redis_nodes_max: int = 90
    """AWS: shards of a cluster without a raised quota, one replica each."""
    shard_records_per_s: float = 1000.0
    """AWS: written to one shard."""
    shard_bytes_per_s: float = 1e6
    """AWS: written to one shard."""
    shard_read_bytes_per_s: float = 2e6
    """AWS: read from one shard, by all consumers without enhanced fan-out together."""
    shards_max: int = 20_000
    """AWS: quota of an account in us-east-1, us-west-2 and eu-west-1; 1,000 or 6,000 elsewhere. Raised on request."""
    partition_write_units_per_s: float = 1000.0
    """AWS: on one partition; the lease rows of a source begin on one. DynamoDB splits a hot one by sort key, though not
    at once."""
    descriptions_per_s: float = 20.0
    """AWS: DescribeStreamSummary of an account."""
    tasks_max: int = 5000
    """AWS: of one ECS service."""
    task_gb: float = 2.0
    """The Terraform module's default is one core with as much memory."""


class Prices(Struct, frozen=True):
    """US dollars, list prices of us-east-1 as public material had them in 2026. They change and differ: check them."""

    vcpu_hour: float = 0.03238
    """Fargate, Linux, ARM."""
    gb_hour: float = 0.00356
    shard_hour: float = 0.015
    million_put_units: float = 0.014
    million_write_units: float = 0.625
    million_read_units: float = 0.125
    redis_node_hour: float = 0.35
    """ElastiCache for Valkey, a node of 26 GB (r7g.xlarge)."""
    gb_between_regions: float = 0.02
    """From us-east-1; 0.01 to 0.15 elsewhere."""
    gb_through_nat: float = 0.045
    """Where workers have no public address: a NAT gateway takes this for all they send to peers."""


class Load(Struct, frozen=True):
    """``rate``: events a second that producers write to one source in one region; ``size`` of one in bytes."""

    rate: float
    size: int
    sources: int = 1
    shards: int | None = None
    """Of one source's stream; None: as many as the load needs."""
    window_s: float = 3600.0
    reads_per_s: float = 4.0
    """GetRecords a second and shard, of the 5 that AWS gives to all consumers together."""
    leases: LeaseSettings = LeaseSettings()


class Limit(Struct, frozen=True):
    """Something that ends somewhere. ``share`` above 1: the load does not fit."""

    name: str
    need: float
    limit: float
    remedy: str

    @property
    def share(self) -> float:
        return self.need / self.limit


class Need(Struct, frozen=True, kw_only=True):
    """What one region needs. Rates are per second and for all sources; ``shards`` and lease units for one source."""

    links: int
    written: float
    arriving: float
    forwarded: float
    hub_bytes: float
    shards: int
    cores: float
    tasks: int
    redis_bytes: float
    redis_cores: float
    redis_nodes: int
    requests: float
    redis_calls: float
    lease_row_bytes: int
    lease_write_units: float
    lease_read_units: float
    lease_period_s: float
    is_listing_shared: bool
    sent_bytes: float
    answered_bytes: float
    dollars: dict[str, float]
    """A month, by what it is for."""
    limits: tuple[Limit, ...]
    """The one that is reached first comes first."""


def link_rates(paths: Paths, rate: float) -> dict[tuple[Region, Region], float]:
    """Events a second on every link, when every region's producers write so many: each event passes a link once."""
    rates: dict[tuple[Region, Region], float] = {}
    for ways in paths.values():
        used = {hop for way in ways.values() for hop in pairwise(way)}
        for hop in used:
            rates[hop] = rates.get(hop, 0.0) + rate
    return rates


def need(region: Region, paths: Paths, load: Load, figures: Figures, prices: Prices) -> Need:
    """What ``region`` needs for the load on these routes."""
    rates = link_rates(paths, load.rate * load.sources)
    out = [rate for (here, _), rate in rates.items() if here == region]
    written, arriving = load.rate * load.sources, sum(rate for (_, to), rate in rates.items() if to == region)
    forwarded, replica_bytes = sum(out), load.size + figures.tag_bytes
    hub_bytes = written * load.size + arriving * replica_bytes
    shards = load.shards or _shards(written + arriving, hub_bytes, load, figures)
    reads = shards * load.sources * load.reads_per_s
    batches = max(forwarded / RECORDS_A_BATCH, min(forwarded, reads * len(out)))
    requests_us = (reads + batches) * figures.request_us
    cores = _cores(written + arriving, max(out, default=0.0), forwarded, figures) + requests_us / 1e6
    tasks = max(2, ceil(cores / figures.utilisation), ceil(shards * load.sources / SHARDS_A_WORKER))
    redis_bytes = forwarded * load.window_s * figures.redis_windows * figures.redis_bytes
    redis_cores = (forwarded * figures.redis_us + 2 * batches * figures.redis_call_us) / 1e6
    redis_nodes = max(
        1, ceil(redis_cores / figures.utilisation), ceil(redis_bytes / figures.redis_node_bytes) if forwarded else 1
    )
    row_bytes = ROW_BYTES + len(out) * LINK_BYTES
    reading = pace(shards, len(out), tasks, load.leases)
    posting = posted_bytes(shards) / 1024 / reading.period_s if reading.is_shared else 0.0
    wholly = Need(
        links=len(out),
        written=written,
        arriving=arriving,
        forwarded=forwarded,
        hub_bytes=hub_bytes,
        shards=shards,
        cores=cores,
        tasks=tasks,
        redis_bytes=redis_bytes,
        redis_cores=redis_cores,
        redis_nodes=redis_nodes,
        requests=reads + batches,
        redis_calls=2 * batches,
        lease_row_bytes=row_bytes,
        lease_write_units=shards / load.leases.renew_s * ceil(row_bytes / 1024) + posting,
        lease_read_units=_lease_reads(shards, len(out), tasks, load.leases),
        lease_period_s=reading.period_s,
        is_listing_shared=reading.is_shared,
        sent_bytes=forwarded * (replica_bytes * 4 / 3 + figures.request_entry_bytes),
        answered_bytes=arriving * figures.reply_entry_bytes,
        dollars={},
        limits=(),
    )
    return _with_limits(_with_money(wholly, load, replica_bytes, prices, figures), load, figures)


def _shards(events: float, hub_bytes: float, load: Load, figures: Figures) -> int:
    """Of one source: the greater of what its records and its bytes need."""
    records = events / figures.shard_records_per_s
    return max(1, ceil(max(records, hub_bytes / figures.shard_bytes_per_s) / load.sources / figures.fill))


def _cores(read: float, first: float, forwarded: float, figures: Figures) -> float:
    """``first``: events on the busiest link, each of which is prepared once for all links that take it."""
    dropped = max(0.0, read - first)
    us = dropped * figures.read_us + first * figures.first_link_us + (forwarded - first) * figures.next_link_us
    return (us + forwarded * figures.tls_us) / 1e6


def _lease_reads(shards: int, links: int, workers: int, settings: LeaseSettings) -> float:
    """Of one source, all workers together."""
    reading = pace(shards, links, workers, settings)
    table = table_units(shards, links)
    if not reading.is_shared:
        return workers * table / reading.period_s
    return (table + workers * posted_bytes(shards) / UNIT_BYTES / 2) / reading.period_s


def _with_money(need: Need, load: Load, replica_bytes: int, prices: Prices, figures: Figures) -> Need:
    put_units = need.arriving * ceil(replica_bytes / PUT_UNIT_BYTES)
    sent_gb = need.sent_bytes * SECONDS_A_MONTH / 1e9
    answered_gb = need.answered_bytes * SECONDS_A_MONTH / 1e9
    hours = SECONDS_A_MONTH / 3600
    dollars = {
        "workers": need.tasks * hours * (prices.vcpu_hour + figures.task_gb * prices.gb_hour),
        "hub shards": need.shards * load.sources * hours * prices.shard_hour,
        "writing replicas": put_units * SECONDS_A_MONTH / 1e6 * prices.million_put_units,
        "between regions": (sent_gb + answered_gb) * prices.gb_between_regions,
        "through NAT, if so": sent_gb * prices.gb_through_nat,
        "Redis, with a replica": 2 * need.redis_nodes * hours * prices.redis_node_hour,
        "lease table": load.sources
        * SECONDS_A_MONTH
        / 1e6
        * (need.lease_write_units * prices.million_write_units + need.lease_read_units * prices.million_read_units),
    }
    return replace(need, dollars=dollars)


def _with_limits(need: Need, load: Load, figures: Figures) -> Need:
    per_shard = load.sources * need.shards
    reading = pace(need.shards, need.links, need.tasks, load.leases)
    describing = need.tasks * load.sources / (reading.list_every * reading.period_s)
    wanted_renew_s = ceil(need.lease_write_units * load.leases.renew_s / figures.partition_write_units_per_s)
    is_too_often = need.lease_write_units > figures.partition_write_units_per_s
    longer = f"{wanted_renew_s} s at least" if is_too_often else "and duration_s with it"
    limits = [
        Limit(
            "lease table, writes to one partition",
            need.lease_write_units,
            figures.partition_write_units_per_s,
            f"a longer leases.renew_s, {longer}; takeovers wait longer then",
        ),
        Limit(
            "lease table, reads",
            need.lease_read_units,
            load.leases.read_units_per_s,
            "nothing is needed: workers read less often",
        ),
        Limit(
            "hub, records written to a shard",
            (need.written + need.arriving) / per_shard,
            figures.shard_records_per_s,
            "more shards, or aggregate: kpl where keys repeat",
        ),
        Limit("hub, bytes written to a shard", need.hub_bytes / per_shard, figures.shard_bytes_per_s, "more shards"),
        Limit(
            "hub, bytes read from a shard",
            need.hub_bytes / per_shard,
            figures.shard_read_bytes_per_s,
            "more shards; other consumers on enhanced fan-out",
        ),
        Limit(
            "hub, reads of a shard by workers",
            load.reads_per_s,
            5.0,
            "other consumers on enhanced fan-out, or a lower limits.reads_per_s",
        ),
        Limit("shards of the account", per_shard, figures.shards_max, "a raised quota, well before"),
        Limit(
            "Redis, nodes of a cluster",
            need.redis_nodes,
            figures.redis_nodes_max,
            "a shorter redis.window_s (memory), a raised quota (CPU), a redis of its own per deployment",
        ),
        Limit("tasks of the service", need.tasks, figures.tasks_max, "more than one service, by source"),
        Limit("DescribeStreamSummary of the account", describing, figures.descriptions_per_s, "a raised quota"),
    ]
    return replace(need, limits=tuple(sorted(limits, key=lambda limit: limit.share, reverse=True)))
