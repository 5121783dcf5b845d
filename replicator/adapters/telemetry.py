"""Metrics through OpenTelemetry, shown as Prometheus text.

Recording must cost next to nothing, and OpenTelemetry's ``add`` builds and hashes an attribute set at every
call (measured: 11 us, a cell of our own 1 us). So counts and gauges are kept in cells and handed over when
somebody scrapes, through observable instruments; histograms have no observable kind and are recorded as they
come, once a batch. `INSTRUMENTS` is the whole list of what exists: a name or a label that is not in it is a
bug of ours, not an input error.
"""

import math
from collections.abc import Callable, Iterable
from typing import Final, Literal, NamedTuple

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, generate_latest

Kind = Literal["counter", "gauge", "histogram"]


class Instrument(NamedTuple):
    """One metric. Every recording gives exactly these ``labels``."""

    name: str
    kind: Kind
    unit: str
    help: str
    labels: tuple[str, ...]


def _per_source(name: str, kind: Kind, unit: str, text: str, *more: str) -> Instrument:
    return Instrument(name, kind, unit, text, ("source", *more))


def _per_link(name: str, kind: Kind, unit: str, text: str, *more: str) -> Instrument:
    return Instrument(name, kind, unit, text, ("link", *more))


INSTRUMENTS: Final = (
    _per_source(
        "records_read_total", "counter", "records", "Records read from the source, those in KPL aggregates one by one."
    ),
    _per_source("read_calls_total", "counter", "calls", "Reads of the source, live or detached.", "kind"),
    _per_source("read_errors_total", "counter", "calls", "Reads the source did not serve.", "code"),
    _per_source("source_retention_used_ratio", "gauge", "1", "Age of the oldest undone event / retention."),
    _per_source(
        "queue_kept_no_longer_total",
        "counter",
        "messages",
        "Messages held for almost 12 hours: SQS gives them out again.",
    ),
    _per_source(
        "queue_last_receives_total",
        "counter",
        "messages",
        "Messages received for the last time before the dead letters.",
    ),
    _per_source("queue_in_flight", "gauge", "messages", "Messages received and not deleted; SQS has a maximum."),
    _per_source("leases_held", "gauge", "leases", "Shards this worker reads."),
    _per_source("lease_moves_total", "counter", "leases", "Leases taken, handed over or lost.", "kind"),
    _per_link("events_forwarded_total", "counter", "events", "Events the peer acknowledged."),
    _per_link("events_packed_total", "counter", "events", "Events forwarded in a KPL aggregate with others."),
    _per_link("events_redacted_total", "counter", "events", "Events of which something was redacted before they left."),
    _per_link("events_claim_checked_total", "counter", "events", "Bodies of large events that were stored in S3."),
    _per_link("events_dropped_total", "counter", "events", "Events that rightly were not sent.", "reason"),
    _per_link("events_quarantined_total", "counter", "events", "Poison events put away.", "reason"),
    _per_link("conflicts_total", "counter", "events", "Changes that lost against another region's, reported."),
    _per_link("possible_duplicates_total", "counter", "events", "Events sent that may be there already."),
    _per_link("in_doubt_total", "counter", "events", "Events perhaps published, perhaps not."),
    _per_link("in_doubt_resolved_total", "counter", "events", "Events no longer in doubt.", "outcome"),
    _per_link("in_doubt_found_total", "counter", "events", "Events found in the peer, so not sent again."),
    _per_link("in_doubt_events", "gauge", "events", "Events whose fate is being looked up in the peer."),
    _per_link("in_doubt_shards", "gauge", "shards", "Shards whose former owner's events are being looked up."),
    _per_link("in_doubt_held_shards", "gauge", "shards", "Shards held: the peer can't tell (in_doubt_beyond: hold)."),
    _per_link("in_doubt_wait_seconds", "gauge", "s", "How long a takeover would wait before it reads the peer back."),
    _per_link("peer_fences", "gauge", "1", "1 when the peer surely refuses late requests, 0 for the full wait."),
    _per_link("peer_clock_offset_ms", "gauge", "ms", "The peer's clock less this machine's, at least."),
    _per_link("takeovers_in_doubt_total", "counter", "takeovers", "Takeovers that began with reading back."),
    _per_link("takeovers_unverified_total", "counter", "takeovers", "Takeovers the peer could not clear up."),
    _per_link("publish_retries_total", "counter", "events", "Events sent again after a refusal.", "reason"),
    _per_link("publish_seconds", "histogram", "s", "Round trip of one publish call."),
    _per_link("claims_total", "counter", "events", "Verdicts of the claim store.", "state"),
    _per_link("same_id_other_bytes_total", "counter", "events", "Events with a known id but other bytes."),
    _per_link("shard_restarts_total", "counter", "restarts", "Shards begun again elsewhere.", "reason"),
    _per_link(
        "retention_losses_total", "counter", "losses", "Times records were lost unread, or perhaps were.", "reason"
    ),
    _per_link("events_from_lake_total", "counter", "events", "Events read in the lake, gone from the source by then."),
    _per_link("claim_store_lost_total", "counter", "losses", "Times the claim store had lost its state."),
    _per_link("claim_store_unavailable_total", "counter", "calls", "Calls the claim store did not answer."),
    Instrument("claim_store_up", "gauge", "1", "1 when the claim store answered the last call.", ()),
    Instrument("quarantine_up", "gauge", "1", "1 when the quarantine took the last event; 0 holds up its shard.", ()),
    _per_link("link_up", "gauge", "1", "1 when the peer served the last request."),
    _per_link("replication_lag_ms", "gauge", "ms", "Age of the oldest undone event; absent without data."),
    _per_link("watermark_age_ms", "gauge", "ms", "Time since the watermark moved or had nothing to wait for."),
    _per_link("lane_depth", "gauge", "events", "Events waiting in the deepest lane."),
    _per_link("held_keys", "gauge", "keys", "Keys whose events follow an earlier one into quarantine."),
    _per_link("queue_bytes", "gauge", "bytes", "Bytes held for the link."),
)

