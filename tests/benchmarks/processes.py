"""CPU and memory of other processes (Linux)."""

import re
import time
from pathlib import Path

CPU_CLOCK = 2
"""CPUCLOCK_SCHED of linux/posix-timers.h; clock_getcpuclockid(3) makes the same number. /proc counts in 10 ms only."""


def cpu_s(pid: int) -> float:
    """User and system time of a process and all its threads so far, to the nanosecond."""
    return time.clock_gettime(~pid << 3 | CPU_CLOCK)


def rss_bytes(pid: int) -> int:
    """What a process holds in memory now."""
    return _status_kib(pid, "VmRSS") * 1024


def peak_rss_bytes(pid: int) -> int:
    return _status_kib(pid, "VmHWM") * 1024


def _status_kib(pid: int, name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])
