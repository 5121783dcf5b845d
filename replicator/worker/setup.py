"""What a service is made of: what configuration and the composition root chose, and nothing that changes."""

from collections.abc import Callable

from msgspec import Struct

from replicator.core.formats import Format
from replicator.core.leasing import LeaseSettings
from replicator.core.model import Checkpoint, ClaimMark, Lease, LinkName, Position, Region, ShardId, SourceName
from replicator.core.routing import Routes
from replicator.core.tag import TagKeys
from replicator.ports import ClaimScope, ClaimStore, LeaseStore, Quarantine, Queue, Source
from replicator.worker.claiming import OnLoss
from replicator.worker.lake_shard import HubLake
from replicator.worker.link import Link
from replicator.worker.prepare import Birthplace
from replicator.worker.shard_log import LogSettings
from replicator.worker.shard_runner import RunnerSettings

SENT_BY_OTHERS = ClaimMark("others", 0)
"""In the place of a release: nothing is under way any more, and no claim store knows what was sent."""


class SourceSetup(Struct, frozen=True):
    """One source of this region with everything chosen for it. ``start`` proposes a position for a link seen first.

    ``is_home``: its one link leads into this region's own hub, from where the events leave like all others. ``queue``:
    the source is one. ``sent_since_ms``: others may have sent the events, since then and no longer, so a link that is
    new looks for them in its peer. ``lake``: gives what the source no longer keeps. ``replays``: the source whose
    events come again; they keep the origins they have as its events, and their claims are apart from those of its own
    workers. ``replay_id``: goes into the tags of what leaves.
    """

    name: SourceName
    source: Source
    event_format: Format
    links: tuple[Link, ...]
    start: Callable[[int], Position]
    log: LogSettings
    is_home: bool = False
    queue: Queue | None = None
    sent_since_ms: int | None = None
    lake: HubLake | None = None
    replays: SourceName | None = None
    replay_id: str | None = None

    def birthplace(self, here: Region, lease: Lease) -> Birthplace:
        return Birthplace(here, self.replays or self.name, lease.incarnation, lease.shard)

    def claims_of(self, link: LinkName, lease: Lease) -> ClaimScope:
        """The scope of a link on a shard."""
        shard = lease.shard if self.replays is None else ShardId(f"{self.name}/{lease.shard}")
        return ClaimScope(link, shard, lease.incarnation)

    def first(self, position: Position) -> Checkpoint:
        """Of a link and shard that have none."""
        if self.sent_since_ms is None:
            return Checkpoint(position)
        return Checkpoint(position, self.sent_since_ms, released=SENT_BY_OTHERS)


class Stores(Struct, frozen=True):
    leases: LeaseStore
    claims: ClaimStore
    quarantine: Quarantine


class Identity(Struct, frozen=True):
    """Who this worker is and by which rules it routes."""

    here: Region
    worker: str
    regions: frozenset[Region]
    routes: Routes
    keys: TagKeys | None


class ServiceSettings(Struct, frozen=True):
    """``memory_bytes`` bounds all events in memory, see `core.memory` and `core.lending`.

    ``gauges_s``: how often gauges are set anew.
    """

    leases: LeaseSettings
    runner: RunnerSettings
    on_loss: OnLoss
    memory_bytes: int = 64 * 1024 * 1024
    gauges_s: float = 1.0
