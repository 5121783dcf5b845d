"""Waiting for one thing unless another comes first."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def unless(event: asyncio.Event, awaitable: Awaitable[T]) -> T | None:
    """The awaitable's result, or None (and the awaitable cancelled) when the event is set first."""
    task = asyncio.ensure_future(awaitable)
    is_set = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait((task, is_set), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        is_set.cancel()
        task.cancel()