PUBLISH_SECONDS_BOUNDS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 3.0, 10.0, 30.0)
"""Within one region a PutRecords takes some ms, between continents 80 to 300."""

_Key = tuple[str, tuple[tuple[str, str], ...]]


class _Cell:
    """The current value of one series, shared by every order in which its labels may be written."""

    __slots__ = ("labels", "value")

    def __init__(self, labels: dict[str, str], value: float) -> None:
        self.labels = labels
        self.value = value


class _Recorder:
    """The OpenTelemetry histogram of one name with the attributes of one series, built once."""

    __slots__ = ("histogram", "labels")

    def __init__(self, histogram: Histogram, labels: dict[str, str]) -> None:
        self.histogram = histogram
        self.labels = labels


class OtelTelemetry:
    """`ports.Telemetry`, and the bytes of ``/metrics``. For one thread, the event loop's.

    Unknown names, labels or kinds raise KeyError. A gauge set to NaN is removed: no data is not zero.
    """

    content_type: Final = "text/plain; version=1.0.0; charset=utf-8"

    def __init__(self, *, region: str, worker: str) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        reader = PrometheusMetricReader(scope_info_enabled=False, registry=self._registry)
        resource = Resource({"service.name": "replicator", "region": region, "worker": worker})
        self._provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
        self._known = {instrument.name: instrument for instrument in INSTRUMENTS}
        self._series: dict[str, dict[tuple[str, ...], _Cell]] = {name: {} for name in self._known}
        self._counters: dict[_Key, _Cell] = {}
        self._gauges: dict[_Key, _Cell] = {}
        self._recorders: dict[_Key, _Recorder] = {}
        self._histograms = self._declare(self._provider.get_meter("replicator"))

    def count(self, name: str, value: int, /, **labels: str) -> None:
        """Add ``value`` (not negative); adding 0 makes the series visible."""
        key = (name, tuple(labels.items()))
        cell = self._counters.get(key)
        if cell is None:
            cell = self._counters[key] = self._cell(name, "counter", labels)
        cell.value += value

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """Set the current value; NaN removes the series until the next value."""
        key = (name, tuple(labels.items()))
        cell = self._gauges.get(key)
        if cell is None:
            cell = self._gauges[key] = self._cell(name, "gauge", labels)
        cell.value = value

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Record one measurement into a histogram."""
        key = (name, tuple(labels.items()))
        recorder = self._recorders.get(key)
        if recorder is None:
            self._check(name, "histogram", labels)
            recorder = self._recorders[key] = _Recorder(self._histograms[name], labels)
        recorder.histogram.record(value, recorder.labels)

    def render(self) -> bytes:
        """All metrics as Prometheus text."""
        return generate_latest(self._registry)

    def close(self) -> None:
        """Release what OpenTelemetry holds; nothing may be recorded or rendered afterwards."""
        self._provider.shutdown()

    def _check(self, name: str, kind: Kind, labels: dict[str, str]) -> Instrument:
        instrument = self._known[name]
        if instrument.kind != kind:
            raise KeyError(f"metric {name} is a {instrument.kind}, not a {kind}")
        if set(labels) != set(instrument.labels):
            raise KeyError(f"metric {name} has the labels {instrument.labels}, not {tuple(labels)}")
        return instrument

    def _cell(self, name: str, kind: Kind, labels: dict[str, str]) -> _Cell:
        instrument = self._check(name, kind, labels)
        values = tuple(labels[label] for label in instrument.labels)
        return self._series[name].setdefault(values, _Cell(labels, 0))

    def _declare(self, meter: Meter) -> dict[str, Histogram]:
        histograms = {}
        for name, kind, unit, text, _ in INSTRUMENTS:
            full_name = f"replicator_{name}"
            # In braces a unit is a note; without them the exporter would append it to the name a second time.
            note = f"{{{unit}}}"
            match kind:
                case "counter":
                    meter.create_observable_counter(full_name, [self._observer(name)], note, text)
                case "gauge":
                    meter.create_observable_gauge(full_name, [self._observer(name)], note, text)
                case "histogram":
                    histograms[name] = meter.create_histogram(
                        full_name, note, text, explicit_bucket_boundaries_advisory=PUBLISH_SECONDS_BOUNDS
                    )
        return histograms

    def _observer(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        series = self._series[name]

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return [Observation(cell.value, cell.labels) for cell in series.values() if not math.isnan(cell.value)]

        return observe
