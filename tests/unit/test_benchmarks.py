"""The arithmetic of the benchmarks: what they would print, draw and decide, from figures that are known."""

import io
import json
import time
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from replicator.config_load import load
from replicator.convergent import Writer
from replicator.core.convergence import Rule
from replicator.core.model import Region
from replicator.core.table_changes import TableRules, write_of
from replicator.dev.valkey import Valkey
from tests.benchmarks.contenders import Contender, Spec, Work, worker_config
from tests.benchmarks.cpu import OURS
from tests.benchmarks.guard import AT_LEAST, judged
from tests.benchmarks.load import event, put_bodies, put_entries, zipf_keys
from tests.benchmarks.part_ends import PEER, SIZE_BYTES, change, padded
from tests.benchmarks.part_list import PARTS, Part
from tests.benchmarks.parts import Round, check
from tests.benchmarks.plot import cpu_bars
from tests.benchmarks.regions import HOME
from tests.benchmarks.report import NAIVE, Section, median, percentile, ratio, shown, spread
from tests.cdc_records import MAKERS

SVG = "{http://www.w3.org/2000/svg}"


def test_a_ratio_is_how_many_times_less_than_the_naive_loop() -> None:
    assert ratio(120.0, 10.0) == "12.0x"
    assert ratio(None, 10.0) is None


def test_the_median_of_rounds_ignores_one_that_went_wrong() -> None:
    assert median([10.0, 11.0, 500.0]) == 11.0
    assert spread([10.0, 500.0, 11.0]) == "10.0 .. 500"


@pytest.mark.parametrize(("percent", "value"), [(50, 50.0), (99, 99.0), (100, 100.0), (0, 1.0)])
def test_a_percentile_is_a_value_that_was_measured(percent: float, value: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], percent) == value


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_figures_have_three_digits_that_say_something() -> None:
    assert [shown(cell) for cell in (1234567, 123.4, 12.34, 1.234, None, "x")] == [
        "1,234,567",
        "123",
        "12.3",
        "1.23",
        "-",
        "x",
    ]


def test_a_table_shows_every_row_and_its_note() -> None:
    console = Console(width=80, file=(written := io.StringIO()))
    Section("Sizes", ("case", "us"), [("1 KB", 12.34), ("10 KB", None)], "as seen").print(console)
    text = written.getvalue()
    assert all(word in text for word in ("Sizes", "1 KB", "12.3", "10 KB", "-", "as seen"))


def test_bars_are_as_long_as_their_figures_on_one_scale() -> None:
    picture = ElementTree.fromstring(cpu_bars({"1 KB": {NAIVE: 100.0, "a <b>": 10.0}, "2 KB": {NAIVE: 50.0}}, "here"))
    widths = [float(bar.attrib["width"]) for bar in picture.iter(f"{SVG}rect")]
    assert widths == pytest.approx([widths[0], widths[0] / 10, widths[0] / 2], abs=0.1)
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    assert "a <b>" in texts
    assert "10.0   10.0x less" in texts


def test_a_contender_has_the_same_colour_in_every_case() -> None:
    picture = ElementTree.fromstring(cpu_bars({"1": {"a": 1.0, "b": 1.0}, "2": {"b": 1.0, "a": 1.0}}, ""))
    first, second, third, fourth = (bar.attrib["fill"] for bar in picture.iter(f"{SVG}rect"))
    assert (first, second) == (fourth, third)


def test_a_plot_without_figures_is_a_picture_all_the_same() -> None:
    assert ElementTree.fromstring(cpu_bars({}, "")).tag == f"{SVG}svg"


@pytest.mark.parametrize("size", [240, 1024, 10_240])
@pytest.mark.parametrize("shape", ["order", "text"])
@pytest.mark.parametrize("number", [7, 1_234_567])
def test_events_are_json_of_exactly_the_size_that_was_asked_for(size: int, shape: str, number: int) -> None:
    data = event(number, size, shape)  # type: ignore[arg-type]  # parametrised values are plain strings
    assert len(data) == size
    assert json.loads(data)["id"] == f"e-{number}"


