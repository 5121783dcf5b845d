"""One listing of the lease rows for a whole fleet: what planning needs of every row, in a few bytes.

A worker of a large fleet does not read the lease table itself: one of them does, in turn, and posts what it saw. The
others read the post, hundreds of times smaller than the rows, because the checkpoints stay out, names stand in it once,
and equal columns lie together and are compressed.

Why it is safe to plan on: a listing only suggests moves, each of which is a conditional write on the row as listed. A
post that is old costs writes that fail. Of the checkpoints only the fact is kept that a link has finished a shard,
which never becomes untrue; a row that is taken comes back from the store in full.
"""

import zlib
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from replicator.core.model import Checkpoint, Lease, LinkName, ShardEnd, ShardId, SourceName

FORMAT = 1
BULLETIN_BYTES_MAX = 380_000
"""DynamoDB takes items of 400 KB at most, names and numbers included."""
LEVEL = 1
"""Of zlib: a higher one takes twice the time and saves two in a hundred."""


class Bulletin(Struct, frozen=True):
    """``number`` only grows; ``data`` is what `encode` made."""

    number: int
    data: bytes


class _Wire(Struct, array_like=True):
    """Rows by column. ``owners`` and ``wishes`` count from 1 in ``names``, 0 is nobody.

    ``parents`` and ``ended`` are by row number and stand for those few rows that have any.
    """

    v: int
    names: list[str]
    incarnations: list[str]
    shards: list[str]
    incarnation: list[int]
    owners: list[int]
    wishes: list[int]
    epochs: list[int]
    beats: list[int]
    parents: dict[int, list[str]]
    ended: dict[int, list[str]]


class _Version(Struct, array_like=True):
    v: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Wire)
_version_decoder = msgspec.msgpack.Decoder(_Version)


def encode(rows: Sequence[Lease]) -> bytes | None:
    """All rows of one source; None when they take more than `BULLETIN_BYTES_MAX`."""
    names, incarnations = _Names(), _Names()
    wire = _Wire(
        FORMAT,
        names.known,
        incarnations.known,
        [row.shard for row in rows],
        [incarnations.number(row.incarnation) for row in rows],
        [names.number(row.owner) for row in rows],
        [names.number(row.wanted_by) for row in rows],
        [row.epoch for row in rows],
        [row.beat for row in rows],
        {index: list(row.parents) for index, row in enumerate(rows) if row.parents},
        {index: ended for index, row in enumerate(rows) if (ended := _ended(row))},
    )
    data = zlib.compress(_encoder.encode(wire), LEVEL)
    return data if len(data) <= BULLETIN_BYTES_MAX else None


def decode(source: SourceName, data: bytes) -> list[Lease] | None:
    """The rows, of their checkpoints only those at a shard's end; None for a version that this one does not know."""
    raw = zlib.decompress(data)
    if _version_decoder.decode(raw).v != FORMAT:
        return None
    wire = _decoder.decode(raw)
    names: list[str | None] = [None, *wire.names]
    no_parents: tuple[ShardId, ...] = ()
    return [
        Lease(
            source,
            ShardId(shard),
            tuple(map(ShardId, wire.parents[index])) if index in wire.parents else no_parents,
            wire.incarnations[incarnation - 1],
            names[owner],
            epoch,
            beat,
            names[wish],
            {LinkName(link): Checkpoint(ShardEnd()) for link in wire.ended[index]} if index in wire.ended else {},
        )
        for index, (shard, incarnation, owner, wish, epoch, beat) in enumerate(
            zip(wire.shards, wire.incarnation, wire.owners, wire.wishes, wire.epochs, wire.beats, strict=True)
        )
    ]


def _ended(row: Lease) -> list[str]:
    return [link for link, checkpoint in row.checkpoints.items() if isinstance(checkpoint.position, ShardEnd)]


class _Names:
    """Numbers names from 1 in the order in which they come; nobody is 0."""

    def __init__(self) -> None:
        self.known: list[str] = []
        self._numbers: dict[str | None, int] = {None: 0}

    def number(self, name: str | None) -> int:
        found = self._numbers.get(name)
        if found is None:
            assert name is not None
            found = self._numbers[name] = len(self._numbers)
            self.known.append(name)
        return found
