"""What is known of a source's retention, and how much of it a link has used up, said long before it is all."""

from collections.abc import Iterable

import structlog

from replicator.core.model import LinkName, SourceName
from replicator.core.retention import Kept, first_look
from replicator.ports import Clock, LeaseStore

logger = structlog.get_logger(__name__)

MARKS = (0.5, 0.8)
FINE = 0.4
"""Below this a link has recovered; not at the first mark, about which a lag may swing."""


class Retention:
    """Of one source, remembered beside its leases: a worker that comes later must know that it was shorter."""

    def __init__(self, store: LeaseStore, source: SourceName, clock: Clock) -> None:
        self._store = store
        self._source = source
        self._clock = clock
        self._kept: Kept | None = None

    @property
    def ms(self) -> int | None:
        """As the source has it now; None before it was first described, or where it has none."""
        return None if self._kept is None else self._kept.retention_ms

    async def note(self, retention_ms: int) -> None:
        """The source was described; 0: it keeps what it has. Raises StoreUnavailable; safe to repeat."""
        if not retention_ms:
            return
        known = self._kept or await self._store.kept(self._source)
        now_ms = self._clock.now_ms()
        kept = first_look(retention_ms, now_ms) if known is None else known.then(retention_ms, now_ms)
        if kept != known:
            await self._store.keep(self._source, kept)
        self._kept = kept

    def is_old(self, age_ms: float, at_ms: float) -> bool:
        """Whether what had this age at that time could have been trimmed by then."""
        return self._kept is not None and age_ms >= self._kept.surely_ms(at_ms)


def longest(lags: Iterable[int | None]) -> int | None:
    """The longest lag that is known: what is not known elsewhere must not hide it."""
    return max((lag for lag in lags if lag is not None), default=None)


class RetentionWatch:
    """Of one link. A worker speaks of the shards that it reads."""

    def __init__(self, link: LinkName) -> None:
        self._link = link
        self._passed = 0

    def note(self, used: float) -> None:
        """``used``: lag / retention, NaN when it is not known, which changes nothing."""
        passed = sum(used >= mark for mark in MARKS)
        if passed > self._passed:
            self._passed = passed
            logger.error(
                "retention.running_out",
                link=self._link,
                used=round(used, 2),
                do="at 1 events are lost: see why the link lags (/status), or lengthen the source's retention now",
            )
        elif self._passed and used < FINE:
            self._passed = 0
            logger.info("retention.enough", link=self._link, used=round(used, 2))
