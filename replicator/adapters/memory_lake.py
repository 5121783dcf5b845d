"""The event lake in memory: objects by name."""

from collections.abc import Sequence

from replicator.aws.never_read_back import NeverReadBack
from replicator.core.lake import NDJSON, Archived, LakeFormat, events_in, objects_of
from replicator.core.model import SourceName
from replicator.core.peer_clock import PeerTime
from replicator.errors import Refused, StoreUnavailable, TransientError
from replicator.ports import Entry, SinkLimits


class MemoryLake(NeverReadBack):
    """Implements `ports.Sink` and `ports.LakeReader`.

    ``formats``: that can be read beside NDJSON. ``format``: what is stored from now on. ``failures``: raised one by
    one, each instead of storing an object.
    """

    def __init__(self, source: SourceName, limits: SinkLimits, formats: Sequence[LakeFormat] = ()) -> None:
        self._source = source
        self._formats = formats
        self.format = NDJSON
        self.limits = limits
        self.objects: dict[str, bytes] = {}
        self.failures: list[TransientError] = []

    async def put(self, entries: Sequence[Entry], *, signed_ms: int | None = None) -> Sequence[str | Refused | None]:  # noqa: ARG002 - nothing is fenced by its date here
        for held in objects_of(self._source, [entry.data for entry in entries], self.format):
            if self.failures:
                raise self.failures.pop(0)
            self.objects[held.name] = held.body()
        return [None] * len(entries)

    async def names(self, prefix: str) -> Sequence[str]:
        return [name for name in self.objects if name.startswith(prefix)]

    async def events(self, name: str) -> Sequence[Archived]:
        try:
            body = self.objects[name]
        except KeyError as exc:
            raise StoreUnavailable(f"there is no object {name}") from exc
        return events_in(name, body, self._formats)

    async def peer_time(self) -> PeerTime:
        return PeerTime(0, 0, 0.0)

    async def refuses(self, _: int) -> bool:
        return False
