"""The claim session of one channel, and what happens when the claim store is away.

``continue``: events go on without claims, at least once, counted; a lost owner is resolved by reading the sink back.
``pause``: nothing is published until the store answers again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from itertools import count
from typing import Literal, TypeAlias, TypeVar

import structlog

from replicator.core.claims import CHANGED, CLAIM_BYTES, NEW
from replicator.core.model import ClaimMark, SequenceNumber
from replicator.errors import ClaimsLost, StoreUnavailable
from replicator.ports import ClaimScope, ClaimSession, ClaimStore
from replicator.worker.link import Link

logger = structlog.get_logger(__name__)
T = TypeVar("T")
OnLoss: TypeAlias = Literal["continue", "pause"]

RETRY_S = 1.0
_attempts = count(1)
"""Of this process, so they grow for each owner."""


class Claiming:
    """Claims and settlements of one (link, shard), under one lease epoch. Every method may raise Fenced."""

    def __init__(self, store: ClaimStore, scope: ClaimScope, epoch: int, link: Link, on_loss: OnLoss) -> None:
        self._store = store
        self.scope = scope
        self.epoch = epoch
        self._link = link
        self._on_loss = on_loss
        self._batch = 0
        self._settled = 0
        self._answered = 0
        self._away_until_s = 0.0
        self.session: ClaimSession | None = None

    def mark(self, age_ms: int) -> ClaimMark | None:
        """The store's state as far as this session knows it, for marks of this age; None without a session."""
        session = self.session
        return None if session is None else ClaimMark(session.store, self._batch, self._answered, age_ms)

    async def attach(self) -> ClaimSession | None:
        """Open the session; None when the store is away and the link goes on without it."""
        self.session = await self._call(lambda: self._store.attach(self.scope, self.epoch, next(_attempts)))
        if self.session is not None:
            self._batch = self.session.batch
            self._answered = self.session.settled
            # Never a number again that was given before: a store may fall back, and forth to what it was.
            self._settled = max(self._settled, self._answered)
        return self.session

    async def claim(self, claims: Sequence[bytes]) -> tuple[int | None, bytes]:
        """(batch number, verdicts) as `ClaimStore.claim` gives them; (None, all ``n``) without a store."""
        batch, verdicts = await self._claim(b"".join(claims))
        self._link.count("claims_total", len(verdicts), state="unclaimed" if batch is None else "claimed")
        self._link.count("same_id_other_bytes_total", verdicts.count(CHANGED))
        return batch, verdicts

    async def _claim(self, claims: bytes) -> tuple[int | None, bytes]:
        unclaimed = bytes([NEW]) * (len(claims) // CLAIM_BYTES)
        session = self.session or await self.attach()
        if session is None:
            return None, unclaimed
        batch = self._batch + 1
        try:
            verdicts = await self._call(lambda: self._store.claim(session, batch, claims))
        except ClaimsLost as exc:
            self._lost(session, exc)
            return await self._claim(claims)
        if verdicts is None:
            return None, unclaimed
        self._batch = batch
        return batch, verdicts

    async def settle(
        self,
        session: ClaimSession | None,
        batch: int | None,
        undone: Collection[int],
        mark: SequenceNumber,
        *,
        may_wait: bool,
    ) -> bool:
        """Mark a batch done in the store, see `ClaimStore.settle`; false when that no longer knows it or is away.

        Attaching anew drops the claims of the session before, also where the store has not forgotten the scope.
        """
        if session is None or batch is None or session is not self.session:
            return False
        self._settled = number = self._settled + 1
        turn = (number, self._answered)
        try:
            done = await self._call(lambda: self._settle(session, batch, undone, mark, turn, may_wait=may_wait))
        except ClaimsLost as exc:
            self._lost(session, exc)
            return False
        if done is None or session is not self.session:
            return False
        self._answered = max(self._answered, number)
        return True

    async def _settle(
        self,
        session: ClaimSession,
        batch: int,
        undone: Collection[int],
        mark: SequenceNumber,
        turn: tuple[int, int],
        *,
        may_wait: bool,
    ) -> bool:
        number, after = turn
        await self._store.settle(session, batch, undone, mark, number=number, after=after, may_wait=may_wait)
        return True

    async def forget(self) -> None:
        """Drop the store's state of a shard that ended; what stays behind expires with the window."""
        session = self.session
        if session is not None:
            try:
                await self._store.forget(session)
            except (StoreUnavailable, ClaimsLost) as exc:
                logger.info("claims.forget_failed", link=self._link.name, error=str(exc))

    def _lost(self, session: ClaimSession, exc: ClaimsLost) -> None:
        """This owner knows what it did, so a lost store costs it only the window of event ids.

        What is told late of a session that was replaced meanwhile says nothing of the one there is now.
        """
        if session is not self.session:
            return
        logger.warning("claims.lost", link=self._link.name, shard=self.scope.shard, error=str(exc))
        self._link.count("claim_store_lost_total")
        self.session = None

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """The call's answer; None when the store is away and the link goes on without it."""
        loop = asyncio.get_running_loop()
        while True:
            if self._on_loss == "continue" and loop.time() < self._away_until_s:
                return None
            try:
                return await call()
            except StoreUnavailable:
                self._link.count("claim_store_unavailable_total")
                self._away_until_s = loop.time() + RETRY_S
            if self._on_loss == "continue":
                return None
            await asyncio.sleep(RETRY_S)


class Unclaimed(Claiming):
    """Where a repetition does no harm, nothing is claimed: every event is new, and the store is never asked."""

    async def attach(self) -> None:
        return None

    async def claim(self, claims: Sequence[bytes]) -> tuple[int | None, bytes]:
        return None, bytes([NEW]) * len(claims)
