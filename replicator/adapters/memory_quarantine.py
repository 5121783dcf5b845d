"""Quarantine in memory, for simulation and tests."""

from replicator.core.model import LinkName, Origin
from replicator.ports import Quarantined


class MemoryQuarantine:
    """Implements `ports.Quarantine`."""

    def __init__(self) -> None:
        self.events: dict[tuple[LinkName, Origin], Quarantined] = {}

    async def put(self, event: Quarantined) -> None:
        self.events[(event.link, event.origin)] = event
