"""How much one (link, shard) may have under way: what it has and gets of the worker's memory, and a number of spans."""

import asyncio

from replicator.core.lending import Account
from replicator.worker.link import LinkSettings
from replicator.worker.settlement import Settlement

PATIENCE_S = 1.0
"""How long nobody gives anything back before a channel goes on with its own part alone."""


class Room:
    """Two runs of records fit, so that one is taken in while the other is sent; one fits where nothing is open."""

    def __init__(self, settings: LinkSettings, settlement: Settlement, account: Account) -> None:
        self._settings = settings
        self._settlement = settlement
        self._account = account
        self._turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stalled_at = -1
        """How often something had been given back in the pool when that had stopped."""
        account.wake = self._wake

    @property
    def is_left(self) -> bool:
        """Whether another run may be taken in, if there is memory for it."""
        spans = self._settlement.open
        return not spans or (self.left_bytes >= self.run_bytes_max and len(spans) < self._settings.open_spans_max)

    @property
    def left_bytes(self) -> int:
        return self._settings.open_bytes_max - self._settlement.open_bytes

    @property
    def own_left_bytes(self) -> int:
        return self._account.own_left_bytes

    @property
    def run_bytes_max(self) -> int:
        return self._settings.open_bytes_max // 2

    def take(self, wanted: int) -> int | None:
        """So many bytes, or fewer, for a run or a page; None: `wait`, and ask again."""
        pool = self._account.pool
        count = min(wanted, max(pool.own_bytes, pool.lendable_bytes // 2))
        if self._account.take(count):
            return count
        is_stalled = self._stalled_at == pool.returns
        if is_stalled and (self.own_left_bytes >= pool.own_bytes // 2 or not self._settlement.open):
            return self._account.take_own()
        self._turn = asyncio.get_running_loop().create_future()
        return None

    def add(self, count: int) -> None:
        """What is there turned out to be so much more; a negative count gives back."""
        self._account.add(count)

    def leave(self) -> None:
        """Nothing is asked for any more."""
        self._account.leave()

    async def wait(self) -> None:
        """Until a span of this channel is settled, or its turn has come, or others have nothing to give back."""
        returns = self._account.pool.returns
        progress = self._settlement.progress()
        try:
            done, _ = await asyncio.wait(
                (self._turn, progress), timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            progress.cancel()
        if not done and self._account.pool.returns == returns:
            self._stalled_at = returns

    def _wake(self) -> None:
        if not self._turn.done():
            self._turn.set_result(None)
