"""The judge: what was written against what every hub holds, in numbers.

It knows nothing of the worker: no code of core, adapters or worker is used here, only `json`, so that a shared bug can't
hide. What it takes for granted is what a consumer sees: an event is a JSON object with ``id``, ``home`` and ``key``, a
replica is the same bytes with one member ``_replicator`` put in front, and that member names the regions it visited.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

TAG = "_replicator"
EXAMPLES_MAX = 5
PARSED_MAX = 400_000
FAULTS = ("lost", "looped", "duplicated", "reordered", "foreign", "altered", "lost_at_home", "written_twice")


@dataclass(frozen=True, slots=True)
class Written:
    """What a producer did. Not ``is_acknowledged``: the reply was lost, so only the home hub can tell."""

    id: str
    home: str
    key: str
    data: bytes
    is_acknowledged: bool = True


@dataclass(frozen=True, slots=True)
class Stored:
    """One record of a hub."""

    data: bytes
    partition_key: str


Hub = Sequence[Sequence[Stored]]
"""All shards of a hub, closed ones too, parents before children; each from its beginning."""
Hubs = Mapping[str, Hub]
"""By region."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Counts over all hubs.

    ``written``: events in their home hub. ``delivered``: by region, events of other homes. ``lost``: written, but not in
    a peer's hub, once for each such peer. ``duplicated``: further copies in a peer's hub. ``looped``: copies that came to
    a region they had visited. ``reordered``: neighbours in a peer's hub, of one home and key, that stand the other way
    round at home. ``foreign``: records nobody wrote there. ``altered``: copies that differ from what was written by more
    than the tag. ``lost_at_home``: acknowledged, but not in the home hub. ``written_twice``: further untagged copies there.
    ``examples``: by fault, the first few as ``region: id``; ``missing``: by region, the ids counted as lost.
    """

    written: int
    delivered: Mapping[str, int]
    lost: int
    looped: int
    duplicated: int
    reordered: int
    foreign: int
    altered: int
    lost_at_home: int
    written_twice: int
    examples: Mapping[str, Sequence[str]]
    missing: Mapping[str, Sequence[str]]

    @property
    def clean(self) -> bool:
        return not any(self.faults().values())

    def faults(self) -> dict[str, int]:
        """Every count that must be 0, by name."""
        return {name: getattr(self, name) for name in FAULTS}


def judge(written: Iterable[Written], hubs: Hubs) -> Verdict:
    """Compare the ledger with what the hubs hold."""
    ledger = {event.id: event for event in written}
    found = _Findings()
    homes = {region: _look_home(region, hub, ledger, found) for region, hub in hubs.items()}
    present = {event_id for order in homes.values() for event_id in order}
    for event in ledger.values():
        if event.is_acknowledged and event.id not in present:
            found.add("lost_at_home", event.home, event.id)
    delivered = {}
    for region, hub in hubs.items():
        arrived = _look_at_replicas(region, hub, ledger, present, found)
        delivered[region] = len(present.intersection(arrived))
        _find_missing(region, arrived, ledger, present, found)
        _find_reordered(region, arrived, ledger, homes, found)
    counts = {name: found.counts[name] for name in FAULTS}
    return Verdict(len(present), delivered, **counts, examples=found.examples, missing=found.missing)


@dataclass(slots=True)
class _Findings:
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    missing: dict[str, list[str]] = field(default_factory=dict)

    def add(self, fault: str, region: str, event_id: str) -> None:
        self.counts[fault] += 1
        examples = self.examples.setdefault(fault, [])
        if len(examples) < EXAMPLES_MAX:
            examples.append(f"{region}: {event_id}")


@dataclass(frozen=True, slots=True)
class _Copy:
    """What a record says. ``path`` is None without a tag, empty when the tag can't be understood."""

    id: str
    path: tuple[str, ...] | None


@lru_cache(PARSED_MAX)
def _parsed(data: bytes) -> _Copy | None:
    """The copy in these bytes; None when they are no event at all."""
    try:
        event = json.loads(data)
    except ValueError:
        return None
    if not isinstance(event, dict) or not isinstance(event.get("id"), str):
        return None
    return _Copy(event["id"], _path(event[TAG]) if TAG in event else None)


