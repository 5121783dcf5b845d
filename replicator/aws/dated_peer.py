"""What a sink tells of its service's clock: the time, from what it answers, and whether it refuses an expired date."""

import time
from collections.abc import Awaitable, Callable

from replicator.aws.failures import LATE, ServiceError
from replicator.aws.transport import Reply
from replicator.core.peer_clock import PeerTime
from replicator.errors import TransientError

CLOCK_FRESH_S = 60.0
DATE_RESOLUTION_MS = 1000


class DatedPeer:
    """``ask`` makes a harmless call, dated by its argument (now by default); ``name`` is what it asks about."""

    def __init__(self, name: str, ask: Callable[[int | None], Awaitable[Reply]]) -> None:
        self._name = name
        self._ask = ask
        self._clock: PeerTime | None = None

    def answered(self, reply: Reply) -> None:
        """Any answer of the service, which spares a call of its own."""
        self._clock = peer_time(reply) or self._clock

    async def time(self) -> PeerTime:
        """Raises TransientError."""
        if self._clock is None or time.monotonic() - self._clock.at_s > CLOCK_FRESH_S:
            self._clock = self.told(await self._asked(None))
        return self._clock

    def told(self, reply: Reply) -> PeerTime:
        """Raises TransientError when the answer has no date."""
        told = peer_time(reply)
        if told is None:
            raise TransientError(f"{self._name}: the answer has no Date header", code="no_date")
        return told

    async def refuses(self, dated_ms: int) -> bool:
        """Raises TransientError."""
        try:
            await self._asked(dated_ms)
        except TransientError as exc:
            if exc.code != LATE:
                raise
            return True
        return False

    async def _asked(self, dated_ms: int | None) -> Reply:
        try:
            return await self._ask(dated_ms)
        except ServiceError as exc:
            raise TransientError(f"{self._name}: {exc}", code=exc.code) from exc


def peer_time(reply: Reply) -> PeerTime | None:
    """The Date header names the second in which the answer was made; a second more, should it have been rounded up."""
    if reply.date_ms is None:
        return None
    on_the_way_ms = int((reply.received_s - reply.sent_s) * 1000) + 1
    latest_ms = reply.date_ms + 2 * DATE_RESOLUTION_MS + on_the_way_ms
    return PeerTime(reply.date_ms - DATE_RESOLUTION_MS, latest_ms, reply.received_s)
