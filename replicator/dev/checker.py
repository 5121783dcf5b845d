"""The judge: what was written against what every hub holds, in numbers.

It knows nothing of the worker: no code of core, adapters or worker is used here, only `json`, so that a
shared bug can't hide. What it takes for granted is what a consumer sees: an event is a JSON object with an
``id``; a replica is the same bytes with one member ``_replicator`` put in front, and that member names the
regions the event visited. An event that came out of a table has that member in its home hub already, and no region
in it.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

TAG = "_replicator"
EXAMPLES_MAX = 5
PARSED_MAX = 400_000
FAULTS = (
    "lost", "looped", "duplicated", "reordered", "foreign", "altered", "lost_at_home", "written_twice",
)  # fmt: skip


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

    - ``written``: events in their home hub; ``delivered``: by region, events of other homes.
    - ``lost``: written, but not in a peer's hub, once for each such peer; ``missing``: their ids by region.
    - ``looped``: copies that came to a region they had visited, or visited one twice on their way.
    - ``duplicated``: further copies in a peer's hub.
    - ``reordered``: neighbours of one home and key in a peer's hub that stand the other way round at home, or, out of a
      table, at home and were written the other way round.
    - ``foreign``: records nobody wrote there.
    - ``altered``: copies that differ from what was written by more than the tag.
    - ``lost_at_home``: acknowledged, but not in the home hub; ``written_twice``: further untagged copies
      there. Both accuse the emulator or the producer, not the replication.
    - ``examples``: by fault, the first few as ``region: id``.
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
    return _Case(written, hubs).verdict()


def event_id(data: bytes) -> str | None:
    """The id of an event as stored, tagged or not; None when the bytes are no event."""
    copy = _parsed(data)
    return None if copy is None else copy.id


def is_replica(data: bytes) -> bool:
    """Whether a stored event came from another region."""
    copy = _parsed(data)
    return copy is not None and copy.path is not None and not copy.is_at_home


@dataclass(frozen=True, slots=True)
class _Copy:
    """What a record says. ``path`` is None without a tag, empty when the tag can't be understood.

    ``is_at_home``: its tag says that it has not left yet.
    """

    id: str
    path: tuple[str, ...] | None
    is_at_home: bool = False


@lru_cache(PARSED_MAX)
def _parsed(data: bytes) -> _Copy | None:
    try:
        event = json.loads(data)
    except ValueError:
        return None
    if not isinstance(event, dict) or not isinstance(event.get("id"), str):
        return None
    if TAG not in event:
        return _Copy(event["id"], None)
    tag = event[TAG]
    return _Copy(event["id"], _path(tag), is_at_home=isinstance(tag, dict) and tag.get("path") == [])


def _path(tag: object) -> tuple[str, ...]:
    path = tag.get("path") if isinstance(tag, dict) else None
    return tuple(map(str, path)) if isinstance(path, list) else ()


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


class _Case:
    """One ledger against one set of hubs."""

    def __init__(self, written: Iterable[Written], hubs: Hubs) -> None:
        self._ledger = {event.id: event for event in written}
        self._hubs = hubs
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = defaultdict(list)
        self._ranks = {event_id: rank for rank, event_id in enumerate(self._ledger)}
        self._at_home: dict[str, int] = {}
        """Events in their home hub, and where they stand among all of that hub."""

    def verdict(self) -> Verdict:
        for region in self._hubs:
            self._look_for_originals(region)
        self._find_lost_at_home()
        delivered: dict[str, int] = {}
        missing: dict[str, list[str]] = {}
        for region in self._hubs:
            arrived = self._arrived(region)
            delivered[region] = len(self._at_home.keys() & arrived.keys())
            if absent := self._find_missing(region, arrived):
                missing[region] = absent
            self._find_reordered(region, arrived)
        counts = {name: self._counts[name] for name in FAULTS}
        return Verdict(len(self._at_home), delivered, **counts, examples=dict(self._examples), missing=missing)

    def _found(self, fault: str, region: str, what: str) -> None:
        self._counts[fault] += 1
        if len(self._examples[fault]) < EXAMPLES_MAX:
            self._examples[fault].append(f"{region}: {what}")

    def _copies(self, region: str) -> Iterator[tuple[Stored, _Copy | None]]:
        for shard in self._hubs[region]:
            for stored in shard:
                yield stored, _parsed(stored.data)

    def _look_for_originals(self, region: str) -> None:
        """Whatever stands here without a tag, or by its tag has not left, must have been written here, once."""
        last: dict[str, int] = {}
        for place, (stored, copy) in enumerate(self._copies(region)):
            if copy is None:
                self._found("foreign", region, repr(stored.data[:40]))
            elif copy.path is None or copy.is_at_home:
                self._look_at_original(region, place, stored, copy.id)
            if copy is not None and copy.is_at_home and copy.id in self._ranks:
                rank = self._ranks[copy.id]
                if last.get(stored.partition_key, -1) > rank:
                    self._found("reordered", region, copy.id)
                last[stored.partition_key] = rank

    def _look_at_original(self, region: str, place: int, stored: Stored, copy_id: str) -> None:
        event = self._ledger.get(copy_id)
        if event is None or event.home != region:
            self._found("foreign", region, copy_id)
            return
        is_same = stored.data == event.data or _is_tagged(stored.data, event.data)
        if not is_same or stored.partition_key != event.key:
            self._found("altered", region, copy_id)
        if copy_id in self._at_home:
            self._found("written_twice", region, copy_id)
        self._at_home.setdefault(copy_id, place)

    def _find_lost_at_home(self) -> None:
        for event in self._ledger.values():
            if event.is_acknowledged and event.home in self._hubs and event.id not in self._at_home:
                self._found("lost_at_home", event.home, event.id)

    def _arrived(self, region: str) -> dict[str, None]:
        """Ids of other homes in the order of their first arrival."""
        arrived: dict[str, None] = {}
        for stored, copy in self._copies(region):
            if copy is None or copy.path is None or copy.is_at_home:
                continue
            if (event := self._written(copy.id)) is None:
                self._found("foreign", region, copy.id)
            elif event.home == region or region in copy.path or len(set(copy.path)) < len(copy.path):
                self._found("looped", region, copy.id)
            else:
                self._look_at_replica(region, stored, copy.path, event)
                if copy.id in arrived:
                    self._found("duplicated", region, copy.id)
                arrived[copy.id] = None
        return arrived

    def _written(self, copy_id: str) -> Written | None:
        """The event, unless nobody knows of it but the one who wonders whether it was stored."""
        event = self._ledger.get(copy_id)
        return event if event is not None and (event.is_acknowledged or copy_id in self._at_home) else None

    def _look_at_replica(self, region: str, stored: Stored, path: Sequence[str], event: Written) -> None:
        """Bytes stay bytes: behind the tag, which stands in front, the written event goes on as it was."""
        is_same = (
            stored.partition_key == event.key and path[:1] == (event.home,) and _is_tagged(stored.data, event.data)
        )
        if not is_same:
            self._found("altered", region, event.id)

    def _find_missing(self, region: str, arrived: Mapping[str, None]) -> list[str]:
        expected = (at_home for at_home in self._at_home if self._ledger[at_home].home != region)
        missing = [expected_id for expected_id in expected if expected_id not in arrived]
        for missing_id in missing:
            self._found("lost", region, missing_id)
        return missing

    def _find_reordered(self, region: str, arrived: Mapping[str, None]) -> None:
        """Only first arrivals count: a late second copy is a duplicate, not a change of order."""
        lanes: dict[tuple[str, str], list[str]] = defaultdict(list)
        for arrived_id in arrived:
            if arrived_id in self._at_home:
                event = self._ledger[arrived_id]
                lanes[event.home, event.key].append(arrived_id)
        for lane in lanes.values():
            for before, after in pairwise(lane):
                if self._at_home[before] > self._at_home[after]:
                    self._found("reordered", region, after)
