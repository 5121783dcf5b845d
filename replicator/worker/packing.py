"""What leaves as one record of a request: an event, or with ``aggregate: kpl`` several of one lane packed together."""

from replicator.core.kpl import FRAME_OVERHEAD_MAX, PACKED_BYTES_MAX, RECORD_OVERHEAD_MAX, UserRecord, pack
from replicator.ports import Entry, SinkLimits
from replicator.worker.span import Item


def entry_of(head: Item) -> Entry:
    """What holds the event and those packed with it: one goes plainly, several as a KPL aggregate under their key."""
    if not head.packed:
        return head.entry
    key = head.entry.partition_key
    return Entry(pack(UserRecord(item.entry.data, key) for item in (head, *head.packed)), key)


class Packing:
    """Which events may join the head of their lane in its record.

    ``room`` is what the request has left, in bytes. Sizes are upper bounds: what fits here fits the sink.
    """

    def __init__(self, head: Item, limits: SinkLimits, room: int) -> None:
        key_bytes = head.size_bytes - len(head.entry.data)
        self._count = 1
        self._count_max = head.packed_max
        # The key stands in the record's own head and in the aggregate's table.
        self._size = head.size_bytes + key_bytes + FRAME_OVERHEAD_MAX + RECORD_OVERHEAD_MAX
        self._size_max = min(limits.record_bytes_max, PACKED_BYTES_MAX, head.size_bytes + room)
        self._plain_bytes = head.size_bytes

    def admits(self, item: Item) -> bool:
        """Whether the next event of the lane joins; if so it is counted in."""
        size = self._size + len(item.entry.data) + RECORD_OVERHEAD_MAX
        if self._count >= self._count_max or size > self._size_max:
            return False
        self._count += 1
        self._size = size
        return True

    @property
    def added_bytes(self) -> int:
        """What the request grew by."""
        return self._size - self._plain_bytes if self._count > 1 else 0


class Filling:
    """Which events may follow the head of their lane in its request, each as an entry of its own."""

    def __init__(self, head: Item, limits: SinkLimits) -> None:
        self._records_left = limits.records_max - 1
        self._bytes_left = limits.request_bytes_max - head.size_bytes

    def admits(self, item: Item) -> bool:
        """Whether the next event of the lane follows; if so it is counted in."""
        if self._records_left < 1 or item.size_bytes > self._bytes_left:
            return False
        self._records_left -= 1
        self._bytes_left -= item.size_bytes
        return True
