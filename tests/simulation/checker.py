"""Judges a history by what producers wrote and what the streams, the lease table and the quarantine stored.

It imports nothing of the package: routes, tags and events are read here by other means, so that a bug which worker and
simulator share can't hide. An event is known by the number ``n`` in its bytes.
"""

import json
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

TAG = "_replicator"
END = -1
"""A checkpoint behind the last record of a closed shard."""


@dataclass(frozen=True)
class Stored:
    at_s: float
    region: str
    key: str
    sequence: int
    generation: int | None
    """The one it left its origin under; None: it is of this region."""
    number: int | None
    """None: no event at all, to be quarantined on every link."""
    data: bytes


@dataclass
class Allowed:
    """What a scenario gives up, and so is counted instead of reported."""

    duplicates: bool = False
    repeats: bool = False
    """Copies that producers write may pass: the window of event ids was lost."""
    reordering: bool = False


def routes(kind: str, regions: Iterable[str]) -> dict[tuple[str, str], set[str]]:
    """Where a region (second) sends what was born in another (first): shortest paths, neighbours by name."""
    names = sorted(regions)
    near: dict[str, list[str]] = {name: [] for name in names}
    for at, name in enumerate(names):
        for other in names:
            is_linked = {
                "mesh": True,
                "hub": names[0] in (name, other),
                "chain": abs(names.index(other) - at) == 1,
            }[kind]
            if other != name and is_linked:
                near[name].append(other)
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for origin in names:
        reached, waiting = {origin}, deque([origin])
        while waiting:
            here = waiting.popleft()
            for child in near[here]:
                if child not in reached:
                    reached.add(child)
                    waiting.append(child)
                    found[origin, here].add(child)
    return found


