"""The parts that are measured: every source into its region's hub, and every sink from a hub."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.benchmarks.part_ends import (
    CHANGES,
    PEER,
    Bus,
    Ends,
    Ground,
    Lake,
    Queue,
    Table,
    fill_cdc,
    fill_changes,
    lake_bucket,
)
from tests.benchmarks.regions import HOME

Config = Mapping[str, object]
ALONE = {"kind": "mesh", "regions": [PEER]}
"""Home is no part of it and sends to nobody: its hub is read for the lake at most."""


@dataclass(frozen=True, slots=True)
class Part:
    """``batch``: what one request of AWS brings or takes at most. ``config`` gives sources and sinks by the name of the
    hub's stream, ``ends`` makes what they read and write."""

    name: str
    batch: str
    events: int
    config: Callable[[str], Config]
    ends: Callable[[Ground], Ends]


def _from(source: Callable[[str], Config]) -> Callable[[str], Config]:
    """A source into its region's hub, and nothing further."""

    def config(name: str) -> Config:
        sources = {"source": {**source(name), "sink": "hub"}, "orders": {**_hub(name), "sink": "hub"}}
        return {"topology": ALONE, "sources": sources, "sinks": {"hub": _stream(name)}}

    return config


def _to(sink: Callable[[str], Config]) -> Callable[[str], Config]:
    """From a hub into a sink of a peer."""

    def config(name: str) -> Config:
        return {"sources": {"orders": {**_hub(name), "sink": "peer"}}, "sinks": {"peer": sink(name)}}

    return config


def _stream(name: str) -> Config:
    return {"kind": "kinesis", "stream": name}


def _hub(name: str) -> Config:
    return {"kind": "kinesis", "stream": name, "start": "trim_horizon"}


# --- sources -------------------------------------------------------------------------------------------------------


def _changes(name: str) -> Config:
    return {"kind": "dynamodb", "table": name, "start": "trim_horizon"}


def _of_table(ground: Ground) -> Ends:
    return Ends(Table(ground, HOME).put, ground.at_home)


def _cdc(format_name: str, events: int) -> Part:
    def source(name: str) -> Config:
        return {"kind": "cdc", "stream": f"{name}-cdc", "format": format_name, "start": "trim_horizon"}

    def ends(ground: Ground) -> Ends:
        return Ends(fill_cdc(ground, format_name, f"{ground.name}-cdc"), ground.at_home)

    return Part(f"cdc, {format_name}, to its hub", "10,000 records", events, _from(source), ends)


def _queue(ending: str = "", envelope: str = "none") -> Callable[[str], Config]:
    # wait_s: moto counts the whole wait of a long poll against all others.
    return lambda name: {"kind": "sqs", "queue": f"{name}{ending}", "wait_s": 0, "envelope": envelope}


def _of_queue(ending: str = "") -> Callable[[Ground], Ends]:
    def ends(ground: Ground) -> Ends:
        queue = Queue(ground, HOME, f"{ground.name}{ending}")
        return Ends(queue.put, ground.at_home, queue.held)

    return ends


def _of_bus(ground: Ground) -> Ends:
    queue = Queue(ground, HOME, ground.name)
    return Ends(Bus(ground, HOME, queue).put, ground.at_home, queue.held)


# --- sinks ---------------------------------------------------------------------------------------------------------


def _to_stream(ground: Ground) -> Ends:
    return Ends(ground.put, ground.at_peer)


def _to_queue(ending: str = "") -> Callable[[Ground], Ends]:
    return lambda ground: Ends(ground.put, Queue(ground, PEER, f"{ground.name}{ending}").held)


def _to_bus(ground: Ground) -> Ends:
    queue = Queue(ground, PEER, ground.name)
    Bus(ground, PEER, queue)
    return Ends(ground.put, queue.held)


def _table(name: str) -> Config:
    changes = {
        **_changes(name),
        "regions": [PEER],  # so that the home region's worker has nothing else to do
        "mode": "raw",
        "written_here": "stamp",
        "write_id_attribute": "version",
        "hard_deletes": "local",
        "ttl_deletes": "ignore",
        "sink": "hub",
    }
    sinks = {
        "hub": _stream(name),
        "peer": {"kind": "dynamodb", "table": name, "changes_of": CHANGES},
    }
    return {"sources": {CHANGES: changes, "orders": {**_hub(name), "sink": "peer"}}, "sinks": sinks}


def _to_table(ground: Ground) -> Ends:
    return Ends(fill_changes(ground), Table(ground, PEER).count)


def _lake(name: str) -> Config:
    buckets = {region: lake_bucket(name, region) for region in (HOME, PEER)}
    return {
        "topology": ALONE,
        "sources": {"orders": {**_hub(name), "sink": "hub", "lake": "lake"}},
        "sinks": {
            "hub": _stream(name),
            "lake": {"kind": "s3", "bucket": name, "buckets": buckets, "linger_s": 1},
        },
    }


def _to_lake(ground: Ground) -> Ends:
    return Ends(ground.put, Lake(ground, HOME).count)


YARDSTICK = Part(
    "hub to kinesis (the yardstick)",
    "500 records, 5 MiB",
    20_000,
    _to(_stream),
    _to_stream,
)
SOURCES = (
    Part("dynamodb, a table's changes, to its hub", "1,000 records", 3_000, _from(_changes), _of_table),
    _cdc("dynamodb", 10_000),
    _cdc("dms", 10_000),
    _cdc("debezium", 10_000),
    Part("sqs, standard, to its hub", "10 messages", 1_000, _from(_queue()), _of_queue()),
    Part("sqs, FIFO, to its hub", "10 messages", 1_000, _from(_queue(".fifo")), _of_queue(".fifo")),
    Part("sqs, a bus's rule, to its hub", "10 messages", 1_000, _from(_queue("", "eventbridge")), _of_bus),
)
SINKS = (
    Part("hub to sqs, standard", "10 messages", 1_500, _to(lambda name: {"kind": "sqs", "queue": name}), _to_queue()),
    Part(
        "hub to sqs, FIFO",
        "10 messages",
        1_500,
        _to(lambda name: {"kind": "sqs", "queue": f"{name}.fifo"}),
        _to_queue(".fifo"),
    ),
    Part("hub to eventbridge", "10 entries", 1_500, _to(lambda name: {"kind": "eventbridge", "bus": name}), _to_bus),
    Part("hub to a dynamodb table", "1 item, with its condition", 1_500, _table, _to_table),
    Part("hub to its lake in s3", "5,000 events of ours", 20_000, _lake, _to_lake),
)
PARTS = (YARDSTICK, *SOURCES, *SINKS)
