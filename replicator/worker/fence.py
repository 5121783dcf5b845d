"""Whether a peer fences requests for us, how they are dated then, and how long a follower waits (`core.in_doubt`).

Once per process, before the first attempt, two harmless calls ask the peer: one whose date has just expired, which must
be refused, and one dated as requests will be, which must not. The answer decides for the life of the process how
requests are dated, so that what a checkpoint says of them stays true. Whether a wait may be short is judged anew each
time.
"""

import asyncio

import structlog

from replicator.core.in_doubt import Dated, FenceRules, dated, distrust, expired_ms, safe_wait_ms
from replicator.core.model import LinkName
from replicator.core.peer_clock import PeerClock, PeerTime
from replicator.ports import Clock, Sink

logger = structlog.get_logger(__name__)


class Fence:
    """Of one link. ``clock`` is our wall clock, which is compared with the peer's and dates nothing."""

    def __init__(self, name: LinkName, sink: Sink, rules: FenceRules, peer: PeerClock, clock: Clock) -> None:
        self._name = name
        self._sink = sink
        self.rules = rules
        self._peer = peer
        self._clock = clock
        self._is_refused = False
        self._was_trusted: bool | None = None
        self.lifetime_ms: int | None = None
        """How long requests of this process live, None for the peer's whole window."""
        self.decided = asyncio.Event()
        """Set once the peer was asked; nothing is sent before."""

    async def ask(self) -> None:
        """Ask the peer unless it was asked before. Raises TransientError: then nothing is decided."""
        if self.decided.is_set():
            return
        is_refused = await self._sink.refuses(expired_ms(self._peer_ms(), self.rules))
        shortened = dated(self._peer_ms(), self.rules.lifetime_ms, self.rules)
        if is_refused and await self._sink.refuses(shortened.date_ms):
            logger.error(
                "fence.window_too_long",
                link=self._name,
                window_s=self.rules.window_ms / 1000,
                do="set limits.signature_window_s to the time for which the peer takes a signed request",
            )
            is_refused = False
        self._is_refused = is_refused
        self.lifetime_ms = self.rules.lifetime_ms if is_refused else None
        self.decided.set()
        self.distrusted()

    def sign(self) -> Dated:
        """The date of a request; to be taken before the right to send is looked at."""
        return dated(self._peer_ms(), self.lifetime_ms, self.rules)

    def offset_ms(self) -> int:
        """The peer's clock less our wall clock, as little as it can be; 0 before the peer has answered."""
        peer = self._peer.at(_now_s())
        if peer is None:
            return 0
        now_ms = self._clock.now_ms()
        return min(max(0, peer.earliest_ms - now_ms), peer.latest_ms - now_ms)

    def distrusted(self) -> str:
        """Why a follower waits in full; empty when it need not. Says so whenever it changes."""
        if not self.decided.is_set():
            return "the peer has not been asked yet"
        why = distrust(
            is_refused=self._is_refused,
            is_steady=self._peer.is_steady(_now_s()),
            offset_ms=self.offset_ms(),
            rules=self.rules,
        )
        if self._was_trusted != (not why):
            self._was_trusted = not why
            wait_s = (
                self.rules.full_wait_ms if why else safe_wait_ms(self.lifetime_ms, self.rules, is_trusted=True)
            ) / 1000
            if why:
                logger.warning("fence.full_wait", link=self._name, why=why, wait_s=wait_s)
            else:
                logger.info("fence.receiver", link=self._name, wait_s=wait_s)
        return why

    def safe_wait_ms(self, lifetime_ms: int | None) -> int:
        """After which the peer surely takes no request of this lifetime any more."""
        return safe_wait_ms(lifetime_ms, self.rules, is_trusted=not self.distrusted())

    def wait_ms(self, lifetime_ms: int | None) -> tuple[int, bool]:
        """How long to wait, and whether that is safe: an operator may have chosen a shorter one."""
        safe_ms = self.safe_wait_ms(lifetime_ms)
        if self.rules.wait_ms is None:
            return safe_ms, True
        return self.rules.wait_ms, self.rules.wait_ms >= safe_ms

    def _peer_ms(self) -> int:
        peer: PeerTime | None = self._peer.at(_now_s())
        assert peer is not None, "nothing is dated before the peer has answered"
        return peer.earliest_ms


class Unfenced(Fence):
    """Of a sink where a repetition does no harm: nobody is asked, nobody waits, and requests bear our own time."""

    async def ask(self) -> None:
        return

    def sign(self) -> Dated:
        now_ms = self._clock.now_ms()
        return Dated(now_ms, now_ms, None)

    def offset_ms(self) -> int:
        return 0

    def distrusted(self) -> str:
        return ""

    def wait_ms(self, _: int | None) -> tuple[int, bool]:
        return 0, True


def _now_s() -> float:
    return asyncio.get_running_loop().time()
