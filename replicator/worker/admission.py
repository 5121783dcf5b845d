"""What happens to each record before anything is claimed: dropped with a reason, quarantined, or made an item.

A copy (same id, same bytes) of an event that is still under way becomes no item of its own: it shares the first one's
fate, and the watermark, which is contiguous, can't pass it before the first. An event is under way until its span is
settled: only then does the claim store know it.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence

import structlog

from replicator.core.convergence import CONFLICT
from replicator.core.egress import RESIDENCY, Egress
from replicator.core.filters import Filter
from replicator.core.quarantine_document import Quarantined
from replicator.core.routing import FORWARD, Drop, Forward, HomeRouter, Route, Router
from replicator.errors import PoisonEvent, StoreUnavailable
from replicator.ports import Clock, Entry, Quarantine
from replicator.worker.held_keys import HeldKeys
from replicator.worker.link import Link
from replicator.worker.prepare import ROUTES_MAX, Prepared, Preparer
from replicator.worker.span import Item, Span

logger = structlog.get_logger(__name__)

QUARANTINE_RETRY_S = 1.0
QUARANTINE_RETRY_MAX_S = 10.0
KEY_HELD = "key_held"
HARMLESS = frozenset({KEY_HELD, CONFLICT})
"""Reasons for which no key is held: one is held already, and what lost a conflict is done."""
NO_TAG = b"null"
"""In the place of a tag, where nobody looks at it."""


def key_held() -> PoisonEvent:
    """Why an event that is well itself is put away; see `worker.held_keys`."""
    return PoisonEvent(KEY_HELD, "an earlier event of its key is in quarantine")


def _event(prepared: Prepared) -> bytes:
    """What a filter looks at: the event that would leave, which for a table is not the record that was read."""
    return prepared.record.data if prepared.decoded is None else prepared.decoded.with_tag(NO_TAG)


class Gate(ABC):
    """What records of one (link, shard) pass, or are put away at."""

    def __init__(self, link: Link, preparer: Preparer, quarantine: Quarantine, held: HeldKeys, clock: Clock) -> None:
        self._link = link
        self._held = held
        self._preparer = preparer
        self._quarantine = quarantine
        self._clock = clock
        self._size_max = link.sink.limits.record_bytes_max

    @abstractmethod
    async def admit(self, span: Span, records: Sequence[Prepared]) -> list[Item]:
        """The events to claim, in source order; ``span.pending`` counts them."""

    @abstractmethod
    def settled(self, span: Span) -> None:
        """The claim store knows the span's events, or was away: later copies are for it to judge."""

    def _oversize(self, size: int) -> PoisonEvent:
        limit = f"{self._link.name} takes {self._size_max}"
        return PoisonEvent("oversize", f"{size} bytes with tag and key, {limit}")

    async def quarantine(self, prepared: Prepared, poison: PoisonEvent, attempts: int) -> None:
        """Return when the event is stored there; until then the watermark waits."""
        document = self._document(prepared, poison, attempts)
        tries = 0
        while True:
            try:
                if poison.reason not in HARMLESS:
                    await self._held.hold(prepared.record.partition_key)
                stays = await self._quarantine.put(document) is False
                break
            except StoreUnavailable:
                tries += 1
                await asyncio.sleep(min(QUARANTINE_RETRY_MAX_S, QUARANTINE_RETRY_S * tries))
        about = {"link": self._link.name, "origin": prepared.origin.key, "detail": poison.detail}
        if poison.reason == CONFLICT:
            self._link.count("conflicts_total")
            logger.info("event.conflict", **about)
            return
        if stays:
            logger.warning("event.stays_in_quarantine", reason=poison.reason, **about)
            return
        self._link.count("events_quarantined_total", reason=poison.reason)
        logger.warning("event.quarantined", reason=poison.reason, **about)

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


