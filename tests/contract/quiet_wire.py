"""The simulator's ports without any trouble, on a common event loop, so that the suites can judge them as well."""

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar

from tests.simulation.loop import Process
from tests.simulation.network import Climate, Network, Wire

T = TypeVar("T")


class AnybodysWire(Wire, frozen=True):
    """A wire on which a test calls, which is no process of a simulated world."""

    async def call(self, effect: Callable[[], T], again: "Callable[[bool], T] | None" = None) -> T:
        return await self.network.call(self, effect, self.timeout_s, again)


def quiet_wire(service: str) -> Wire:
    """Whatever is sent arrives, and is answered, at once."""
    loop: Any = asyncio.get_running_loop()
    network = Network(loop, copy_context(), 0)
    target = f"{service}@here"
    network.climates[target] = Climate(latency_s=0.0, jitter_s=0.0)
    return AnybodysWire(network, Process("test"), "here", target, 5.0)
