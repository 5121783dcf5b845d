"""How those who hold events in one memory lend each other what they do not use, so that whoever is active works with
full batches.

How it works: each holder of a pool has the same share of the worker's memory (`core.memory`). A quarter of it is always
its own; the rest of all shares is lent to whoever asks, in amounts that one batch needs. Who finds too little left
stands in line, and what is given back goes to the first in line. There is a pool for the pages of all shards (windows)
and one for each link's events under way (queues).

Why it is safe:

- Bounded: the own parts and what is lent are never more than the shares together. Only what turns out larger than was
  asked for (a page, the tags of a run) may exceed that, and then nobody gets a loan until it is given back.
- Isolated: nobody borrows from another link's pool. A link whose peer is down fills its own pool and stops there.
  Windows do share a pool, because they serve all links; so a loan of theirs has a term, after which whoever stands in
  line calls it back: the page is dropped, and a link that had not taken it reads it again by itself.
- Free of deadlock: a loan is all that its holder needs; nothing that is under way waits for another. And who sees that
  nothing is given back, as when a peer is down, goes on with its own part and waits for nobody.
- Fair: a loan beside the line is not possible, so the first in line gets what is given back until it has enough.
"""

from collections.abc import Callable, Hashable

from replicator.core.memory import share_bytes

OWN_PART = 4
"""One in so many parts of a share is never lent."""
NEVER_S = float("inf")


class Pool:
    """What holders of the same kind have in common."""

    def __init__(self) -> None:
        self._accounts: list[Account] = []
        self._line: dict[Account, None] = {}
        self.share_bytes = 0
        self.own_bytes = 0
        self.lendable_bytes = 0
        self.lent_bytes = 0
        self.returns = 0
        """How often something lent was given back."""

    def __len__(self) -> int:
        return len(self._accounts)

    @property
    def free_bytes(self) -> int:
        return self.lendable_bytes - self.lent_bytes

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for what others have."""
        return bool(self._line)

    def resize(self, share: int) -> None:
        """The share of each has changed, or how many there are."""
        self.share_bytes = share
        self.own_bytes = share // OWN_PART
        self.lendable_bytes = (share - self.own_bytes) * len(self._accounts)
        self.lent_bytes = sum([account.lent_bytes for account in self._accounts])
        self.wake_first()

    def is_open_to(self, account: "Account") -> bool:
        return not self._line or next(iter(self._line)) is account

    def join(self, account: "Account") -> None:
        self._accounts.append(account)

    def part(self, account: "Account") -> None:
        self._accounts.remove(account)
        self.leave(account)

    def stand(self, account: "Account") -> None:
        """Into the line, or where it stands there already."""
        self._line.setdefault(account)

    def leave(self, account: "Account") -> None:
        was_first = self.is_open_to(account)
        self._line.pop(account, None)
        if was_first:
            self.wake_first()

    def wake_first(self) -> None:
        if self._line and self.free_bytes > 0:
            next(iter(self._line)).wake()

    def call_back(self, now_s: float) -> float | None:
        """Have the loan whose term ended first given back; answers when the next one ends, None for none."""
        terms = [(account.term_s, place) for place, account in enumerate(self._accounts) if account.lent_bytes]
        term_s, place = min(terms, default=(NEVER_S, 0))
        if term_s > now_s:
            return None if term_s == NEVER_S else term_s
        self._accounts[place].give_up()
        return now_s


class Account:
    """One holder: ``held_bytes``, of which its own part comes first. Opened by `Memory`, to be closed.

    ``wake`` is called when it is first in line and something is free, ``give_up`` when its loan is called back, which
    may be from ``term_s`` on.
    """

    def __init__(self, pool: Pool, resize: Callable[[], None]) -> None:
        self.pool = pool
        self._resize = resize
        self.held_bytes = 0
        self.term_s = NEVER_S
        self.wake: Callable[[], None] = _nothing
        self.give_up: Callable[[], None] = _nothing
        pool.join(self)
        resize()

    @property
    def lent_bytes(self) -> int:
        return max(0, self.held_bytes - self.pool.own_bytes)

    @property
    def own_left_bytes(self) -> int:
        return max(0, self.pool.own_bytes - self.held_bytes)

    @property
    def most_bytes(self) -> int:
        """What it could have if nobody else had anything."""
        return self.pool.own_bytes + self.pool.lendable_bytes

    def take(self, count: int) -> bool:
        """Whether it has so many bytes more now; else it stands in line."""
        loan = count - self.own_left_bytes
        if loan > 0 and not (self.pool.is_open_to(self) and loan <= self.pool.free_bytes):
            self.pool.stand(self)
            return False
        self.add(count)
        self.leave()
        return True

    def take_own(self) -> int:
        """What is left of its own part, instead of waiting for a loan."""
        own = self.own_left_bytes
        self.leave()
        self.add(own)
        return own

    def add(self, count: int) -> None:
        """Account for what is there anyway; a negative count gives back."""
        before = self.lent_bytes
        self.held_bytes += count
        change = self.lent_bytes - before
        self.pool.lent_bytes += change
        if change < 0:
            self.pool.returns += 1
            self.pool.wake_first()

    def leave(self) -> None:
        """It does not wait any more."""
        self.pool.leave(self)

    def close(self) -> None:
        """It holds nothing from now on. May be repeated."""
        if self._resize is not _nothing:
            self.pool.part(self)
            self._resize()
            self._resize = _nothing


class Memory:
    """Of one worker: ``budget_bytes``, see `core.memory`."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._windows = Pool()
        self._queues: dict[Hashable, Pool] = {}

    def window(self) -> Account:
        """Of one shard's pages."""
        return Account(self._windows, self._resize)

    def queue(self, link: Hashable) -> Account:
        """Of what one link has under way on one shard."""
        return Account(self._queues.setdefault(link, Pool()), self._resize)

    def _resize(self) -> None:
        self._windows.resize(share_bytes(self._budget_bytes, len(self._windows)))
        queues = self._queues.values()
        share = share_bytes(self._budget_bytes, sum([len(pool) for pool in queues]))
        for pool in queues:
            pool.resize(share)


def _nothing() -> None:
    """Nobody is to be told."""
