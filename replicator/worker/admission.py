"""What happens to each record before anything is claimed: dropped with a reason, quarantined, or made an item.

A copy (same id, same bytes) of an event that is still under way becomes no item of its own: it waits behind the first
and shares its fate, and the watermark waits with it. An event is under way until its span is settled: only then does
the claim store know it.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable

import structlog

from replicator.core.routing import Drop, Router
from replicator.errors import PoisonEvent, StoreUnavailable
from replicator.ports import Clock, Quarantine, Quarantined
from replicator.worker.held_keys import HeldKeys
from replicator.worker.link import Link
from replicator.worker.prepare import Prepared, Preparer
from replicator.worker.span import Item, Span

logger = structlog.get_logger(__name__)

QUARANTINE_RETRY_S = 1.0
KEY_HELD = "key_held"


def key_held() -> PoisonEvent:
    """Why an event that is well itself is put away; see `worker.held_keys`."""
    return PoisonEvent(KEY_HELD, "an earlier event of its key is in quarantine")


class Admission:
    """The gate of one (link, shard)."""

    def __init__(
        self,
        link: Link,
        router: Router,
        preparer: Preparer,
        quarantine: Quarantine,
        held: HeldKeys,
        clock: Clock,
    ) -> None:
        self._link = link
        self._held = held
        self._router = router
        self._preparer = preparer
        self._quarantine = quarantine
        self._clock = clock
        self._open: dict[bytes, Item] = {}

    async def admit(self, span: Span, records: Iterable[Prepared]) -> list[Item]:
        """The events to claim, in source order; ``span.pending`` counts them and the copies that wait for them."""
        drops: Counter[str] = Counter()
        items: list[Item] = []
        for prepared in records:
            try:
                reason = self._gate(span, prepared, items)
            except PoisonEvent as poison:
                await self.quarantine(prepared, poison, attempts=0)
            else:
                if reason is not None:
                    drops[reason] += 1
        for reason, number in drops.items():
            self._link.count("events_dropped_total", number, reason=reason)
        return items

    def _gate(self, span: Span, prepared: Prepared, items: list[Item]) -> str | None:
        """The reason of a drop, or None when the event goes on; raises PoisonEvent."""
        if prepared.poison is not None:
            raise prepared.poison
        assert prepared.decoded is not None
        decision = self._router.decide(prepared.decoded.tag, prepared.record.arrival_ms)
        if isinstance(decision, Drop):
            return decision.reason
        if prepared.record.partition_key in self._held:
            raise key_held()
        item = self._item(span, prepared)
        first = self._open.get(prepared.claim)
        if first is not None and first.is_done:
            return "duplicate"
        span.pending += 1
        if first is not None:
            first.copies.append(item)
            return None
        self._open[prepared.claim] = item
        items.append(item)
        return None

    def _item(self, span: Span, prepared: Prepared) -> Item:
        entry = self._preparer.entry(prepared)
        size = len(entry.data) + len(entry.partition_key.encode())
        limit = self._link.sink.limits.record_bytes_max
        if size > limit:
            raise PoisonEvent("oversize", f"{size} bytes with tag and key, {self._link.name} takes {limit}")
        span.size_bytes += size
        return Item(prepared, span, entry, size)

    def close(self, item: Item) -> list[Item]:
        """The item is done; answers the copies that waited for it."""
        item.is_done = True
        copies, item.copies = item.copies, []
        return copies

    def settled(self, span: Span) -> None:
        """The claim store knows the span's events, or was away: later copies are for it to judge."""
        for item in span.items:
            del self._open[item.prepared.claim]

    async def quarantine(self, prepared: Prepared, poison: PoisonEvent, attempts: int) -> None:
        """Return when the event is stored there; until then the watermark waits."""
        self._link.count("events_quarantined_total", reason=poison.reason)
        document = self._document(prepared, poison, attempts)
        logger.warning(
            "event.quarantined",
            link=self._link.name,
            reason=poison.reason,
            origin=prepared.origin.key,
            detail=poison.detail,
        )
        while True:
            try:
                if poison.reason != KEY_HELD:
                    await self._held.hold(prepared.record.partition_key)
                await self._quarantine.put(document)
            except StoreUnavailable as exc:
                logger.error("quarantine.unavailable", link=self._link.name, error=str(exc))  # noqa: TRY400 - expected, retried
                await asyncio.sleep(QUARANTINE_RETRY_S)
            else:
                return

    def _document(self, prepared: Prepared, poison: PoisonEvent, attempts: int) -> Quarantined:
        return Quarantined(
            link=self._link.name,
            reason=poison.reason,
            detail=poison.detail,
            origin=prepared.origin,
            partition_key=prepared.record.partition_key,
            data=prepared.record.data,
            attempts=attempts,
            at_ms=self._clock.now_ms(),
        )
