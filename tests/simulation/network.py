"""What lies between a worker and the services it calls: latency, loss, partitions, late arrivals.

How it works: a call is an effect at the service. It takes place when the request arrives, which may be long after the
caller gave up, was stopped or died; the answer goes back, or is lost. What the caller is told then is up to the port.

A worker's process may be stopped between its last decision and the wire ("leaving"): the call leaves when it goes on.

Requests that come twice. TCP delivers a request once, and an answer belongs to the connection it came on, so no answer
comes twice to a caller, and a request is executed twice only where something above TCP sends it again: a proxy that
ends TLS, the service's own front end, botocore (lease table, S3) or the cluster client of redis-py. Either the first
answer was told and the request comes again later, or the first answer got lost there and the caller hears the second.
The stores are asked so that a repetition does no harm (conditions, batch numbers, names of objects). PutRecords has
nothing of the kind: what is executed twice within its signature's life is stored twice, and no sender can prevent it.
So those copies are counted by the checker, exactly for the events and regions concerned; whatever else follows from
them (a copy in another region, an order, a loss) is a breach like any other. Reads have no effect and are not repeated.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Literal, TypeAlias, TypeVar

from msgspec import Struct

from replicator.errors import ReplicatorError

from .loop import OWNER, Process, VirtualLoop

T = TypeVar("T")
Heard = Literal["first", "again", "none"]
Again: TypeAlias = Callable[[Heard], T]
"""The effect of a request that comes again; told which of its two answers the caller hears."""
Target = str
"""``<service>@<region>``, for example ``stream@b``; services are stream, leases, claims and quarantine."""
Fate = Literal["fine", "unsent", "request_lost", "answer_lost", "reset_before", "reset_after", "late"]
FATES: tuple[Fate, ...] = ("unsent", "request_lost", "answer_lost", "reset_before", "reset_after", "late")


class Lost(Exception):
    """No answer came. ``has_left``: the request may have reached the service."""

    def __init__(self, fate: Fate, *, has_left: bool) -> None:
        super().__init__(fate)
        self.has_left = has_left


class Climate(Struct):
    """How calls to one service fare. ``trouble``: the part of calls with a fate other than ``fine``."""

    latency_s: float = 0.01
    jitter_s: float = 0.02
    trouble: float = 0.0
    slow: float = 0.0
    """The part of calls that take up to ``slow_s``."""
    slow_s: float = 3.0
    late_s: float = 20.0
    """A late request arrives up to so long after it was sent."""
    twice: float = 0.0
    """The part of requests that reach the service a second time."""


class Partition(Struct, frozen=True):
    """Between a scope (a region or one worker) and a target, ``requests``, ``answers`` or both."""

    scope: str
    target: Target
    direction: Literal["requests", "answers", "both"]


class Ambush(Struct, frozen=True):
    """What befalls the process that makes the next call from the region to the service, and when in that call."""

    region: str
    service: str
    moment: Literal["leaving", "sent", "arrived", "answered"]
    what: Callable[[Process], None]


class Jam(Struct):
    """The next PutRecords that a worker of the region sends is on its way for so long, and then something happens."""

    region: str
    delay_s: float
    what: Callable[[Process], None]


class Network:
    def __init__(self, loop: VirtualLoop, context: Context, seed: int) -> None:
        self._loop = loop
        self._context = context
        self._rng = random.Random(f"network {seed}")
        self._twice_rng = random.Random(f"twice {seed}")
        self.climates: dict[Target, Climate] = {}
        self.partitions: list[Partition] = []
        self.ambushes: list[Ambush] = []
        self.jams: list[Jam] = []
        self.is_over = False
        """The history was judged: every call is answered by a cancellation."""

    def climate(self, target: Target) -> Climate:
        return self.climates.setdefault(target, Climate())

    def now_s(self) -> float:
        return self._loop.time()

    def calm(self) -> None:
        """Whatever was wrong is over; what is under way stays under way."""
        self.partitions.clear()
        self.ambushes.clear()
        self.jams.clear()
        for climate in self.climates.values():
            climate.trouble = climate.slow = climate.twice = 0.0

    async def call(self, wire: "Wire", effect: Callable[[], T], timeout_s: float, again: "Again[T] | None" = None) -> T:
        """The effect's result or error; raises Lost. ``again`` is what it does when it comes a second time."""
        if self.is_over:
            raise asyncio.CancelledError
        self._spring(wire, "leaving")
        if wire.process.is_stopped:
            await asyncio.sleep(0)
        answer: asyncio.Future[T] = self._loop.create_future()
        self._send(wire, effect, answer, timeout_s, again or (lambda _: effect()))
        return await answer

    def _send(
        self,
        wire: "Wire",
        effect: Callable[[], T],
        answer: "asyncio.Future[T]",
        timeout_s: float,
        again: "Again[T]",
    ) -> None:
        climate = self.climate(wire.target)
        there_s, fate = self._draw(wire, climate, timeout_s)
        if fate == "unsent":
            self._later(there_s, self._fail, answer, Lost(fate, has_left=False))
            return
        if fate == "reset_before":
            self._later(there_s, self._fail, answer, Lost(fate, has_left=True))
            return
        jam = self._jam(wire)
        if jam is not None:
            there_s += jam.delay_s
            self._later(0.0, jam.what, wire.process)
        if jam is not None or fate in ("request_lost", "answer_lost", "late"):
            self._later(timeout_s, self._fail, answer, Lost(fate, has_left=True))
        if fate != "request_lost":
            back_s = self._latency(climate, timeout_s)
            if climate.twice and wire.may_come_twice and self._twice_rng.random() < climate.twice:
                fate = self._repeat(wire, again, answer, fate, there_s, 0.0 if jam is not None else timeout_s * 0.3)
            self._later(there_s, self._arrive, wire, effect, answer, fate, back_s)
        self._spring(wire, "sent")

    def _repeat(
        self, wire: "Wire", again: "Again[T]", answer: "asyncio.Future[T]", fate: Fate, there_s: float, soon_s: float
    ) -> Fate:
        """The fate of the first one: its answer may be the one that is lost."""
        rng = self._twice_rng
        is_answered = fate == "fine" and soon_s > 0 and rng.random() < 0.5
        again_s = there_s + rng.random() * (soon_s if is_answered else self.climate(wire.target).late_s)
        told: Fate = "fine" if is_answered else "answer_lost"
        # Who waits for a request that is held up (`soon_s` is 0) has gone before it is answered.
        heard: Heard = "again" if is_answered else "first" if fate == "fine" and soon_s > 0 else "none"
        self._later(again_s, self._arrive, wire, lambda: again(heard), answer, told, 0.01)
        return "answer_lost" if is_answered else fate

    def _jam(self, wire: "Wire") -> Jam | None:
        for jam in self.jams:
            if (jam.region, "put") == (wire.region, wire.name):
                self.jams.remove(jam)
                return jam
        return None

    def _draw(self, wire: "Wire", climate: Climate, timeout_s: float) -> tuple[float, Fate]:
        rng = self._rng
        there_s = self._latency(climate, timeout_s)
        for partition in self.partitions:
            if partition.target == wire.target and partition.scope in (wire.region, wire.process.name):
                if partition.direction == "answers":
                    return there_s, "answer_lost"
                return there_s, "unsent" if rng.random() < 0.5 else "request_lost"
        if climate.trouble and rng.random() < climate.trouble:
            fate = rng.choice(FATES)
            return (timeout_s + rng.random() * climate.late_s if fate == "late" else there_s), fate
        return there_s, "fine"

    def _latency(self, climate: Climate, timeout_s: float) -> float:
        if climate.slow and self._rng.random() < climate.slow:
            return self._rng.random() * min(climate.slow_s, timeout_s * 0.45)
        return climate.latency_s + climate.jitter_s * self._rng.random()

    def _arrive(
        self, wire: "Wire", effect: Callable[[], T], answer: "asyncio.Future[T]", fate: Fate, back_s: float
    ) -> None:
        try:
            tell, result = self._tell, effect()
        except ReplicatorError as exc:
            tell, result = self._fail, exc
        self._spring(wire, "arrived")
        if fate == "fine":
            self._later(back_s, tell, answer, result)
            if self.ambushes:
                self._later(back_s, self._spring, wire, "answered")
        elif fate == "reset_after":
            self._later(back_s, self._fail, answer, Lost(fate, has_left=True))

    def _spring(self, wire: "Wire", moment: str) -> None:
        for ambush in self.ambushes:
            if (ambush.region, ambush.moment) == (wire.region, moment) and (wire.name or wire.target).startswith(
                ambush.service
            ):
                self.ambushes.remove(ambush)
                ambush.what(wire.process)
                return

    def _later(self, delay_s: float, what: Callable[..., None], *args: object) -> None:
        self._loop.call_later(delay_s, what, *args, context=self._context)

    @staticmethod
    def _tell(answer: "asyncio.Future[T]", result: T) -> None:
        if not answer.done():
            answer.set_result(result)

    @staticmethod
    def _fail(answer: "asyncio.Future[T]", exc: Exception) -> None:
        if not answer.done():
            answer.set_exception(exc)


class Wire(Struct, frozen=True):
    """A worker's way to one service."""

    network: Network
    process: Process
    region: str
    target: Target
    timeout_s: float
    name: str = ""
    """What an ambush waits for: ``put``, else the service."""

    @property
    def may_come_twice(self) -> bool:
        return self.name == "put" or not self.target.startswith("stream")

    async def call(self, effect: Callable[[], T], again: "Again[T] | None" = None) -> T:
        assert OWNER.get() is self.process, "a worker calls on its own wires"
        return await self.network.call(self, effect, self.timeout_s, again)


def at_once(call: Awaitable[T]) -> T:
    """The result of a coroutine of a store in memory, which never waits."""
    try:
        call.__await__().send(None)  # type: ignore[attr-defined] - a coroutine's iterator is a generator
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return] - StopIteration carries what the coroutine returned
    raise AssertionError("a store in memory waited")
