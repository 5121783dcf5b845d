"""The words of the system as types: regions, records, origins, positions, checkpoints."""

from typing import NewType

from msgspec import Struct

Region = NewType("Region", str)
SourceName = NewType("SourceName", str)
LinkName = NewType("LinkName", str)
"""``<source>:<peer region>``, for example ``orders:eu-west-1``; ``orders:lake`` for the link into the lake."""
ShardId = NewType("ShardId", str)
EventId = NewType("EventId", str)
SequenceNumber = NewType("SequenceNumber", int)
"""Vendors write it as a decimal string of up to 129 digits; an int compares right, a float or plain text does not."""


class Origin(Struct, frozen=True, array_like=True, gc=False):
    """The immutable birth coordinates of an event. ``incarnation`` is the source's creation time in ms, as text."""

    region: Region
    source: SourceName
    incarnation: str
    shard: ShardId
    sequence: SequenceNumber
    sub_sequence: int = 0

    @property
    def key(self) -> str:
        """The coordinates as one line, unique over all regions and incarnations."""
        return "/".join(
            (
                self.region,
                self.source,
                self.incarnation,
                self.shard,
                str(self.sequence),
                str(self.sub_sequence),
            )
        )


def parse_origin(key: str) -> Origin:
    """The reverse of `Origin.key`; raises ValueError for anything else."""
    region, source, incarnation, shard, sequence, sub_sequence = key.split("/")
    return Origin(
        Region(region),
        SourceName(source),
        incarnation,
        ShardId(shard),
        SequenceNumber(int(sequence)),
        int(sub_sequence),
    )


class Record(Struct, frozen=True, gc=False):
    """One entry of a source shard, its bytes as they were stored. ``gc=False``: it can be in no cycle.

    ``number`` is its sequence number as the vendor writes it: few are ever compared, all are written into a tag.
    ``lasting`` is for what has another number whenever it comes: the sequence that stands in its place in the event's
    origin, or that origin whole.
    """

    data: bytes
    partition_key: str
    number: str
    arrival_ms: int
    sub_sequence: int = 0
    lasting: str | Origin = ""

    @property
    def sequence(self) -> SequenceNumber:
        return SequenceNumber(int(self.number))


class Shard(Struct, frozen=True):
    """A shard as the source lists it. ``parents`` are those it was split or merged from, still listed or not.

    ``hash_range`` is what keys it takes (`core.hash_range`), None where that is not known.
    """

    id: ShardId
    parents: tuple[ShardId, ...] = ()
    hash_range: tuple[int, int] | None = None


class TrimHorizon(Struct, frozen=True, tag="trim_horizon"):
    """The oldest record the source still has."""


class AtTimestamp(Struct, frozen=True, tag="at_timestamp"):
    """The first record that arrived at or after this time."""

    ms: int


class After(Struct, frozen=True, tag="after"):
    """The first record behind this sequence number."""

    sequence: SequenceNumber


class ShardEnd(Struct, frozen=True, tag="shard_end"):
    """Behind the last record of a closed shard: nothing is left to do."""


Position = TrimHorizon | AtTimestamp | After | ShardEnd


def position_text(position: Position) -> str:
    """A position as it is stored: ``trim_horizon``, ``at_timestamp:<ms>``, ``after:<sequence>``, ``shard_end``."""
    match position:
        case AtTimestamp(ms=ms):
            return f"at_timestamp:{ms}"
        case After(sequence=sequence):
            return f"after:{sequence}"
        case TrimHorizon():
            return "trim_horizon"
        case ShardEnd():
            return "shard_end"


def parse_position(text: str) -> Position:
    """The reverse of `position_text`; raises ValueError for anything else."""
    match text.split(":"):
        case ["trim_horizon"]:
            return TrimHorizon()
        case ["shard_end"]:
            return ShardEnd()
        case ["at_timestamp", ms]:
            return AtTimestamp(int(ms))
        case ["after", sequence]:
            return After(SequenceNumber(int(sequence)))
    raise ValueError(f"not a stored position: {text!r}")


class ClaimMark(Struct, frozen=True):
    """The state of the claim store at a graceful release: when it still stands, nothing is in doubt."""

    incarnation: str
    batch: int
    settled: int = 0
    """The number of the last settlement."""
    age_ms: int = 0
    """How old the oldest of the marks was, that the release relies on: the store forgets it so much before the last."""


class Lifetime(Struct, frozen=True):
    """An owner's word: no request made under this lease epoch, or before, is taken longer than ``ms`` after its
    dating."""

    ms: int
    epoch: int


class Checkpoint(Struct, frozen=True):
    """The durable watermark of one link on one shard.

    ``attempt_floor_ms``: no event behind ``position`` was attempted before this time (peer's clock); None while nothing
    was ever attempted. ``released`` is set by a graceful release only, and cleared by the next owner's first write.
    ``lifetime`` is None where nobody promised that requests end sooner than the sink takes any (`core.in_doubt`).
    """

    position: Position
    attempt_floor_ms: int | None = None
    released: ClaimMark | None = None
    lifetime: Lifetime | None = None


class Lease(Struct, frozen=True):
    """The right of ``owner`` to read one shard. ``epoch`` only grows; ``beat`` changes with every renewal."""

    source: SourceName
    shard: ShardId
    parents: tuple[ShardId, ...]
    incarnation: str
    owner: str | None
    epoch: int
    beat: int
    wanted_by: str | None
    """The worker that asks the owner for a graceful handover, or for whom a released shard is kept."""
    checkpoints: dict[LinkName, Checkpoint]
