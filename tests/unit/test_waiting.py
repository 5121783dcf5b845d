"""Waiting for one thing unless another comes first."""

import asyncio

import pytest

from replicator.worker.waiting import unless


def never() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


async def seven() -> int:
    await asyncio.sleep(0)
    return 7


async def test_what_comes_first_is_the_answer_and_the_stop_stays_for_others() -> None:
    stop = never()
    assert await unless(stop, seven()) == 7
    assert await unless(stop, seven()) == 7
    assert not stop.done()


async def test_a_stop_cancels_what_is_awaited_task_and_future_alike() -> None:
    stop, awaited = never(), never()
    ended = asyncio.Event()

    async def hangs() -> None:
        try:
            await awaited
        finally:
            ended.set()

    asyncio.get_running_loop().call_soon(stop.set_result, None)
    assert await unless(stop, hangs()) is None
    await ended.wait()
    future = never()
    assert await unless(stop, future) is None
    assert future.cancelled()


async def test_an_error_is_the_answer_too() -> None:
    async def fails() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        await unless(never(), fails())


async def test_who_is_cancelled_cancels_what_is_awaited() -> None:
    future = never()
    waiting = asyncio.create_task(unless(never(), future))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert future.cancelled()
