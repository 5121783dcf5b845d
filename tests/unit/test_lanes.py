"""Lanes: one attempt a key, source order within a key, whatever fails in between."""

from operator import itemgetter

from hypothesis import given
from hypothesis import strategies as st

from replicator.core.lanes import Lanes

BIG = 10**9


def lanes_of(*keys: str) -> Lanes[tuple[str, int]]:
    """Items are their key and a number that grows."""
    lanes: Lanes[tuple[str, int]] = Lanes(itemgetter(0), lambda _: 1)
    lanes.add([(key, number) for number, key in enumerate(keys)])
    return lanes


def test_a_request_never_holds_two_events_of_a_key() -> None:
    assert lanes_of("a", "a", "b", "a").take(10, BIG, 0.0) == [("a", 0), ("b", 2)]


def test_a_busy_lane_gives_nothing_to_a_second_request() -> None:
    lanes = lanes_of("a", "a")
    lanes.take(10, BIG, 0.0)
    assert lanes.take(10, BIG, 0.0) == []


def test_an_event_put_back_is_the_head_again_and_rests() -> None:
    lanes = lanes_of("a", "a")
    [item] = lanes.take(10, BIG, 0.0)
    lanes.put_back(item, not_before_s=5.0)
    assert lanes.take(10, BIG, 4.9) == []
    assert lanes.next_wake_s() == 5.0
    assert lanes.take(10, BIG, 5.0) == [("a", 0)]


def test_both_bounds_hold_but_one_item_always_passes() -> None:
    lanes: Lanes[tuple[str, int]] = Lanes(itemgetter(0), itemgetter(1))
    lanes.add([("a", 700), ("b", 200), ("c", 200)])
    assert lanes.take(10, 500, 0.0) == [("a", 700)]
    assert lanes.take(10, 399, 0.0) == [("b", 200)]
    assert lanes.take(1, 500, 0.0) == [("c", 200)]


@given(st.lists(st.sampled_from("abc"), max_size=40), st.data())
def test_whatever_fails_every_event_is_sent_once_in_the_order_of_its_key(keys: list[str], data: st.DataObject) -> None:
    lanes = lanes_of(*keys)
    done: list[tuple[str, int]] = []
    under_way: list[tuple[str, int]] = []
    now_s = 0.0
    while len(done) < len(keys):
        taken = lanes.take(data.draw(st.integers(1, 5)), BIG, now_s)
        assert len({key for key, _ in under_way + taken}) == len(under_way) + len(taken)
        under_way += taken
        now_s += 1.0
        if not under_way:
            continue
        item = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
        match data.draw(st.sampled_from(["stored", "failed", "rests"])):
            case "stored":
                done.append(item)
                lanes.done([item])
            case "failed":
                lanes.put_back(item)
            case "rests":
                lanes.put_back(item, not_before_s=now_s + 1.0)
    for key in set(keys):
        assert [number for k, number in done if k == key] == [n for n, k in enumerate(keys) if k == key]
    assert lanes.waiting == 0
    assert lanes.depth_max == 0


def test_items_behind_a_head_join_it_in_order_up_to_the_first_that_is_not_admitted() -> None:
    lanes = lanes_of(*"aaabaa")
    [head, _] = lanes.take(10, BIG, 0.0)
    assert lanes.take_more(head, lambda item: item[1] != 4) == [("a", 1), ("a", 2)]
    assert lanes.waiting == 2
    assert lanes.take(10, BIG, 0.0) == []
    lanes.done([head])
    assert lanes.take(10, BIG, 0.0) == [("a", 4)]


@given(st.lists(st.sampled_from("ab"), max_size=16), st.data())
def test_items_that_travel_together_keep_their_order_whatever_fails(keys: list[str], data: st.DataObject) -> None:
    lanes = lanes_of(*keys)
    done: list[tuple[str, int]] = []
    while len(done) < len(keys):
        for head in lanes.take(2, BIG, 0.0):
            room = iter(range(data.draw(st.integers(0, 4))))
            others = lanes.take_more(head, lambda _, room=room: next(room, None) is not None)
            if data.draw(st.booleans()):
                done += [head, *others]
                lanes.done([head])
            else:
                lanes.put_back(head, joined=others)
        assert lanes.waiting == len(keys) - len(done)
    for key in set(keys):
        assert [number for k, number in done if k == key] == [n for n, k in enumerate(keys) if k == key]
    assert lanes.depth_max == 0