def test_an_order_has_as_many_items_as_fit_and_text_has_none() -> None:
    assert len(json.loads(event(7, 1024))["payload"]["items"]) > 8
    assert json.loads(event(7, 1024, "text"))["payload"]["items"] == []


def test_bodies_hold_every_event_once_and_no_more_than_a_request_takes() -> None:
    bodies = [json.loads(body) for body in put_bodies("s", range(1100), 240)]
    assert [len(body["Records"]) for body in bodies] == [500, 500, 100]
    assert {body["StreamName"] for body in bodies} == {"s"}
    assert max(len(body) for body in put_bodies("s", range(600), 10_240)) < 5 * 1024 * 1024 * 4 / 3


def test_data_is_put_in_order_and_the_last_request_has_the_rest() -> None:
    bodies = [json.loads(body) for body in put_entries("s", ((b"%d" % n, f"k{n}") for n in range(5)), 2)]
    assert [[entry["PartitionKey"] for entry in body["Records"]] for body in bodies] == [
        ["k0", "k1"],
        ["k2", "k3"],
        ["k4"],
    ]


def test_what_an_idle_worker_spends_is_taken_off_for_the_time_of_the_round() -> None:
    done = Round(events=1000, spent_s=0.5, took_s=10.0)
    assert done.net_us(0.01) == pytest.approx(400)
    assert done.idle_us(0.01) == pytest.approx(100)


@pytest.mark.parametrize("arrived", [999, 1001])
def test_a_round_with_an_event_too_few_or_too_many_has_no_figure(arrived: int) -> None:
    check("a part", 1000, 1000)
    with pytest.raises(RuntimeError, match=rf"a part: 1,000 events were written and {arrived:,} have arrived"):
        check("a part", 1000, arrived)


@pytest.mark.parametrize("name", MAKERS)
def test_change_records_are_exactly_of_the_size_that_is_measured(name: str) -> None:
    assert {len(padded(partial(MAKERS[name], number))) for number in (0, 12_345)} == {SIZE_BYTES}


def test_a_record_whose_frame_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match=f"1 bytes longer than {SIZE_BYTES}"):
        padded(lambda _: "x" * (SIZE_BYTES + 1))


def test_the_changes_of_a_hub_are_such_as_a_table_takes() -> None:
    rules = TableRules("t", Region(PEER), Rule(), 14 * 86_400_000)
    data = change(Writer(HOME), 7)
    tag = json.loads(data)["_replicator"]
    write = write_of(data, rules, frozenset({"pk", "sk"}), time.time_ns() // 1_000_000)
    assert (tag["origin"][:2], tag["path"]) == ([HOME, "changes"], [])
    assert (write.item["sk"], write.version.region, write.must_exist) == ({"S": "7"}, HOME, False)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_every_part_has_a_configuration_without_a_problem(part: Part, tmp_path: Path) -> None:
    spec = Spec(part.name, "worker", Work(1), streams=part.config)
    urls = dict.fromkeys((HOME, PEER), "http://127.0.0.1:1")
    made = worker_config(Contender(spec, "worker-1", Valkey(), urls), aws="http://127.0.0.1:2", quarantine=tmp_path)
    file = tmp_path / "replicator.yaml"
    file.write_text(json.dumps(made))
    assert set(load(str(file), {}).region_names) == {HOME, PEER}


def test_zipf_keys_repeat_with_their_seed_and_the_first_is_every_tenth() -> None:
    keys = [zipf_keys(3)(n) for n in range(3)]
    assert len(set(keys)) == 1, "each call of zipf_keys begins anew"
    draw = zipf_keys(3)
    drawn = [draw(n) for n in range(20_000)]
    assert 0.08 < drawn.count("k0") / len(drawn) < 0.12


@pytest.mark.parametrize(("off_by", "kept"), [(1.0, True), (0.99, False)])
def test_the_guard_breaks_just_below_its_bounds(off_by: float, kept: bool) -> None:
    figures = {case: {NAIVE: bound * off_by * 20.0, OURS: 20.0} for case, bound in AT_LEAST.items()}
    assert [is_kept for _, is_kept in judged(figures)] == [kept] * len(AT_LEAST)
    assert all(("BROKEN" in line) is not kept for line, _ in judged(figures))
