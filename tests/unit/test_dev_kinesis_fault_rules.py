"""Fault rules strike the requests they name, as often as they say, and the same ones for the same seed."""

from replicator.dev.kinesis_faults import Faults, Rule


def struck(faults: Faults, times: int, operation: str = "PutRecords", stream: str = "s") -> list[bool]:
    return [bool(faults.strike(operation, stream)) for _ in range(times)]


def test_a_rule_strikes_only_its_operation_and_stream() -> None:
    faults = Faults()
    faults.add([Rule(kind="throttle", operation="PutRecords", stream="s")], None)
    assert struck(faults, 1) == [True]
    assert struck(faults, 1, operation="GetRecords") == [False]
    assert struck(faults, 1, stream="other") == [False]


def test_a_counted_rule_is_spent() -> None:
    faults = Faults()
    faults.add([Rule(kind="drop_after", count=2)], None)
    assert struck(faults, 4) == [True, True, False, False]
    assert faults.strikes["drop_after"] == 2


def test_entry_and_iterator_faults_wait_for_their_operation() -> None:
    faults = Faults()
    faults.add([Rule(kind="fail_entries", count=1), Rule(kind="expire_iterators", count=1)], None)
    assert struck(faults, 2, operation="ListShards") == [False, False]
    assert list(faults.strike("GetRecords", "s")) == ["expire_iterators"]
    assert list(faults.strike("PutRecords", "s")) == ["fail_entries"]


def test_only_what_writes_is_repeated() -> None:
    faults = Faults()
    faults.add([Rule(kind="repeat")], None)
    assert struck(faults, 1, operation="GetRecords") == [False]
    assert struck(faults, 1) == [True]


def test_the_same_seed_draws_the_same_faults() -> None:
    runs = []
    for _ in range(2):
        faults = Faults()
        faults.add([Rule(kind="throttle", probability=0.5)], 7)
        runs.append(struck(faults, 50))
    assert runs[0] == runs[1]
    assert 10 < sum(runs[0]) < 40


def test_a_fraction_of_the_entries_fails_but_one_at_least() -> None:
    faults = Faults()
    assert len(faults.failing_entries(Rule(kind="fail_entries", fraction=0.25), 100)) == 25
    assert len(faults.failing_entries(Rule(kind="fail_entries", fraction=0.001), 10)) == 1
    assert faults.failing_entries(Rule(kind="fail_entries", code="Odd"), 2) == {0: "Odd", 1: "Odd"}


def test_clearing_drops_all_rules_or_those_of_one_stream() -> None:
    faults = Faults()
    faults.add([Rule(kind="throttle", stream="a"), Rule(kind="throttle", stream="b")], None)
    faults.clear("a")
    assert [rule.stream for rule in faults.rules] == ["b"]
    faults.clear()
    assert faults.rules == []


def test_the_clock_skew_holds_until_it_is_cleared() -> None:
    faults = Faults()
    faults.add([Rule(kind="clock_skew_ms", ms=-5000)], None)
    assert struck(faults, 3) == [False] * 3
    assert faults.skew_ms == -5000
    faults.clear()
    assert faults.skew_ms == 0
