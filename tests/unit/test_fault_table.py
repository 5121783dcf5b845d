"""The README's table of faults is what the tests show: no row without a test, no test without its row."""

import re
from pathlib import Path

import fault_table
import pytest
from fault_table import DELAYS, README, readme_rows, render, show

TESTS = Path(__file__).resolve().parents[1]
SEEN = {"lost": 0, "duplicated": 0, "reordered": 0, "looped": 0}


def test_every_row_is_shown_by_a_test() -> None:
    text = (TESTS / "integration" / "test_faults.py").read_text()
    assert set(re.findall(r"\bfault\(\"([^\"]+)\"\)", text)) == DELAYS.keys()


def test_the_readme_has_every_row_and_is_written_as_the_table_would_be() -> None:
    counts = {fault: row.counts for fault, row in readme_rows().items()}
    assert counts.keys() == DELAYS.keys()
    assert render(counts) in README.read_text()


def test_a_verdict_that_differs_from_the_readme_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(fault_table.RECORD_TO, raising=False)
    show(["worker crash"], SEEN)
    with pytest.raises(AssertionError, match="the README says otherwise of: worker crash"):
        show(["worker crash"], SEEN | {"duplicated": 1})


def test_what_is_seen_is_recorded_when_the_table_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = tmp_path / "seen"
    monkeypatch.setenv(fault_table.RECORD_TO, str(record))
    show(["worker crash", "peer down"], SEEN | {"duplicated": 2})
    assert record.read_text() == '["worker crash", [0, 2, 0]]\n["peer down", [0, 2, 0]]\n'
