"""Sends what waits in the lanes of one (link, shard), and finds out what became of every request.

Every attempt ends in one of four ways: stored (done), refused for good (poison), failed without effect (back to the
head of its lane, after a rest), or nobody knows (in doubt). An event in doubt keeps its lane until the sink was read
back, so nothing of its key overtakes it and nothing is sent twice.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from replicator.core.backoff import delay_s
from replicator.core.lanes import Lanes
from replicator.errors import Fenced, InDoubt, PoisonEvent, Refused, TransientError
from replicator.ports import Clock
from replicator.worker.admission import key_held
from replicator.worker.held_keys import HeldKeys
from replicator.worker.link import Link
from replicator.worker.recovery import Recovery
from replicator.worker.span import Item

logger = structlog.get_logger(__name__)

Taken = list[tuple[object, Item]]


class Publisher:
    """Up to ``in_flight_max`` requests at a time, no two of them holding the same key.

    ``may_send`` says whether the lease is surely ours at this moment, by our own monotonic clock.
    """

    def __init__(
        self,
        link: Link,
        recovery: Recovery,
        clock: Clock,
        may_send: Callable[[], bool],
        on_stored: Callable[[Item], None],
        on_poison: Callable[[Item, PoisonEvent], Awaitable[None]],
        held: HeldKeys,
    ) -> None:
        self._link = link
        self._recovery = recovery
        self._clock = clock
        self._may_send = may_send
        self._on_stored = on_stored
        self._on_poison = on_poison
        self._held = held
        self._refused: set[str] = set()
        """Keys of events that the peer refused, where keys are held."""
        self._lanes: Lanes[Item] = Lanes(lambda item: item.size_bytes)
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

    def add(self, item: Item) -> None:
        by_key = self._link.settings.ordering == "key"
        self._lanes.add(item.prepared.record.partition_key if by_key else id(item), item)
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
            self.in_flight += len(taken)
            try:
                await self._send(await self._without_held(taken) if self._refused else taken)
            finally:
                self.in_flight -= len(taken)
                self._work.set()

    async def _without_held(self, taken: Taken) -> Taken:
        """What may be sent. What waited behind a refused event of its key is put away, lane by lane in order."""
        free: Taken = []
        for key, item in taken:
            partition_key = item.prepared.record.partition_key
            if partition_key not in self._refused or partition_key not in self._held:
                free.append((key, item))
                continue
            await self._on_poison(item, key_held())
            self._lanes.done(key)
        return free

    async def _take(self) -> Taken:
        loop = asyncio.get_running_loop()
        limits = self._link.sink.limits
        while not self._is_stopping:
            if self._lanes.waiting:
                if not self._link.is_open:
                    await self._until_open()
                    continue
                taken = self._lanes.take(limits.records_max, limits.request_bytes_max, loop.time())
                if taken:
                    return taken
            self._work.clear()
            await self._wait_for_work(self._lanes.next_wake_s())
        return []

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
        # before they send anything themselves.
        signed_ms = self._clock.now_ms()
        if not self._may_send():
            raise Fenced(f"the lease behind {self._link.name} was not renewed in time")
        try:
            results = await self._link.sink.put([item.entry for _, item in taken], signed_ms=signed_ms)
        except InDoubt as exc:
            self._link.failed(exc)
            await self._resolve(taken, exc)
        except Refused as exc:
            await self._split(taken, exc)
        except TransientError as exc:
            self._link.failed(exc)
            self._retry(taken, exc.code, rests=False)
        else:
            self._link.health.succeeded()
            self._link.observe("publish_seconds", asyncio.get_running_loop().time() - started_s)
            self._sort_out(taken, results)

    def _sort_out(self, taken: Taken, results: Sequence[str | None]) -> None:
        failed: dict[str, Taken] = {}
        stored: Taken = []
        for place, code in zip(taken, results, strict=True):
            if code is None:
                stored.append(place)
            else:
                failed.setdefault(code, []).append(place)
        self._stored(stored)
        for code, places in failed.items():
            self._retry(places, code, rests=True)

    def _stored(self, places: Taken) -> None:
        self._link.count("events_forwarded_total", len(places))
        for key, item in places:
            self._lanes.done(key)
            self._on_stored(item)

    def _retry(self, taken: Taken, code: str, *, rests: bool) -> None:
        """Back to the heads of their lanes. Entries that failed singly rest; a failed request holds the whole link."""
        now_s = asyncio.get_running_loop().time()
        settings = self._link.settings
        self._link.count("publish_retries_total", len(taken), reason=code)
        for key, item in taken:
            item.attempts += 1
            rest_s = delay_s(
                item.attempts, self._link.draw(), base_s=settings.backoff_base_s, max_s=settings.backoff_max_s
            )
            self._lanes.put_back(key, item, now_s + rest_s if rests else None)

    async def _split(self, taken: Taken, exc: Refused) -> None:
        """Halve a refused request until the event that can't pass is alone."""
        if len(taken) > 1:
            middle = len(taken) // 2
            await self._send(taken[:middle])
            await self._send(taken[middle:])
            return
        key, item = taken[0]
        if self._held.is_on:
            self._refused.add(item.prepared.record.partition_key)
        await self._on_poison(item, PoisonEvent("refused_by_peer", str(exc)))
        self._lanes.done(key)

    async def _resolve(self, taken: Taken, exc: InDoubt) -> None:
        logger.warning("publish.in_doubt", link=self._link.name, events=len(taken), error=str(exc))
        self._link.count("in_doubt_total", len(taken))
        self.in_doubt += len(taken)
        try:
            found = await self._recovery.find_request(exc.sent_ms, {item.prepared.origin for _, item in taken})
        finally:
            self.in_doubt -= len(taken)
        self._stored([place for place in taken if place[1].prepared.origin in found])
        missing = [place for place in taken if place[1].prepared.origin not in found]
        self._retry(missing, "in_doubt_not_stored", rests=False)
