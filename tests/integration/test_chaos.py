"""The drill holds its hypothesis, and deviates when there is something to find."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = ROOT / "chaos" / "region_loss.json"

pytestmark = pytest.mark.slow


def journal_of(experiment: Path, workdir: Path) -> dict[str, Any]:
    journal = workdir / "journal.json"
    command = [str(Path(sys.executable).with_name("chaos")), "--no-version-check", "--log-file", str(workdir / "log")]
    result = subprocess.run(
        [*command, "run", "--journal-path", str(journal), str(experiment)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DRILL_EVENTS": "3000", "DRILL_SECONDS": "20"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert journal.exists(), result.stdout + result.stderr
    document: dict[str, Any] = json.loads(journal.read_text())
    return document


def test_a_killed_worker_and_a_lost_region_under_load_change_nothing_in_the_end(tmp_path: Path) -> None:
    journal = journal_of(EXPERIMENT, tmp_path)
    assert (journal["status"], journal["deviated"]) == ("completed", False)
    replicas = journal["run"][-1]["output"]
    assert sum(replicas.values()) == 2 * 3000


def test_a_replica_that_stands_twice_makes_the_drill_deviate(tmp_path: Path) -> None:
    experiment = json.loads(EXPERIMENT.read_text())
    actions = {action["name"]: action for action in experiment["method"]}
    copy = {"module": "chaos.actions", "func": "put_copy", "arguments": {"region": "eu-west-1"}, "type": "python"}
    experiment["method"] = [
        actions["the producers write"],
        actions["the producers finish"],
        {"type": "action", "name": "a copy", "provider": copy},
    ]
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(experiment))
    journal = journal_of(broken, tmp_path)
    assert journal["deviated"] is True
    [probe] = [p for p in journal["steady_states"]["after"]["probes"] if p["tolerance_met"] is False]
    assert (probe["activity"]["name"], probe["output"]) == ("nothing is duplicated", 1)
