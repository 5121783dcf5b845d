"""What the worker needs of the outside world, as Protocols. Adapters implement them, memory and real ones alike."""

from replicator.ports.events import (
    NOT_KEPT,
    Bodies,
    Cursor,
    Entry,
    Found,
    Page,
    Queue,
    QueueTroubles,
    Sink,
    SinkLimits,
    Source,
    SourceInfo,
)
from replicator.ports.kept import Kept, LakeReader, Quarantine, QuarantineReader
from replicator.ports.senses import Clock, Telemetry
from replicator.ports.state import ClaimScope, ClaimSession, ClaimStore, LeaseStore

__all__ = [
    "NOT_KEPT",
    "Bodies",
    "ClaimScope",
    "ClaimSession",
    "ClaimStore",
    "Clock",
    "Cursor",
    "Entry",
    "Found",
    "Kept",
    "LakeReader",
    "LeaseStore",
    "Page",
    "Quarantine",
    "QuarantineReader",
    "Queue",
    "QueueTroubles",
    "Sink",
    "SinkLimits",
    "Source",
    "SourceInfo",
    "Telemetry",
]
