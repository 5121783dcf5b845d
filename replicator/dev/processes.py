"""Child processes of the embedded environment: a log file each, a deadline to get ready, and no orphans.

Every child runs in a session of its own, so that Ctrl-C reaches only the parent, which then ends its
children in the order it wants. Should the parent end without that, an exit handler kills what is left;
should it be killed, the kernel does (Linux only). The kernel takes the end of the starting *thread* for the
parent's, so start children from the main thread.
"""

import asyncio
import atexit
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, ClassVar, Protocol, Self, TypeVar
from weakref import WeakSet

from replicator.errors import ReplicatorError

T = TypeVar("T")
Steps = Generator[None, None, T]
"""A wait as a generator: it yields while there is nothing to do but try again, and returns the result."""
POLL_S = 0.01
PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class ChildError(ReplicatorError):
    """A child ended or stayed silent instead of becoming ready; the message ends with the tail of its log."""


def blocking(steps: Steps[T]) -> T:
    """Run the steps to their end, sleeping between them."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        time.sleep(POLL_S)


async def awaiting(steps: Steps[T]) -> T:
    """`blocking` for an event loop."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        await asyncio.sleep(POLL_S)


class Process(Protocol):
    """What `Child` needs of Popen."""

    stdin: IO[bytes] | None
    returncode: int | None

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int, /) -> None: ...
    def kill(self) -> None: ...


Start = Callable[[Sequence[str], BinaryIO, Mapping[str, str]], Process]
"""From a command, the file for its output, and its whole environment."""


def cold_start(argv: Sequence[str], output: BinaryIO, variables: Mapping[str, str]) -> Process:
    parent = os.getpid()
    return subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=variables,
        start_new_session=True,
        preexec_fn=lambda: die_with(parent),  # noqa: PLW1509 - it runs prctl only and takes no lock
    )


class Child:
    """A running process. Leaving its ``with`` block kills it."""

    start: ClassVar[Start] = staticmethod(cold_start)
    """How processes come to be; tests put another way in its place."""

    def __init__(self, name: str, argv: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None) -> None:
        """Start ``argv`` with output appended to ``log``; ``env`` is added to our own environment."""
        self.name = name
        self.log = log
        self._log_start = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self._process = Child.start(argv, output, {**os.environ, **(env or {})})
        _children.add(self)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def wait_ready(self, ready: Callable[[str], T | None], deadline_s: float = 30.0) -> T:
        """Block until ``ready`` makes something of a log line; raises ChildError at the deadline or exit."""
        return blocking(self.becoming_ready(ready, deadline_s))

    async def ready(self, ready: Callable[[str], T | None], deadline_s: float = 30.0) -> T:
        """`wait_ready` for an event loop."""
        return await awaiting(self.becoming_ready(ready, deadline_s))

    def becoming_ready(self, ready: Callable[[str], T | None], deadline_s: float) -> Steps[T]:
        """The steps of `wait_ready`, for `blocking` or `awaiting`."""
        end = time.monotonic() + deadline_s
        while True:
            is_alive = self.is_alive
            for line in self._output().splitlines():
                if (found := ready(line)) is not None:
                    return found
            if not is_alive:
                raise self._failure(f"ended with code {self._process.returncode} before it was ready")
            if time.monotonic() > end:
                raise self._failure(f"was not ready within {deadline_s:g} s")
            yield

    def terminate(self) -> None:
        """Ask the process to end (SIGTERM)."""
        if self.is_alive:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> int:
        """End the process at once (SIGKILL) and reap it; returns its exit code. Safe to repeat."""
        if self.is_alive:
            self._process.kill()
        return self._reaped()

    def close_stdin(self) -> None:
        """Close the child's standard input, which the likes of ``--exit-with-stdin`` take for our end."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def wait(self, deadline_s: float = 30.0) -> int:
        """Block until the process ended by itself; returns its exit code. Raises ChildError if not."""
        try:
            self._process.wait(deadline_s)
        except subprocess.TimeoutExpired as exc:
            raise self._failure(f"did not end within {deadline_s:g} s") from exc
        return self._reaped()

    async def ended(self, deadline_s: float = 30.0) -> int:
        """`wait` for an event loop."""
        return await asyncio.to_thread(self.wait, deadline_s)

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self._output().splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _output(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def _failure(self, what: str) -> ChildError:
        return ChildError(f"{self.name} (pid {self.pid}) {what}; the end of {self.log}:\n{self.tail()}")

    def _reaped(self) -> int:
        code = self._process.wait()
        self.close_stdin()
        _children.discard(self)
        return code


_children: WeakSet[Child] = WeakSet()


@atexit.register
def _kill_children() -> None:
    for child in list(_children):
        child.kill()


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; for a child, right after the fork."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
