"""A sink whose events may be larger than it takes: their bodies are stored first, and pointers to them are sent.

How it works: around any sink. Large entries of a request are checked in (`core.claim_check`) and go as pointers with
the others, so that there is one request, one fence and one answer, as without. Readings back look at tags, which
pointers bear.

Why it is safe: an entry whose body could not be stored is answered as one that failed singly; its lane alone waits and
the others go on. While bodies are not taken, one entry at a time tries; else each attempt would hold a request up for
as long as no answer comes. A body that is stored again, by this worker or one thought dead, is the same object.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence

from msgspec.structs import replace

from replicator.core.claim_check import Cloakroom
from replicator.core.model import LinkName, Origin
from replicator.core.outcome import Outcome
from replicator.core.peer_clock import PeerTime
from replicator.errors import Refused, TransientError
from replicator.ports import Bodies, Entry, Found, Sink, SinkLimits, Telemetry
from replicator.worker.condition import Condition

EVENT_BYTES_MAX = 16 * 1024 * 1024
"""More than any source holds: a record of Kinesis has up to 10 MiB."""
AT_ONCE = 8
UNAVAILABLE = "claim_check"
"""The code of entries that do not wait for a store that was away and is being tried with another one."""
REMEMBERED_MAX = 1000
"""Names of bodies stored last: a request that is repeated stores nothing again, or a slow upload would make each
repetition late again."""


class CheckingSink:
    """Implements `ports.Sink`. ``spare_bytes``: what ``sink`` may add to an event."""

    def __init__(
        self,
        sink: Sink,
        bodies: Bodies,
        cloakroom: Cloakroom,
        *,
        link: LinkName,
        origin_of: Callable[[bytes], Origin | None],
        telemetry: Telemetry,
        spare_bytes: int = 0,
    ) -> None:
        self._sink = sink
        self._bodies = bodies
        self._cloakroom = cloakroom
        self._origin_of = origin_of
        self._link = link
        self._telemetry = telemetry
        self._condition = Condition("claim_check", link=link)
        self._record_bytes_max = sink.limits.record_bytes_max - spare_bytes
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._is_tried = False
        self._stored: dict[str, None] = {}

    @property
    def limits(self) -> SinkLimits:
        return replace(self._sink.limits, record_bytes_max=EVENT_BYTES_MAX)

    async def put(self, entries: Sequence[Entry], *, signed_ms: int | None = None) -> Sequence[Outcome]:
        large = [place for place, entry in enumerate(entries) if self._is_large(entry)]
        if not large:
            return await self._sink.put(entries, signed_ms=signed_ms)
        leaving: list[Entry | str | Refused] = list(entries)
        checked = await asyncio.gather(*(self._check_in(entries[place]) for place in large))
        for place, entry in zip(large, checked, strict=True):
            leaving[place] = entry
        sent = [entry for entry in leaving if isinstance(entry, Entry)]
        results = iter(await self._sink.put(sent, signed_ms=signed_ms) if sent else ())
        return [next(results) if isinstance(entry, Entry) else entry for entry in leaving]

    def _is_large(self, entry: Entry) -> bool:
        return entry.size_bytes > self._record_bytes_max

    async def _check_in(self, entry: Entry) -> Entry | str | Refused:
        """The pointer; else why there is none: the code of what passes, or for good."""
        tries = not self._condition.is_up
        if tries and self._is_tried:
            return UNAVAILABLE
        self._is_tried |= tries
        try:
            async with self._slots:
                return await self._pointer(entry)
        except TransientError as exc:
            self._condition.failed(str(exc))
            return exc.code
        finally:
            self._is_tried &= not tries

    async def _pointer(self, entry: Entry) -> Entry | Refused:
        """Raises TransientError."""
        origin = self._origin_of(entry.data)
        try:
            checked = await asyncio.to_thread(self._cloakroom.check_in, entry.data, origin)
        except ValueError as exc:
            return Refused(f"too large for the sink, and no event to be checked in: {exc}", reason="oversize")
        pointer = Entry(checked.pointer, entry.partition_key)
        if self._is_large(pointer):
            why = "too large for the sink, and what a pointer keeps of it (members of up to 1 KiB) is so as well"
            return Refused(why, reason="oversize")
        if checked.name not in self._stored:
            await self._bodies.put(checked.name, checked.body)
            self._condition.succeeded()
            self._telemetry.count("events_claim_checked_total", 1, link=self._link)
            self._remember(checked.name)
        return pointer

    def _remember(self, name: str) -> None:
        self._stored[name] = None
        if len(self._stored) > REMEMBERED_MAX:
            del self._stored[next(iter(self._stored))]

    async def peer_time(self) -> PeerTime:
        return await self._sink.peer_time()

    async def refuses(self, dated_ms: int) -> bool:
        return await self._sink.refuses(dated_ms)

    async def read_back(
        self,
        since_ms: int,
        origin_of: Callable[[bytes], Origin | None],
        *,
        records_max: int,
        bytes_max: int | None = None,
        until_ms: int | None = None,
        keys: Collection[str] | None = None,
    ) -> Found:
        return await self._sink.read_back(
            since_ms, origin_of, records_max=records_max, bytes_max=bytes_max, until_ms=until_ms, keys=keys
        )
