"""How much of its source's retention a link has used up: said in the log long before it is all, once per mark."""

from collections.abc import Iterable

import structlog

from replicator.core.model import LinkName

logger = structlog.get_logger(__name__)

MARKS = (0.5, 0.8)
MARGIN_MS = 600_000
"""Of the retention, or a tenth of it where that is less: then a record's being kept is no longer taken for granted."""
FINE = 0.4
"""Below this a link has recovered; not at the first mark, about which a lag may swing."""


def surely_kept_ms(retention_ms: int) -> int:
    """How old a record may be that is kept for certain."""
    return retention_ms - min(MARGIN_MS, retention_ms // 10)


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
