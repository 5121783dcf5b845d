"""Following all hubs while the demo runs: who has what, and since when everybody has everything."""

import asyncio
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from replicator.dev.checker import event_id, is_replica
from replicator.dev.checker_reading import HubReader


class Follower:
    """Knows the ids in every hub as of the last `poll`. Nobody else may use the readers meanwhile."""

    def __init__(self, readers: Mapping[str, HubReader]) -> None:
        self._readers = readers
        self._ids: dict[str, set[str]] = {region: set() for region in readers}
        self._originals: set[str] = set()
        self.records = 0
        """In all hubs together, copies counted."""

    @property
    def originals(self) -> AbstractSet[str]:
        """Events in their home hubs."""
        return self._originals

    async def poll(self) -> None:
        """Read every hub up to its tip, in a thread."""
        await asyncio.to_thread(self._poll)

    def missing(self, wanted: AbstractSet[str]) -> dict[str, list[str]]:
        """By region, what its hub lacks of ``wanted``; regions that lack nothing are left out."""
        absent = {region: sorted(wanted - ids) for region, ids in self._ids.items()}
        return {region: ids for region, ids in absent.items() if ids}

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()

    def _poll(self) -> None:
        for region, reader in self._readers.items():
            for stored in reader.poll():
                self.records += 1
                if (found := event_id(stored.data)) is None:
                    continue
                self._ids[region].add(found)
                if not is_replica(stored.data):
                    self._originals.add(found)
