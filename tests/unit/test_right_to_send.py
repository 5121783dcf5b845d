"""A request is dated before the right to send is looked at, and that date is the one that it bears."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from replicator.core.in_doubt import Dated
from replicator.core.model import Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.errors import Fenced
from replicator.ports import Entry, SinkLimits
from replicator.worker.link import LinkSettings
from replicator.worker.publisher import Publisher
from replicator.worker.span import Item


class Steps:
    """A link, its fence and its sink, as far as a publisher asks them, and what was asked in which order."""

    def __init__(self, *, may_send: bool) -> None:
        self.order: list[str] = []
        self.fence, self.sink = self, self
        self.settings = LinkSettings(in_flight_max=1)
        self.limits = SinkLimits(10, 1000, 1000)
        self.name, self.is_open = "orders:b", True
        self._may_send = may_send
        self.dates = iter(range(1000, 2000))

    def sign(self) -> Dated:
        self.order.append("dated")
        return Dated(next(self.dates), 0, None)

    def may_send(self) -> bool:
        self.order.append("looked at the right")
        return self._may_send

    async def put(self, entries: Sequence[Entry], *, signed_ms: int | None = None) -> Sequence[None]:
        self.order.append(f"sent with the date {signed_ms}")
        return [None for _ in entries]

    def succeeded(self) -> None: ...

    def observe(self, *_: object) -> None: ...

    def count(self, *_: object, **__: object) -> None: ...


def item() -> Item:
    origin = Origin(Region("a"), SourceName("orders"), "1", ShardId("0"), SequenceNumber(1), 0)
    made: Any = SimpleNamespace(
        entry=Entry(b"{}", "k"), size_bytes=2, packed=(), doubt=None, prepared=SimpleNamespace(origin=origin)
    )
    return made  # type: ignore[no-any-return] - what a publisher asks of an item


async def sent(steps: Steps) -> None:
    publisher: Publisher
    link: Any = steps

    def on_stored(_: Sequence[Item]) -> None:
        publisher.stop_taking()

    async def on_poison(*_: object) -> None: ...

    nobody: Any = SimpleNamespace(is_on=False)
    publisher = Publisher(link, nobody, steps.may_send, on_stored, on_poison, nobody)
    publisher.add([item()])
    async with asyncio.timeout(5):
        await publisher.run()


async def test_the_date_comes_first_then_the_right_then_the_request_with_that_date() -> None:
    steps = Steps(may_send=True)
    await sent(steps)
    assert steps.order == ["dated", "looked at the right", "sent with the date 1000"]


async def test_without_the_right_nothing_is_sent() -> None:
    steps = Steps(may_send=False)
    with pytest.raises(ExceptionGroup) as failed:
        await sent(steps)
    assert failed.group_contains(Fenced)
    assert steps.order == ["dated", "looked at the right"]
