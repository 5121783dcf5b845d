"""The configuration file of the embedded environment: one for all regions, endpoints by variables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from replicator.dev.workload_table import TABLE

REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-2")
LEASE_TABLE = "replicator-leases"
SOURCE = "orders"
TABLE_SOURCE = "orders-table"
STOCK = "stock"
QUEUE_SOURCES = {"orders-queue": "orders", "orders-fifo": "orders.fifo", "orders-bus": "orders-from-bus"}
"""Sources and the queues they read; the last is filled by a rule of the bus `BUS`."""
BUS = "orders"
CDC_FORMATS = ("dynamodb", "dms", "debezium")
POISON_QUEUE = "orders-poison"
OUTLET_FIFO, OUTLET_QUEUE, OUTLET_BUS = "orders-replicas.fifo", "orders-replicas-queue", "orders-replicas"


@dataclass(frozen=True, slots=True)
class Layout:
    """What an environment consists of. In a ``hub`` topology the first region is the hub.

    ``rate_factor`` multiplies AWS's rates per shard, which one machine's load would meet all the time.
    ``in_doubt``, ``aggregate`` and the times in seconds go into the configuration.
    """

    regions: Sequence[str] = REGIONS
    workers: int = 2
    shards: int = 2
    topology: Literal["mesh", "hub", "chain"] = "mesh"
    stream: str = "orders-hub"
    rate_factor: float = 20.0
    lease_s: float = 5.0
    renew_s: float = 1.0
    in_doubt: Literal["verify", "resend"] = "verify"
    in_doubt_wait_s: float | None = 2.0
    request_lifetime_s: float = 30.0
    clock_margin_s: float = 10.0
    aggregate: Literal["none", "kpl"] = "none"
    on_loss: Literal["continue", "pause"] = "continue"
    drain_s: float = 10.0
    table: Literal["none", "image", "outbox", "kept_equal"] = "none"
    """Whether every region has a table whose changes go to its hub, and how they are told; ``kept_equal``: as they
    are, and from the hub into the tables of the other regions."""
    queue: bool = False
    """Whether every region has queues whose messages go to its hub: standard, FIFO, and one behind a bus."""
    cdc: bool = False
    """Whether every region has streams of change records, named as `CDC_FORMATS`, that go to its hub. With ``table:
    kept_equal`` those of format dynamodb go from there into the table `STOCK` of the other regions."""
    outlets: bool = False
    """Whether the hubs' events go to two queues, FIFO and standard, and a bus of every other region as well."""
    lake: bool = False
    """Whether every region keeps its hub's events in a bucket, `lake_bucket`."""
    lake_format: Literal["ndjson", "parquet"] = "ndjson"
    continued: bool = False
    """Whether links read on in that lake where the hub has forgotten."""
    claim_check: bool = False
    """Whether the bodies of events of more than 2 KiB go to that bucket of the peer."""
    poison_queue: bool = False
    """Whether poison goes to the queue `POISON_QUEUE`, and what no message holds into the lake's bucket."""
    leaving: str = ""
    """Lines of ``link_defaults`` that say what may leave a region."""

    @property
    def has_stock(self) -> bool:
        """Whether change records of a stream are put into the table `STOCK` of the peers."""
        return self.cdc and self.table == "kept_equal"


