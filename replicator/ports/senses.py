"""The time, and what is told of a worker."""

from typing import Protocol


class Clock(Protocol):
    """Wall time. Durations are taken from the event loop's monotonic clock instead."""

    def now_ms(self) -> int: ...


class Telemetry(Protocol):
    """Metrics, recorded per batch. Names are without the ``replicator_`` prefix; labels are low in number."""

    def count(self, name: str, value: int, /, **labels: str) -> None: ...

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """Set the current value; NaN removes the series, because no data is not zero."""
        ...

    def observe(self, name: str, value: float, /, **labels: str) -> None: ...
