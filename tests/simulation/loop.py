"""Virtual time for many processes in one thread: whatever waits is over at once, and one seed is one history.

How it works: when nothing is ready the clock jumps to the next timer. Every callback carries the process it belongs to
in its context (tasks and callbacks inherit it), so a process can be stopped, and goes on with all that became due
meanwhile in the order it became due; a process that was killed is one that never goes on: no ``finally`` of it runs.

Why one seed is one history: callbacks run first in, first out, as in asyncio, and nothing here depends on addresses or
on the hash of text: tasks, which asyncio keeps in sets, hash by their number.
"""

import asyncio
import heapq
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar
from itertools import count
from typing import Any


class Process:
    """One operating system process: runs, stands still, or is dead."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_stopped = False
        self.is_dead = False
        self.held: list[asyncio.Handle] = []
        """What became due while it stood still."""
        self.steps_left = 0
        """After so many callbacks more ``at_step`` is called; 0 for never."""
        self.at_step: Callable[[], None] = lambda: None

    def count_step(self) -> None:
        self.steps_left -= 1
        if not self.steps_left:
            self.at_step()


OWNER: ContextVar[Process | None] = ContextVar("owner", default=None)


STEPS_AT_ONCE_MAX = 200_000
"""Callbacks without a moment passing: somebody runs in circles."""


class Stuck(AssertionError):
    """Everybody waits and no timer runs, or somebody runs and time does not."""


class NumberedTask(asyncio.Task[Any]):
    def __init__(
        self,
        coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        *,
        loop: "VirtualLoop",
        context: Context | None,
    ) -> None:
        self.number = next(loop.task_numbers)
        super().__init__(coro, loop=loop, context=context)
        loop.tasks.append(self)

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.BaseEventLoop):
    """Time is 0 at the start, in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.steps = 0
        self._steps_until_now = 0
        self.task_numbers = count(1)
        self.tasks: list[NumberedTask] = []
        """Every task ever made, so that none of a dead process is collected while the history goes on."""
        self.set_task_factory(self._make_task)
        self.set_exception_handler(self._note_error)
        self.errors: list[str] = []

    @staticmethod
    def _make_task(loop: asyncio.AbstractEventLoop, coro: Any, context: Context | None = None) -> NumberedTask:
        assert isinstance(loop, VirtualLoop)
        return NumberedTask(coro, loop=loop, context=context)

    def _note_error(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.errors.append(f"{context['message']}: {context.get('exception')!r}")

    def time(self) -> float:
        return self.now_s

    def _run_once(self) -> None:
        ready: Any = self._ready  # type: ignore[attr-defined] - BaseEventLoop's own queue, which no stub knows
        timers: Any = self._scheduled  # type: ignore[attr-defined] - the same
        self._until_next(ready, timers)
        while timers and timers[0]._when <= self.now_s:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            if not timer._cancelled:
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            owner = handle._context.get(OWNER)
            if owner is not None and owner.is_stopped:
                owner.held.append(handle)
                continue
            self.steps += 1
            handle._run()
            if owner is not None and owner.steps_left:
                owner.count_step()

    def _until_next(self, ready: Any, timers: Any) -> None:
        """Let time pass when nobody has anything to do now."""
        if ready:
            if self.steps - self._steps_until_now > STEPS_AT_ONCE_MAX:
                self._steps_until_now = self.steps  # whoever buries the dead begins anew
                raise Stuck("time stands still while somebody runs")
            return
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False
        if not timers:
            raise Stuck("everybody waits and no timer runs")
        self.now_s = max(self.now_s, timers[0]._when)
        self._steps_until_now = self.steps

    def stop_process(self, process: Process) -> None:
        process.is_stopped = True

    def kill_process(self, process: Process) -> None:
        process.is_stopped = process.is_dead = True

    def resume_process(self, process: Process) -> None:
        """What became due meanwhile runs now, in the order it became due."""
        if not process.is_dead:
            self._release(process)

    def bury_process(self, process: Process) -> None:
        """When the history is over: let a dead process end its tasks, so that nothing is left behind."""
        self._release(process)

    def _release(self, process: Process) -> None:
        process.is_stopped = False
        held, process.held = process.held, []
        self._ready.extend(held)  # type: ignore[attr-defined] - see _run_once

    def _write_to_self(self) -> None:
        """Nothing outside this thread ever wakes the loop."""
