"""A Kinesis stream in a peer region as a sink: one PutRecords a request, and reading back what is in doubt."""

import asyncio
import time
from collections.abc import Callable, Sequence

import msgspec
import pybase64
from msgspec import Struct

from replicator.aws.kinesis_api import (
    PUT_RECORDS_MAX,
    PUT_REQUEST_BYTES_MAX,
    RECORD_BYTES_MAX,
    GetRecordsReply,
    KinesisApi,
)
from replicator.aws.transport import Reply, ServiceError
from replicator.core.model import AtTimestamp, Origin, ShardId
from replicator.errors import InDoubt, Refused, TransientError
from replicator.ports import Entry, Found, SinkLimits

CLOCK_FRESH_S = 60.0
DATE_RESOLUTION_MS = 1000
READ_BACK_PAGE = 10_000


class _Failures(Struct, rename="pascal"):
    failed_record_count: int


class _EntryReply(Struct, rename="pascal"):
    error_code: str | None = None


class _PutReply(Struct, rename="pascal"):
    records: list[_EntryReply]


_failures = msgspec.json.Decoder(_Failures)
_entries = msgspec.json.Decoder(_PutReply)
_text = msgspec.json.Encoder()


class KinesisSink:
    """Implements `ports.Sink`.

    ``read_back_interval_s``: the least time between two GetRecords on one shard; its consumers share the five a second.
    """

    def __init__(
        self,
        api: KinesisApi,
        *,
        record_bytes_max: int = RECORD_BYTES_MAX,
        read_back_interval_s: float = 1.0,
        read_back_max_s: float = 600.0,
    ) -> None:
        self._api = api
        self._limits = SinkLimits(PUT_RECORDS_MAX, PUT_REQUEST_BYTES_MAX, record_bytes_max)
        self._interval_s = read_back_interval_s
        self._read_back_max_s = read_back_max_s
        self._head = b'{"StreamName":' + _text.encode(api.stream) + b',"Records":['
        self._clock: tuple[int, float] | None = None

    @property
    def limits(self) -> SinkLimits:
        return self._limits

    async def put(self, entries: Sequence[Entry]) -> Sequence[str | None]:
        sent_ms = int(time.time() * 1000)
        try:
            reply = await self._api.put_records(self._body(entries))
        except ServiceError as exc:
            raise Refused(f"PutRecords on {self._api.stream}: {exc}") from exc
        self._note_clock(reply)
        try:
            if _failures.decode(reply.body).failed_record_count == 0:
                return (None,) * len(entries)
            codes = [entry.error_code for entry in _entries.decode(reply.body).records]
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise InDoubt(
                f"PutRecords on {self._api.stream}: unreadable answer: {exc}", sent_ms=sent_ms
            ) from exc
        if len(codes) != len(entries):
            raise InDoubt(
                f"PutRecords on {self._api.stream}: {len(codes)} answers for {len(entries)} records",
                sent_ms=sent_ms,
            )
        return codes

    def _body(self, entries: Sequence[Entry]) -> bytes:
        parts = [
            b'{"Data":"%b","PartitionKey":%b}'
            % (pybase64.b64encode(entry.data), _text.encode(entry.partition_key))
            for entry in entries
        ]
        return b"".join((self._head, b",".join(parts), b"]}"))

    async def peer_time_ms(self) -> int:
        clock = self._clock
        if clock is None or time.monotonic() - clock[1] > CLOCK_FRESH_S:
            try:
                _, reply = await self._api.summary()
            except ServiceError as exc:
                raise TransientError(f"{self._api.stream}: {exc}", code=exc.code) from exc
            clock = self._note_clock(reply)
        if clock is None:
            raise TransientError(f"{self._api.stream}: the answer has no Date header", code="no_date")
        return clock[0] + int((time.monotonic() - clock[1]) * 1000)

    def _note_clock(self, reply: Reply) -> tuple[int, float] | None:
        """The Date header names the second in which the answer was made, at the earliest when the request left."""
        if reply.date_ms is not None:
            self._clock = (reply.date_ms - DATE_RESOLUTION_MS - reply.round_trip_ms, time.monotonic())
        return self._clock

    # --- reading back ----------------------------------------------------------------------------------------------

    async def read_back(
        self, since_ms: int, origin_of: Callable[[bytes], Origin | None], *, records_max: int
    ) -> Found:
        reading = _Reading(origin_of, records_max, asyncio.get_running_loop().time() + self._read_back_max_s)
        seen: set[ShardId] = set()
        try:
            while not reading.is_over:
                # Shards that appeared while the others were read hold what their parents no longer took.
                fresh = [shard.id for shard in await self._api.shards() if shard.id not in seen]
                if not fresh:
                    break
                seen.update(fresh)
                async with asyncio.TaskGroup() as group:
                    for shard in fresh:
                        group.create_task(self._read_shard(shard, since_ms, reading))
        except ServiceError as exc:
            raise TransientError(f"reading {self._api.stream} back: {exc}", code=exc.code) from exc
        except ExceptionGroup as group_error:
            first = group_error.exceptions[0]
            if not isinstance(first, TransientError | ServiceError):
                raise
            raise TransientError(
                f"reading {self._api.stream} back: {first}", code="read_back"
            ) from group_error
        return Found(frozenset(reading.origins), not reading.is_over, reading.records)

    async def _read_shard(self, shard: ShardId, since_ms: int, reading: "_Reading") -> None:
        token: str | None = await self._api.iterator(shard, AtTimestamp(since_ms))
        while token and not reading.is_over:
            reply = await self._api.get_records(token, READ_BACK_PAGE)
            reading.take(reply)
            token = reply.next_shard_iterator
            if reply.millis_behind_latest == 0 and token:
                return
            await asyncio.sleep(self._interval_s)


class _Reading:
    """What one reading back has seen, and whether it hit a bound."""

    def __init__(self, origin_of: Callable[[bytes], Origin | None], records_max: int, until_s: float) -> None:
        self._origin_of = origin_of
        self._records_max = records_max
        self._until_s = until_s
        self.origins: set[Origin] = set()
        self.records = 0

    def take(self, reply: GetRecordsReply) -> None:
        self.records += len(reply.records)
        for record in reply.records:
            origin = self._origin_of(pybase64.b64decode(record.data))
            if origin is not None:
                self.origins.add(origin)

    @property
    def is_over(self) -> bool:
        return self.records >= self._records_max or asyncio.get_running_loop().time() > self._until_s
