"""Histories that showed a bug, kept as scenarios under the bug's name: a seed means another one when `scenario` changes."""

from pathlib import Path

import msgspec

from .scenario import Scenario

FOLDER = Path(__file__).parent / "regressions"
REGRESSIONS = sorted(path.stem for path in FOLDER.glob("*.json"))


def load(name: str) -> Scenario:
    return msgspec.json.decode((FOLDER / f"{name}.json").read_bytes(), type=Scenario)


def keep(name: str, plan: Scenario) -> None:
    """`python -m tests.simulation --keep NAME --trace SEED` does it."""
    FOLDER.mkdir(exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(plan), indent=1)
    (FOLDER / f"{name}.json").write_bytes(text + b"\n")
