"""The simulated network: what is under way, what comes twice, and who stands still before a call leaves."""

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context

from .loop import OWNER, Process, VirtualLoop
from .network import Ambush, Network, Wire


def calls(
    *, twice: float = 0.0, seed: int = 1, ambush: Callable[[VirtualLoop, Process], None] | None = None
) -> tuple[list[tuple[float, str]], list[str]]:
    """When the effect of one call took place, with the answer that is heard if it came again, and what was told."""
    loop = VirtualLoop()
    network = Network(loop, copy_context(), seed)
    process = Process("a1")
    wire = Wire(network, process, "a", "stream@b", 4.0, "put")
    network.climate("stream@b").twice = twice
    done: list[tuple[float, str]] = []
    told: list[str] = []
    if ambush is not None:
        strike = ambush
        network.ambushes.append(Ambush("a", "put", "leaving", lambda stopped: strike(loop, stopped)))

    def effect(heard: str = "") -> str:
        done.append((loop.now_s, heard))
        return "again" if heard else "first"

    async def caller() -> None:
        told.append(await wire.call(effect, effect))

    async def story() -> None:
        context = copy_context()
        context.run(OWNER.set, process)
        await asyncio.wait([loop.create_task(caller(), context=context)])
        await asyncio.sleep(60.0)

    loop.run_until_complete(story())
    loop.close()
    return done, told


def test_a_request_comes_once_unless_something_on_the_way_sends_it_again() -> None:
    done, told = calls()
    assert ([heard for _, heard in done], told) == ([""], ["first"])


def test_a_request_that_comes_twice_is_answered_once_by_either() -> None:
    answers = set()
    for seed in range(20):
        done, told = calls(twice=1.0, seed=seed)
        assert [heard for _, heard in done] == ["", *told]
        answers.update(told)
    assert answers == {"first", "again"}


def test_a_process_that_is_stopped_before_its_call_leaves_sends_when_it_goes_on() -> None:
    def strike(loop: VirtualLoop, process: Process) -> None:
        loop.stop_process(process)
        loop.call_later(30.0, loop.resume_process, process, context=Context())

    done, told = calls(ambush=strike)
    assert len(done) == 1
    assert done[0][0] > 30.0
    assert told == ["first"]
