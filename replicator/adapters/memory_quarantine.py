"""Quarantine in memory, for simulation and tests."""

from collections.abc import Sequence

from replicator.core.model import LinkName, Origin
from replicator.core.quarantine_document import key_digest
from replicator.ports import Quarantined


class MemoryQuarantine:
    """Implements `ports.Quarantine`."""

    def __init__(self) -> None:
        self.events: dict[tuple[LinkName, Origin], Quarantined] = {}
        self.marks: dict[tuple[LinkName, str], str] = {}
        """Keys by link and digest."""

    async def put(self, event: Quarantined) -> None:
        self.events[(event.link, event.origin)] = event

    async def hold(self, link: LinkName, key: str) -> None:
        self.marks[(link, key_digest(key))] = key

    async def held(self, link: LinkName) -> frozenset[str]:
        return frozenset(digest for of, digest in self.marks if of == link)

    async def held_keys(self, link: LinkName) -> Sequence[str]:
        return sorted(key for (of, _), key in self.marks.items() if of == link)

    async def release(self, link: LinkName, key: str) -> bool:
        return self.marks.pop((link, key_digest(key)), None) is not None
