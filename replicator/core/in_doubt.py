"""In doubt: how a request is dated so that its receiver refuses it in time, and how long whoever follows must wait.

How it works: a receiver refuses a request when its own clock is more than a window (SigV4: 300 s) past the date of the
signature. Every PutRecords is dated by the earliest the peer's clock can be (`core.peer_clock`), less the window, plus
``lifetime``: so the peer refuses it ``lifetime`` later, wherever it was held up. The owner writes its lifetime into its
checkpoint before the first attempt. Who takes over waits that lifetime and a margin, then reads the peer back.

Why it is safe. Let P(t) be the peer's clock.

1. The old owner takes the date at t0, looks at its right to send at t1 > t0, and sends at any time after (a stopped
   process, a socket's buffer, the network). It has the right at t1, so nobody has taken the lease before t1
   (`core.leasing`).
2. The date is at most P(t0) - window + lifetime. So what the peer accepts, it accepts while P <= P(t0) + lifetime.
3. The new owner begins to wait at t2, after its acquisition, so t2 > t1 > t0. When it has waited lifetime + margin on
   its
   monotonic clock, P > P(t0) + lifetime: nothing of the old owner is accepted any more, and what was is stored.
4. So a reading that begins then and is complete proves absence, and an absent event may be sent.

No wall clock of ours occurs in this, so neither the skew between two workers nor between a worker and the peer matters,
nor a step of ours. What the margin is for: the peer's machines that tell the date and those that check it may disagree,
monotonic clocks drift, and between the check of a signature and the record that can be read there is the peer's own
work. The resolution of dates, one second, is rounded down and so on the safe side, as is every bound on P.

An ambiguous reply is the same with one's own request: its date is known, so the wait ends when the peer's clock is past
it, however slowly or fast ours ran.

When lifetimes differ: an owner may have had another setting, or be of a version that knows none, or its peer may not
fence. So the lifetime to wait for is what the *old* owner recorded under its own epoch (an older version leaves alone
what it doesn't know, until it writes a checkpoint), and none recorded means the window. The full wait
(window and three margins) is for that, and for whenever the fence is not to be trusted: an expired request is not
refused, or clocks are off. Three margins, because an owner of an older version dates by its own wall clock, which may
be a margin ahead of the peer's, and both of the peer's machines a margin apart on the other side.

Sent again without proof: a sink that drops repetitions by an id of ours drops what it takes within a time of the first
that it took (`is_repeat_dropped`). All that it took of an event, it took between the first attempt and the answer to
the last one, or the end of those that nobody answered. Where that fits into the time, at most one is stored.
"""

from msgspec import Struct

from replicator.core.model import Checkpoint
from replicator.core.peer_clock import PeerTime

SIGNATURE_WINDOW_MS = 300_000
"""How long after its date AWS takes a request: "within five minutes of the timestamp in the request" (AWS IAM User
Guide, "AWS Signature Version 4 for API requests"; AWS General Reference, "Elements of an AWS API request
signature")."""
DATE_RESOLUTION_MS = 1000
FULL_MARGINS = 3
PARTS_OF_MARGIN = 4
"""What is tolerated before a fence is distrusted is a part of the margin, so that several such things together fit
in."""
DATING_ERROR_MS = 5_000
"""How much of its lifetime a request may lose to the resolution of dates and to the round trips that bound the
clock."""


class FenceRules(Struct, frozen=True):
    """``window_ms`` of the receiver; ``lifetime_ms`` of a request; ``margin_ms`` for clocks and the receiver's work.

    ``wait_ms`` is an operator's own wait in place of the computed one.
    """

    window_ms: int = SIGNATURE_WINDOW_MS
    lifetime_ms: int = 30_000
    margin_ms: int = 10_000
    wait_ms: int | None = None

    @property
    def tolerance_ms(self) -> int:
        return self.margin_ms // PARTS_OF_MARGIN

    @property
    def full_wait_ms(self) -> int:
        return self.window_ms + FULL_MARGINS * self.margin_ms


class Dated(Struct, frozen=True):
    """A request's date, and the peer's clock (at least) when it was taken. ``lifetime_ms`` None is the whole window."""

    date_ms: int
    peer_ms: int
    lifetime_ms: int | None


class Attempts(Struct, frozen=True):
    """Of one event, that may have stored it: not before ``since_ms`` and not after ``until_ms``, by the peer's
    clock."""

    since_ms: int
    until_ms: int

    def joined(self, other: "Attempts | None") -> "Attempts":
        """Both."""
        if other is None:
            return self
        return Attempts(min(self.since_ms, other.since_ms), max(self.until_ms, other.until_ms))


def is_repeat_dropped(before: Attempts, answered: PeerTime, dropped_ms: int | None, rules: FenceRules) -> bool:
    """Whether of an event that was sent again, and taken by the time ``answered``, surely no second copy is stored.

    ``dropped_ms``: how long the sink drops repetitions, None when it does not.
    """
    latest_ms = max(answered.latest_ms + rules.margin_ms, before.until_ms)
    return dropped_ms is not None and latest_ms <= before.since_ms + dropped_ms


def dated(peer_ms: int, lifetime_ms: int | None, rules: FenceRules) -> Dated:
    """``peer_ms`` is the earliest that the peer's clock can be now, taken before the right to send is looked at."""
    back_ms = 0 if lifetime_ms is None else rules.window_ms - lifetime_ms
    return Dated((peer_ms - back_ms) // DATE_RESOLUTION_MS * DATE_RESOLUTION_MS, peer_ms, lifetime_ms)


def expired_ms(peer_ms: int, rules: FenceRules) -> int:
    """A date that a peer must refuse whose checking clock is at most the tolerance behind the one it tells."""
    return peer_ms - rules.window_ms - rules.tolerance_ms


def safe_wait_ms(lifetime_ms: int | None, rules: FenceRules, *, is_trusted: bool) -> int:
    """After which nothing is accepted any more, from the dating of a request or the taking of the lease."""
    if lifetime_ms is None or not is_trusted:
        return max(rules.full_wait_ms, (lifetime_ms or 0) + rules.margin_ms)
    return lifetime_ms + rules.margin_ms


def promised_ms(durable: Checkpoint, epoch: int) -> int | None:
    """The lifetime of all requests that were made before the lease was taken under ``epoch``; None without a word on
    it.

    Epochs grow by one: the word must be of the owner before, or a silent owner stood between.
    """
    if durable.lifetime is None or durable.lifetime.epoch < epoch - 1:
        return None
    return durable.lifetime.ms


def wider(one_ms: int | None, other_ms: int | None) -> int | None:
    """The lifetime that covers both."""
    return None if one_ms is None or other_ms is None else max(one_ms, other_ms)


def covers(recorded_ms: int | None, lifetime_ms: int | None) -> bool:
    """Whether who reads the record waits long enough for requests of this lifetime."""
    return wider(recorded_ms, lifetime_ms) == recorded_ms


def distrust(*, is_refused: bool, is_steady: bool, offset_ms: int, rules: FenceRules) -> str:
    """Why the receiver's fence is not relied on; empty when it is. ``offset_ms`` is the peer's clock less our wall
    clock.

    Our wall clock dates nothing that is fenced. But where it is off, whoever keeps time there does not keep it well,
    and a former version of us relied on it.
    """
    if not is_refused:
        return f"the peer does not refuse requests dated {rules.window_ms / 1000:g} s back"
    if not is_steady:
        return "answers of the peer contradict each other about its clock"
    if abs(offset_ms) > rules.margin_ms:
        return f"the peer's clock is {offset_ms / 1000:+.0f} s from this machine's"
    return ""
