"""A Kinesis stream in a peer region as a sink: one PutRecords a request, and reading back what is in doubt."""

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence

import msgspec
import pybase64
from msgspec import Struct
from msgspec.structs import replace

from replicator.aws.dated_peer import DatedPeer
from replicator.aws.kinesis_api import PUT_RECORDS_MAX, PUT_REQUEST_BYTES_MAX, RECORD_BYTES_MAX, KinesisApi
from replicator.aws.kinesis_reading import Bounds, Pace, Reading, Wanted
from replicator.aws.signer import body_hash
from replicator.aws.transport import Reply, ServiceError
from replicator.core.hash_range import hash_key
from replicator.core.model import Origin
from replicator.core.peer_clock import PeerTime
from replicator.errors import InDoubt, Refused, TransientError
from replicator.ports import NOT_KEPT, Entry, Found, SinkLimits

HOUR_MS = 3_600_000
READ_BACK_BYTES_MAX = 4 * 1024**3


class _Failures(Struct, rename="pascal"):
    failed_record_count: int


class _EntryReply(Struct, rename="pascal"):
    error_code: str | None = None


class _PutReply(Struct, rename="pascal"):
    records: list[_EntryReply]


_failures = msgspec.json.Decoder(_Failures)
_entries = msgspec.json.Decoder(_PutReply)
_text = msgspec.json.Encoder()


class Bodies:
    """Bodies of PutRecords with their hashes. Links of one source that keep up send the same events at about the same
    time, and what the first of them wrote serves the others; ``kept`` is how many are remembered for that.
    """

    def __init__(self, kept: int = 0) -> None:
        self._kept: deque[tuple[bytes, Sequence[Entry], bytes, str]] = deque(maxlen=kept)

    def of(self, head: bytes, entries: Sequence[Entry]) -> tuple[bytes, str]:
        """The body that begins with ``head``, and its SHA-256 in hex."""
        for same_head, same, body, sha256 in self._kept:
            # The entries are the same objects, so this compares no bytes.
            if same_head == head and same == entries:
                return body, sha256
        body = _written(head, entries)
        sha256 = body_hash(body)
        self._kept.append((head, entries, body, sha256))
        return body, sha256


def _written(head: bytes, entries: Sequence[Entry]) -> bytes:
    # Joined once from its smallest parts: formatting entry by entry copies every byte twice (1.4 us an event, 0.4).
    parts = [head]
    for entry in entries:
        parts += (
            b'{"Data":"',
            pybase64.b64encode(entry.data),
            b'","PartitionKey":',
            _text.encode(entry.partition_key),
            b"},",
        )
    parts[-1] = b"}]}"
    return b"".join(parts)


class KinesisSink:
    """Implements `ports.Sink`. ``bodies`` is shared by the sinks of links that read the same source.

    ``read_back_pace`` (by default one GetRecords a second on each shard) is shared by the sinks of one stream.
    ``read_back_max_s`` bounds one reading back; what it did not reach makes it incomplete.
    """

    def __init__(
        self,
        api: KinesisApi,
        *,
        bodies: Bodies | None = None,
        records_max: int = PUT_RECORDS_MAX,
        request_bytes_max: int = PUT_REQUEST_BYTES_MAX,
        record_bytes_max: int = RECORD_BYTES_MAX,
        read_back_pace: Pace | None = None,
        read_back_max_s: float = 600.0,
    ) -> None:
        self._api = api
        self._bodies = bodies or Bodies()
        self._limits = SinkLimits(records_max, request_bytes_max, record_bytes_max)
        self._pace = read_back_pace or Pace(1.0)
        self._read_back_max_s = read_back_max_s
        self._head = b'{"StreamName":' + _text.encode(api.stream) + b',"Records":['
        self._peer = DatedPeer(api.stream, self._ask)

    @property
    def limits(self) -> SinkLimits:
        return self._limits

    async def put(self, entries: Sequence[Entry], *, signed_ms: int | None = None) -> Sequence[str | None]:
        sent_ms = time.time_ns() // 1_000_000
        try:
            body, sha256 = self._bodies.of(self._head, entries)
            reply = await self._api.put_records(body, signed_ms, sha256)
        except ServiceError as exc:
            raise Refused(f"PutRecords on {self._api.stream}: {exc}") from exc
        self._peer.answered(reply)
        try:
            return _results(reply.body, len(entries))
        except ValueError as exc:  # msgspec's errors are ValueErrors
            raise InDoubt(f"PutRecords on {self._api.stream}: unusable answer: {exc}", sent_ms=sent_ms) from exc

    async def peer_time(self) -> PeerTime:
        return await self._peer.time()

    async def refuses(self, dated_ms: int) -> bool:
        return await self._peer.refuses(dated_ms)

    async def _ask(self, dated_ms: int | None) -> Reply:
        return (await self._api.summary(dated_ms))[1]

    async def read_back(
        self,
        since_ms: int,
        origin_of: Callable[[bytes], Origin | None],
        *,
        records_max: int,
        bytes_max: int | None = None,
        until_ms: int | None = None,
        keys: Collection[str] | None = None,
    ) -> Found:
        bounds = Bounds(records_max, READ_BACK_BYTES_MAX if bytes_max is None else bytes_max, self._read_back_max_s)
        wanted = Wanted(since_ms, until_ms, None if keys is None else frozenset(map(hash_key, keys)))
        try:
            found = await Reading(self._api, wanted, origin_of, bounds, self._pace).run()
            # Behind the reading: what it did not find may have been trimmed before it came by.
            summary, reply = await self._api.summary()
        except ServiceError as exc:
            raise TransientError(f"reading {self._api.stream} back: {exc}", code=exc.code) from exc
        kept_since_ms = self._peer.told(reply).latest_ms - summary.retention_period_hours * HOUR_MS
        if found.is_complete and since_ms < kept_since_ms:
            return replace(found, is_complete=False, why=NOT_KEPT)
        return found


def _results(body: bytes | bytearray, count: int) -> Sequence[str | None]:
    """Per entry the error code. The entries of a request that stored all are not looked at. Raises ValueError."""
    failed = _failures.decode(body).failed_record_count
    if failed == 0:
        return (None,) * count
    codes = [entry.error_code for entry in _entries.decode(body).records]
    if len(codes) != count:
        raise ValueError(f"{len(codes)} answers for {count} records")
    if failed != count - codes.count(None):
        raise ValueError(f"{failed} failed records are announced, others are named")
    return codes
