"""Reading shards by iterators, as Kinesis and DynamoDB Streams both have them: what their errors say about a place.

An iterator expires; a new one at the same position goes on exactly there. A position that was trimmed away, or that is
none of the shard's, is lost; so is a shard that is no longer listed while its stream is.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

from replicator.aws.transport import ServiceError
from replicator.core.model import After, Position, Shard, ShardEnd, ShardId
from replicator.errors import Misconfigured, PositionLost, TransientError
from replicator.ports import Cursor, Page

NOT_FOUND = "ResourceNotFoundException"
TRIMMED = "TrimmedDataAccessException"
"""Of DynamoDB Streams; Kinesis passes over what was trimmed without a word."""

Reply = TypeVar("Reply")


class IteratorSource(ABC, Generic[Reply]):
    """`ports.Source` but for `describe`. What the vendor's own part calls raises TransientError, Misconfigured or
    ServiceError.

    ``name`` is what errors name, ``kind`` what it is: its name may be wrong. ``stale`` are the codes for an iterator of
    no more use.
    """

    def __init__(self, *, name: str, kind: str, stale: frozenset[str]) -> None:
        self._name = name
        self._kind = kind
        self._stale = stale

    @abstractmethod
    async def _listed(self) -> Sequence[Shard]: ...

    @abstractmethod
    async def _iterator(self, shard: ShardId, position: Position) -> str: ...

    @abstractmethod
    async def _get_records(self, token: str, limit: int) -> Reply: ...

    @abstractmethod
    def _page(self, cursor: Cursor, reply: Reply) -> Page:
        """May raise what a reply that makes no sense leads to: ValueError, KeyError, OverflowError, DecodeError."""

    async def shards(self) -> Sequence[Shard]:
        try:
            return await self._listed()
        except ServiceError as exc:
            raise self._not_served(exc) from exc

    async def open(self, shard: ShardId, position: Position) -> Cursor:
        if isinstance(position, ShardEnd):
            return Cursor(shard, position, "")
        try:
            return Cursor(shard, position, await self._iterator(shard, position))
        except ServiceError as exc:
            if isinstance(position, After):
                message = f"{self._name}/{shard} has no position {position}: {exc}"
                raise PositionLost(message, is_trimmed=exc.code == TRIMMED) from exc
            # A time ahead of the service's clock is refused; it will be in the past soon.
            raise TransientError(f"{self._name}/{shard}: {exc}", code=exc.code) from exc
        except Misconfigured as exc:
            await self._raise_if_gone(shard, exc)
            raise

    async def read(self, cursor: Cursor, records_max: int) -> Page:
        if isinstance(cursor.position, ShardEnd):
            return Page((), None, 0)
        try:
            reply = await self._get_records(cursor.token, records_max)
        except ServiceError as exc:
            self._raise_if_trimmed(cursor, exc)
            if exc.code not in self._stale:
                raise self._not_served(exc) from exc
            reply = await self._renewed(cursor, records_max)
        except Misconfigured as exc:
            await self._raise_if_gone(cursor.shard, exc)
            raise
        try:
            return self._page(cursor, reply)
        except (msgspec.DecodeError, ValueError, KeyError, OverflowError) as exc:  # base64's error is a ValueError
            raise TransientError(f"an answer of {self._name} can't be read: {exc}", code="bad_reply") from exc

    async def _renewed(self, cursor: Cursor, records_max: int) -> Reply:
        fresh = await self.open(cursor.shard, cursor.position)
        try:
            return await self._get_records(fresh.token, records_max)
        except ServiceError as exc:
            self._raise_if_trimmed(cursor, exc)
            message = f"{self._name}: a new iterator is refused: {exc}"
            raise TransientError(message, code=exc.code) from exc

    def _raise_if_trimmed(self, cursor: Cursor, exc: ServiceError) -> None:
        if exc.code == TRIMMED:
            raise PositionLost(f"{self._name}/{cursor.shard}: {exc}", is_trimmed=True) from exc

    async def _raise_if_gone(self, shard: ShardId, exc: Misconfigured) -> None:
        """A shard whose last record was trimmed is not found, and neither is a stream: only the first is lost."""
        if exc.code == NOT_FOUND and all(listed.id != shard for listed in await self.shards()):
            raise PositionLost(f"{self._name} no longer has the shard {shard}") from exc

    def _not_served(self, exc: ServiceError) -> Misconfigured:
        return Misconfigured(f"{self._name}: {exc}; check the {self._kind}'s name", code=exc.code)
