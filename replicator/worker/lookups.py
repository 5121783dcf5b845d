"""Reading a sink back for several who are in doubt at the same time: one reading answers them all.

A broken connection leaves every request on it in doubt, and a lost worker every shard it had; they wait equally long
and then look at the same stream, of which no more than one page a second may be read. Whoever comes while a reading is
under way waits for the next one, which serves all that came by then. There is no task behind it: one of those who wait
reads, and when that one fails or is cancelled, the next one does.

A reading that was not complete must not speak for those who could have had a complete one by themselves: what the peer
no longer keeps concerns the oldest of them, and a bound that was met the older half; the others read again.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence

from msgspec import Struct

from replicator.core.model import Origin, Region
from replicator.ports import NOT_KEPT, Found, Sink

SenderAndOrigin = Callable[[bytes], tuple[Region, Origin] | None]


class Lookup(Struct, eq=False):
    """What one of them looks for: events that ``here`` sent and that are wanted. Times are the peer's clock.

    ``keys`` are the partition keys in question, None for any.
    """

    here: Region
    is_wanted: Callable[[Origin], bool]
    sender_and_origin: SenderAndOrigin
    since_ms: int
    until_ms: int
    keys: Collection[str] | None = None
    found: Found | None = None

    def origin_of(self, data: bytes) -> Origin | None:
        sent = self.sender_and_origin(data)
        if sent is None or sent[0] != self.here or not self.is_wanted(sent[1]):
            return None
        return sent[1]


class Lookups:
    """Of one link and one kind. Bounds are those of one reading."""

    def __init__(self, sink: Sink, *, records_max: int, bytes_max: int) -> None:
        self._sink = sink
        self._records_max = records_max
        self._bytes_max = bytes_max
        self._lock = asyncio.Lock()
        self._waiting: list[Lookup] = []

    async def find(self, lookup: Lookup) -> Found:
        """What the sink holds of it. Raises TransientError."""
        self._waiting.append(lookup)
        try:
            async with self._lock:
                while lookup.found is None:
                    await self._read([other for other in self._waiting if other.found is None])
        finally:
            self._waiting.remove(lookup)
        assert lookup.found is not None
        return lookup.found

    async def _read(self, lookups: Sequence[Lookup]) -> None:
        origins: list[set[Origin]] = [set() for _ in lookups]

        def take(data: bytes) -> None:
            for lookup, mine in zip(lookups, origins, strict=True):
                origin = lookup.origin_of(data)
                if origin is not None:
                    mine.add(origin)

        found = await self._sink.read_back(
            min(lookup.since_ms for lookup in lookups),
            take,
            records_max=self._records_max,
            bytes_max=self._bytes_max,
            until_ms=max(lookup.until_ms for lookup in lookups),
            keys=_all_keys(lookups),
        )
        answered = _answered(lookups, found)
        for lookup, mine in zip(lookups, origins, strict=True):
            if lookup in answered:
                lookup.found = Found(frozenset(mine), found.is_complete, found.records_read, found.why)


def _answered(lookups: Sequence[Lookup], found: Found) -> Sequence[Lookup]:
    if found.is_complete:
        return lookups
    oldest_first = sorted(lookups, key=lambda lookup: lookup.since_ms)
    return oldest_first[: 1 if found.why == NOT_KEPT else max(1, len(lookups) // 2)]


def _all_keys(lookups: Sequence[Lookup]) -> frozenset[str] | None:
    keys: set[str] = set()
    for lookup in lookups:
        if lookup.keys is None:
            return None
        keys.update(lookup.keys)
    return frozenset(keys)
