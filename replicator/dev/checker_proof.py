"""The judge judged: a fault of each kind put into the real data must be reported, with the right number."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from replicator.dev.checker import Hubs, Stored, Verdict, Written, event_id, is_replica, judge


@dataclass(frozen=True, slots=True)
class Place:
    """Where one record stands."""

    region: str
    shard: int
    index: int


@dataclass(frozen=True, slots=True)
class Trial:
    """One planted fault: ``expected`` and ``reported`` are the counts that changed, by name."""

    name: str
    expected: dict[str, int]
    reported: dict[str, int]

    @property
    def is_passed(self) -> bool:
        return self.expected == self.reported


def prove(written: Sequence[Written], hubs: Hubs, rng: random.Random) -> list[Trial]:
    """Remove, repeat, swap and send back one stored event each, chosen by ``rng``.

    Raises ValueError when the hubs hold no two replicas of one home and key: too little to judge a judge by.
    """
    base = judge(written, hubs)
    places = _single_replicas(written, hubs)
    pairs = _neighbours(places)
    if not pairs:
        raise ValueError("the hubs hold no two replicas of one home and key, in order and single, to swap")

    def trial(name: str, fault: str, planted: Hubs) -> Trial:
        return Trial(name, {fault: 1}, _changes(base, judge(written, planted)))

    return [
        trial("remove", "lost", removed(hubs, rng.choice(places).place)),
        trial("repeat", "duplicated", repeated(hubs, rng.choice(places).place)),
        trial("swap", "reordered", swapped(hubs, *rng.choice(pairs))),
        trial("send back", "looped", sent_back(hubs, rng.choice(places))),
    ]


def _changes(base: Verdict, verdict: Verdict) -> dict[str, int]:
    before, after = base.faults(), verdict.faults()
    return {name: after[name] - before[name] for name in after if after[name] != before[name]}


def removed(hubs: Hubs, place: Place) -> Hubs:
    """Without one record."""
    return _changed(hubs, place.region, place.shard, lambda shard: shard.pop(place.index))


def repeated(hubs: Hubs, place: Place) -> Hubs:
    """With one record a second time, at the end of its shard."""
    return _changed(hubs, place.region, place.shard, lambda shard: shard.append(shard[place.index]))


def swapped(hubs: Hubs, first: Place, second: Place) -> Hubs:
    """With two records of one shard in each other's place."""

    def swap(shard: list[Stored]) -> None:
        shard[first.index], shard[second.index] = shard[second.index], shard[first.index]

    return _changed(hubs, first.region, first.shard, swap)


def sent_back(hubs: Hubs, replica: "Replica") -> Hubs:
    """With one replica in the hub where its event was born."""
    place = replica.place
    stored = hubs[place.region][place.shard][place.index]
    return _changed(hubs, replica.event.home, 0, lambda shard: shard.append(stored))


def _changed(hubs: Hubs, region: str, number: int, change: Callable[[list[Stored]], object]) -> Hubs:
    shard = list(hubs[region][number])
    change(shard)
    return {**hubs, region: [*hubs[region][:number], shard, *hubs[region][number + 1 :]]}


@dataclass(frozen=True, slots=True)
class Replica:
    """A stored copy away from home; ``rank`` is its event's place in the ledger."""

    place: Place
    event: Written
    rank: int


def _single_replicas(written: Sequence[Written], hubs: Hubs) -> list[Replica]:
    """Replicas that stand once in their hub: taking away one of two would lose nothing."""
    ranked = {event.id: (event, rank) for rank, event in enumerate(written)}
    found: dict[tuple[str, str], list[Replica]] = {}
    for place, stored in _replicas(hubs):
        if (known := ranked.get(event_id(stored.data) or "")) is not None:
            found.setdefault((place.region, known[0].id), []).append(Replica(place, *known))
    return [copies[0] for copies in found.values() if len(copies) == 1]


def _replicas(hubs: Hubs) -> Iterator[tuple[Place, Stored]]:
    for region, hub in hubs.items():
        for number, shard in enumerate(hub):
            for index, stored in enumerate(shard):
                if is_replica(stored.data):
                    yield Place(region, number, index), stored


def _neighbours(replicas: Sequence[Replica]) -> list[tuple[Place, Place]]:
    """Pairs next to each other in their lane, from lanes that stand in the order of the ledger."""
    lanes: dict[tuple[str, int, str, str], list[Replica]] = {}
    for replica in replicas:
        lane = (replica.place.region, replica.place.shard, replica.event.home, replica.event.key)
        lanes.setdefault(lane, []).append(replica)
    return [
        (before.place, after.place)
        for lane in lanes.values()
        if all(before.rank < after.rank for before, after in pairwise(lane))
        for before, after in pairwise(lane)
    ]
