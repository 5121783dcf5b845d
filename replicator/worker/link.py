"""What all shards of one link share in a worker: the sink, the peer's health and clock, the counters."""

import asyncio
import random
from collections import Counter
from typing import Literal

from msgspec import Struct

from replicator.core.egress import Egress
from replicator.core.filters import FilterRules
from replicator.core.in_doubt import SIGNATURE_WINDOW_MS, FenceRules
from replicator.core.model import LinkName, Region, SourceName
from replicator.core.peer_clock import PeerClock, PeerTime
from replicator.core.peer_health import PeerHealth
from replicator.errors import Misconfigured, TransientError
from replicator.ports import Clock, Sink, Telemetry
from replicator.worker.condition import Condition
from replicator.worker.fence import Fence, Unfenced
from replicator.worker.lookups import Lookups

CLOCK_REFRESH_S = 15.0
ALWAYS_SHOWN = (
    "events_forwarded_total",
    "possible_duplicates_total",
    "conflicts_total",
    "claim_store_unavailable_total",
    "claim_store_lost_total",
)
"""Counters that begin at 0 instead of with their first event, so that nobody's alarm misses it."""
LOSSES = ("shard_gone", "trimmed", "perhaps_trimmed")
"""Reasons of ``retention_losses_total``, shown from the start as well."""


class LinkSettings(Struct, frozen=True):
    """Bounds of one link. Times in seconds.

    ``request_lifetime_s``, ``signature_window_s``, ``clock_margin_s`` and ``in_doubt_wait_s`` (in place of the computed
    wait) are those of `core.in_doubt.FenceRules`. ``believe_after_s`` is longer than a lease is believed in
    (`core.peer_clock`). ``in_doubt_beyond`` says what becomes of events about which the peer can't give certainty.
    ``ordering`` shard: all events of a shard are one lane, of which a request takes what it holds. ``linger_s``: how
    long events may wait for a fuller request. ``is_lake``: the sink is one (`core.lake`), so everything goes there, and
    sending again does no harm.
    """

    ordering: Literal["key", "none", "shard"] = "key"
    aggregate: Literal["none", "kpl"] = "none"
    in_flight_max: int = 4
    in_doubt: Literal["verify", "resend"] = "verify"
    in_doubt_beyond: Literal["resend", "hold"] = "resend"
    in_doubt_wait_s: float | None = None
    request_lifetime_s: float = 30.0
    signature_window_s: float = SIGNATURE_WINDOW_MS / 1000
    clock_margin_s: float = 10.0
    believe_after_s: float = 10.0
    is_paused: bool = False
    on_poison: Literal["skip", "hold_key"] = "skip"
    span_records_max: int = 500
    open_spans_max: int = 8
    open_bytes_max: int = 4 * 1024 * 1024
    read_back_records_max: int = 5_000_000
    read_back_bytes_max: int = 4 * 1024**3
    hold_retry_s: float = 300.0
    backoff_base_s: float = 0.1
    backoff_max_s: float = 20.0
    misconfigured_wait_s: float = 5.0
    filters: FilterRules = FilterRules()
    egress: Egress | None = None
    linger_s: float = 0.0
    is_lake: bool = False

    @property
    def fence(self) -> FenceRules:
        wait_s = self.in_doubt_wait_s
        return FenceRules(
            window_ms=int(self.signature_window_s * 1000),
            lifetime_ms=int(self.request_lifetime_s * 1000),
            margin_ms=int(self.clock_margin_s * 1000),
            wait_ms=None if wait_s is None else int(wait_s * 1000),
        )


