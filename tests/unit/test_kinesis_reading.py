"""Reading a stream back: what stops it, stops it."""

import asyncio

import pytest

from replicator.aws.kinesis_api import GetRecordsReply
from replicator.aws.kinesis_reading import Bounds, Reading
from replicator.core.model import Position, Shard, ShardId
from replicator.errors import TransientError


class FailsWhenCancelled:
    """A stream whose only page never comes, and whose request ends in an error of its own when it is cancelled."""

    def __init__(self) -> None:
        self.is_asked = asyncio.Event()

    async def shards(self) -> list[Shard]:
        return [Shard(ShardId("s"))]

    async def iterator(self, shard: ShardId, position: Position) -> str:
        return "token"

    async def get_records(self, token: str, limit: int) -> GetRecordsReply:
        self.is_asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise TransientError("connection closed", code="no_answer") from None
        raise AssertionError


async def test_a_cancellation_that_meets_an_error_is_not_lost() -> None:
    api = FailsWhenCancelled()
    reading = Reading(api, 0, lambda _: None, Bounds(100, 60.0, 0.0))  # type: ignore[arg-type] - as much of it as is used
    task = asyncio.ensure_future(reading.run())
    await api.is_asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
