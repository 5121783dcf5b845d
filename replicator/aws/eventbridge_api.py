"""The calls of EventBridge on one bus, and what they answer."""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from replicator.aws.transport import JsonApi, Reply
from replicator.core.bus_entries import BusEntry

SERVICE = "events"
PREFIX = "AWSEvents"


class Put(Struct, rename="pascal"):
    """What became of one entry: without a code it is stored."""

    error_code: str | None = None
    error_message: str | None = None


class _PutReply(Struct, rename="pascal"):
    failed_entry_count: int
    entries: list[Put]


_put_reply = msgspec.json.Decoder(_PutReply)


class EventBridgeApi:
    """Each call raises TransientError, Misconfigured or ServiceError; the one write InDoubt as well."""

    def __init__(self, api: JsonApi, bus: str, timeout_s: float) -> None:
        self.bus = bus
        self._api = api
        self._timeout_s = timeout_s

    async def ask(self, signed_ms: int | None) -> Reply:
        """A harmless call, dated ``signed_ms`` (now by default): code ``late`` when that had expired.

        It finds out that there is no such bus, of which PutEvents says nothing.
        """
        return await self._sent("DescribeEventBus", {"Name": self.bus}, is_write=False, signed_ms=signed_ms)

    async def put(self, entries: Sequence[BusEntry], signed_ms: int | None) -> tuple[Reply, list[Put]]:
        """What became of each. Dated ``signed_ms`` (now by default).

        Raises ValueError when the answer does not say it.
        """
        request = {"Entries": [_wire(entry, self.bus) for entry in entries]}
        reply = await self._sent("PutEvents", request, is_write=True, signed_ms=signed_ms)
        result = _put_reply.decode(reply.body)
        failed = sum(put.error_code is not None for put in result.entries)
        if len(result.entries) != len(entries) or failed != result.failed_entry_count:
            told = f"{len(result.entries)} answers, {failed} failures"
            raise ValueError(f"{told} for {len(entries)} entries and {result.failed_entry_count} announced failures")
        return reply, result.entries

    async def _sent(self, operation: str, request: object, *, is_write: bool, signed_ms: int | None) -> Reply:
        body = msgspec.json.encode(request)
        signed_s = None if signed_ms is None else signed_ms / 1000
        return await self._api.call(operation, body, is_write=is_write, timeout_s=self._timeout_s, signed_s=signed_s)


def _wire(entry: BusEntry, bus: str) -> dict[str, object]:
    wire: dict[str, object] = {
        "EventBusName": bus,
        "Source": entry.source,
        "DetailType": entry.detail_type,
        "Detail": entry.detail.decode(),
    }
    if entry.time_s is not None:
        wire["Time"] = entry.time_s
    if entry.resources:
        wire["Resources"] = entry.resources
    if entry.trace is not None:
        wire["TraceHeader"] = entry.trace
    return wire
