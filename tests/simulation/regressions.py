"""Histories that showed a bug, kept whole: what a seed means changes with `scenario`.

Each has the name of the mutant that puts the bug back.
"""

from pathlib import Path

import msgspec

from .scenario import Scenario

FOLDER = Path(__file__).parent / "regressions"
REGRESSIONS = sorted(path.stem for path in FOLDER.glob("*.json"))


def load(name: str) -> Scenario:
    return msgspec.json.decode((FOLDER / f"{name}.json").read_bytes(), type=Scenario)


def keep(name: str, plan: Scenario) -> None:
    """What `shrink` found."""
    FOLDER.mkdir(exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(plan), indent=1)
    (FOLDER / f"{name}.json").write_bytes(text + b"\n")
