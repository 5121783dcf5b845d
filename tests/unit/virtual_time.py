"""An event loop whose time passes only while everybody waits, and then at once."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine


class JumpingSelector(selectors.SelectSelector):
    now_s = 1.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits and no timer runs"
        self.now_s += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


class LoopClock:
    """Implements `ports.Clock` on the loop's time."""

    def now_ms(self) -> int:
        return round(asyncio.get_running_loop().time() * 1000)


def virtually(story: Callable[[], Coroutine[object, object, None]]) -> None:
    """Tell the story on a virtual clock, an hour of it at most."""

    async def told() -> None:
        async with asyncio.timeout(3600):
            await story()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(told())
