"""Loans of memory: bounded together, within a link, in the order of asking, and given back when they are called for."""

from hypothesis import given
from hypothesis import strategies as st

from replicator.core.lending import NEVER_S, OWN_PART, Account, Memory
from replicator.core.memory import COPIES

BUDGET_BYTES = 64 * 1024 * 1024
LINKS = ("a", "b", "c")


class Holder:
    """Asks for so much, again whenever it is woken, and gives it back when told."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.wanted = 0
        self.got: list[int] = []
        account.wake = self.ask

    def ask(self) -> None:
        wanted, self.wanted = self.wanted, 0
        if wanted and self.account.take(wanted):
            self.got.append(wanted)
        elif wanted:
            self.wanted = wanted

    def give_back(self) -> None:
        if self.got:
            self.account.add(-self.got.pop(0))


def within_bounds(memory: Memory, holders: list[Holder]) -> None:
    pools = {holder.account.pool for holder in holders}
    for pool in pools:
        mine = [holder.account for holder in holders if holder.account.pool is pool]
        assert pool.lent_bytes == sum(account.lent_bytes for account in mine) <= pool.lendable_bytes
        assert pool.lendable_bytes + len(mine) * pool.own_bytes <= pool.share_bytes * len(mine)
    assert sum(holder.account.held_bytes for holder in holders) * COPIES <= BUDGET_BYTES


@given(
    st.lists(st.sampled_from((*LINKS, None)), min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(0, 29), st.integers(0, 2_000_000), st.booleans()), max_size=80),
)
def test_all_that_is_held_stays_within_the_budget_and_everyone_who_waits_gets_it_in_the_end(
    kinds: list[str | None], steps: list[tuple[int, int, bool]]
) -> None:
    memory = Memory(BUDGET_BYTES)
    holders = [Holder(memory.window() if kind is None else memory.queue(kind)) for kind in kinds]
    for place, count, gives_back in steps:
        holder = holders[place % len(holders)]
        if gives_back:
            holder.give_back()
        elif not holder.wanted:
            holder.wanted = min(count, holder.account.most_bytes)
            holder.ask()
        within_bounds(memory, holders)
    while any(holder.got for holder in holders):
        for holder in holders:
            holder.give_back()
        within_bounds(memory, holders)
    assert not any(holder.wanted for holder in holders)


def test_a_link_that_holds_all_it_can_get_takes_nothing_from_another() -> None:
    memory = Memory(BUDGET_BYTES)
    stuck, free = ([memory.queue(link) for _ in range(50)] for link in ("stuck", "free"))
    while any(account.take(1_000) for account in stuck):
        pass
    assert stuck[0].pool.free_bytes < 1_000
    assert free[0].take(free[0].most_bytes)


def test_one_that_is_alone_in_being_active_gets_what_all_could_lend_and_others_keep_their_own_part() -> None:
    memory = Memory(BUDGET_BYTES)
    active, *idle = [memory.queue("a") for _ in range(100)]
    share = active.pool.share_bytes
    assert active.take(share * 70)
    assert all(account.take(share // OWN_PART) for account in idle)
    assert not idle[0].take(share * 10)


def test_who_came_first_is_served_first_however_little_those_behind_want() -> None:
    memory = Memory(BUDGET_BYTES)
    first, second, holder = [Holder(memory.queue("a")) for _ in range(3)]
    most = holder.account.most_bytes
    parts = [most // 2, most - most // 2]
    for holder.wanted in parts:
        holder.ask()
    first.wanted, second.wanted = most // 2 + holder.account.pool.own_bytes * 2, holder.account.pool.own_bytes + 1
    first.ask()
    second.ask()
    holder.give_back()
    assert not second.got
    holder.give_back()
    assert first.got
    assert second.got


def test_who_leaves_the_line_lets_the_next_one_in() -> None:
    memory = Memory(BUDGET_BYTES)
    first, second, holder = [Holder(memory.queue("a")) for _ in range(3)]
    holder.wanted = holder.account.most_bytes - 10
    holder.ask()
    for waiting, bytes_over in ((first, 20), (second, 5)):
        waiting.wanted = waiting.account.pool.own_bytes + bytes_over
        waiting.ask()
    assert not second.got
    first.account.leave()
    assert second.got


def test_the_loan_whose_term_ended_first_is_called_back_and_none_before_its_term() -> None:
    memory = Memory(BUDGET_BYTES)
    accounts = [memory.window() for _ in range(4)]
    given_up = []
    for number, account in enumerate(accounts[:3]):
        assert account.take(account.pool.own_bytes + 1)
        account.term_s = (30.0, 10.0, NEVER_S)[number]
        account.give_up = lambda account=account: (given_up.append(account), account.add(-account.held_bytes))  # type: ignore[misc]
    pool = accounts[0].pool
    assert pool.call_back(5.0) == 10.0
    assert pool.call_back(40.0) == 40.0
    assert pool.call_back(40.0) == 40.0
    assert pool.call_back(40.0) is None
    assert given_up == [accounts[1], accounts[0]]


def test_shares_follow_those_who_come_and_go() -> None:
    memory = Memory(BUDGET_BYTES)
    one = memory.queue("a")
    whole = one.pool.share_bytes
    others = [memory.queue(link) for link in LINKS]
    assert one.pool.share_bytes == whole // 4
    for other in others:
        other.close()
        other.close()
    assert one.pool.share_bytes == whole
