"""All links on one leased shard: one shared log, a channel per link, started when the link has finished the parents."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import structlog
from msgspec import Struct

from replicator.core.model import Checkpoint, Lease, LinkName, Position, ShardEnd, ShardId
from replicator.errors import ConfigError, Fenced, first_of
from replicator.worker.channel import Channel
from replicator.worker.link import Link
from replicator.worker.shard_log import ShardLog

logger = structlog.get_logger(__name__)


class RunnerSettings(Struct, frozen=True):
    """``drain_s`` bounds a graceful stop; ``parents_poll_s`` how often unfinished parents are looked at."""

    drain_s: float
    parents_poll_s: float


class LeasedShardRunner:
    """What the lease keeper starts for each shard it holds."""

    def __init__(
        self,
        *,
        shard: ShardId,
        log: ShardLog,
        links: Iterable[Link],
        make_channel: Callable[[Link], Awaitable[Channel]],
        parents_done: Callable[[LinkName], bool],
        durable: dict[LinkName, Checkpoint],
        settings: RunnerSettings,
    ) -> None:
        self._shard = shard
        self._log = log
        self._links = tuple(links)
        self._make_channel = make_channel
        self._parents_done = parents_done
        self._durable = durable
        self._settings = settings
        self._channels: dict[LinkName, Channel] = {}
        self._ended: dict[LinkName, Checkpoint] = {}
        self._draining = asyncio.Event()
        self._drain_until_s = 0.0

    async def run(self) -> None:
        """Return when every link has finished the shard, or after `drain`. Raises Fenced or ConfigError."""
        try:
            async with asyncio.TaskGroup() as group:
                live = group.create_task(self._log.run())
                await asyncio.gather(*[group.create_task(self._run_link(link)) for link in self._links])
                live.cancel()
        except ExceptionGroup as group_error:
            for kind in (Fenced, ConfigError):
                if (found := first_of(kind, group_error)) is not None:
                    raise kind(str(found)) from group_error
            raise
        finally:
            self.close()

    def close(self) -> None:
        """Hold no memory any more; for a runner that never ran, too."""
        self._log.close()

    async def _run_link(self, link: Link) -> None:
        durable = self._durable.get(link.name)
        if durable is not None and durable.position == ShardEnd():
            self._ended[link.name] = durable
            return
        while not self._parents_done(link.name):
            if await self._draining_within(self._settings.parents_poll_s):
                return
        if self._draining.is_set():
            return
        channel = await self._make_channel(link)
        self._channels[link.name] = channel
        if self._draining.is_set():
            channel.drain(self._drain_until_s)
        await channel.run()
        assert channel.final is not None
        if channel.final.position == ShardEnd():
            await channel.forget()

    async def _draining_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._draining.wait()
        except TimeoutError:
            return False
        return True

    def checkpoints(self) -> dict[LinkName, Checkpoint]:
        """What may be stored now, for the links that have begun; others keep what is stored."""
        return {name: channel.final or channel.checkpoint() for name, channel in self._channels.items()}

    def drain(self) -> None:
        """Stop reading, finish what is under way within the budget, then let `run` return."""
        self._drain_until_s = asyncio.get_running_loop().time() + self._settings.drain_s
        self._draining.set()
        for channel in self._channels.values():
            channel.drain(self._drain_until_s)

    @property
    def channels(self) -> dict[LinkName, Channel]:
        return self._channels

    @property
    def log(self) -> ShardLog:
        return self._log


def position_of(link: LinkName, lease: Lease, runner: LeasedShardRunner | None) -> Position | None:
    """Up to where the link has done the shard, as its channel knows or else as was stored; None: it has not begun."""
    channel = None if runner is None else runner.channels.get(link)
    known = lease.checkpoints.get(link) if channel is None else channel.final or channel.checkpoint()
    return None if known is None else known.position
