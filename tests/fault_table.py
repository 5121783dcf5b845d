"""The README's table of what each fault costs: read by the tests that show it, and made from what they see.

A test names the rows it shows with ``@pytest.mark.fault(row)`` and hands its verdict to the fixture ``shown``, which
compares it with the README. ``python -m tests.fault_table`` runs those tests and writes what they saw into the README.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BEGIN, END = "<!-- faults: written by make faults -->", "<!-- end of faults -->"
RECORD_TO = "REPLICATOR_FAULTS_TO"
"""The variable with the file to which tests append what they see, instead of comparing it with the README."""
COUNTS = ("lost", "duplicated", "reordered")
TAKEOVER = "`duration_s` of the lease, the in-doubt wait and reading back, for its shards"

DELAYS: Mapping[str, str] = {
    "worker crash": TAKEOVER,
    "graceful stop": "a drain of at most `drain_s`; nothing is in doubt",
    "lease stolen from a paused worker": TAKEOVER,
    "Redis flushed": "none; what a producer repeats may pass twice, counted",
    "Redis flushed while all workers crash": TAKEOVER,
    "Redis failover that loses acknowledged writes": "none; what a producer repeats may pass twice, counted",
    "Redis away (`on_loss: continue`)": "none; what a producer repeats may pass twice, counted",
    "ambiguous reply (timeout, reset, 5xx)": "the in-doubt wait and reading back, for the keys of that request",
    "a request with one event that comes twice": "none; PutRecords has no idempotency, so whatever repeats a request "
    "within its signature's life, behind the sender, has its events stored twice",
    "partial failure": "backoff, for the entries concerned",
    "throttling": "backoff",
    "peer down": "until it is back; other links none",
    "source reshard": "none to speak of",
    "peer reshard": "none to speak of",
    "clock skew of 5 s": "none",
}
"""Every row of the table, and the delay by which its fault is felt."""


class Row(NamedTuple):
    fault: str
    counts: tuple[int, ...]


def readme_rows() -> dict[str, Row]:
    """The table as it stands in the README."""
    text = README.read_text(encoding="utf-8")
    lines = text[text.index(BEGIN) : text.index(END)].splitlines()[3:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line]
    return {row[0]: Row(row[0], tuple(map(int, row[1 : 1 + len(COUNTS)]))) for row in cells}


def show(faults: Sequence[str], seen: Mapping[str, int]) -> None:
    """Compare what was seen with the README, or record it. ``seen`` has the judge's counts by name."""
    counts = tuple(seen[name] for name in COUNTS)
    target = os.environ.get(RECORD_TO)
    for fault in faults:
        if target is not None:
            with Path(target).open("a", encoding="utf-8") as file:
                file.write(json.dumps([fault, counts]) + "\n")
        else:
            assert readme_rows()[fault].counts == counts, f"the README says otherwise of: {fault}"


def render(worst: Mapping[str, Sequence[int]]) -> str:
    lines = [BEGIN, f"| fault | {' | '.join(COUNTS)} | delay |", f"| --- |{' --- |' * (len(COUNTS) + 1)}"]
    lines += [f"| {fault} | {' | '.join(map(str, worst[fault]))} | {delay} |" for fault, delay in DELAYS.items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the tests that show a fault and write the table. Exits 1 when a row was not shown or a test failed."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "seen"
        command = [sys.executable, "-m", "pytest", "-q", "-n", "3", "-m", "fault", *sys.argv[1:]]
        ran = subprocess.run(command, cwd=ROOT, env={**os.environ, RECORD_TO: str(record)}, check=False)
        seen = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    worst: dict[str, list[int]] = {}
    for fault, counts in seen:
        worst[fault] = [max(pair) for pair in zip(worst.get(fault, counts), counts, strict=True)]
    if ran.returncode or worst.keys() != DELAYS.keys():
        print(f"the table stays as it is; not shown: {sorted(DELAYS.keys() - worst.keys())}", file=sys.stderr)
        return 1
    text = README.read_text(encoding="utf-8")
    README.write_text(text[: text.index(BEGIN)] + render(worst) + text[text.index(END) :], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
