"""What all shards of one link share in a worker: the sink, the peer's health and clock, the counters."""

import asyncio
import random
from collections import Counter
from typing import Literal

from msgspec import Struct

from replicator.core.backoff import PeerHealth
from replicator.core.model import LinkName, Region, SourceName
from replicator.errors import Misconfigured, TransientError
from replicator.ports import Sink, Telemetry

CLOCK_REFRESH_S = 15.0


class LinkSettings(Struct, frozen=True):
    """Bounds of one link. Times in seconds.

    ``in_doubt_wait_s``: how long after a request was signed the peer may still accept it; AWS accepts a signature for
    300 s (SigV4 request validity), the rest is the margin for clock skew.
    """

    ordering: Literal["key", "none"] = "key"
    aggregate: Literal["none", "kpl"] = "none"
    in_flight_max: int = 4
    in_doubt: Literal["verify", "resend"] = "verify"
    in_doubt_wait_s: float = 330.0
    is_paused: bool = False
    on_poison: Literal["skip", "hold_key"] = "skip"
    span_records_max: int = 500
    open_spans_max: int = 8
    open_bytes_max: int = 4 * 1024 * 1024
    read_back_records_max: int = 5_000_000
    backoff_base_s: float = 0.1
    backoff_max_s: float = 20.0
    misconfigured_wait_s: float = 5.0


class Link:
    """One (source, peer) pair as this worker sees it."""

    def __init__(
        self,
        *,
        source: SourceName,
        peer: Region,
        sink: Sink,
        settings: LinkSettings,
        telemetry: Telemetry,
        rng: random.Random,
    ) -> None:
        self.name = LinkName(f"{source}:{peer}")
        self.source = source
        self.peer = peer
        self.sink = sink
        self.settings = settings
        self.health = PeerHealth()
        self.counts: Counter[str] = Counter()
        """Totals since start, for /status; the telemetry has the same figures."""
        self._telemetry = telemetry
        self._rng = rng
        self._peer_clock: tuple[int, float] | None = None
        self._peer_known = asyncio.Event()
        self._resumed = asyncio.Event()
        if not settings.is_paused:
            self._resumed.set()

    async def run(self) -> None:
        """Keep the estimate of the peer's clock fresh; a failure here is the peer's trouble like any other."""
        while True:
            await self.wait_open()
            try:
                await self._refresh_clock()
            except TransientError as exc:
                self.failed(exc)
                continue
            await asyncio.sleep(CLOCK_REFRESH_S)

    async def _refresh_clock(self) -> None:
        peer_ms = await self.sink.peer_time_ms()
        self._peer_clock = (peer_ms, _now_s())
        self._peer_known.set()

    async def peer_now_ms(self) -> int:
        """A lower bound of the peer's clock now; waits until the peer has answered at least once."""
        await self._peer_known.wait()
        return self.peer_estimate_ms() or 0

    def peer_estimate_ms(self) -> int | None:
        """The same without waiting, None before the first answer."""
        if self._peer_clock is None:
            return None
        peer_ms, at_s = self._peer_clock
        return peer_ms + int((_now_s() - at_s) * 1000)

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
        base_s = self.settings.backoff_base_s
        if isinstance(exc, Misconfigured):
            base_s = self.settings.misconfigured_wait_s
        self.health.failed(_now_s(), self._rng.random(), str(exc), base_s=base_s, max_s=self.settings.backoff_max_s)

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
