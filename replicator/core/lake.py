"""The event lake: how a hub's events stand in objects that anybody can read without us.

How it works: an object holds lines of JSON, one an event, in the order of one shard of the hub. A line has the event's
bytes as the hub has them, where they stand there, and the coordinates they were born with. A format says how lines are
stored: as they are, behind gzip, or as rows in columns. The name of an object says which events it holds, partitioned
by the region they were born in and the hour they arrived here.

Why it is safe to put again: a name has a digest of its lines, whatever their format, so under one name there are never
other events, whoever writes it and however late. Two owners may cut a run of events otherwise; then an event stands in
two objects, and whoever reads drops the second by its coordinates in the hub (incarnation, shard, sequence,
sub-sequence).
"""

import gzip
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import blake2b

import msgspec
from msgspec import UNSET, Struct, UnsetType

from replicator.core.model import Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.errors import StoreUnavailable

LAKE = Region("lake")
"""What stands for the peer in the name of a link into the lake; no region has this name."""
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
DIGEST_BYTES = 8
COMPRESSION = 6
INSTALL_PARQUET = "pip install 'region-replicator[parquet]'"
"""What brings the optional format to a machine."""


class Archived(Struct, frozen=True, gc=False):
    """An event as it stands in a hub. ``path`` is empty for one that was born there; ``at_ms``: when it arrived."""

    origin: Origin
    event_id: str
    path: tuple[Region, ...]
    at_ms: int
    incarnation: str
    shard: ShardId
    sequence: SequenceNumber
    sub_sequence: int
    partition_key: str
    data: bytes


class _Line(Struct, frozen=True, gc=False, omit_defaults=True):
    """The wire form. Sequence numbers are text: JSON's readers keep no 129 digits."""

    origin: tuple[Region, SourceName, str, ShardId, str, int]
    id: str
    path: tuple[Region, ...]
    at: int
    incarnation: str
    shard: ShardId
    seq: str
    key: str
    sub: int = 0
    data: str | UnsetType = UNSET
    data_base64: str | UnsetType = UNSET


class _Place(Struct, frozen=True, gc=False):
    """What of a line its object's name is made of."""

    origin: tuple[Region, SourceName, str, ShardId, str, int]
    at: int
    incarnation: str
    shard: ShardId
    seq: str


_encoder = msgspec.json.Encoder()
_lines = msgspec.json.Decoder(_Line)
_places = msgspec.json.Decoder(_Place)


def encode_line(event: Archived) -> bytes:
    """One line, its end included."""
    born = event.origin
    try:
        text: str | UnsetType = event.data.decode()
        in_base64: str | UnsetType = UNSET
    except UnicodeDecodeError:
        text, in_base64 = UNSET, b64encode(event.data).decode()
    line = _Line(
        (born.region, born.source, born.incarnation, born.shard, str(born.sequence), born.sub_sequence),
        event.event_id,
        event.path,
        event.at_ms,
        event.incarnation,
        event.shard,
        str(event.sequence),
        event.partition_key,
        event.sub_sequence,
        text,
        in_base64,
    )
    return _encoder.encode(line) + b"\n"


def decode_line(raw: bytes) -> Archived:
    """The reverse. Raises ValueError for what is no line of ours."""
    line = _lines.decode(raw)
    region, source, incarnation, shard, sequence, sub_sequence = line.origin
    return Archived(
        Origin(region, source, incarnation, shard, SequenceNumber(int(sequence)), sub_sequence),
        line.id,
        line.path,
        line.at,
        line.incarnation,
        line.shard,
        SequenceNumber(int(line.seq)),
        line.sub,
        line.key,
        _data(line),
    )


def _data(line: _Line) -> bytes:
    if line.data is not UNSET:
        return line.data.encode()
    if line.data_base64 is not UNSET:
        return b64decode(line.data_base64, validate=True)
    raise ValueError("the line has neither data nor data_base64")


class LakeFormat(Struct, frozen=True):
    """How lines are stored as an object, whose name ends in ``suffix``.

    ``pack`` takes at least one line; ``unpack`` gives the same ones again, and raises ValueError for what is none of
    ours, or cut short. Both may take a second for megabytes: not for the event loop.
    """

    suffix: str
    content_type: str
    pack: Callable[[Sequence[bytes]], bytes]
    unpack: Callable[[bytes], Sequence[bytes]]


