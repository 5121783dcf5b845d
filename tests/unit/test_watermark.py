"""The watermark never passes anything that is not done."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.model import After, AtTimestamp, Position, SequenceNumber, ShardEnd, TrimHorizon
from replicator.core.watermark import Watermark, furthest


@dataclass
class Run:
    end: Position
    is_finished: bool = False


@given(st.integers(0, 20).flatmap(lambda n: st.permutations(range(n))))
def test_it_stands_behind_the_longest_finished_prefix_in_whatever_order_runs_finish(order: list[int]) -> None:
    watermark: Watermark[Run] = Watermark(TrimHorizon())
    runs = [Run(After(SequenceNumber(n))) for n in range(len(order))]
    for run in runs:
        watermark.add(run)
    for number in order:
        runs[number].is_finished = True
        watermark.advance()
        prefix = next((n for n, run in enumerate(runs) if not run.is_finished), len(runs))
        assert watermark.position == (runs[prefix - 1].end if prefix else TrimHorizon())
    assert not watermark.open


@pytest.mark.parametrize(
    ("checkpoint", "proven", "expected"),
    [
        (After(SequenceNumber(5)), 9, After(SequenceNumber(9))),
        (After(SequenceNumber(10**128)), 10**56, After(SequenceNumber(10**128))),
        (TrimHorizon(), 3, After(SequenceNumber(3))),
        (AtTimestamp(7), 0, AtTimestamp(7)),
        (ShardEnd(), 99, ShardEnd()),
    ],
)
def test_the_later_of_checkpoint_and_proof_is_where_to_go_on(
    checkpoint: Position, proven: int, expected: Position
) -> None:
    assert furthest(checkpoint, SequenceNumber(proven)) == expected
