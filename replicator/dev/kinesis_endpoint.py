"""A Kinesis endpoint over HTTP for tests, demo and benchmarks: AWS JSON 1.1, one event loop, state in memory.

Beside the API it serves unsigned paths: ``POST /_dev/faults`` (a JSON list of `Rule`; ``?seed=N``) adds
faults, ``DELETE /_dev/faults`` (``?stream=NAME``) clears them, ``POST /_dev/trim`` takes a `Trim` and ``GET
/_dev/stats`` answers `Stats`. ``POST /_dev/journal?stream=NAME`` has the times of a stream's records noted, ``DELETE``
answers them and ends it. `python -m replicator.dev.aws --kinesis-only` runs it as a process of its own.
"""

import asyncio
import secrets
import ssl
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from typing import TypeVar
from uuid import uuid4

import msgspec
from aiohttp import web
from aiohttp.web_request import BaseRequest
from msgspec import Struct

from replicator.dev import kinesis_wire as wire
from replicator.dev.kinesis_auth import Signed, Verifier
from replicator.dev.kinesis_faults import Faults, Kind, Rule
from replicator.dev.kinesis_journal import Journal
from replicator.dev.kinesis_limits import Limits
from replicator.dev.kinesis_state import THROTTLED, KinesisState, expired_iterator
from replicator.dev.kinesis_wire import KinesisError

TARGET_PREFIX = "Kinesis_20131202."
CONTENT_TYPE = "application/x-amz-json-1.1"
BODY_BYTES_MAX = 32 * 1024 * 1024
READ_BYTES = 64 * 1024
"""Larger buffers cost more: at 256 KiB a body of 700 KB takes 1.2 ms to read instead of 0.7 (page faults)."""
IDLE_S = 300.0

Q = TypeVar("Q", bound=wire.Request)

_encode = msgspec.json.Encoder().encode
_decode_rules = msgspec.json.Decoder(list[Rule]).decode


class Trim(Struct, forbid_unknown_fields=True):
    """Forget ``shard`` through ``through_sequence``, or in all shards what arrived before ``before_ms``."""

    stream: str
    shard: str | None = None
    through_sequence: str | None = None
    before_ms: int | None = None


class Trimmed(Struct):
    records: int


class Stats(Struct):
    """``streams``: counts by stream; ``strikes``: faults by kind; ``cpu_s``: of the whole process."""

    requests: dict[str, int]
    errors: dict[str, int]
    strikes: dict[str, int]
    streams: dict[str, dict[str, int]]
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Call:
    """A decoded request, and what answers it."""

    request: wire.Request
    answer: Callable[[], wire.Reply]


class _Dropped(Exception):
    pass


