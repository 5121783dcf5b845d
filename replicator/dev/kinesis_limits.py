"""The limits of Kinesis as AWS documents them, and the buckets that enforce the rates.

Source: Amazon Kinesis Data Streams developer guide, "Quotas and limits", and the API pages of PutRecords
and GetRecords.
"""

from dataclasses import dataclass, replace

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes count data (decoded) and partition key (UTF-8). Rates are per shard and second; None: none."""

    put_records_max: int = 500
    put_bytes_max: int = 5 * MIB
    record_bytes_max: int = MIB
    get_records_max: int = 10_000
    get_bytes_max: int = 10 * MIB
    iterator_ttl_ms: int = 300_000
    settle_ms: int = 0
    """How long a stream stays CREATING or UPDATING; 0 keeps tests quick."""
    write_records_s: float | None = 1000.0
    write_bytes_s: float | None = float(MIB)
    read_calls_s: float | None = 5.0
    read_bytes_s: float | None = 2.0 * MIB

    def scaled(self, factor: float | None) -> "Limits":
        """The same sizes with all rates times ``factor``; None turns the rates off."""

        def times(rate: float | None) -> float | None:
            return None if rate is None or factor is None else rate * factor

        return replace(
            self,
            write_records_s=times(self.write_records_s),
            write_bytes_s=times(self.write_bytes_s),
            read_calls_s=times(self.read_calls_s),
            read_bytes_s=times(self.read_bytes_s),
        )


def parse_limits(text: str) -> Limits:
    """``aws``, ``off`` (no rates; sizes stay) or a factor for the rates; raises ValueError."""
    match text:
        case "aws":
            return Limits()
        case "off":
            return Limits().scaled(None)
    factor = float(text)
    if factor <= 0:
        raise ValueError(f"limits: a factor above 0, 'aws' or 'off', not {text!r}")
    return Limits().scaled(factor)


class Bucket:
    """A leaky bucket that holds one second's worth: what was taken drains at ``rate_s``."""

    __slots__ = ("_at_ms", "_level", "_rate_s")

    def __init__(self, rate_s: float) -> None:
        self._rate_s = rate_s
        self._level = 0.0
        self._at_ms = 0

    def has_room(self, amount: float, now_ms: int) -> bool:
        """Whether ``amount`` fits now. 0 asks whether the bucket is not full."""
        drained = self._level - self._rate_s * max(0, now_ms - self._at_ms) / 1000
        self._level = max(0.0, drained)
        self._at_ms = now_ms
        return self._level + amount <= self._rate_s if amount else self._level < self._rate_s

    def take(self, amount: float) -> None:
        """Fill in ``amount``, beyond the brim too: one large read makes the next ones wait."""
        self._level += amount


class Budget:
    """What one shard still takes or gives: calls (or records) and bytes a second, checked together."""

    __slots__ = ("_bytes", "_calls")

    def __init__(self, calls_s: float | None, bytes_s: float | None) -> None:
        self._calls = None if calls_s is None else Bucket(calls_s)
        self._bytes = None if bytes_s is None else Bucket(bytes_s)

    def admits(self, size: int, now_ms: int) -> bool:
        """Take one call of ``size`` bytes, or nothing when a bucket lacks room; 0: size not known yet."""
        calls, volume = self._calls, self._bytes
        if calls is not None and not calls.has_room(1, now_ms):
            return False
        if volume is not None:
            if not volume.has_room(size, now_ms):
                return False
            volume.take(size)
        if calls is not None:
            calls.take(1)
        return True

    def spend(self, size: int) -> None:
        """Count bytes of a call that was admitted before its size was known."""
        if self._bytes is not None:
            self._bytes.take(size)