def _path(tag: object) -> tuple[str, ...]:
    path = tag.get("path") if isinstance(tag, dict) else None
    return tuple(map(str, path)) if isinstance(path, list) else ()


def event_id(data: bytes) -> str | None:
    """The id of an event as stored, tagged or not; None when the bytes are no event."""
    copy = _parsed(data)
    return None if copy is None else copy.id


def is_replica(data: bytes) -> bool:
    """Whether a stored event came from another region."""
    copy = _parsed(data)
    return copy is not None and copy.path is not None


def _copies(hub: Hub) -> Iterator[tuple[Stored, _Copy | None]]:
    for shard in hub:
        for stored in shard:
            yield stored, _parsed(stored.data)


def _look_home(region: str, hub: Hub, ledger: Mapping[str, Written], found: _Findings) -> dict[str, int]:
    """Events written here with their place in the hub; whatever else stands here without a tag is foreign."""
    order: dict[str, int] = {}
    for stored, copy in _copies(hub):
        if copy is None:
            found.add("foreign", region, repr(stored.data[:40]))
        elif copy.path is None:
            _look_at_original(region, stored, copy.id, ledger, order, found)
    return order


def _look_at_original(
    region: str,
    stored: Stored,
    copy_id: str,
    ledger: Mapping[str, Written],
    order: dict[str, int],
    found: _Findings,
) -> None:
    event = ledger.get(copy_id)
    if event is None or event.home != region:
        found.add("foreign", region, copy_id)
        return
    if stored.data != event.data or stored.partition_key != event.key:
        found.add("altered", region, copy_id)
    if copy_id in order:
        found.add("written_twice", region, copy_id)
    else:
        order[copy_id] = len(order)


def _look_at_replicas(
    region: str, hub: Hub, ledger: Mapping[str, Written], present: Container[str], found: _Findings
) -> dict[str, None]:
    """Ids of other homes in the order of their first arrival."""
    arrived: dict[str, None] = {}
    for stored, copy in _copies(hub):
        if copy is None or copy.path is None:
            continue
        event = ledger.get(copy.id)
        if event is None or not (event.is_acknowledged or copy.id in present):
            found.add("foreign", region, copy.id)
        elif event.home == region or region in copy.path or len(set(copy.path)) < len(copy.path):
            found.add("looped", region, copy.id)
        else:
            if not _is_unaltered(stored, copy.path, event):
                found.add("altered", region, copy.id)
            if copy.id in arrived:
                found.add("duplicated", region, copy.id)
            arrived[copy.id] = None
    return arrived


def _is_unaltered(stored: Stored, path: Sequence[str], event: Written) -> bool:
    """Bytes stay bytes: behind the tag, which stands in front, the written event goes on as it was."""
    is_same_key = stored.partition_key == event.key
    return is_same_key and path[:1] == (event.home,) and _is_tagged(stored.data, event.data)


@lru_cache(PARSED_MAX)
def _is_tagged(data: bytes, original: bytes) -> bool:
    """Whether ``data`` is ``original`` with one object as the first member, under the tag's name."""
    front, behind = b'{"' + TAG.encode() + b'":', b"," + original[1:]
    if not (data.startswith(front) and data.endswith(behind)):
        return False
    try:
        return isinstance(json.loads(data[len(front) : -len(behind)]), dict)
    except ValueError:
        return False


def _find_missing(
    region: str,
    arrived: Mapping[str, None],
    ledger: Mapping[str, Written],
    present: Iterable[str],
    found: _Findings,
) -> None:
    missing = [
        written_id
        for written_id in present
        if written_id not in arrived and ledger[written_id].home != region
    ]
    for written_id in missing:
        found.add("lost", region, written_id)
    if missing:
        found.missing[region] = missing


def _find_reordered(
    region: str,
    arrived: Mapping[str, None],
    ledger: Mapping[str, Written],
    homes: Mapping[str, Mapping[str, int]],
    found: _Findings,
) -> None:
    """Only first arrivals count: a late second copy is a duplicate, not a change of order."""
    lanes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for arrived_id in arrived:
        event = ledger[arrived_id]
        if arrived_id in homes.get(event.home, {}):
            lanes[event.home, event.key].append(arrived_id)
    for (home, _), lane in lanes.items():
        for before, after in pairwise(lane):
            if homes[home][before] > homes[home][after]:
                found.add("reordered", region, after)