class EndpointClock:
    """The wall clock plus the injected skew."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self._faults.skew_ms


class KinesisEndpoint:
    """One region's Kinesis. Signatures are checked against one credential and this region."""

    def __init__(
        self,
        region: str,
        *,
        limits: Limits | None = None,
        key_id: str = "test",
        secret: str = "test",  # noqa: S107 - the emulator's published credential guards nothing
        verify_signatures: bool = True,
    ) -> None:
        self.faults = Faults()
        self.journal = Journal()
        self.clock = EndpointClock(self.faults)
        self.state = KinesisState(region, self.clock, limits or Limits(), secrets.token_bytes(32))
        self._verifier = Verifier(region, key_id, secret, is_strict=verify_signatures)
        self._requests: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._runner: web.ServerRunner | None = None
        self._operations = _operations(self.state)

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> str:
        """Serve until `stop`; returns the URL. Port 0 takes a free one."""
        server = web.Server(self._handle, access_log=None, keepalive_timeout=IDLE_S, read_bufsize=READ_BYTES)
        self._runner = web.ServerRunner(server, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        return f"http://{host}:{self._runner.addresses[0][1]}"

    async def start_tls(self, context: ssl.SSLContext, host: str = "127.0.0.1") -> str:
        """Serve the same over TLS as well, on a free port of its own, once `start` has returned; returns the URL."""
        assert self._runner is not None
        await web.TCPSite(self._runner, host, 0, ssl_context=context).start()
        return f"https://{host}:{self._runner.addresses[-1][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: BaseRequest) -> web.Response:
        if (request.content_length or 0) > BODY_BYTES_MAX:
            return self._reply(413, b"")
        body = await request.content.read()
        try:
            if request.path.startswith("/_dev/"):
                return self._reply(200, self._admin(request, body))
            return self._reply(200, await self._serve(request, body))
        except KinesisError as error:
            self._errors[error.code] += 1
            return self._reply(error.status, _encode(wire.ErrorReply(error.code, error.message)))
        except _Dropped:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()

    def _reply(self, status: int, body: bytes) -> web.Response:
        headers = {
            "Content-Type": CONTENT_TYPE,
            "Date": formatdate(self.clock.now_ms() / 1000, usegmt=True),
            "x-amzn-RequestId": str(uuid4()),
        }
        return web.Response(status=status, body=body, headers=headers)

    async def _serve(self, request: BaseRequest, body: bytes) -> bytes:
        """One API call. A delay comes before the signature is checked, as it would on the network."""
        operation = request.headers.get("X-Amz-Target", "").removeprefix(TARGET_PREFIX)
        call = self._decoded(operation, body)
        self._requests[operation] += 1
        stream = self._stream_of(call.request)
        struck = self.faults.strike(operation, stream)
        if "delay" in struck:
            await asyncio.sleep(struck["delay"].ms / 1000)
        signed = Signed(request.method, request.path, request.query_string, request.headers, body)
        self._verifier.check(signed, self.clock.now_ms())
        _raise_before(struck, operation)
        reply = self._answer(call, struck)
        self._note(stream, reply)
        if "repeat" in struck:
            self._note(stream, self._answer(call, {}))
        _raise_after(struck)
        return _encode(reply)

    def _decoded(self, operation: str, body: bytes) -> Call:
        if operation not in self._operations:
            raise KinesisError("UnknownOperationException", f"Operation {operation!r} is not served here.")
        try:
            return self._operations[operation](body)
        except msgspec.ValidationError as exc:
            raise wire.not_valid(str(exc)) from exc
        except msgspec.DecodeError as exc:
            raise KinesisError("SerializationException", str(exc)) from exc

    def _answer(self, call: Call, struck: dict[Kind, Rule]) -> wire.Reply:
        if not isinstance(call.request, wire.PutRecords):
            return call.answer()
        count = len(call.request.records)
        failing = self.faults.failing_entries(struck["fail_entries"], count) if "fail_entries" in struck else {}
        order = self.faults.shuffled(count) if "shuffle_entries" in struck else None
        return self.state.put_records(call.request, failing, order)

    def _note(self, stream: str | None, reply: wire.Reply) -> None:
        if stream is None or not self.journal.is_following(stream):
            return
        match reply:
            case wire.PutRecordsReply(records=results):
                self.journal.stored(stream, results)
            case wire.GetRecordsReply(records=records):
                self.journal.handed_out(stream, records)

    def _stream_of(self, request: wire.Request) -> str | None:
        """The stream of a request, as far as its own text tells: to match fault rules by."""
        match request:
            case wire.Named():
                return request.stream_or_none
            case wire.GetRecords():
                place = self.state.place_or_none(request.shard_iterator)
                return None if place is None else place.stream
        return None

    def _admin(self, request: BaseRequest, body: bytes) -> bytes:
        try:
            match request.method, request.path:
                case "POST", "/_dev/faults":
                    seed = request.query.get("seed")
                    self.faults.add(_decode_rules(body), None if seed is None else int(seed))
                    return b"{}"
                case "DELETE", "/_dev/faults":
                    self.faults.clear(request.query.get("stream"))
                    return b"{}"
                case "POST", "/_dev/journal":
                    self.journal.follow(request.query["stream"])
                    return b"{}"
                case "DELETE", "/_dev/journal":
                    return _encode(self.journal.take(request.query["stream"]))
                case "POST", "/_dev/trim":
                    return _encode(Trimmed(self._trim(msgspec.json.decode(body, type=Trim))))
                case "GET", "/_dev/stats":
                    return _encode(self.stats())
        except (ValueError, KeyError) as exc:  # msgspec's errors are ValueErrors
            raise KinesisError("ValidationException", str(exc)) from exc
        raise KinesisError("NotFound", f"{request.method} {request.path} is not served.", status=404)

    def _trim(self, wanted: Trim) -> int:
        match wanted:
            case Trim(shard=str(shard), through_sequence=str(sequence)):
                return self.state.trim(wanted.stream, shard, sequence)
            case Trim(before_ms=int(ms)):
                return self.state.trim_before_ms(wanted.stream, ms)
        raise KinesisError("ValidationException", "give shard and through_sequence, or before_ms")

    def stats(self) -> Stats:
        streams = {name: stream.counts for name, stream in self.state.streams.items()}
        return Stats(self._requests, self._errors, self.faults.strikes, streams, time.process_time())


def _operation(request: type[Q], answer: Callable[[Q], wire.Reply]) -> Callable[[bytes], Call]:
    decode = msgspec.json.Decoder(request).decode

    def bind(body: bytes) -> Call:
        call = decode(body)
        return Call(call, partial(answer, call))

    return bind


def _operations(state: KinesisState) -> dict[str, Callable[[bytes], Call]]:
    """What decodes the body of each operation, by the name in X-Amz-Target."""
    return {
        "CreateStream": _operation(wire.CreateStream, state.create_stream),
        "DeleteStream": _operation(wire.DeleteStream, state.delete_stream),
        "DescribeStream": _operation(wire.DescribeStream, state.describe_stream),
        "DescribeStreamSummary": _operation(wire.DescribeStreamSummary, state.describe_stream_summary),
        "ListStreams": _operation(wire.ListStreams, state.list_streams),
        "ListShards": _operation(wire.ListShards, state.list_shards),
        "SplitShard": _operation(wire.SplitShard, state.split_shard),
        "MergeShards": _operation(wire.MergeShards, state.merge_shards),
        "IncreaseStreamRetentionPeriod": _operation(wire.RetentionPeriod, state.set_retention),
        "DecreaseStreamRetentionPeriod": _operation(wire.RetentionPeriod, state.set_retention),
        "GetShardIterator": _operation(wire.GetShardIterator, state.get_shard_iterator),
        "GetRecords": _operation(wire.GetRecords, state.get_records),
        "PutRecord": _operation(wire.PutRecord, state.put_record),
        "PutRecords": _operation(wire.PutRecords, state.put_records),
    }


def _raise_before(struck: dict[Kind, Rule], operation: str) -> None:
    if "drop_before" in struck:
        raise _Dropped
    if "unavailable" in struck:
        raise KinesisError("ServiceUnavailableException", "Injected fault.", status=503)
    if "internal_error" in struck:
        raise KinesisError("InternalFailure", "Injected fault.", status=500)
    if "throttle" in struck:
        is_data = operation in ("GetRecords", "PutRecord", "PutRecords", "GetShardIterator")
        usual = THROTTLED if is_data else "LimitExceededException"
        raise KinesisError(struck["throttle"].code or usual, "Injected fault: rate exceeded.")
    if "expire_iterators" in struck:
        raise expired_iterator(0)


def _raise_after(struck: dict[Kind, Rule]) -> None:
    if "drop_after" in struck:
        raise _Dropped
    if "internal_error_after_effect" in struck:
        raise KinesisError("InternalFailure", "Injected fault.", status=500)
