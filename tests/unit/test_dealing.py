"""Everyone who plans on the same rows works out the same moves for all, and so nobody is in another's way."""

from collections import Counter

from fleet_rows import fleet_rows, worker_names
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from replicator.core.dealing import asked, dealt, in_turn
from replicator.core.leasing import ASK_MAX, LeasePlan, LeaseSettings, Observer, View, plan
from replicator.core.model import Lease, LinkName

SETTINGS = LeaseSettings()
LINKS = frozenset({LinkName("orders:eu-west-1")})
rooms = st.dictionaries(st.text(min_size=1, max_size=3), st.integers(-3, 9), min_size=1, max_size=8)


def plans(rows: list[Lease], workers: list[str], age_s: float = 0.0) -> dict[str, LeasePlan]:
    """Of all workers, who have seen the rows ``age_s`` ago for the first time and run what the rows say."""
    observer = Observer()
    observer.observe(rows, 0.0)
    running = {me: frozenset(row.shard for row in rows if row.owner == me) for me in workers}
    return {me: plan(rows, View(me, running[me], observer, age_s, SETTINGS, is_shared=True), LINKS) for me in workers}


@given(rooms, st.integers(0, 40), st.integers(0, 10**9))
def test_what_is_free_is_dealt_once_and_to_nobody_more_than_he_has_room_for(
    room: dict[str, int], free: int, salt: int
) -> None:
    order = in_turn(room, salt)
    hands = {me: dealt(range(free), room, order, me) for me in room}
    taken = [card for hand in hands.values() for card in hand]
    assert len(taken) == len(set(taken)) == min(free, sum(max(0, count) for count in room.values()))
    assert all(len(hand) <= max(0, room[me]) for me, hand in hands.items())


@given(st.sets(st.text(min_size=1, max_size=3), min_size=1), st.integers(0, 10**9))
def test_with_every_salt_somebody_else_is_first_and_nobody_is_left_out(workers: set[str], salt: int) -> None:
    assert set(in_turn(workers, salt)) == workers
    firsts = {in_turn(workers, salt + turn)[0] for turn in range(len(workers))}
    assert firsts == workers


def test_the_shards_of_lost_workers_are_taken_in_one_round_without_a_race() -> None:
    names = worker_names(100)
    rows = [replace(row, owner=names[number % 100]) for number, row in enumerate(fleet_rows(2000, 100))]
    lost = [replace(row, owner=None) if row.owner in names[:20] else row for row in rows]
    taken = [row.shard for moves in plans(lost, names[20:]).values() for row in moves.take]
    assert len(taken) == len(set(taken)) == 400
    loads = Counter(row.owner for row in lost if row.owner is not None)
    loads.update({me: len(moves.take) for me, moves in plans(lost, names[20:]).items()})
    assert set(loads.values()) == {25}


def test_workers_that_came_ask_for_different_shards_and_of_no_owner_too_many() -> None:
    names = worker_names(50)
    rows = [replace(row, owner=names[number % 40]) for number, row in enumerate(fleet_rows(2000, 40))]
    known = [replace(row, wanted_by=names[40 + number]) if number < 10 else row for number, row in enumerate(rows)]
    asks = {me: moves.ask for me, moves in plans(known, names[40:]).items()}
    assert {len(ask) for ask in asks.values()} == {ASK_MAX}
    chosen = [row for ask in asks.values() for row in ask]
    assert len({row.shard for row in chosen}) == 10 * ASK_MAX
    lost = Counter(row.owner for row in (*chosen, *known[:10]))
    assert max(lost.values()) - min(lost.values()) <= 1


def test_nobody_asks_where_the_spread_is_one() -> None:
    names = worker_names(7)
    rows = [replace(row, owner=names[number % 7]) for number, row in enumerate(fleet_rows(100, 7))]
    assert all(moves == LeasePlan() for moves in plans(rows, names).values())
    assert list(asked(rows, names, names[6], ask_max=ASK_MAX)) == []
