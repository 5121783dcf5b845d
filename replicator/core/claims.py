"""Claim transitions of one scope: absent -> claimed -> done, fenced by incarnation, lease epoch and batch counter.

How it works: a session is opened under a lease epoch. It claims events batch by batch; a verdict says what is known of
each. Settling a batch makes its events done and remembers them for a window of time; those left undone are absent
again. The Redis scripts do the same in Lua; the contract suite compares the two over random histories.

Why it is safe: *done* is written only by settling a batch that this very session claimed, so it is proof. *Absent* is
none: whoever finds less than it remembers (another incarnation, an older epoch, a lower number of a batch or of a
settlement) is told ``ClaimsLost`` and never starts anew by itself, and whoever finds a higher epoch is fenced. The
batch alone would not tell: a store that falls back to between a claim and its settlement stands at the same one. Every
transition may be repeated with the same answer, because replies get lost. An attaching that comes late or twice drops
what its own session claimed meanwhile; a batch that may have been dropped is never answered as settled, since nothing
of it is done. Each attaching has a number of its own: after a store fell back, batches have the numbers again that
earlier ones had, and what an earlier session sent and comes late must not be taken for what this one claimed.
"""

import struct
from collections.abc import Collection

from msgspec import Struct

from replicator.core.model import SequenceNumber
from replicator.errors import ClaimsLost, Fenced, StoreUnavailable

DIGEST_BYTES = 16
CHECK_BYTES = 4
CLAIM_BYTES = DIGEST_BYTES + CHECK_BYTES
"""A claim is 16 bytes of digest of the event id followed by 4 bytes of check of the event's bytes."""
pack_claim = struct.Struct(f">{DIGEST_BYTES}sI").pack
"""A claim of digest and check."""
NEW, DONE, CHANGED = b"ndc"
"""Verdicts: new; done within the window (same id, same bytes); new although the same id is done with other bytes."""


class ClaimState(Struct):
    """What a store knows of one scope.

    ``open``: claims and verdicts by batch; ``done``: when it was settled, in ms, by digest and by digest with check;
    ``settled_ms``: when anything was settled last, 0 for never; ``dropped``: the last batch when open ones were
    dropped, 0 for never; ``settled``: the number that the last settlement had; ``attempt``: that of the attaching.
    """

    incarnation: str
    epoch: int
    batch: int = 0
    watermark: SequenceNumber = SequenceNumber(0)
    settled_ms: int = 0
    open: dict[int, tuple[bytes, bytes]] = {}
    done: dict[bytes, int] = {}
    dropped: int = 0
    settled: int = 0
    attempt: int = 0


def attach(state: ClaimState, epoch: int, attempt: int) -> int:
    """Open a session; answers how many batches of earlier ones were open and are dropped.

    Raises Fenced, and StoreUnavailable where a later attaching of the same owner was answered.
    """
    if epoch < state.epoch:
        raise Fenced(f"the claims are held under epoch {state.epoch}")
    if epoch == state.epoch and attempt < state.attempt:
        raise StoreUnavailable("a later session has begun")
    dropped = len(state.open)
    if dropped:
        state.dropped = state.batch
    state.open.clear()
    state.epoch, state.attempt = epoch, attempt
    return dropped


def remembers_ms(state: ClaimState, now_ms: int, window_ms: int) -> int:
    """For how long what was settled last is still known."""
    return max(0, state.settled_ms + window_ms - now_ms) if state.settled_ms else 0


def check_held(state: ClaimState | None, incarnation: str, epoch: int, attempt: int) -> ClaimState:
    """The state, when it is the session's. Raises Fenced, ClaimsLost."""
    if state is None or state.incarnation != incarnation:
        raise ClaimsLost("the claims are another incarnation's; attach anew")
    if state.epoch > epoch:
        raise Fenced(f"the claims are held under epoch {state.epoch}")
    if state.epoch < epoch:
        raise ClaimsLost("the claims are older than this session; attach anew")
    if state.attempt != attempt:
        raise ClaimsLost("the claims are another session's; attach anew")
    return state


def claim(state: ClaimState, batch: int, claims: bytes, now_ms: int, window_ms: int) -> bytes:
    """Reserve a batch, the last one plus 1 or the last one again; a verdict per claim. Raises ClaimsLost."""
    if batch == state.batch and batch in state.open and state.open[batch][0] == claims:
        return state.open[batch][1]
    if batch != state.batch + 1:
        raise ClaimsLost(f"the batch counter stands at {state.batch}; attach anew")
    verdicts = bytes(_verdict(state, claim, now_ms - window_ms) for claim in split(claims))
    state.open[batch] = (claims, verdicts)
    state.batch = batch
    return verdicts


def settle(
    state: ClaimState,
    batch: int,
    undone: Collection[int],
    watermark: SequenceNumber,
    now_ms: int,
    *,
    number: int = 0,
    after: int = 0,
) -> None:
    """Make the batch done but for the indices in ``undone``; see `ports.ClaimStore`. Raises ClaimsLost."""
    if state.settled < after:
        raise ClaimsLost(f"the settlements stand at {state.settled}; attach anew")
    if batch not in state.open:
        if batch <= state.dropped:
            raise ClaimsLost("the batch may have been dropped; attach anew")
        if state.batch < batch:
            raise ClaimsLost(f"the batch counter stands at {state.batch}; attach anew")
        state.settled = max(state.settled, number)
        return
    state.settled = max(state.settled, number)
    claims, verdicts = state.open.pop(batch)
    for index, claim in enumerate(split(claims)):
        if index not in undone and verdicts[index] != DONE:
            state.done.setdefault(claim[:DIGEST_BYTES], now_ms)
            state.done[claim] = now_ms
    state.settled_ms = now_ms
    state.watermark = max(state.watermark, watermark)


def split(claims: bytes) -> list[bytes]:
    return [claims[at : at + CLAIM_BYTES] for at in range(0, len(claims), CLAIM_BYTES)]


def _verdict(state: ClaimState, claim: bytes, since_ms: int) -> int:
    if _is_done(state, claim, since_ms):
        return DONE
    return CHANGED if _is_done(state, claim[:DIGEST_BYTES], since_ms) else NEW


def _is_done(state: ClaimState, key: bytes, since_ms: int) -> bool:
    settled_ms = state.done.get(key)
    return settled_ms is not None and settled_ms >= since_ms
