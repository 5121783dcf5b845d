"""Whether what a worker relies on answers: the claim store, the quarantine, each peer.

It is told to the log when it changes and every so often while it lasts, to /status with the time it lasts, and to the
metrics as up or not. What is asked only when there is something to do says nothing new meanwhile; so /status also tells
when it was last tried.
"""

import asyncio
from collections.abc import Awaitable, Collection, Sequence
from typing import TypeVar

import structlog

from replicator.core.model import LinkName, SequenceNumber
from replicator.core.quarantine_document import Quarantined
from replicator.errors import StoreUnavailable
from replicator.ports import ClaimScope, ClaimSession, ClaimStore, Quarantine

logger = structlog.get_logger(__name__)
T = TypeVar("T")

TOLD_AGAIN_S = 60.0


class Condition:
    """Of one thing, which the log calls ``name``."""

    def __init__(self, name: str, **labels: str) -> None:
        self._unavailable, self._available = f"{name}.unavailable", f"{name}.available"
        self._labels = labels
        self.error = ""
        self._failing_since_s: float | None = None
        self._tried_s: float | None = None
        self._told_s = 0.0

    @property
    def is_up(self) -> bool:
        return self._failing_since_s is None

    def failed(self, error: str) -> None:
        now_s = self._tried_s = _now_s()
        self.error = error
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        elif now_s - self._told_s < TOLD_AGAIN_S:
            return
        self._told_s = now_s
        for_s = round(now_s - self._failing_since_s, 1)
        logger.error(self._unavailable, error=error, for_s=for_s, **self._labels)

    def succeeded(self) -> None:
        self._tried_s = _now_s()
        if self._failing_since_s is None:
            return
        logger.info(self._available, after_s=round(self._tried_s - self._failing_since_s, 1), **self._labels)
        self._failing_since_s, self.error = None, ""

    def status(self) -> dict[str, object]:
        """Times are ages in seconds, None for never."""
        return {
            "state": "unavailable" if self._failing_since_s is not None else "up" if self._tried_s else "not_asked_yet",
            "failing_for_s": _age_s(self._failing_since_s),
            "asked_s_ago": _age_s(self._tried_s),
            "error": self.error,
        }

    async def watch(self, call: Awaitable[T]) -> T:
        """The call's answer; one that is StoreUnavailable counts as a failure, any other as an answer."""
        try:
            result = await call
        except StoreUnavailable as exc:
            self.failed(str(exc))
            raise
        except asyncio.CancelledError:
            raise
        except Exception:
            self.succeeded()
            raise
        self.succeeded()
        return result


class WatchedClaims:
    """Implements `ports.ClaimStore`."""

    def __init__(self, store: ClaimStore) -> None:
        self._store = store
        self.condition = Condition("claims")

    async def attach(self, scope: ClaimScope, epoch: int, attempt: int = 0) -> ClaimSession:
        return await self.condition.watch(self._store.attach(scope, epoch, attempt))

    async def claim(self, session: ClaimSession, batch: int, claims: bytes) -> bytes:
        return await self.condition.watch(self._store.claim(session, batch, claims))

    async def settle(
        self,
        session: ClaimSession,
        batch: int,
        undone: Collection[int],
        watermark: SequenceNumber,
        *,
        number: int = 0,
        after: int = 0,
        may_wait: bool = False,
    ) -> None:
        await self.condition.watch(
            self._store.settle(session, batch, undone, watermark, number=number, after=after, may_wait=may_wait)
        )

    async def forget(self, session: ClaimSession) -> None:
        await self.condition.watch(self._store.forget(session))


class WatchedQuarantine:
    """Implements `ports.Quarantine`."""

    def __init__(self, quarantine: Quarantine) -> None:
        self._quarantine = quarantine
        self.condition = Condition("quarantine")

    async def put(self, event: Quarantined) -> bool | None:
        return await self.condition.watch(self._quarantine.put(event))

    async def hold(self, link: LinkName, key: str) -> None:
        await self.condition.watch(self._quarantine.hold(link, key))

    async def held(self, link: LinkName) -> frozenset[str]:
        return await self.condition.watch(self._quarantine.held(link))

    async def held_keys(self, link: LinkName) -> Sequence[str]:
        return await self.condition.watch(self._quarantine.held_keys(link))

    async def release(self, link: LinkName, key: str) -> bool:
        return await self.condition.watch(self._quarantine.release(link, key))


def _age_s(at_s: float | None) -> float | None:
    return None if at_s is None else round(_now_s() - at_s, 1)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
