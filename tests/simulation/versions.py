"""Workers of three format versions on the same documents, while regions are upgraded and rolled back.

``this`` is the code as it is. ``next`` writes what this one does not know: members in tags, in checkpoints and in lease
rows, and posts of another format. ``previous`` does not know how long requests live: it dates them for the whole
window, neither reads nor writes the lifetime, and keeps its claims under names of its own.

Lease rows are kept as the documents that `replicator.aws.lease_rows` makes for DynamoDB, so every read and every write
of a simulated worker goes through that format.
"""

import zlib
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from replicator.aws.lease_rows import Item, new_row, read_row, stored_checkpoint
from replicator.core.bulletin import Bulletin
from replicator.core.model import Checkpoint, Lease, LinkName, Shard

from .checker import TAG
from .kpl_reading import aggregate, texts_of

Version = Literal["previous", "this", "next"]
OTHER_BYTES = 200
"""More than what the next version adds to the tags of a record."""
_TAG_HEAD = b'"' + TAG.encode() + b'":{'


def written(checkpoints: Mapping[LinkName, Checkpoint], version: Version) -> dict[LinkName, Any]:
    """As documents, which a table in memory keeps in the place of checkpoints."""
    return {link: _document(checkpoint, version) for link, checkpoint in checkpoints.items()}


def _document(checkpoint: Checkpoint, version: Version) -> Item:
    stored = stored_checkpoint(checkpoint)
    if version == "previous":
        stored.pop("lifetime", None)
    if version == "next":
        stored |= {"hint": {"S": "of the next version"}, "more": {"M": {"floor": {"N": "1"}}}}
    return stored


def read(row: Lease, version: Version, more: Item) -> Lease:
    """A row of documents as a worker reads it. ``more``: members of the row that others wrote."""
    item: Item = new_row(row.source, Shard(row.shard, row.parents), row.incarnation) | more
    item |= {"epoch": {"N": str(row.epoch)}, "beat": {"N": str(row.beat)}}
    if row.owner is not None:
        item["owner"] = {"S": row.owner}
    if row.wanted_by is not None:
        item["wanted_by"] = {"S": row.wanted_by}
    item["checkpoints"] = {"M": {link: {"M": document} for link, document in row.checkpoints.items()}}
    lease = read_row("simulated", item)
    if version == "previous":
        known = {link: replace(checkpoint, lifetime=None) for link, checkpoint in lease.checkpoints.items()}
        return replace(lease, checkpoints=known)
    return lease


MORE_OF_A_ROW: Item = {"zone": {"S": "of the next version"}}


def posted(bulletin: Bulletin, version: Version) -> Bulletin:
    """As the version posts it."""
    return _with_format(bulletin, +1) if version == "next" else bulletin


def told(bulletin: Bulletin, version: Version) -> Bulletin:
    """As a worker finds it: the next version knows its own format, and this one not the next."""
    return _with_format(bulletin, -1) if version == "next" else bulletin


def _with_format(bulletin: Bulletin, change: int) -> Bulletin:
    fields = msgspec.msgpack.decode(zlib.decompress(bulletin.data), strict=False)
    fields[0] += change
    return Bulletin(bulletin.number, zlib.compress(msgspec.msgpack.encode(fields)))


def tagged(data: bytes, key: str, version: Version) -> bytes:
    """A record with the tags as the version writes them."""
    if version != "next":
        return data
    texts = [text.replace(_TAG_HEAD, _TAG_HEAD + b'"zone":"n",', 1) for text in texts_of(data)]
    return texts[0] if texts_of(data) == [data] else aggregate(key, texts)
