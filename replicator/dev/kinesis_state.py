"""What the Kinesis endpoint stores and answers: pure state, no I/O, the clock injected, one caller at a time.

Each operation takes a request of kinesis_wire and returns its reply or raises KinesisError. Behaviour is
that of AWS where it matters to a replicator: records stay in the shard they were put to, a closed shard
ends with its children, what is older than the retention is gone, limits hold per shard, and entries of
PutRecords fail singly.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from types import MappingProxyType

from msgspec import UNSET
from msgspec.structs import asdict, replace

from replicator.dev import kinesis_wire as wire
from replicator.dev.kinesis_limits import Limits
from replicator.dev.kinesis_shard import ShardLog
from replicator.dev.kinesis_stream import Stream
from replicator.dev.kinesis_tokens import Listing, Place, Tokens
from replicator.dev.kinesis_wire import KinesisError, invalid, not_valid
from replicator.ports import Clock

ACCOUNT = "123456789012"
"""The one moto uses."""
PARTITION_KEY_CHARACTERS_MAX = 256
THROTTLED = "ProvisionedThroughputExceededException"


class KinesisState:
    """All streams of one region. ``token_secret`` signs iterators: another state's iterators are refused."""

    def __init__(self, region: str, clock: Clock, limits: Limits, token_secret: bytes) -> None:
        self.streams: dict[str, Stream] = {}
        self.limits = limits
        self._region = region
        self._clock = clock
        self._tokens = Tokens(token_secret)
        self._tick_s = 0
        self._created_ms = 0

    # --- streams --------------------------------------------------------------------------------------------

    def create_stream(self, request: wire.CreateStream) -> wire.Empty:
        name, now_ms = request.stream, self._clock.now_ms()
        if name in self.streams:
            message = f"Stream {name} under account {ACCOUNT} already exists."
            raise KinesisError("ResourceInUseException", message)
        if request.shard_count < 1:
            raise not_valid("Value at 'shardCount' must have value greater than or equal to 1")
        self._created_ms = max(now_ms, self._created_ms + 1)
        self.streams[name] = Stream(
            name,
            request.shard_count,
            self.limits,
            tick_s=self._tick(now_ms),
            now_ms=now_ms,
            created_ms=self._created_ms,
        )
        return wire.Empty()

    def delete_stream(self, request: wire.DeleteStream) -> wire.Empty:
        del self.streams[self._stream(request.stream).name]
        return wire.Empty()

    def set_retention(self, request: wire.RetentionPeriod) -> wire.Empty:
        """Both IncreaseStreamRetentionPeriod and DecreaseStreamRetentionPeriod; 24 to 8,760 hours."""
        if not 24 <= request.retention_period_hours <= 8760:
            raise invalid("RetentionPeriodHours must be between 24 and 8760.")
        self._stream(request.stream).retention_hours = request.retention_period_hours
        return wire.Empty()

    def describe_stream(self, request: wire.DescribeStream) -> wire.DescribeStreamReply:
        stream = self._stream(request.stream)
        after = request.exclusive_start_shard_id or ""
        shards = [shard.view() for shard in stream.shards.values() if shard.id > after]
        return wire.DescribeStreamReply(
            wire.StreamDescription(
                **asdict(self._summary(stream)),
                shards=shards[: request.limit],
                has_more_shards=len(shards) > request.limit,
                retention_period_hours=stream.retention_hours,
            )
        )

    def describe_stream_summary(self, request: wire.DescribeStreamSummary) -> wire.DescribeStreamSummaryReply:
        stream = self._stream(request.stream)
        return wire.DescribeStreamSummaryReply(
            wire.StreamDescriptionSummary(
                **asdict(self._summary(stream)),
                retention_period_hours=stream.retention_hours,
                open_shard_count=len(stream.open_shards),
            )
        )

    def list_streams(self, request: wire.ListStreams) -> wire.ListStreamsReply:
        after = request.exclusive_start_stream_name or ""
        if request.next_token is not None:
            after = self._listing(request.next_token).stream
        names = sorted(name for name in self.streams if name > after)
        shown = names[: request.limit]
        reply = wire.ListStreamsReply(
            stream_names=shown,
            has_more_streams=len(names) > len(shown),
            stream_summaries=[self._summary(self.streams[name]) for name in shown],
        )
        if not reply.has_more_streams:
            return reply
        token = Listing(shown[-1], 0, "", None, self._clock.now_ms())
        return replace(reply, next_token=self._tokens.seal(token))

    # --- shards ---------------------------------------------------------------------------------------------

    def list_shards(self, request: wire.ListShards) -> wire.ListShardsReply:
        stream, after, wanted = self._listing_start(request)
        candidates = (s for s in stream.shards.values() if s.id > after and stream.passes(s, wanted))
        shards = list(islice(candidates, request.max_results + 1))
        shown = shards[: request.max_results]
        reply = wire.ListShardsReply([shard.view() for shard in shown])
        if len(shards) == len(shown):
            return reply
        token = Listing(stream.name, stream.created_ms, shown[-1].id, wanted, self._clock.now_ms())
        return replace(reply, next_token=self._tokens.seal(token))

    def split_shard(self, request: wire.SplitShard) -> wire.Empty:
        now_ms = self._clock.now_ms()
        stream = self._stream(request.stream)
        stream.split(request.shard_to_split, request.new_starting_hash_key, self._tick(now_ms), now_ms)
        return wire.Empty()

    def merge_shards(self, request: wire.MergeShards) -> wire.Empty:
        now_ms = self._clock.now_ms()
        stream = self._stream(request.stream)
        stream.merge(request.shard_to_merge, request.adjacent_shard_to_merge, self._tick(now_ms), now_ms)
        return wire.Empty()

    def get_shard_iterator(self, request: wire.GetShardIterator) -> wire.GetShardIteratorReply:
        stream = self._stream(request.stream)
        shard = stream.shard(request.shard_id)
        position = self._position(shard, request)
        return wire.GetShardIteratorReply(self._iterator(stream, shard, position, self._clock.now_ms()))

    # --- records --------------------------------------------------------------------------------------------

    def get_records(self, request: wire.GetRecords) -> wire.GetRecordsReply:
        now_ms = self._clock.now_ms()
        place = self.place_or_none(request.shard_iterator)
        if place is None:
            raise invalid("Invalid ShardIterator.")
        if now_ms - place.issued_ms > self.limits.iterator_ttl_ms:
            raise expired_iterator(now_ms - place.issued_ms)
        if not 1 <= request.limit <= self.limits.get_records_max:
            raise not_valid(f"Value at 'limit' must be between 1 and {self.limits.get_records_max}")
        stream = self._stream(place.stream)
        if stream.created_ms != place.created_ms:
            raise invalid("Invalid ShardIterator: it belongs to a deleted stream of this name.")
        return self._read(stream, stream.shard(place.shard), place.position, request.limit, now_ms)

    def put_record(self, request: wire.PutRecord) -> wire.PutRecordReply:
        entry = wire.PutEntry(request.data, request.partition_key, request.explicit_hash_key)
        result = self._put(self._stream(request.stream), [entry], {}, range(1))[0]
        match result.error_code, result.error_message, result.shard_id, result.sequence_number:
            case (str(code), str(message), _, _):
                raise KinesisError(code, message)
            case (_, _, str(shard_id), str(sequence_number)):
                return wire.PutRecordReply(shard_id, sequence_number)
        raise AssertionError("an entry is either stored or has an error code")

    def put_records(
        self,
        request: wire.PutRecords,
        failing: Mapping[int, str] = MappingProxyType({}),
        order: Sequence[int] | None = None,
    ) -> wire.PutRecordsReply:
        """Store the entries in the given order of indices; those in ``failing`` fail with that ErrorCode."""
        if not 1 <= len(request.records) <= self.limits.put_records_max:
            raise not_valid(
                f"Value at 'records' failed to satisfy constraint: Member must have length between 1 and "
                f"{self.limits.put_records_max}"
            )
        results = self._put(
            self._stream(request.stream), request.records, failing, order or range(len(request.records))
        )
        return wire.PutRecordsReply(sum(result.error_code is not UNSET for result in results), results)

    # --- what tests and the endpoint ask beyond the API -----------------------------------------------------

    def place_or_none(self, iterator: str) -> Place | None:
        """Where an iterator points; None for text this state never issued."""
        token = self._tokens.open(iterator)
        return token if isinstance(token, Place) else None

    def trim(self, stream: str, shard: str, through_sequence: str) -> int:
        """Forget the record of this number and all before it, as retention would; returns how many."""
        log = self._stream(stream).shard(shard)
        return log.trim(log.position_of(through_sequence) + 1)

    def trim_before_ms(self, stream: str, ms: int) -> int:
        """Forget what arrived in any shard before ``ms``; returns how many records."""
        return sum(log.trim(log.position_at_ms(ms)) for log in self._stream(stream).shards.values())

    # --- inside ---------------------------------------------------------------------------------------------

    def _tick(self, now_ms: int) -> int:
        """A second no other creation or resharding had: sequence numbers are unique and grow with lineage."""
        self._tick_s = max(now_ms // 1000, self._tick_s + 1)
        return self._tick_s

    def _stream(self, name: str) -> Stream:
        stream = self.streams.get(name)
        if stream is None:
            message = f"Stream {name} under account {ACCOUNT} not found."
            raise KinesisError("ResourceNotFoundException", message)
        stream.expire(self._clock.now_ms())
        return stream

    def _summary(self, stream: Stream) -> wire.StreamSummary:
        return wire.StreamSummary(
            stream_name=stream.name,
            stream_arn=f"arn:aws:kinesis:{self._region}:{ACCOUNT}:stream/{stream.name}",
            stream_status=stream.status(self._clock.now_ms()),
            stream_creation_timestamp=stream.created_ms / 1000,
        )

    def _listing(self, text: str) -> Listing:
        token = self._tokens.open(text)
        if not isinstance(token, Listing):
            raise invalid("Invalid NextToken.")
        if self._clock.now_ms() - token.issued_ms > self.limits.iterator_ttl_ms:
            raise KinesisError("ExpiredNextTokenException", "The NextToken has expired.")
        return token

    def _listing_start(self, request: wire.ListShards) -> tuple[Stream, str, wire.ShardFilter | None]:
        if request.next_token is None:
            after = request.exclusive_start_shard_id or ""
            return self._stream(request.stream), after, request.shard_filter
        if request.stream_name is not None or request.exclusive_start_shard_id is not None:
            raise invalid("NextToken and StreamName cannot be provided together.")
        token = self._listing(request.next_token)
        stream = self._stream(token.stream)
        if stream.created_ms != token.created_ms:
            raise invalid("Invalid NextToken: it belongs to a deleted stream of this name.")
        return stream, token.after, token.filter

    def _iterator(self, stream: Stream, shard: ShardLog, position: int, now_ms: int) -> str:
        return self._tokens.seal(Place(stream.name, stream.created_ms, shard.id, position, now_ms))

    def _position(self, shard: ShardLog, request: wire.GetShardIterator) -> int:
        match request.shard_iterator_type, request.starting_sequence_number, request.timestamp:
            case "TRIM_HORIZON", _, _:
                return shard.start
            case "LATEST", _, _:
                return shard.end
            case "AT_SEQUENCE_NUMBER", str(number), _:
                return shard.position_of(number)
            case "AFTER_SEQUENCE_NUMBER", str(number), _:
                return shard.position_of(number) + 1
            case "AT_TIMESTAMP", _, float(seconds):
                if round(seconds * 1000) > self._clock.now_ms():
                    raise invalid(
                        "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis."
                    )
                return shard.position_at_ms(round(seconds * 1000))
        raise invalid(f"Must specify a valid iterator type and its argument, not {request.shard_iterator_type}.")

    def _read(self, stream: Stream, shard: ShardLog, position: int, limit: int, now_ms: int) -> wire.GetRecordsReply:
        if not shard.reads.admits(0, now_ms):
            stream.counts["reads_throttled"] += 1
            raise throttled(stream, shard)
        records, following, size = shard.page(position, limit, self.limits.get_bytes_max)
        shard.reads.spend(size)
        stream.counts["reads"] += 1
        stream.counts["records_out"] += len(records)
        stream.counts["bytes_out"] += size
        reply = wire.GetRecordsReply(records, shard.behind_ms(following, now_ms))
        if shard.closed_ms is not None and following >= shard.end:
            return replace(reply, child_shards=[child.as_child() for child in shard.children])
        return replace(reply, next_shard_iterator=self._iterator(stream, shard, following, now_ms))

    def _put(
        self,
        stream: Stream,
        entries: Sequence[wire.PutEntry],
        failing: Mapping[int, str],
        order: Sequence[int],
    ) -> list[wire.PutResult]:
        now_ms = self._clock.now_ms()
        if stream.status(now_ms) == "CREATING":
            raise KinesisError("ResourceNotFoundException", f"Stream {stream.name} is not ACTIVE yet.")
        sizes = self._sizes(entries)
        shards = [stream.shard_for(entry.partition_key, entry.explicit_hash_key) for entry in entries]
        results = [wire.PutResult()] * len(entries)
        for i in order:
            if i in failing:
                results[i] = wire.PutResult(error_code=failing[i], error_message="Injected fault.")
            elif shards[i].writes.admits(sizes[i], now_ms):
                entry = entries[i]
                sequence = shards[i].append(entry.data, entry.partition_key, sizes[i], now_ms)
                results[i] = wire.PutResult(sequence, shards[i].id)
            else:
                message = _throttled_message(stream, shards[i])
                results[i] = wire.PutResult(error_code=THROTTLED, error_message=message)
        stream.count_puts(results, sizes, injected=len(failing))
        return results

    def _sizes(self, entries: Sequence[wire.PutEntry]) -> list[int]:
        """Bytes of each entry; raises when one of them or their sum is over the limits."""
        sizes = [entry_bytes(entry) for entry in entries]
        if max(sizes) > self.limits.record_bytes_max:
            limit = self.limits.record_bytes_max
            raise not_valid(f"Value at 'data' must have length less than or equal to {limit}")
        if sum(sizes) > self.limits.put_bytes_max:
            raise invalid(f"Records size exceeds {self.limits.put_bytes_max} bytes limit.")
        return sizes


def entry_bytes(entry: wire.PutEntry) -> int:
    """Bytes of data and key as AWS counts them, from the length of the base64 text. Raises if malformed."""
    data, key = entry.data, entry.partition_key
    if not 1 <= len(key) <= PARTITION_KEY_CHARACTERS_MAX:
        raise not_valid("Value at 'partitionKey' must have length between 1 and 256")
    if len(data) % 4:
        raise KinesisError("SerializationException", "Data is not valid base64.")
    padding = 2 if data.endswith("==") else data.endswith("=")
    return len(data) // 4 * 3 - padding + (len(key) if key.isascii() else len(key.encode()))


def expired_iterator(age_ms: int) -> KinesisError:
    return KinesisError("ExpiredIteratorException", f"Iterator expired: it was created {age_ms} ms ago.")


def throttled(stream: Stream, shard: ShardLog) -> KinesisError:
    return KinesisError(THROTTLED, _throttled_message(stream, shard))


def _throttled_message(stream: Stream, shard: ShardLog) -> str:
    return f"Rate exceeded for shard {shard.id} in stream {stream.name} under account {ACCOUNT}."
