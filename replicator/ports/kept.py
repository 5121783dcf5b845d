"""What is kept beside the hubs, and how commands and replays read it: quarantines and lakes."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from replicator.core.lake import Archived
from replicator.core.model import (
    LinkName,
)
from replicator.core.quarantine_document import Document, Quarantined


class Quarantine(Protocol):
    """Where poison events are kept until they are redriven or dropped by a person."""

    async def put(self, event: Quarantined) -> bool | None:
        """Store durably; safe to repeat. Raises StoreUnavailable: the event is not done then.

        False when nothing was stored: it is there already and stays as it is.
        """
        ...

    async def hold(self, link: LinkName, key: str) -> None:
        """Mark the key durably: its later events are put away too; safe to repeat. Raises StoreUnavailable."""
        ...

    async def held(self, link: LinkName) -> frozenset[str]:
        """`core.quarantine_document.key_digest` of every key that is marked. Raises StoreUnavailable."""
        ...

    async def held_keys(self, link: LinkName) -> Sequence[str]:
        """The marked keys themselves, for people; reads every mark. Raises StoreUnavailable."""
        ...

    async def release(self, link: LinkName, key: str) -> bool:
        """Take the mark away; false when there was none. Raises StoreUnavailable."""
        ...


class Kept(Struct, frozen=True):
    """``total`` documents of a link, or more unless ``is_all``; ``newest``: as many as were asked for, newest first."""

    total: int
    newest: Sequence[Document]
    is_all: bool = True


class QuarantineReader(Protocol):
    """What people ask a quarantine. Every method raises StoreUnavailable."""

    async def kept(self, link: LinkName, newest: int) -> Kept:
        """Lists everything and reads as many documents as are asked for."""
        ...

    async def find(self, link: LinkName, document_id: str) -> Sequence[Document]:
        """Those whose id (`core.quarantine_document.document_id`) begins so; lists everything."""
        ...

    async def names(self, link: LinkName) -> Sequence[str]:
        """What `load` and `remove` know the documents of a link by; lists everything."""
        ...

    async def load(self, name: str) -> Document: ...

    async def remove(self, name: str) -> None:
        """Safe to repeat."""
        ...


class LakeReader(Protocol):
    """What a replay asks a lake. Every method raises StoreUnavailable, for an object that is damaged too."""

    async def names(self, prefix: str) -> Sequence[str]:
        """Of all objects that begin so; without what all names of the lake begin with."""
        ...

    async def events(self, name: str) -> Sequence[Archived]:
        """Of one object, in its order, whatever format it is stored in."""
        ...
