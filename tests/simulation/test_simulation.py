"""Real workers through simulated disasters: every seed is one history, judged by what was written and what was stored.

`make simulate SEEDS=10000` runs many; a seed that fails here is told with `make simulate TRACE=<seed>`.
"""

import asyncio
import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .checker import Checker
from .loop import Stuck, VirtualLoop
from .mutants import MUTANTS
from .regressions import REGRESSIONS, load
from .report import explain
from .run import play, simulate

SEEDS = 300
AT_ONCE = 30
"""Seeds of one test: several tests run side by side."""
QUICK_MUTANTS = {
    "settle_before_publish": 40,
    "checkpoint_at_the_last": 40,
    "ambiguous_answer_taken_for_stored": 40,
    "retries_to_the_tail": 40,
    "routes_ignored": 40,
}
"""Those that a few seeds show; `make mutants` runs them all."""


@pytest.mark.parametrize("first", range(1, SEEDS + 1, AT_ONCE))
def test_whatever_happens_nothing_is_lost_doubled_looped_or_reordered_and_all_comes_to_rest(first: int) -> None:
    gc.freeze()  # What the other tests keep would be looked through for each seed.
    for seed in range(first, first + AT_ONCE):
        outcome = simulate(seed)
        assert not outcome.breaches, explain(outcome)


@pytest.mark.parametrize("name", REGRESSIONS)
def test_a_history_that_once_showed_a_bug_shows_none(name: str) -> None:
    outcome = play(load(name))
    assert not outcome.breaches, explain(outcome)


@pytest.mark.parametrize("name", REGRESSIONS)
def test_it_shows_the_bug_again_when_that_is_put_back(name: str) -> None:
    code = (
        "from tests.simulation.mutants import MUTANTS; from tests.simulation.run import play; "
        f"from tests.simulation.regressions import load; MUTANTS[{name!r}](); print(len(play(load({name!r})).breaches))"
    )
    assert int(_python(code)) > 0


@pytest.mark.parametrize("name", QUICK_MUTANTS)
def test_a_protocol_broken_on_purpose_is_noticed(name: str) -> None:
    assert name in MUTANTS
    code = f"from tests.simulation.mutants import hunt; print(hunt({name!r}, {QUICK_MUTANTS[name]}))"
    assert _python(code).startswith("(")


HISTORY = """
import gc, hashlib
from tests.simulation.run import simulate
{before}
outcome = simulate({seed}, has_logs=True)
print(outcome.steps, hashlib.sha256("\\n".join(outcome.trace).encode()).hexdigest())
"""
ANOTHER_HEAP = "kept = [simulate(999), [object() for _ in range(12345)], {str(n): n for n in range(999)}]; gc.collect()"


@pytest.mark.parametrize("seed", [3, 7])
def test_one_seed_is_one_history_whatever_the_hash_seed_and_the_heap(seed: int) -> None:
    one = _python(HISTORY.format(before="", seed=seed), hash_seed="1")
    other = _python(HISTORY.format(before=ANOTHER_HEAP, seed=seed), hash_seed="4242")
    assert one == other


def test_different_seeds_are_different_histories() -> None:
    assert simulate(3, has_logs=True).trace != simulate(7, has_logs=True).trace


def _python(code: str, hash_seed: str = "0") -> str:
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_who_runs_in_circles_is_noticed() -> None:
    async def in_circles() -> None:
        while True:
            await asyncio.sleep(0)

    loop = VirtualLoop()
    circling = loop.create_task(in_circles())
    with pytest.raises(Stuck, match="time stands still"):
        loop.run_until_complete(circling)
    circling.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(circling)
    loop.close()


def test_a_history_that_is_over_leaves_nothing_behind() -> None:
    # A poison event that was raised kept its frames, and with them the page it came in, for ever.
    gc.collect()
    before = sum(isinstance(found, VirtualLoop) for found in gc.get_objects())
    outcomes = [simulate(seed) for seed in range(5001, 5009)]
    assert any("events_quarantined_total" in name for outcome in outcomes for name in outcome.totals)
    gc.collect()
    assert sum(isinstance(found, VirtualLoop) for found in gc.get_objects()) == before


# --- the checker itself --------------------------------------------------------------------------------------------

ANY = ("1", "shard-0")


def checker(kind: str = "mesh") -> Checker:
    """Three regions; events 1 and 2 of key k were written in a."""
    made = Checker(("a", "b", "c"), (kind,))
    for number in (1, 2):
        made.produced(0.0, "a", ANY, number, "k", b'{"n":%d}' % number, "good")
    return made


def replica(made: Checker, number: int, region: str, way: str = "a", key: str = "k", more: str = "") -> None:
    path = ",".join(f'"{name}"' for name in way)
    data = f'{{"_replicator":{{"gen":1,"path":[{path}]}},"n":{number}{more}}}'.encode()
    made.replicated(1.0, region, ANY, 100 + number, key, data)


