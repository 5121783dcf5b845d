"""What one link takes of one shard from the lake in place of the source: counted, shown, and said in the log."""

import structlog

from replicator.core.model import Position, ShardEnd, ShardId, position_text
from replicator.worker.link import Link
from replicator.worker.window import Batch

logger = structlog.get_logger(__name__)


class LakeStretch:
    """From where the link came into the lake to where it left it."""

    def __init__(self, link: Link, shard: ShardId) -> None:
        self._link = link
        self._shard = shard
        self._begin: Position | None = None
        self._end: Position | None = None
        self._events = 0

    def note(self, position: Position, run: Batch) -> None:
        """The run was read behind the position."""
        if run.is_from_lake:
            self._took(position, run)
        is_over = run.after == ShardEnd() or ((len(run.records) > 0 or run.is_tip) and not run.is_from_lake)
        if self._begin is not None and is_over:
            logger.warning("shard.left_lake", link=self._link.name, shard=self._shard, **self._what())
            self._begin = None

    def _took(self, position: Position, run: Batch) -> None:
        if self._begin is None:
            self._begin, self._events = position, 0
            place = position_text(position)
            logger.warning("shard.reads_lake", link=self._link.name, shard=self._shard, position=place)
        self._end = run.after
        self._events += len(run.records)
        self._link.count("events_from_lake_total", len(run.records))

    def _what(self) -> dict[str, object]:
        ends = {"begin": self._begin, "end": self._end}
        places = {name: position_text(place) for name, place in ends.items() if place is not None}
        return {**places, "events": self._events}

    def status(self) -> dict[str, object]:
        """Empty while nothing comes from the lake."""
        return {} if self._begin is None else {"from_lake": self._what()}