@dataclass
class Checker:
    regions: tuple[str, ...]
    kinds: tuple[str, ...]
    """The topology of each generation, the first is generation 1."""
    allowed: Allowed = field(default_factory=Allowed)
    holds_keys: bool = False
    """Whether the later events of a quarantined one go to quarantine behind it."""
    breaches: list[str] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._routes = {number: routes(kind, self.regions) for number, kind in enumerate(self.kinds, 1)}
        self._born: dict[int, tuple[str, str, dict[str, Any]]] = {}
        self._order: dict[tuple[str, str], dict[int, tuple[int, int]]] = defaultdict(dict)
        """Where an event stands, and where a copy that may come in its place: of a stream that was made anew, or of
        the time after a change of topology."""
        self._copies: Counter[tuple[int, str, str]] = Counter()
        self._gone: set[tuple[str, str]] = set()
        self._deleted: set[int] = set()
        self._written: Counter[int] = Counter()
        self._sent_twice: dict[int, Counter[tuple[str, str]]] = defaultdict(Counter)
        """By event, region and incarnation, the copies that no sender could have prevented."""
        self._been: dict[tuple[int, str], set[str]] = defaultdict(set)
        """By event and region, the hubs on the ways by which it came."""
        self._present: dict[str, set[int]] = {region: set() for region in self.regions}
        self._last: dict[tuple[str, str, str, int], int] = {}
        self._shards: dict[tuple[str, str, str], list[Stored]] = defaultdict(list)
        self._verified: dict[tuple[str, str, str, str], int] = {}
        self._history: dict[str, list[Stored]] = defaultdict(list)
        self._senders: dict[tuple[int, str], str] = {}
        self._forgiven: set[tuple[int | None, str]] = set()
        """Events that need not come to a region, because they wait in a quarantine before it."""
        self._quarantined: set[tuple[str, str, bytes]] = set()
        self.missing: dict[tuple[object, ...], str] = {}

    # --- what happened ---------------------------------------------------------------------------------------------

    def produced(
        self, at_s: float, region: str, shard: tuple[str, str], sequence: int, key: str, data: bytes, kind: str
    ) -> None:
        """A producer wrote to its region's hub; ``shard`` is the incarnation and the id."""
        number = None
        if kind != "broken":
            body = json.loads(data)
            number = body["n"]
            if number not in self._born:
                self._born[number] = (region, key, body)
            # A copy that is written under the next topology may go its own way, on which nobody has seen the first.
            if number not in self._order[region, key] or number in self._deleted or len(self.kinds) > 1:
                self._deleted.discard(number)
                ranks, rank = self._order[region, key], len(self._written) + self._written.total()
                ranks[number] = (ranks.get(number, (rank, rank))[0], rank)
            self._written[number] += 1
            self._present[region].add(number)
        self._keep(shard, Stored(at_s, region, key, sequence, None, number, data))
        self._expect(region, number, data, kind)

    def _keep(self, shard: tuple[str, str], record: Stored) -> None:
        self._shards[record.region, *shard].append(record)
        self._history[record.region].append(record)

    def _expect(self, region: str, number: int | None, data: bytes, kind: str) -> None:
        if kind in ("good", "copy"):
            for other in self.regions:
                if other != region and number not in self._present[other] and (number, other) not in self._forgiven:
                    self.missing[number, other] = f"event {number} of {region} in {other}"
            return
        ways = [children[region, region] for children in self._routes.values()]
        peers = self._neighbours(region) if kind == "broken" else set.intersection(*ways)
        for peer in peers:
            if (region, peer, data) not in self._quarantined:
                self.missing[region, peer, data] = (
                    f"{kind} {data[:60]!r} of {region} in the quarantine of link to {peer}"
                )

    def _neighbours(self, region: str) -> set[str]:
        """Those with a link from the region under any generation."""
        links = [link for ways in self._routes.values() for link in ways.items()]
        return {child for (_, at), children in links if at == region for child in children}

    def replicated(
        self, at_s: float, region: str, shard: tuple[str, str], sequence: int, key: str, data: bytes
    ) -> None:
        """A worker wrote to a hub."""
        body = json.loads(data)
        tag = body.pop(TAG)
        number = body["n"]
        origin, born_key, born = self._born[number]
        if (key, body) != (born_key, born):
            self._breach(at_s, f"event {number} was altered on its way to {region}: {key} {body}")
        self._keep(shard, Stored(at_s, region, key, sequence, tag["gen"], number, data))
        self._senders[number, region] = tag["path"][-1]
        self._judge_way(at_s, region, number, origin, tag)
        self._been[number, region].update(tag["path"], (region,))
        self._judge_copy(at_s, region, shard[0], number, origin)
        if number not in self._present[region]:
            self._judge_order(at_s, region, origin, tag["gen"], key, number)
        self._present[region].add(number)
        self.missing.pop((number, region), None)

    def sent_twice(self, region: str, incarnation: str, data: bytes) -> None:
        """Of a request that came twice a copy of the event was stored, here and nowhere else."""
        number = self._number(data)
        assert number is not None, "workers write events only"
        self._sent_twice[number][region, incarnation] += 1

    def _judge_way(self, at_s: float, region: str, number: int, origin: str, tag: dict[str, Any]) -> None:
        way = [*tag["path"], region]
        if origin == region or way[0] != origin:
            self._breach(at_s, f"loop: event {number} of {origin} was stored in {region}, way {way}")
            return
        children = self._routes[tag["gen"]]
        if any(there not in children[origin, here] for here, there in pairwise(way)):
            self._breach(at_s, f"event {number} of {origin} went a way that is no route: {way}")

    def _judge_copy(self, at_s: float, region: str, incarnation: str, number: int, origin: str) -> None:
        self._copies[number, region, incarnation] += 1
        copies = self._copies[number, region, incarnation]
        if copies == 1:
            return
        written, again = self._written[number], self._sent_twice[number]
        if copies <= 1 + again[region, incarnation]:
            self.counted["sent twice on the way"] += 1
        elif self.allowed.duplicates:
            self.counted["duplicates"] += 1
        elif copies <= written + self._copies_on_its_ways(number, region) and self.allowed.repeats:
            self.counted["repeats"] += 1
        else:
            self._breach(
                at_s, f"event {number} of {origin} was stored {copies} times in {region}, written {written} times"
            )

    def _copies_on_its_ways(self, number: int, region: str) -> int:
        """Those that the network brought to the region or to one before it, which relays each it has of them."""
        been = self._been[number, region]
        return sum(copies for (there, _), copies in self._sent_twice[number].items() if there in been)

    def _judge_order(self, at_s: float, region: str, origin: str, generation: int, key: str, number: int) -> None:
        """Events of a key keep their order as long as they take the same way: under one topology."""
        rank = self._order[origin, key]  # one may come from the old stream, and the other from the new one
        place = (region, origin, key, generation)
        last = self._last.get(place)
        if last is not None and rank[last][0] > rank[number][1]:
            if self.allowed.reordering:
                self.counted["reordered"] += 1
            else:
                self._breach(at_s, f"order: {number} came to {region} after {last}, both of {origin} with key {key}")
        self._last[place] = number

    def recreated(self, region: str, incarnation: str) -> None:
        """The region's stream is deleted: what had not left it yet never will."""
        self._gone.add((region, incarnation))
        if set(self.kinds) != {"mesh"}:
            self.allowed.duplicates = True  # the region relays again what its new stream is sent again
        for what in list(self.missing):
            if what[0] in self._present[region] or what[0] == region:
                self.counted["deleted with the stream"] += 1
                del self.missing[what]
                if isinstance(what[0], int) and self._born[what[0]][0] == region:
                    self._deleted.add(what[0])

    def quarantined(self, region: str, peer: str, data: bytes) -> None:
        self._quarantined.add((region, peer, data))
        self.missing.pop((region, peer, data), None)
        number = self._number(data) if self.holds_keys else None
        if number is not None:
            self._forgive(number, region, peer)

    def _forgive(self, number: int, region: str, peer: str) -> None:
        """The event will not come to the peer this way, nor to those behind it: under any topology with that way."""
        origin = self._born[number][0]
        for children in self._routes.values():
            if peer in children[origin, region]:
                self._forgive_from(number, peer, children)

    def _forgive_from(self, number: int, region: str, children: Mapping[tuple[str, str], Collection[str]]) -> None:
        self.missing.pop((number, region), None)
        self._forgiven.add((number, region))
        for further in children[self._born[number][0], region]:
            self._forgive_from(number, further, children)

    def _number(self, data: bytes) -> int | None:
        try:
            body = json.loads(data)
        except ValueError:
            return None
        number = body.get("n") if isinstance(body, dict) else None
        return number if number in self._born else None

    def judge_held_keys(self, at_s: float) -> None:
        """No event leaves over a link behind one of its key that the link has put into quarantine."""
        if not self.holds_keys or self.allowed.reordering:
            return
        for region, history in self._history.items():
            for peer in self._neighbours(region):
                held: set[str] = set()
                sent: set[int] = set()
                last = {record.data: place for place, record in enumerate(history)}
                for place, record in enumerate(history):
                    # Of copies that look alike, one is in quarantine, and that may be the last.
                    if (region, peer, record.data) in self._quarantined and place == last[record.data]:
                        held.add(record.key)
                    elif record.number is not None and record.number not in sent:
                        sent.add(record.number)
                        if record.key in held and self._senders.get((record.number, peer)) == region:
                            self._breach(
                                at_s, f"event {record.number} overtook a held one on the link {region} to {peer}"
                            )

    def checkpointed(self, at_s: float, region: str, shard: tuple[str, str], peer: str, sequence: int) -> None:
        """The lease table has it that everything of the shard up to ``sequence`` is done for the link to ``peer``."""
        if (region, shard[0]) in self._gone:
            return
        records = self._shards[region, *shard]
        place = (region, *shard, peer)
        at = self._verified.get(place, 0)
        while at < len(records) and (sequence == END or records[at].sequence <= sequence):
            if not self._is_settled(records[at], peer):
                where = f"{region}/{shard[1]} for the link to {peer}"
                self._breach(at_s, f"checkpoint of {where} passed {records[at].data[:80]!r}, which is nowhere")
            at += 1
        self._verified[place] = at

    def _is_settled(self, record: Stored, peer: str) -> bool:
        if (record.region, peer, record.data) in self._quarantined:
            return True
        if record.number is None:
            return False
        origin = self._born[record.number][0]
        generations = self._routes if record.generation is None else (record.generation,)
        is_on_route = all(peer in self._routes[number][origin, record.region] for number in generations)
        return not is_on_route or record.number in self._present[peer]

    def is_passed(self, region: str, shard: tuple[str, str], peer: str) -> bool:
        """Whether the link's checkpoint has passed all that the shard holds."""
        return self._verified.get((region, *shard, peer), 0) == len(self._shards[region, *shard])

    def _breach(self, at_s: float, what: str) -> None:
        self.breaches.append(f"{at_s:9.3f} {what}")