def _gzip(lines: Sequence[bytes]) -> bytes:
    """The same for the same lines, byte for byte."""
    return gzip.compress(b"".join(lines), COMPRESSION, mtime=0)


def _gunzip(body: bytes) -> Sequence[bytes]:
    try:
        return gzip.decompress(body).splitlines(keepends=True)
    except (OSError, EOFError) as exc:
        raise ValueError(f"not gzip, or not all of it: {exc}") from exc


NDJSON = LakeFormat(".ndjson.gz", "application/gzip", _gzip, _gunzip)


class LakeObject(Struct, frozen=True):
    """``name`` is without the prefix that all objects of a lake share."""

    name: str
    lines: Sequence[bytes]
    format: LakeFormat = NDJSON

    def body(self) -> bytes:
        return self.format.pack(self.lines)


def objects_of(source: SourceName, lines: Iterable[bytes], lake_format: LakeFormat = NDJSON) -> list[LakeObject]:
    """The lines of one request as objects, each in the order given: by origin's region, hour of arrival and shard."""
    groups: dict[tuple[Region, int, str, ShardId], list[tuple[str, bytes]]] = {}
    for line in lines:
        place = _places.decode(line)
        group = (place.origin[0], place.at // HOUR_MS, place.incarnation, place.shard)
        groups.setdefault(group, []).append((place.seq, line))
    return [
        LakeObject(
            f"{hour_prefix(source, region, hour)}{incarnation}-{shard}-{_run_text(held)}{lake_format.suffix}",
            [line for _, line in held],
            lake_format,
        )
        for (region, hour, incarnation, shard), held in groups.items()
    ]


def _run_text(held: Sequence[tuple[str, bytes]]) -> str:
    digest = blake2b(b"".join(line for _, line in held), digest_size=DIGEST_BYTES).hexdigest()
    return f"{held[0][0]}-{held[-1][0]}-{digest}"


def origin_prefix(source: SourceName, region: Region) -> str:
    """What the names of all events of one origin's region begin with."""
    return f"{source}/origin={region}/"


def hour_prefix(source: SourceName, region: Region, hour: int) -> str:
    """Of one hour, counted from 1970."""
    return f"{origin_prefix(source, region)}{_hour(hour)}/"


def events_of(body: bytes, lake_format: LakeFormat = NDJSON) -> Iterator[Archived]:
    """The events of an object, in its order. Raises ValueError when it is none of ours, or cut short."""
    return map(decode_line, lake_format.unpack(body))


def events_in(name: str, body: bytes, formats: Iterable[LakeFormat]) -> list[Archived]:
    """The events of the object of this name. ``formats``: which there may be beside NDJSON.

    Raises StoreUnavailable for what is damaged.
    """
    lake_format = next((each for each in formats if name.endswith(each.suffix)), NDJSON)
    try:
        return list(events_of(body, lake_format))
    except ValueError as exc:
        raise StoreUnavailable(f"lake object {name} can't be read: {exc}", code="bad_object") from exc


class Run(Struct, frozen=True, order=True):
    """The events of one object as its name tells: of one shard, from ``first`` to ``last``, others left out."""

    incarnation: str
    shard: ShardId
    first: SequenceNumber
    last: SequenceNumber
    name: str


def run_of(name: str) -> Run | None:
    """None for the name of something else."""
    try:
        place, first, last, _ = name.rpartition("/")[2].rsplit("-", 3)
        incarnation, shard = place.split("-", 1)
        return Run(incarnation, ShardId(shard), SequenceNumber(int(first)), SequenceNumber(int(last)), name)
    except ValueError:
        return None


def day_prefixes(source: SourceName, region: Region, since_ms: int, until_ms: int) -> list[str]:
    """What the names of events that arrived within these days begin with; the bounds' own days included."""
    days = range(since_ms // DAY_MS, until_ms // DAY_MS + 1)
    return [f"{origin_prefix(source, region)}{_day(day)}/" for day in days]


def is_within(name: str, since_ms: int, until_ms: int) -> bool:
    """Whether the object's hour is one of these, the bounds' own hours included."""
    day, hour = name.split("/")[-3:-1]
    return _hour(since_ms // HOUR_MS) <= f"{day}/{hour}" <= _hour(until_ms // HOUR_MS)


def _day(day: int) -> str:
    return f"date={datetime.fromtimestamp(day * DAY_MS / 1000, UTC):%Y-%m-%d}"


def _hour(hour: int) -> str:
    return f"{_day(hour // 24)}/hour={hour % 24:02}"