class Link:
    """One (source, peer) pair as this worker sees it."""

    def __init__(
        self,
        *,
        source: SourceName,
        peer: Region,
        sink: Sink,
        settings: LinkSettings,
        clock: Clock,
        telemetry: Telemetry,
        rng: random.Random,
    ) -> None:
        self.name = LinkName(f"{source}:{peer}")
        self.source = source
        self.peer = peer
        self.sink = sink
        self.settings = settings
        self.health = PeerHealth()
        self.condition = Condition("peer", link=self.name)
        self.counts: Counter[str] = Counter()
        """Totals since start, for /status; the telemetry has the same figures."""
        self._telemetry = telemetry
        self._rng = rng
        rules = settings.fence
        self._peer = PeerClock(
            tolerance_ms=rules.tolerance_ms, window_ms=rules.window_ms, believe_after_s=settings.believe_after_s
        )
        fence = Unfenced if settings.is_lake else Fence
        self.fence = fence(self.name, sink, rules, self._peer, clock)
        bounds = {"records_max": settings.read_back_records_max, "bytes_max": settings.read_back_bytes_max}
        # Apart, so that a request in doubt need not wait for the reading of a takeover, which may take long.
        self.requests = Lookups(sink, **bounds)
        self.takeovers = Lookups(sink, **bounds)
        for name in ALWAYS_SHOWN:
            telemetry.count(name, 0, link=self.name)
        for reason in LOSSES:
            telemetry.count("retention_losses_total", 0, link=self.name, reason=reason)
        self._resumed = asyncio.Event()
        if not settings.is_paused:
            self._resumed.set()

    async def run(self) -> None:
        """Keep the estimate of the peer's clock fresh; a failure here is the peer's trouble like any other.

        Returns at once where nothing depends on it.
        """
        while not self.settings.is_lake:
            await self.wait_open()
            try:
                await self._refresh_clock()
            except TransientError as exc:
                self.failed(exc)
                continue
            await asyncio.sleep(CLOCK_REFRESH_S)

    async def _refresh_clock(self) -> None:
        self._peer.take(await self.sink.peer_time(), _now_s())
        await self.fence.ask()

    async def peer_time(self) -> PeerTime:
        """Bounds of the peer's clock now; waits until the peer has answered and its fence is known."""
        await self.fence.decided.wait()
        told = self.peer_time_at_once()
        assert told is not None, "a peer without a clock is not asked about its fence"
        return told

    def peer_time_at_once(self) -> PeerTime | None:
        """The same without waiting; None where that would have to wait."""
        return self.peer_estimate() if self.fence.decided.is_set() else None

    def peer_estimate(self) -> PeerTime | None:
        """Bounds of the peer's clock now, without waiting; None before the first answer."""
        return self._peer.at(_now_s())

    def peer_estimate_ms(self) -> int | None:
        """The lower one."""
        told = self.peer_estimate()
        return None if told is None else told.earliest_ms

    @property
    def is_open(self) -> bool:
        """Whether the link may send now: not paused, and not backing off."""
        return self._resumed.is_set() and self.health.wait_s(_now_s()) <= 0

    async def wait_open(self) -> None:
        """Return when the link may send: not paused, and not backing off."""
        await self._resumed.wait()
        while (wait_s := self.health.wait_s(_now_s())) > 0:  # noqa: ASYNC110 - waits for a time, not for an event
            await asyncio.sleep(wait_s)

    def failed(self, exc: Exception) -> None:
        """A request to the peer failed as a whole."""
        self.condition.failed(str(exc))
        base_s = self.settings.backoff_base_s
        if isinstance(exc, Misconfigured):
            base_s = self.settings.misconfigured_wait_s
        self.health.failed(_now_s(), self._rng.random(), str(exc), base_s=base_s, max_s=self.settings.backoff_max_s)

    def succeeded(self) -> None:
        """A request to the peer was served."""
        self.health.succeeded()
        self.condition.succeeded()

    def draw(self) -> float:
        return self._rng.random()

    def count(self, name: str, value: int = 1, **labels: str) -> None:
        """Add to the link's totals and to the metric ``name`` with this link's label."""
        if value:
            self.counts["/".join((name, *labels.values()))] += value
            self._telemetry.count(name, value, link=self.name, **labels)

    def observe(self, name: str, value: float) -> None:
        self._telemetry.observe(name, value, link=self.name)

    @property
    def state(self) -> str:
        """``paused``, ``backing_off`` or ``up``."""
        if self.settings.is_paused:
            return "paused"
        return "backing_off" if self.health.failures else "up"


def _now_s() -> float:
    return asyncio.get_running_loop().time()