def test_the_checker_is_content_with_a_history_in_order() -> None:
    made = checker()
    for number, region in ((1, "b"), (2, "b"), (1, "c"), (2, "c")):
        replica(made, number, region)
    made.checkpointed(2.0, "a", ANY, "b", 2)
    assert (made.breaches, made.missing) == ([], {})


def test_the_checker_names_what_is_missing() -> None:
    made = checker()
    replica(made, 1, "b")
    assert len(made.missing) == 3


@pytest.mark.parametrize(
    ("told", "numbers"), [("stored 2 times", (1, 1)), ("order: 1 came to b after 2", (2, 1))], ids=["twice", "order"]
)
def test_the_checker_sees_duplicates_and_reordering(told: str, numbers: tuple[int, int]) -> None:
    made = checker()
    for number in numbers:
        replica(made, number, "b")
    assert told in made.breaches[0]


def test_the_checker_counts_a_copy_that_the_network_brought_and_no_further_one() -> None:
    made = checker()
    made.sent_twice("b", ANY[0], b'{"n":1}')
    for _ in range(2):
        replica(made, 1, "b")
    assert (made.breaches, made.counted["sent twice on the way"]) == ([], 1)
    replica(made, 1, "c")
    replica(made, 1, "c")
    assert "stored 2 times in c" in made.breaches.pop()
    replica(made, 1, "b")
    assert "stored 3 times in b" in made.breaches[0]


def test_the_checker_excuses_no_copy_in_another_stream_or_off_the_way_of_the_copied_event() -> None:
    made = checker()
    made.allowed.repeats = True  # what stands in a hub twice may leave it twice
    made.sent_twice("c", ANY[0], b'{"n":1}')
    made.sent_twice("b", "an older stream", b'{"n":2}')
    for number in (1, 1, 2, 2):
        replica(made, number, "b")
    assert "event 1 of a was stored 2 times in b" in made.breaches[0]
    assert (len(made.breaches), made.counted["repeats"]) == (1, 1)


def test_the_checker_sees_a_loop() -> None:
    made = checker()
    replica(made, 1, "a", "ab")
    assert "loop" in made.breaches[0]


def test_the_checker_sees_a_way_that_is_no_route() -> None:
    made = checker("mesh")
    replica(made, 1, "c", "ab")
    assert "no route" in made.breaches[0]


@pytest.mark.parametrize(("key", "more"), [("other", ""), ("k", ',"added":1')])
def test_the_checker_sees_an_altered_event(key: str, more: str) -> None:
    made = checker()
    replica(made, 1, "b", key=key, more=more)
    assert "altered" in made.breaches[0]


def test_the_checker_sees_a_checkpoint_that_passed_an_event() -> None:
    made = checker()
    replica(made, 1, "b")
    made.checkpointed(2.0, "a", ANY, "b", 2)
    assert "passed" in made.breaches[0]


def test_the_checker_lets_a_checkpoint_pass_what_is_in_the_quarantine() -> None:
    made = checker()
    made.produced(0.0, "a", ANY, 3, "k", b"[3]", "broken")
    replica(made, 1, "b")
    replica(made, 2, "b")
    made.quarantined("a", "b", b"[3]")
    made.checkpointed(2.0, "a", ANY, "b", 3)
    assert made.breaches == []


def test_the_checker_does_not_mind_from_which_of_two_streams_an_event_came_that_was_written_to_both() -> None:
    # b had event 1 from the stream that was deleted, c not yet; a producer wrote it to the new one again (seed 2325).
    made = Checker(("a", "b", "c"), ("chain",))
    made.produced(0.0, "a", ANY, 1, "k", b'{"n":1}', "good")
    replica(made, 1, "b")
    made.recreated("a", "1")
    for number in (2, 1):
        made.produced(1.0, "a", ("2", "shard-0"), number, "k", b'{"n":%d}' % number, "good")
    replica(made, 2, "b")
    assert made.breaches == []


@pytest.mark.parametrize(("at", "peer", "still_missing"), [("c", "b", set()), ("a", "b", {"a"}), ("c", "a", set())])
def test_the_checker_expects_what_is_held_only_where_no_topology_leads_there_behind_it(
    at: str, peer: str, still_missing: set[str]
) -> None:
    # From c the chain goes c, b, a and the hub c, a, b: together they are a cycle (seed 1551).
    made = Checker(("a", "b", "c"), ("chain", "hub"), holds_keys=True)
    made.produced(0.0, "c", ANY, 1, "k", b'{"n":1}', "good")
    made.quarantined(at, peer, b'{"n":1}')
    assert {region for _, region in made.missing} == still_missing
