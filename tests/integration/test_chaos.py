"""The drill holds its hypothesis, deviates when there is something to find, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = ROOT / "chaos" / "region_loss.json"
CLEAN = "lost 0, looped 0, duplicated 0, reordered 0, foreign 0, altered 0, lost_at_home 0, written_twice 0"
DEADLINE_S = 150.0
MARK = "REPLICATOR_TEST_MARK"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks for left-over processes in /proc"),
]


class DrillProcess:
    """A running ``chaos run`` whose children carry its mark and whose files are under ``files``."""

    def __init__(self, experiment: Path, workdir: Path, *, seconds: float, workers: int = 1) -> None:
        self.files = workdir / "files"
        self.files.mkdir()
        self.journal_path = workdir / "journal.json"
        self._mark = uuid4().hex
        chaos = [sys.executable, "-m", "tests.warm_start", "run", "chaostoolkit"]
        chaos += ["--no-version-check", "--log-file", str(workdir / "log")]
        self._process = subprocess.Popen(
            [*chaos, "run", "--journal-path", str(self.journal_path), str(experiment)],
            cwd=workdir,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "TMPDIR": str(self.files),
                MARK: self._mark,
                "DRILL_EVENTS": "3000",
                "DRILL_SECONDS": f"{seconds:g}",
                "DRILL_WORKERS": str(workers),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout

    def read_until(self, text: str) -> None:
        lines = []
        for line in self._output:
            lines.append(line)
            if text in line:
                return
        raise AssertionError(f"the drill ended without saying {text!r}:\n{''.join(lines)}")

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def finish(self) -> tuple[int, dict[str, Any]]:
        """Exit status and journal; nothing else is left."""
        output, _ = self._process.communicate(timeout=DEADLINE_S)
        assert self.children() == []
        assert list(self.files.iterdir()) == []
        assert self.journal_path.exists(), output
        journal: dict[str, Any] = json.loads(self.journal_path.read_text())
        return self._process.returncode, journal

    def children(self) -> list[int]:
        """They inherited the mark; a Valkey overwrites its environment with its title, but works in its directory."""
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in pids if pid != self._process.pid and self._is_child(pid)]

    def _is_child(self, pid: int) -> bool:
        try:
            is_marked = self._mark.encode() in Path(f"/proc/{pid}/environ").read_bytes()
            return is_marked or Path(f"/proc/{pid}/cwd").readlink().is_relative_to(self.files)
        except OSError:
            return False  # it ended meanwhile, or belongs to somebody else

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._output.close()


@pytest.fixture
def drills() -> Iterator[list[DrillProcess]]:
    """Put every drill in here, so that it ends with its test."""
    started: list[DrillProcess] = []
    yield started
    for drill in started:
        drill.kill()


def verdicts(journal: dict[str, Any], moment: str) -> list[str]:
    return [probe["output"] for probe in journal["steady_states"][moment]["probes"]]


def variant(path: Path, *method: dict[str, Any]) -> Path:
    """The experiment with another method."""
    path.write_text(json.dumps({**json.loads(EXPERIMENT.read_text()), "method": list(method)}))
    return path


def action(func: str, **arguments: object) -> dict[str, Any]:
    provider = {"type": "python", "module": "chaos.actions", "func": func, "arguments": arguments}
    return {"type": "action", "name": func, "provider": provider}


def test_a_killed_worker_and_a_lost_region_under_load_change_nothing_in_the_end(
    tmp_path: Path, drills: list[DrillProcess]
) -> None:
    drills.append(DrillProcess(EXPERIMENT, tmp_path, seconds=14, workers=2))
    status, journal = drills[0].finish()
    assert (status, journal["status"], journal["deviated"]) == (0, "completed", False), journal
    assert [run["status"] for run in journal["run"]] == ["succeeded"] * len(journal["experiment"]["method"])
    assert (verdicts(journal, "before"), verdicts(journal, "after")) == ([CLEAN], [CLEAN])


def test_a_replica_that_stands_twice_makes_the_drill_deviate_and_is_counted(
    tmp_path: Path, drills: list[DrillProcess]
) -> None:
    broken = variant(tmp_path / "broken.json", action("repeat_replica", region="eu-west-1"))
    drills.append(DrillProcess(broken, tmp_path, seconds=60))
    status, journal = drills[0].finish()
    assert (status, journal["deviated"]) == (1, True), journal
    assert verdicts(journal, "before") == [CLEAN]
    assert verdicts(journal, "after") == [CLEAN.replace("duplicated 0", "duplicated 1")]


def test_a_disaster_that_does_not_happen_ends_the_drill_instead_of_passing_it(
    tmp_path: Path, drills: list[DrillProcess]
) -> None:
    impossible = variant(tmp_path / "impossible.json", action("lose_region", region="eu-west-9"))
    drills.append(DrillProcess(impossible, tmp_path, seconds=60))
    status, journal = drills[0].finish()
    assert (status, journal["status"]) == (1, "interrupted"), journal
    assert "there is no region 'eu-west-9'" in journal["run"][0]["exception"][-1]


@pytest.mark.parametrize(
    ("number", "moment"), [(signal.SIGINT, "Starting the regions"), (signal.SIGTERM, "Action: until_written")]
)
def test_an_interrupted_drill_leaves_no_process_and_no_file_behind(
    tmp_path: Path, drills: list[DrillProcess], number: signal.Signals, moment: str
) -> None:
    endless = variant(tmp_path / "endless.json", action("until_written", share=1.0))
    drills.append(DrillProcess(endless, tmp_path, seconds=60))
    drills[0].read_until(moment)
    drills[0].send(number)
    status, journal = drills[0].finish()
    assert (status, journal["status"]) == (1, "interrupted")
