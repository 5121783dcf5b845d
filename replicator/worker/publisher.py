"""Sends what waits in the lanes of one (link, shard), and finds out what became of every request.

Every attempt ends in one of five ways: stored (done), passed over by the sink (done), refused for good (poison),
failed without effect (back to the head of its lane, after a rest), or nobody knows (in doubt). An event in doubt keeps
its lane until the sink was read back, so nothing of its key overtakes it and nothing is sent twice.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from operator import attrgetter

import structlog

from replicator.core.backoff import delay_s
from replicator.core.convergence import CONFLICT
from replicator.core.in_doubt import Dated
from replicator.core.lanes import Lanes
from replicator.core.outcome import Outcome, Passed
from replicator.errors import Fenced, InDoubt, PoisonEvent, Refused, TransientError
from replicator.ports import Entry
from replicator.worker.admission import key_held
from replicator.worker.held_keys import HeldKeys
from replicator.worker.linger import Linger
from replicator.worker.link import Link
from replicator.worker.packing import Filling, Packing, entry_of
from replicator.worker.recovery import Recovery
from replicator.worker.span import Item

logger = structlog.get_logger(__name__)

THE_SHARD = ""
"""The one lane of a link whose order is the shard's."""
LANE_OF: dict[str, Callable[[Item], object]] = {
    "key": attrgetter("entry.partition_key"),
    "none": id,
    "shard": lambda _: THE_SHARD,
}
"""By the order that a link keeps."""
Taken = list[Item]
"""Heads of lanes. Each travels as one record, with what is packed with it."""


