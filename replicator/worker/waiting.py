"""Waiting for one thing unless another comes first."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def unless(stop: asyncio.Future[None], awaitable: Awaitable[T]) -> T | None:
    """The awaitable's result, or None (and the awaitable cancelled) when ``stop`` is done first.

    Its cost is that of a task, or less where ``awaitable`` is a future. It is not begun in the caller's own task, which
    would cost nothing where it need not wait: what it took for its task then (a timeout, a lock) would be another's.
    """
    waited = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait((waited, stop), return_when=asyncio.FIRST_COMPLETED)
        return waited.result() if waited.done() else None
    finally:
        waited.cancel()
