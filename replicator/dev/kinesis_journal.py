"""When the records of chosen streams were stored and first handed out, by the clock all processes of a machine share.

ApproximateArrivalTimestamp has milliseconds, which is as much as some of the delays that benchmarks look for.
"""

import time
from collections.abc import Sequence

from msgspec import Struct, field

from replicator.dev.kinesis_wire import PutResult, StoredRecord


class StreamJournal(Struct):
    """Nanoseconds of `time.monotonic` by sequence number."""

    stored_ns: dict[str, int] = field(default_factory=dict)
    read_ns: dict[str, int] = field(default_factory=dict)
    """When a GetRecords first answered the record."""


class Journal:
    """Follows only the streams it was told to; it grows with every record of theirs."""

    def __init__(self) -> None:
        self._streams: dict[str, StreamJournal] = {}

    def follow(self, stream: str) -> None:
        """From now on, forgetting what was noted before."""
        self._streams[stream] = StreamJournal()

    def is_following(self, stream: str) -> bool:
        return stream in self._streams

    def stored(self, stream: str, results: Sequence[PutResult]) -> None:
        now_ns = time.monotonic_ns()
        times = self._streams[stream].stored_ns
        for result in results:
            if isinstance(result.sequence_number, str):
                times[result.sequence_number] = now_ns

    def handed_out(self, stream: str, records: Sequence[StoredRecord]) -> None:
        now_ns = time.monotonic_ns()
        times = self._streams[stream].read_ns
        for record in records:
            times.setdefault(record.sequence_number, now_ns)

    def take(self, stream: str) -> StreamJournal:
        """What was noted so far; the stream is no longer followed. Empty for one that was not."""
        return self._streams.pop(stream, StreamJournal())