class Admission(Gate):
    """The gate of a link to a peer, or into the own hub."""

    def __init__(
        self,
        link: Link,
        router: Router | HomeRouter,
        preparer: Preparer,
        quarantine: Quarantine,
        held: HeldKeys,
        clock: Clock,
    ) -> None:
        super().__init__(link, preparer, quarantine, held, clock)
        self._router = router
        rules = link.settings.filters
        self._filter = None if rules.is_idle else Filter(rules)
        self._egress = link.settings.egress
        self._open: dict[bytes, Item] = {}
        self._decided: dict[Route | None, Forward | Drop] = {}

    async def admit(self, span: Span, records: Sequence[Prepared]) -> list[Item]:
        # One loop, with little called in it: it runs for every event on every link.
        drops: Counter[str] = Counter()
        items: list[Item] = []
        under_way, decided, holds = self._open, self._decided, len(self._held) > 0
        egress = self._egress
        if self._filter is not None:
            records = self._filtered(self._filter, records, drops)
        self._preparer.encode_plain(records, self._leaving(records))
        for prepared in records:
            try:
                decision = decided.get(prepared.route) or self._decide(prepared)
                if type(decision) is Drop:
                    drops[decision.reason] += 1
                    continue
                whole = prepared.entry or self._preparer.entry(prepared)
                entry = whole if egress is None else self._egressed(egress, whole, prepared, span)
                if entry is None:
                    drops[RESIDENCY] += 1
                    continue
                key = entry.partition_key
                size = len(entry.data) + (len(key) if key.isascii() else len(key.encode()))
                if size > self._size_max:
                    entry, size = self._without_replay(prepared, size)
            except PoisonEvent as poison:
                await self.quarantine(prepared, poison, attempts=0)
                holds = len(self._held) > 0
                continue
            if prepared.claim in under_way:
                drops["duplicate"] += 1
                continue
            item = Item(prepared, span, entry, size, len(items))
            if holds and key in self._held:
                item.is_held = True
            under_way[prepared.claim] = item
            items.append(item)
        span.pending += len(items)
        span.size_bytes += sum([item.size_bytes for item in items])
        for reason, number in drops.items():
            self._link.count("events_dropped_total", number, reason=reason)
        return items

    def _filtered(self, chosen: Filter, records: Sequence[Prepared], drops: Counter[str]) -> Sequence[Prepared]:
        """Without the events that would go and may not; whatever else there is of the others, the gate decides."""
        now_ms = self._clock.now_ms()
        rest = []
        for prepared in records:
            route = prepared.route
            reason = None
            if route is not None and self._is_forward(route):
                reason = chosen.why_not(_event(prepared), now_ms - prepared.record.arrival_ms)
            if reason is None:
                rest.append(prepared)
            else:
                drops[reason] += 1
        return rest

    def _is_forward(self, route: Route) -> bool:
        try:
            return self._decision(route) is FORWARD
        except PoisonEvent:
            return False

    def _leaving(self, records: Sequence[Prepared]) -> list[Route | None]:
        """The routes of events born here that lead over this link."""
        routes = {prepared.route for prepared in records if prepared.event_id is not None}
        return [route for route in routes if route is not None and self._decision(route) is FORWARD]

    def _egressed(self, egress: Egress, entry: Entry, prepared: Prepared, span: Span) -> Entry | None:
        """What leaves over this link alone; None: nothing does. Raises PoisonEvent."""
        assert prepared.route is not None, "poison never leaves"
        data = egress.leaving(entry.data, prepared.route.origin)
        if data is entry.data:
            return entry
        if isinstance(data, Drop):
            return None
        self._link.count("events_redacted_total")
        # The whole event stays in memory as well, for as long as the span is open.
        span.size_bytes += max(0, len(entry.data) - len(data))
        return Entry(data, entry.partition_key)

    def _decide(self, prepared: Prepared) -> Forward | Drop:
        """Raises PoisonEvent."""
        if prepared.poison is not None:
            raise prepared.poison.anew()
        assert prepared.route is not None, "only poison has none"
        return self._decision(prepared.route)

    def _decision(self, route: Route) -> Forward | Drop:
        decision = self._decided.get(route)
        if decision is None:
            if len(self._decided) >= ROUTES_MAX:
                self._decided.clear()
            decision = self._decided[route] = self._router.decide(route)
        return decision

    def _without_replay(self, prepared: Prepared, size: int) -> tuple[Entry, int]:
        """What leaves of an event that is too large only for the id of its replay, and its size. Raises PoisonEvent."""
        whole = self._preparer.without_replay(prepared)
        if whole is not None:
            assert prepared.route is not None, "poison never leaves"
            egress = self._egress
            data = whole.data if egress is None else egress.leaving(whole.data, prepared.route.origin)
            assert not isinstance(data, Drop), "the id decides nothing"
            lean = Entry(data, whole.partition_key)
            if lean.size_bytes <= self._size_max:
                return lean, lean.size_bytes
        raise self._oversize(size)

    def settled(self, span: Span) -> None:
        for item in span.items:
            del self._open[item.prepared.claim]
