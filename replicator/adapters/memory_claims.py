"""Claims in memory: the twin of the Redis store for simulation and tests, passing the same contract suite."""

from collections.abc import Callable, Collection

from replicator.core import claims as rules
from replicator.core.claims import ClaimState
from replicator.core.model import SequenceNumber
from replicator.ports import ClaimScope, ClaimSession


class MemoryClaims:
    """Implements `ports.ClaimStore` by `core.claims`. ``now_ms`` is the store's own clock."""

    def __init__(self, now_ms: Callable[[], int], window_s: float = 3600.0) -> None:
        self._now_ms = now_ms
        self._window_ms = int(window_s * 1000)
        self._scopes: dict[ClaimScope, ClaimState] = {}
        self._incarnations = 0

    def flush(self) -> None:
        """Lose everything, as a restarted store without persistence does."""
        self._scopes.clear()

    async def attach(self, scope: ClaimScope, epoch: int, attempt: int = 0) -> ClaimSession:
        state = self._scopes.get(scope)
        is_new = state is None
        if state is None:
            self._incarnations += 1
            state = self._scopes[scope] = ClaimState(f"memory-{self._incarnations}", epoch)
        dropped = rules.attach(state, epoch, attempt)
        left_ms = rules.remembers_ms(state, self._now_ms(), self._window_ms)
        return ClaimSession(
            scope,
            epoch,
            state.incarnation,
            state.batch,
            dropped,
            state.watermark,
            is_new,
            left_ms,
            state.settled,
            attempt,
        )

    async def claim(self, session: ClaimSession, batch: int, claims: bytes) -> bytes:
        return rules.claim(self._held(session), batch, claims, self._now_ms(), self._window_ms)

    async def settle(
        self,
        session: ClaimSession,
        batch: int,
        undone: Collection[int],
        watermark: SequenceNumber,
        *,
        number: int = 0,
        after: int = 0,
        may_wait: bool = False,  # noqa: ARG002 - there is nothing to wait for
    ) -> None:
        rules.settle(self._held(session), batch, undone, watermark, self._now_ms(), number=number, after=after)

    async def forget(self, session: ClaimSession) -> None:
        self._scopes.pop(session.scope, None)

    def _held(self, session: ClaimSession) -> ClaimState:
        return rules.check_held(self._scopes.get(session.scope), session.store, session.epoch, session.attempt)