def render_config(layout: Layout) -> str:
    """The YAML text; `config_variables` gives what its variables stand for."""
    return TEMPLATE.format(
        regions="".join(
            REGION.format(region=region, kinesis=_variable("KINESIS", region), aws=_variable("AWS", region))
            for region in layout.regions
        ),
        topology=_topology(layout),
        source=SOURCE,
        table=LEASE_TABLE,
        lake=_lake_keys(layout),
        lake_sink=_lake_sink(layout) if layout.lake else "",
        queue_sources=QUEUE_LINES if layout.queue else "",
        claim_check=CLAIM_CHECK.format(buckets=_buckets(layout)) if layout.claim_check else "",
        cdc_sources=_cdc_sources(layout) if layout.cdc else "",
        outlet_sources=OUTLET_SOURCES.format(layout=layout) if layout.outlets else "",
        outlet_sinks=OUTLET_SINKS if layout.outlets else "",
        table_source=_table_source(layout),
        table_sink=(TABLE_SINK if layout.table == "kept_equal" else "") + (STOCK_SINK if layout.has_stock else ""),
        # Written out, verify would be asked of queues and buses too.
        in_doubt="" if layout.in_doubt == "verify" else f"  in_doubt: {layout.in_doubt}\n",
        quarantine=TO_QUEUE if layout.poison_queue else TO_DIRECTORY,
        wait="null" if layout.in_doubt_wait_s is None else f"{layout.in_doubt_wait_s:g}",
        layout=layout,
    )


def config_variables(
    kinesis: Mapping[str, str], aws: Mapping[str, str], *, redis: str, quarantine: Path
) -> dict[str, str]:
    """A worker's variables: every region's Kinesis and the rest of its AWS, and the Valkey of its own, as URLs."""
    return {
        **{_variable("KINESIS", region): url for region, url in kinesis.items()},
        **{_variable("AWS", region): url for region, url in aws.items()},
        "REDIS_OF_THIS_REGION": redis,
        "QUARANTINE": str(quarantine),
    }


def lake_bucket(region: str) -> str:
    return f"orders-lake-{region}"


def _lake_keys(layout: Layout) -> str:
    return (", lake: lake" if layout.lake else "") + (", continue_from: lake" if layout.continued else "")


def _lake_sink(layout: Layout) -> str:
    settings = f"format: {layout.lake_format}, linger_s: 1, buckets: {_buckets(layout)}"
    return f"  lake: {{kind: s3, bucket: orders-lake, {settings}}}\n"


def _buckets(layout: Layout) -> str:
    return f"{{{', '.join(f'{region}: {lake_bucket(region)}' for region in layout.regions)}}}"


def _cdc_sources(layout: Layout) -> str:
    told = {"dynamodb": f", {STAMPED}"} if layout.has_stock else {}
    lines = [CDC_LINE.format(format=name, told=told.get(name, "")) for name in CDC_FORMATS]
    return "".join(lines) + (STOCK_SOURCE.format(layout=layout) if layout.has_stock else "")


def _table_source(layout: Layout) -> str:
    match layout.table:
        case "none":
            return ""
        case "kept_equal":
            return KEPT_EQUAL.format(layout=layout)
    return TABLE_LINE.format(name=TABLE_SOURCE, table=TABLE, mode=layout.table)


def _variable(service: str, region: str) -> str:
    return f"{service}_{region.upper().replace('-', '_')}"


def _topology(layout: Layout) -> str:
    match layout.topology:
        case "hub":
            return f"{{kind: hub, hub: {layout.regions[0]}}}"
        case "chain":
            return f"{{kind: chain, order: [{', '.join(layout.regions)}]}}"
        case "mesh":
            return "{kind: mesh}"


REGION = """\
  {region}:
    endpoints: {{kinesis: "${{{kinesis}}}", dynamodb: "${{{aws}}}", dynamodb_streams: "${{{aws}}}", sqs: "${{{aws}}}",
                events: "${{{aws}}}", s3: "${{{aws}}}"}}
"""

QUEUE_LINES = """\
  orders-queue: {kind: sqs, queue: orders, wait_s: 0, visibility_s: 10, partition_key_field: key, sink: hub}
  orders-fifo: {kind: sqs, queue: orders.fifo, wait_s: 0, visibility_s: 10, sink: hub}
  orders-bus:
    {kind: sqs, queue: orders-from-bus, envelope: eventbridge, wait_s: 0, visibility_s: 10,
     partition_key_field: detail.key, sink: hub}
"""

CDC_LINE = """\
  {format}: {{kind: cdc, stream: {format}, format: {format}, start: trim_horizon, sink: hub{told}}}
"""