class Publisher:
    """Up to ``in_flight_max`` requests at a time, no two of them holding the same key.

    ``may_send`` says whether the lease is surely ours at this moment, by our own monotonic clock.
    """

    def __init__(
        self,
        link: Link,
        recovery: Recovery,
        may_send: Callable[[], bool],
        on_stored: Callable[[Sequence[Item]], None],
        on_poison: Callable[[Item, PoisonEvent], Awaitable[None]],
        held: HeldKeys,
    ) -> None:
        self._link = link
        self._recovery = recovery
        self._may_send = may_send
        self._on_stored = on_stored
        self._on_poison = on_poison
        self._held = held
        self._refused: set[str] = set()
        """Keys of events that the peer refused, where keys are held."""
        self._lanes: Lanes[Item] = Lanes(LANE_OF[link.settings.ordering], attrgetter("size_bytes"))
        self._linger = Linger(link.settings.linger_s)
        self._work = asyncio.Event()
        self._is_stopping = False
        self.in_flight = 0
        self.in_doubt = 0
        """Events whose fate is being looked up."""

    @property
    def waiting(self) -> int:
        return self._lanes.waiting

    @property
    def lane_depth(self) -> int:
        return self._lanes.depth_max

    def add(self, items: Sequence[Item]) -> None:
        if not self._lanes.waiting:
            self._linger.begin(asyncio.get_running_loop().time())
        self._lanes.add(items)
        self._work.set()

    def hurry(self, *, is_on: bool = True) -> None:
        """While it is on nothing is added: what waits is sent without waiting for more."""
        self._linger.is_hurried = is_on
        if self._link.settings.linger_s:
            self._work.set()

    def stop_taking(self) -> None:
        """Requests under way end; nothing new is sent."""
        self._is_stopping = True
        self._work.set()

    async def run(self) -> None:
        """Return after `stop_taking`, when the last request has ended."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._link.settings.in_flight_max):
                group.create_task(self._send_loop())

    async def _send_loop(self) -> None:
        while True:
            taken = await self._take()
            if not taken:
                return
            events = _count(taken)
            self.in_flight += events
            try:
                await self._send(await self._without_held(taken) if self._refused else taken)
            finally:
                self.in_flight -= events
                self._work.set()
                del taken  # or the events would stay in memory for as long as this loop has nothing to do

    async def _without_held(self, taken: Taken) -> Taken:
        """What may be sent. What waited behind a refused event of its key is put away, lane by lane in order."""
        free: Taken = []
        for head in taken:
            partition_key = head.entry.partition_key
            if partition_key not in self._refused or partition_key not in self._held:
                free.append(head)
                continue
            for item in (head, *head.packed):
                await self._on_poison(item, key_held())
            self._lanes.done((head,))
        return free

    async def _take(self) -> Taken:
        loop = asyncio.get_running_loop()
        limits = self._link.sink.limits
        while not self._is_stopping:
            if self._lanes.waiting:
                if not self._link.is_open:
                    await self._until_open()
                    continue
                is_enough = self._lanes.waiting >= limits.records_max
                until_s = self._linger.until_s(loop.time(), is_enough=is_enough)
                if until_s is not None:
                    self._work.clear()
                    await self._wait_for_work(until_s)
                    continue
                taken = self._lanes.take(limits.records_max, limits.request_bytes_max, loop.time())
                if taken:
                    filled = self._filled(taken)
                    if self._lanes.waiting:
                        self._linger.begin(loop.time())
                    return filled
            self._work.clear()
            await self._wait_for_work(self._lanes.next_wake_s())
        return []

    def _filled(self, heads: Taken) -> Taken:
        """Each head, with aggregation together with those behind it that fit its record and the request.

        In the one lane of a shard it is together with all that the request has room for.
        """
        settings, limits = self._link.settings, self._link.sink.limits
        if settings.ordering == "shard":
            for head in heads:
                head.packed = self._lanes.take_more(head, Filling(head, limits).admits)
            return heads
        if settings.aggregate == "none":
            return heads
        room = limits.request_bytes_max - sum(head.size_bytes for head in heads)
        for head in heads:
            packing = Packing(head, limits, room)
            head.packed = self._lanes.take_more(head, packing.admits)
            room -= packing.added_bytes
        return heads

    async def _until_open(self) -> None:
        """Wait until the link may send, or until this publisher stops."""
        opened = asyncio.ensure_future(self._link.wait_open())
        try:
            while not opened.done() and not self._is_stopping:
                self._work.clear()
                work = asyncio.ensure_future(self._work.wait())
                await asyncio.wait((opened, work), return_when=asyncio.FIRST_COMPLETED)
                work.cancel()
        finally:
            opened.cancel()

    async def _wait_for_work(self, until_s: float | None) -> None:
        try:
            async with asyncio.timeout_at(until_s):
                await self._work.wait()
        except TimeoutError:
            return

    async def _send(self, taken: Taken) -> None:
        if not taken:
            return
        started_s = asyncio.get_running_loop().time()
        # The date first, then the right to send: a worker that is stopped anywhere behind these two lines and goes on
        # when others own the shard sends a request that is dated before they took it, and the receiver refuses it
        # before they send anything themselves (`core.in_doubt`).
        request = self._link.fence.sign()
        if not self._may_send():
            raise Fenced(f"the lease behind {self._link.name} was not renewed in time")
        try:
            entries = self._entries(taken)
            results = await self._link.sink.put(entries, signed_ms=request.date_ms)
        except InDoubt as exc:
            self._link.failed(exc)
            await self._resolve(taken, request, exc)
        except Refused as exc:
            await self._split(taken, exc)
        except TransientError as exc:
            self._link.failed(exc)
            self._retry(taken, exc.code, rests=False)
        else:
            self._link.succeeded()
            self._link.observe("publish_seconds", asyncio.get_running_loop().time() - started_s)
            await self._sort_out(taken, results)

    def _entries(self, taken: Taken) -> list[Entry]:
        if self._link.settings.ordering == "shard":
            return [item.entry for item in _items(taken)]
        return [entry_of(head) if head.packed else head.entry for head in taken]

    async def _sort_out(self, taken: Taken, results: Sequence[Outcome]) -> None:
        if not any(results):
            self._stored(taken)
            return
        failed: dict[str, Taken] = {}
        stored: Taken = []
        refused: list[tuple[Taken, Refused]] = []
        passed: list[tuple[Taken, Passed]] = []
        for head, code in zip(taken, results, strict=True):
            if code is None:
                stored.append(head)
            elif isinstance(code, Refused):
                refused.append(([head], code))
            elif isinstance(code, Passed):
                passed.append(([head], code))
            else:
                failed.setdefault(code, []).append(head)
        self._stored(stored)
        for code, heads in failed.items():
            self._retry(heads, code, rests=True)
        for alone, exc in refused:
            await self._split(alone, exc)
        for alone, why in passed:
            await self._pass(alone, why)

    async def _pass(self, alone: Taken, why: Passed) -> None:
        """The sink is done with an event that it did not store. Its lane waits until a conflict is reported."""
        [item] = _items(alone)
        if why.reason == CONFLICT:
            await self._on_poison(item, PoisonEvent(CONFLICT, why.detail))
        else:
            self._link.count("events_dropped_total", reason=why.reason)
            self._on_stored((item,))
        self._lanes.done(alone)

    def _stored(self, heads: Taken) -> None:
        self._lanes.done(heads)
        if self._link.settings.aggregate != "none":
            self._link.count("events_packed_total", sum(1 + len(head.packed) for head in heads if head.packed))
        items = _items(heads)
        if again := [item for item in items if item.doubt is not None]:
            self._recovery.count_repeated(again)
        self._arrived(items)

    def _arrived(self, items: Sequence[Item]) -> None:
        self._link.count("events_forwarded_total", len(items))
        self._on_stored(items)

    def _retry(self, taken: Taken, code: str, *, rests: bool) -> None:
        """Back to the heads of their lanes. Entries that failed singly rest; a failed request holds the whole link."""
        now_s = asyncio.get_running_loop().time()
        settings = self._link.settings
        self._link.count("publish_retries_total", _count(taken), reason=code)
        for head in taken:
            for item in (head, *head.packed):
                item.attempts += 1
            rest_s = delay_s(
                head.attempts, self._link.draw(), base_s=settings.backoff_base_s, max_s=settings.backoff_max_s
            )
            self._put_back(head, now_s + rest_s if rests else None)

    def _put_back(self, head: Item, not_before_s: float | None = None) -> None:
        joined, head.packed = head.packed, ()
        self._lanes.put_back(head, joined=joined, not_before_s=not_before_s)

    async def _split(self, taken: Taken, exc: Refused) -> None:
        """Halve a refused request until the event that can't pass is alone; a packed record through its lane."""
        if len(taken) > 1:
            middle = len(taken) // 2
            await self._send(taken[:middle])
            await self._send(taken[middle:])
            return
        [head] = taken
        if head.packed:
            self._pack_less(head)
            return
        if self._held.is_on:
            self._refused.add(head.entry.partition_key)
        await self._on_poison(head, PoisonEvent(exc.reason, str(exc)))
        self._lanes.done(taken)

    def _pack_less(self, head: Item) -> None:
        """Sent at once, the second half could overtake a first half that fails; the lane keeps them in order."""
        together = (head, *head.packed)
        self._link.count("publish_retries_total", len(together), reason="refused_packed")
        for item in together:
            item.packed_max = len(together) // 2
        self._put_back(head)

    async def _resolve(self, taken: Taken, request: Dated, exc: InDoubt) -> None:
        items = _items(taken)
        logger.warning("publish.in_doubt", link=self._link.name, events=len(items), error=str(exc))
        self._link.count("in_doubt_total", len(items))
        self.in_doubt += len(items)
        try:
            wanted = {item.prepared.origin: item.entry.partition_key for item in items}
            found = await self._recovery.find_request(request, wanted)
        finally:
            self.in_doubt -= len(items)
        self._arrived([item for item in items if item.prepared.origin in found.origins])
        unproven = None if found.is_complete else self._recovery.unproven_request(request)
        missing: Taken = []
        for head in taken:
            left = [item for item in (head, *head.packed) if item.prepared.origin not in found.origins]
            if unproven is not None:
                for item in left:
                    item.doubt = unproven.joined(item.doubt)
            if left:
                left[0].packed = left[1:]
                missing.append(left[0])
            else:
                self._lanes.done((head,))
        self._retry(missing, "in_doubt_not_stored", rests=False)


def _items(taken: Taken) -> list[Item]:
    packed = [head for head in taken if head.packed]
    return [item for head in taken for item in (head, *head.packed)] if packed else taken


def _count(taken: Taken) -> int:
    return len(taken) + sum([len(head.packed) for head in taken if head.packed])
