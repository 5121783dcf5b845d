"""Metrics: what exists, what a scrape shows, and what is refused."""

import ast
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from replicator.adapters.telemetry import INSTRUMENTS, OtelTelemetry
from replicator.ports import Telemetry

LINK = "orders:eu-west-1"


@pytest.fixture
def telemetry() -> Iterator[OtelTelemetry]:
    telemetry = OtelTelemetry(region="us-east-1", worker="w1")
    yield telemetry
    telemetry.close()


def scrape(telemetry: OtelTelemetry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(telemetry.render().decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_it_is_the_port(telemetry: OtelTelemetry) -> None:
    port: Telemetry = telemetry
    assert port is telemetry


def test_counts_add_up(telemetry: OtelTelemetry) -> None:
    telemetry.count("events_forwarded_total", 5, link=LINK)
    telemetry.count("events_forwarded_total", 7, link=LINK)
    assert scrape(telemetry)["replicator_events_forwarded_total", (("link", LINK),)] == 12


def test_a_scrape_resets_nothing(telemetry: OtelTelemetry) -> None:
    telemetry.count("events_forwarded_total", 5, link=LINK)
    telemetry.gauge("replication_lag_ms", 9.0, link=LINK)
    telemetry.observe("publish_seconds", 0.2, link=LINK)
    assert scrape(telemetry) == scrape(telemetry)


def test_series_of_one_name_are_kept_apart_by_label(telemetry: OtelTelemetry) -> None:
    telemetry.count("events_dropped_total", 1, link=LINK, reason="seen")
    telemetry.count("events_dropped_total", 2, link=LINK, reason="origin")
    values = scrape(telemetry)
    assert values["replicator_events_dropped_total", (("link", LINK), ("reason", "seen"))] == 1
    assert values["replicator_events_dropped_total", (("link", LINK), ("reason", "origin"))] == 2


def test_the_order_of_labels_does_not_matter(telemetry: OtelTelemetry) -> None:
    telemetry.count("events_dropped_total", 1, link=LINK, reason="seen")
    telemetry.count("events_dropped_total", 2, reason="seen", link=LINK)
    assert scrape(telemetry)["replicator_events_dropped_total", (("link", LINK), ("reason", "seen"))] == 3


def test_a_gauge_shows_its_last_value(telemetry: OtelTelemetry) -> None:
    telemetry.gauge("replication_lag_ms", 40.5, link=LINK)
    telemetry.gauge("replication_lag_ms", 12.5, link=LINK)
    assert scrape(telemetry)["replicator_replication_lag_ms", (("link", LINK),)] == 12.5


def test_a_gauge_set_to_nan_is_gone_until_it_has_a_value_again(telemetry: OtelTelemetry) -> None:
    name = ("replicator_replication_lag_ms", (("link", LINK),))
    telemetry.gauge("replication_lag_ms", 40.5, link=LINK)
    assert name in scrape(telemetry)
    telemetry.gauge("replication_lag_ms", math.nan, link=LINK)
    assert name not in scrape(telemetry)
    telemetry.gauge("replication_lag_ms", 0.0, link=LINK)
    assert scrape(telemetry)[name] == 0.0


def test_a_histogram_has_buckets_sum_and_count(telemetry: OtelTelemetry) -> None:
    for seconds in (0.004, 0.12, 100.0):
        telemetry.observe("publish_seconds", seconds, link=LINK)
    values = scrape(telemetry)
    label = ("link", LINK)
    assert values["replicator_publish_seconds_count", (label,)] == 3
    assert values["replicator_publish_seconds_sum", (label,)] == pytest.approx(100.124)
    assert values["replicator_publish_seconds_bucket", (("le", "0.005"), label)] == 1
    assert values["replicator_publish_seconds_bucket", (("le", "30.0"), label)] == 2
    assert values["replicator_publish_seconds_bucket", (("le", "+Inf"), label)] == 3


@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=lambda instrument: instrument.name)
def test_every_instrument_appears_under_its_own_name_with_its_labels(instrument, telemetry: OtelTelemetry) -> None:
    labels = dict.fromkeys(instrument.labels, "x")
    match instrument.kind:
        case "counter":
            telemetry.count(instrument.name, 1, **labels)
        case "gauge":
            telemetry.gauge(instrument.name, 1.0, **labels)
        case "histogram":
            telemetry.observe(instrument.name, 1.0, **labels)
    suffix = "_count" if instrument.kind == "histogram" else ""
    assert scrape(telemetry)[f"replicator_{instrument.name}{suffix}", tuple(sorted(labels.items()))] == 1


def test_counters_end_in_total_and_nothing_else_does() -> None:
    assert all(i.name.endswith("_total") == (i.kind == "counter") for i in INSTRUMENTS)


def test_an_unknown_name_is_a_bug(telemetry: OtelTelemetry) -> None:
    with pytest.raises(KeyError, match="events_forwarded"):
        telemetry.count("events_forwarded", 1, link=LINK)


def test_a_missing_or_unknown_label_is_a_bug(telemetry: OtelTelemetry) -> None:
    with pytest.raises(KeyError, match="has the labels"):
        telemetry.count("events_forwarded_total", 1)
    with pytest.raises(KeyError, match="has the labels"):
        telemetry.count("events_forwarded_total", 1, link=LINK, shard="0")


def test_a_metric_of_another_kind_is_a_bug_even_after_it_was_recorded_rightly(
    telemetry: OtelTelemetry,
) -> None:
    telemetry.count("events_forwarded_total", 1, link=LINK)
    with pytest.raises(KeyError, match="is a counter, not a gauge"):
        telemetry.gauge("events_forwarded_total", 1.0, link=LINK)


def test_two_workers_in_one_process_do_not_mix(telemetry: OtelTelemetry) -> None:
    other = OtelTelemetry(region="eu-west-1", worker="w2")
    telemetry.count("events_forwarded_total", 1, link=LINK)
    assert b"events_forwarded" not in other.render()
    other.close()


def test_a_scrape_tells_who_it_is(telemetry: OtelTelemetry) -> None:
    telemetry.count("events_forwarded_total", 1, link=LINK)
    assert b'target_info{region="us-east-1",service_name="replicator",worker="w1"} 1.0' in telemetry.render()


def recordings() -> list[tuple[str, str, set[str]]]:
    """Name, method and spelt-out labels of every recording in the worker's source, and where it is composed."""
    found = []
    package = Path(__file__).resolve().parents[2] / "replicator"
    for path in sorted([*package.glob("worker/*.py"), *package.glob("bootstrap*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    ast.Attribute(attr="count" | "gauge" | "observe" as method),
                    [ast.Constant(str() as name), *_],
                ):
                    found.append((name, method, {word.arg for word in node.keywords if word.arg}))
    return found


@pytest.mark.parametrize(("name", "method", "labels"), recordings())
def test_what_the_worker_records_exists(name: str, method: str, labels: set[str]) -> None:
    instrument = {i.name: i for i in INSTRUMENTS}[name]
    assert {"counter": "count", "gauge": "gauge", "histogram": "observe"}[instrument.kind] == method
    assert labels <= set(instrument.labels)
    # A link's own recorder and a source's add their name themselves.
    assert set(instrument.labels) - labels <= {"link", "source"}


def test_what_exists_is_recorded() -> None:
    """A metric that nobody sets would look like good news."""
    assert {i.name for i in INSTRUMENTS} - {name for name, _, _ in recordings()} == set()
