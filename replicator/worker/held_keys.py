"""``on_poison: hold_key``: the keys of one link whose events go to quarantine, because an earlier one is there.

How it works: before a poison event is put away its key is marked in the quarantine, durably, and from then on every
event of that key on this link is put away behind it, in order, so that the watermark still advances. The marks are read
before anything of a shard is let through and again every so often, when a person may have released some.

Why it is safe: the mark stands before the poison event is done, so whoever serves the key afterwards, this worker or
another, finds it first. A key moves between shards only from parents to children, and a child begins when its parents
are finished and reads the marks then. What was marked while a listing was read is kept, though the listing lacks it.
"""

import asyncio

import structlog

from replicator.core.model import LinkName
from replicator.core.quarantine_document import key_digest
from replicator.errors import StoreUnavailable
from replicator.ports import Quarantine

logger = structlog.get_logger(__name__)

REFRESH_S = 30.0
RETRY_S = 1.0
HELD_MAX = 10_000
"""Keys held on one link. Beyond them the next poison event waits, and its shard with it, until some are released."""


class HeldKeys:
    """Shared by all shards of a link in this worker. Where the link does not hold keys it stays empty."""

    def __init__(self, link: LinkName, quarantine: Quarantine, *, is_on: bool) -> None:
        self._link = link
        self._quarantine = quarantine
        self.is_on = is_on
        self._digests: frozenset[str] = frozenset()
        self._marked_meanwhile: set[str] = set()
        self._reading = asyncio.Lock()

    def __contains__(self, key: str) -> bool:
        return bool(self._digests) and key_digest(key) in self._digests

    def __len__(self) -> int:
        return len(self._digests)

    async def run(self) -> None:
        """Look for released keys until cancelled."""
        while self.is_on:
            await asyncio.sleep(REFRESH_S)
            await self.refresh()

    async def refresh(self) -> None:
        """Read the marks; returns when they were read."""
        if self.is_on:
            async with self._reading:
                await self._read()

    async def _read(self) -> None:
        while True:
            self._marked_meanwhile.clear()
            try:
                listed = await self._quarantine.held(self._link)
            except StoreUnavailable:
                await asyncio.sleep(RETRY_S)
            else:
                self._digests = listed | self._marked_meanwhile
                return

    async def hold(self, key: str) -> None:
        """Mark the key. Raises StoreUnavailable: its poison event must not be put away then."""
        if not self.is_on:
            return
        if len(self._digests) >= HELD_MAX and key not in self:
            raise StoreUnavailable(
                f"{HELD_MAX} keys of {self._link} are held; release some: replicator quarantine release", code="full"
            )
        await self._quarantine.hold(self._link, key)
        digest = key_digest(key)
        self._marked_meanwhile.add(digest)
        self._digests |= {digest}
        logger.error("key.held", link=self._link, key=key)
