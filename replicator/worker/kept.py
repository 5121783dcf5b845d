"""Whether a stream still keeps what follows a place, with a proof, or not for sure.

Kinesis passes over in silence what it has trimmed. But it keeps what is younger than its retention; behind a record
that is still there nothing was trimmed; and where a record is kept that arrived before a time, so is all that came
since. A place for which none of this holds may have lost something.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from msgspec import Struct

from replicator.core.model import After, Position, ShardId, TrimHorizon, parse_position, position_text
from replicator.errors import ConfigError, PositionLost
from replicator.ports import Clock, Cursor, Source, SourceInfo

LOOKS_MAX = 20
"""For the oldest record of a shard: Kinesis may answer pages without records before it."""
UNKNOWN_MS = -1


class Place(Struct, frozen=True):
    """A cursor of the stream, and a time before which nothing behind it arrived (`UNKNOWN_MS` where that isn't known).

    The cursor that is handed out stands behind the last record that was chosen, this one behind the last that was read.
    """

    cursor: Cursor
    at_ms: int

    @classmethod
    def of(cls, given: Cursor) -> "Place":
        at_ms, position, token = given.token.split(" ", 2)
        return cls(Cursor(given.shard, parse_position(position), token), int(at_ms))

    def given(self, position: Position) -> Cursor:
        token = f"{self.at_ms} {position_text(self.cursor.position)} {self.cursor.token}"
        return Cursor(self.cursor.shard, position, token)


class Kept:
    """Of one stream. ``margin_ms``: so far clocks may be off."""

    def __init__(self, source: Source, *, margin_ms: int, clock: Clock) -> None:
        self._source = source
        self._margin_ms = margin_ms
        self._clock = clock
        self._info: SourceInfo | None = None

    async def describe(self) -> SourceInfo:
        """To be called before anything else. Raises ConfigError when the stream was made anew since the first call."""
        info = await self._source.describe()
        if self._info is not None and self._info.incarnation != info.incarnation:
            raise ConfigError("the stream was made anew while it was replayed: what it held before is gone")
        self._info = info
        return info

    def horizon_ms(self) -> int:
        """What arrived since then is kept for sure."""
        assert self._info is not None, "a source is described before it is read"
        return self._clock.now_ms() - self._info.retention_ms + self._margin_ms

    async def must_keep(self, place: Place) -> None:
        """Judged behind the reading: what is kept now was kept then. Raises ConfigError."""
        if place.at_ms < self.horizon_ms() and not await self.is_all_kept(place):
            raise self.gone(place.cursor.shard)

    async def is_all_kept(self, place: Place) -> bool:
        """Whether nothing behind the place was trimmed, for sure."""
        shard, position = place.cursor.shard, place.cursor.position
        if isinstance(position, After):
            return await self._source.is_kept(shard, position)
        assert self._info is not None, "a source is described before it is read"
        if int(self._info.incarnation) >= place.at_ms:
            return True  # the stream itself is younger
        oldest_ms = await self._oldest_ms(shard)
        return oldest_ms is not None and oldest_ms <= place.at_ms

    async def _oldest_ms(self, shard: ShardId) -> int | None:
        """When the oldest record arrived that the shard keeps; None when none was found."""
        cursor: Cursor | None = await self._source.open(shard, TrimHorizon())
        for _ in range(LOOKS_MAX):
            if cursor is None:
                return None
            page = await self._source.read(cursor, 1)
            if page.records or page.behind_ms == 0:
                return page.records[0].arrival_ms if page.records else None
            cursor = page.next
        return None

    @contextmanager
    def all_kept(self, shard: ShardId) -> Iterator[None]:
        """A place that is lost ends a replay."""
        try:
            yield
        except PositionLost as exc:
            raise self.gone(shard) from exc

    def gone(self, shard: ShardId) -> ConfigError:
        # Rounded up to a whole second, which is what one types.
        earliest = datetime.fromtimestamp(-(-self.horizon_ms() // 1000), UTC).isoformat().replace("+00:00", "Z")
        return ConfigError(
            f"{shard} may no longer keep all that is to be replayed: the earliest time that the stream surely has is"
            f" {earliest}. Give a later --since, or replay from the lake (--from lake)"
        )
