"""The judge judged: a fault of each kind put into the real data must be reported, with the right number."""

import random
from collections import Counter
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
class Replica:
    """A stored copy away from home; ``rank`` is its event's place in the ledger."""

    place: Place
    event: Written
    rank: int


@dataclass(frozen=True, slots=True)
class Trial:
    """One planted fault: ``expected`` and ``reported`` are the counts that changed, by name."""

    name: str
    expected: dict[str, int]
    reported: dict[str, int]

    @property
    def is_passed(self) -> bool:
        return self.expected == self.reported


class TooLittle(Exception):
    """The data is too little to judge a judge by."""


def prove(written: Sequence[Written], hubs: Hubs, rng: random.Random) -> list[Trial]:
    """Remove, repeat, swap and send back one stored event each, chosen by ``rng``.

    Raises TooLittle when the hubs hold no two replicas of one home and key, single and in order.
    """
    base = judge(written, hubs)
    lanes = _sound_lanes(written, hubs)
    replicas = [replica for lane in lanes for replica in lane]
    pairs = [pair for lane in lanes for pair in pairwise(lane)]
    if not pairs:
        raise TooLittle("the hubs hold no two replicas of one home and key to swap; write more events")

    def trial(name: str, fault: str, planted: Hubs) -> Trial:
        return Trial(name, {fault: 1}, _changes(base, judge(written, planted)))

    return [
        trial("remove", "lost", removed(hubs, rng.choice(replicas).place)),
        trial("repeat", "duplicated", repeated(hubs, rng.choice(replicas).place)),
        trial("swap", "reordered", swapped(hubs, *(replica.place for replica in rng.choice(pairs)))),
        trial("send back", "looped", sent_back(hubs, rng.choice(replicas))),
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


def sent_back(hubs: Hubs, replica: Replica) -> Hubs:
    """With one replica in the hub where its event was born."""
    place = replica.place
    stored = hubs[place.region][place.shard][place.index]
    return _changed(hubs, replica.event.home, 0, lambda shard: shard.append(stored))


def _changed(hubs: Hubs, region: str, number: int, change: Callable[[list[Stored]], object]) -> Hubs:
    shard = list(hubs[region][number])
    change(shard)
    return {**hubs, region: [*hubs[region][:number], shard, *hubs[region][number + 1 :]]}


def _sound_lanes(written: Sequence[Written], hubs: Hubs) -> list[list[Replica]]:
    """The replicas of one home and key in one shard, where each stands once and in the ledger's order.

    Elsewhere one planted fault could hide or multiply one that is there already.
    """
    ranked = {event.id: (event, rank) for rank, event in enumerate(written)}
    lanes: dict[tuple[str, int, str, str], list[Replica]] = {}
    copies: Counter[tuple[str, str]] = Counter()
    for place, stored in _replicas(hubs):
        if (known := ranked.get(event_id(stored.data) or "")) is not None:
            event, rank = known
            lane = (place.region, place.shard, event.home, event.key)
            lanes.setdefault(lane, []).append(Replica(place, event, rank))
            copies[place.region, event.id] += 1
    return [lane for lane in lanes.values() if _is_sound(lane, copies)]


def _is_sound(lane: Sequence[Replica], copies: Counter[tuple[str, str]]) -> bool:
    is_single = all(copies[replica.place.region, replica.event.id] == 1 for replica in lane)
    return is_single and all(before.rank < after.rank for before, after in pairwise(lane))


def _replicas(hubs: Hubs) -> Iterator[tuple[Place, Stored]]:
    for region, hub in hubs.items():
        for number, shard in enumerate(hub):
            for index, stored in enumerate(shard):
                if is_replica(stored.data):
                    yield Place(region, number, index), stored
