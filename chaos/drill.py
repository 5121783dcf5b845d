"""One drill: the regions in a thread of their own, and plain functions that reach them.

Chaos Toolkit calls actions and probes one after the other from its own thread, while the regions' proxies and producers
need an event loop that never blocks. So the loop has a thread, and every call is handed over to it. The regions live
inside one coroutine of that loop: whichever way it ends, its ``async with`` blocks end every process and file.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from chaos.scene import Load, Scene
from replicator.dev.environment import Environment
from replicator.dev.environment_config import Layout
from replicator.dev.environment_worker import leave_user_account

T = TypeVar("T")

START_MAX_S = 180.0
CALL_MAX_S = 300.0
"""More than any bound inside, which says better what was not in time."""


class Drill:
    """Between `start` and `stop`; made for one use."""

    def __init__(self, load: Load, *, workers: int) -> None:
        """``workers`` of each region."""
        self._load = load
        self._workers = workers
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._scene: Future[Scene] = Future()
        # A daemon, so that an interpreter that ends without `stop` is not held up; its exit handlers kill the children.
        self._thread = threading.Thread(target=self._run, name="drill", daemon=True)

    def start(self) -> None:
        """Return when all workers are ready and the load is under way. Raises ChildError; then call `stop`."""
        leave_user_account()
        self._thread.start()
        self._scene.result(START_MAX_S)

    def call(self, step: Callable[[Scene], Awaitable[T]]) -> T:
        """Do this in the regions' loop and return its result; an interrupted call is cancelled there."""

        async def stepping() -> T:
            return await step(self._scene.result(0))

        future = asyncio.run_coroutine_threadsafe(stepping(), self._loop)
        try:
            return future.result(CALL_MAX_S)
        finally:
            future.cancel()

    def stop(self) -> None:
        """End every process and remove every file, whatever state the drill is in; safe to repeat."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._until_stopped())

    async def _until_stopped(self) -> None:
        living = asyncio.create_task(self._live())
        await self._stopping.wait()
        living.cancel()
        await asyncio.wait({living})
        if (
            not living.cancelled()
            and (error := living.exception()) is not None
            and self._scene.exception(0) is not error
        ):
            raise error

    async def _live(self) -> None:
        try:
            layout = Layout(workers=self._workers)
            with TemporaryDirectory(prefix="replicator-drill-") as workdir:
                async with Environment(layout, Path(workdir)) as environment, Scene(environment, self._load) as scene:
                    self._scene.set_result(scene)
                    await asyncio.Event().wait()
        except BaseException as error:
            # Until then nobody but `start` waits for the error.
            if not self._scene.done():
                self._scene.set_exception(error)
            raise
