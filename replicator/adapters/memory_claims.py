"""Claims in memory: the twin of the Redis store for simulation and tests, passing the same contract suite."""

from collections.abc import Callable, Collection

from msgspec import Struct

from replicator.core.model import SequenceNumber
from replicator.errors import ClaimsLost, Fenced
from replicator.ports import CLAIM_BYTES, DIGEST_BYTES, ClaimScope, ClaimSession


class _State(Struct):
    incarnation: str
    epoch: int
    batch: int = 0
    watermark: SequenceNumber = SequenceNumber(0)
    open: dict[int, tuple[bytes, bytes]] = {}
    done: dict[bytes, int] = {}
    """Digest, and digest with check, to the time in ms it was settled."""


class MemoryClaims:
    """Implements `ports.ClaimStore`. ``now_ms`` is the store's own clock."""

    def __init__(self, now_ms: Callable[[], int], window_s: float = 3600.0) -> None:
        self._now_ms = now_ms
        self._window_ms = int(window_s * 1000)
        self._scopes: dict[ClaimScope, _State] = {}
        self._incarnations = 0

    def flush(self) -> None:
        """Lose everything, as a restarted store without persistence does."""
        self._scopes.clear()

    async def attach(self, scope: ClaimScope, epoch: int) -> ClaimSession:
        state = self._scopes.get(scope)
        is_new = state is None
        if state is None:
            self._incarnations += 1
            state = self._scopes[scope] = _State(f"memory-{self._incarnations}", epoch)
        if epoch < state.epoch:
            raise Fenced(f"claims of {scope.link} on {scope.shard} are held under epoch {state.epoch}")
        open_batches = len(state.open)
        state.open.clear()
        state.epoch = epoch
        return ClaimSession(scope, epoch, state.incarnation, state.batch, open_batches, state.watermark, is_new)

    async def claim(self, session: ClaimSession, batch: int, claims: bytes) -> bytes:
        state = self._held(session)
        if batch == state.batch and batch in state.open and state.open[batch][0] == claims:
            return state.open[batch][1]
        if batch != state.batch + 1:
            raise ClaimsLost(f"the batch counter stands at {state.batch}")
        verdicts = bytes(self._verdict(state, claim) for claim in _claims(claims))
        state.open[batch] = (claims, verdicts)
        state.batch = batch
        return verdicts

    async def settle(
        self, session: ClaimSession, batch: int, undone: Collection[int], watermark: SequenceNumber
    ) -> None:
        state = self._held(session)
        if batch not in state.open:
            if state.batch >= batch:
                return
            raise ClaimsLost(f"the batch counter stands at {state.batch}")
        claims, verdicts = state.open.pop(batch)
        for index, claim in enumerate(_claims(claims)):
            if index not in undone and verdicts[index] != ord("d"):
                state.done.setdefault(claim[:DIGEST_BYTES], self._now_ms())
                state.done[claim] = self._now_ms()
        state.watermark = max(state.watermark, watermark)

    async def forget(self, session: ClaimSession) -> None:
        self._scopes.pop(session.scope, None)

    def _held(self, session: ClaimSession) -> _State:
        state = self._scopes.get(session.scope)
        if state is None or state.incarnation != session.store:
            raise ClaimsLost(f"claims of {session.scope.link} on {session.scope.shard} are lost; attach anew")
        if state.epoch > session.epoch:
            raise Fenced(f"claims of {session.scope.link} are held under epoch {state.epoch}")
        if state.epoch < session.epoch:
            raise ClaimsLost("the state is older than this session")
        return state

    def _verdict(self, state: _State, claim: bytes) -> int:
        if self._is_done(state, claim):
            return ord("d")
        return ord("c") if self._is_done(state, claim[:DIGEST_BYTES]) else ord("n")

    def _is_done(self, state: _State, key: bytes) -> bool:
        settled_ms = state.done.get(key)
        return settled_ms is not None and self._now_ms() - settled_ms <= self._window_ms


def _claims(claims: bytes) -> list[bytes]:
    return [claims[at : at + CLAIM_BYTES] for at in range(0, len(claims), CLAIM_BYTES)]