STAMPED = """\
mode: raw, written_here: stamp, write_id_attribute: version,
     hard_deletes: local, ttl_deletes: ignore"""
"""How the changes of a table are told that sinks write."""

STOCK_SOURCE = f"""\
  stock-to-table: {{{{kind: kinesis, stream: {{layout.stream}}, start: trim_horizon, sink: {STOCK}}}}}
"""

STOCK_SINK = f"""\
  {STOCK}: {{kind: dynamodb, table: {STOCK}, changes_of: dynamodb}}
"""

OUTLET_SOURCES = """\
  orders-to-fifo: {{kind: kinesis, stream: {layout.stream}, start: trim_horizon, sink: replicas-fifo}}
  orders-to-queue: {{kind: kinesis, stream: {layout.stream}, start: trim_horizon, sink: replicas-queue}}
  orders-to-bus: {{kind: kinesis, stream: {layout.stream}, start: trim_horizon, sink: replicas-bus}}
"""

OUTLET_SINKS = f"""\
  replicas-fifo: {{kind: sqs, queue: {OUTLET_FIFO}}}
  replicas-queue: {{kind: sqs, queue: {OUTLET_QUEUE}}}
  replicas-bus: {{kind: eventbridge, bus: {OUTLET_BUS}, detail_type: change}}
"""

CLAIM_CHECK = ", record_bytes_max: 2048, claim_check: {{bucket: orders-lake, buckets: {buckets}}}"

TABLE_LINE = """\
  {name}: {{kind: dynamodb, table: {table}, mode: {mode}, start: trim_horizon, sink: hub}}
"""

KEPT_EQUAL = f"""\
  {TABLE_SOURCE}:
    {{{{kind: dynamodb, table: {TABLE}, {STAMPED}, start: trim_horizon, sink: hub}}}}
  orders-to-table: {{{{kind: kinesis, stream: {{layout.stream}}, start: trim_horizon, sink: {TABLE_SOURCE}}}}}
"""

TO_DIRECTORY = '{directory: "${QUARANTINE}"}'
TO_QUEUE = f"{{queue: {POISON_QUEUE}, lake: lake}}"

TABLE_SINK = f"""\
  {TABLE_SOURCE}: {{kind: dynamodb, table: {TABLE}, changes_of: {TABLE_SOURCE}}}
"""

TEMPLATE = """\
# Made by the embedded environment; every worker gets the same file and other variables.
regions:
{regions}
topology: {topology}

sources:
  {source}: {{kind: kinesis, stream: {layout.stream}, format: json, start: trim_horizon, sink: hub{lake}}}
{table_source}{queue_sources}{cdc_sources}{outlet_sources}
sinks:
  hub: {{kind: kinesis, stream: {layout.stream}{claim_check}}}
{outlet_sinks}{table_sink}{lake_sink}
link_defaults:
  aggregate: {layout.aggregate}
{in_doubt}  request_lifetime_s: {layout.request_lifetime_s:g}
  # For as long as a request lives, one of a lost worker may still arrive. Here the environment has proof: it ended the
  # worker's process itself, and what the process had sent is on this machine's loopback, behind a proxy that resets its
  # connections when a region is cut off. So a short wait is enough; workers, who don't know of this, count possible
  # duplicates all the same.
  in_doubt_wait_s: {wait}
{layout.leaving}
redis: {{url: "${{REDIS_OF_THIS_REGION}}", timeout_s: 1, on_loss: {layout.on_loss}}}

# Short, so that takeovers can be watched.
leases: {{table: {table}, duration_s: {layout.lease_s:g}, renew_s: {layout.renew_s:g}}}

worker: {{http_port: 0, drain_s: {layout.drain_s:g}}}

quarantine: {quarantine}

# The endpoints of the environment allow {layout.rate_factor:g} times AWS's rates.
limits:
  {{reads_per_s: 10, idle_read_s: 0.3, backoff_max_s: 2, request_timeout_s: 5, read_back_interval_s: 0.1,
   clock_margin_s: {layout.clock_margin_s:g}}}
"""
