"""The command line: what it prints and which exit code it gives."""

import asyncio
import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import yaml

from replicator.adapters.quarantine_file import FileQuarantine
from replicator.bootstrap_command import strangers
from replicator.cli import _parser, main
from replicator.cli_options import interruptible
from replicator.config import RedisConfig
from replicator.config_load import load
from replicator.core.model import LinkName, Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.core.quarantine_document import Quarantined, document_id

HERE = Path(__file__).parent
MESH = str(HERE / "good_configs" / "mesh.yaml")
LAKE = str(HERE / "good_configs" / "lake.yaml")
HUB = str(HERE / "good_configs" / "hub.yaml")
TABLES = str(HERE / "good_configs" / "tables.yaml")
CYCLE = str(HERE / "broken_configs" / "cycle.yaml")
SEVERAL = str(HERE / "broken_configs" / "several.yaml")


def test_config_check_exits_0_when_nothing_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", MESH]) == 0
    assert "no problem found" in capsys.readouterr().out


def test_config_check_prints_every_problem_with_file_line_and_column(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["config", "check", SEVERAL]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[0] == f"{SEVERAL}:3:36: unknown key 'formt' in sources.orders, did you mean 'format'?"


def test_config_check_warns_of_secrets_that_are_not_here_and_still_exits_0(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TAG_KEY_K1", raising=False)
    assert main(["config", "check", MESH]) == 0
    assert capsys.readouterr().out.splitlines()[:-1] == [
        f"{MESH}:24:41: warning: tag_key.keys.k1: environment variable TAG_KEY_K1 is not set here; the worker needs it",
        f"{MESH}:24:65: warning: tag_key.keys.k0: file /run/secrets/k0 can't be read here; the worker needs it",
    ]
    monkeypatch.setenv("TAG_KEY_K1", "a secret")
    assert main(["config", "check", MESH]) == 0
    out = capsys.readouterr().out
    assert "TAG_KEY_K1" not in out
    assert "a secret" not in out


def test_config_check_warns_of_a_format_that_this_machine_can_not_write_and_still_exits_0(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pyarrow", None)
        assert main(["config", "check", LAKE]) == 0
    paused, warning = capsys.readouterr().out.splitlines()[:-1]
    assert "warning: sources.orders.continue_from: orders:lake is paused in eu-west-1" in paused
    assert warning.startswith(f"{LAKE}:7:114: warning: sinks.lake.format: pyarrow is not installed here; the worker")
    assert warning.endswith("needs it: pip install 'region-replicator[parquet]'")
    assert main(["config", "check", LAKE]) == 0
    assert "pyarrow" not in capsys.readouterr().out


def test_a_file_that_is_not_there_is_said_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "none.yaml"]) == 1
    assert "none.yaml: can't be read" in capsys.readouterr().err


def test_a_configuration_may_come_from_a_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONFIG", Path(HUB).read_text())
    assert main(["config", "check", "env:CONFIG"]) == 0
    assert main(["config", "check", "env:NONE"]) == 1
    assert "NONE is not set" in capsys.readouterr().err


def test_config_schema_prints_the_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"regions", "sources", "sinks"}


def test_config_show_prints_what_holds_in_one_region(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--config", MESH, "--region", "us-east-1"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["region"] == "us-east-1"
    assert shown["links"]["orders:eu-west-1"] == {
        "ordering": "none",
        "aggregate": "none",
        "in_flight_max": 2,
        "in_doubt": "verify",
        "in_doubt_beyond": "resend",
        "in_doubt_wait_s": None,
        "request_lifetime_s": 30.0,
        "paused": False,
        "on_poison": "skip",
        "include": [],
        "exclude": [],
        "max_age_s": None,
        "redact": {},
        "residency": [],
    }


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@h:6379/0", "redis://:***@h:6379/0"),
        ("rediss://user:secret@h/0", "rediss://user:***@h/0"),
        ("redis://h/0?db=1&password=secret", "redis://h/0?db=1&password=***"),
        ("redis://h/0?db=1", "redis://h/0?db=1"),
    ],
)
def test_config_show_masks_passwords(
    url: str, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_SYDNEY", url)
    assert main(["config", "show", "--config", MESH, "--region", "ap-southeast-2"]) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text)["redis"]["url"] == shown
    assert "secret@" not in text
    assert "=secret" not in text


def test_an_unknown_region_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--config", MESH, "--region", "us-west-2"]) == 1
    assert "there is no region us-west-2" in capsys.readouterr().err


def test_plan_prints_routes_links_and_proof(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--config", HUB]) == 0
    out = capsys.readouterr().out
    assert "via us-east-1" in out
    assert "orders-eu" in out
    assert "moves one record per round trip" in out
    assert "Proven for generation 1" in out
    assert "\x1b" not in out


def test_plan_says_what_a_lane_moves_where_links_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = tmp_path / "packed.yaml"
    packed.write_text(Path(HUB).read_text() + "\nlink_defaults: {aggregate: kpl}\n")
    assert main(["plan", "--config", str(packed)]) == 0
    out = capsys.readouterr().out
    assert "packed" in out
    assert "up to 500 events or 256 KiB" in out
    assert main(["plan", "--config", HUB]) == 0
    assert "packed" not in capsys.readouterr().out


def test_plan_shows_what_is_sent_again_without_asking(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--config", str(Path(HUB).with_name("sinks.yaml")), "--json"]) == 0
    links = json.loads(capsys.readouterr().out)["links"]
    shown = {(link["source"], link["to"]): (link["writes"], link["in_doubt"]) for link in links}
    assert shown["orders", "eu-west-1"] == ("orders", "verify")
    assert shown["paid", "eu-west-1"] == ("paid-eu.fifo", "resend")
    assert shown["shop", "eu-west-1"] == ("shop-eu", "resend")
    assert main(["plan", "--config", str(Path(HUB).with_name("sinks.yaml"))]) == 0
    assert "resend" in capsys.readouterr().out


def test_plan_as_json_holds_every_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--config", HUB, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["newest"] == 1
    assert plan["generations"]["1"]["eu-west-1"] == {
        "us-east-1": ["eu-west-1", "us-east-1"],
        "ap-southeast-2": ["eu-west-1", "us-east-1", "ap-southeast-2"],
    }
    assert len(plan["links"]) == 4
    assert {link["in_flight_max"] for link in plan["links"]} == {4}


def test_capacity_shows_what_is_needed_what_bends_first_and_the_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capacity", "--config", HUB, "--rate", "5000", "--size", "1024"]) == 0
    out = capsys.readouterr().out
    assert "us-east-1 needs" in out
    assert "Each of ap-southeast-2, eu-west-1 needs" in out
    assert "What bends first" in out
    assert "US dollars a month" in out
    assert "check the prices" in out
    assert "\x1b" not in out


def test_capacity_as_json_holds_every_region_and_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capacity", "--config", HUB, "--rate", "5000", "--size", "1024", "--cpu-us", "9", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["regions"]) == {"us-east-1", "eu-west-1", "ap-southeast-2"}
    assert told["regions"]["us-east-1"]["limits"][0]["share"] > 0
    assert told["figures"]["first_link_us"] == 9
    assert "shard_hour" in told["prices"]


@pytest.mark.parametrize("wrong", [["--rate", "0"], ["--size", "-1"], ["--shards", "0"]])
def test_capacity_refuses_a_load_that_is_none(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capacity", "--config", HUB, "--rate", "5000", "--size", "1024", *wrong]) == 1
    assert "must be above 0" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_plan_refuses_what_it_cannot_prove(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--config", CYCLE, *flags]) == 1
    printed = capsys.readouterr()
    assert "cycle us-east-1 -> eu-west-1 -> ap-southeast-2 -> us-east-1" in printed.err
    assert printed.out == ""


@pytest.mark.parametrize("argv", [[], ["config"], ["plan"], ["run", "--config", MESH], ["demo", "--topology", "ring"]])
def test_wrong_usage_exits_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
    assert "usage: replicator" in capsys.readouterr().err


def test_the_demo_has_sensible_defaults() -> None:
    args = vars(_parser().parse_args(["demo"]))
    args.pop("command")
    assert args == {
        "seconds": 40,
        "events": 20_000,
        "topology": "mesh",
        "output": "text",
        "no_outage": False,
        "crash_workers": False,
        "flush_redis": False,
        "aggregate": False,
        "workdir": None,
        "keep": False,
    }


def test_a_held_key_is_shown_and_released(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "replicator.yaml"
    in_s3 = "quarantine: {s3_bucket: poison, s3_prefix: orders/}"
    file.write_text(Path(MESH).read_text().replace(in_s3, f"quarantine: {{directory: {tmp_path}}}"))
    at = ["--config", str(file), "--region", "us-east-1"]
    link = LinkName("orders:eu-west-1")
    asyncio.run(FileQuarantine(tmp_path).hold(link, "customer 7"))
    assert main(["quarantine", "held", *at]) == 0
    assert capsys.readouterr().out == "orders:eu-west-1\tcustomer 7\n"
    assert main(["quarantine", "release", *at, "--link", link, "--key", "customer 7"]) == 0
    assert main(["quarantine", "release", *at, "--link", link, "--key", "customer 7"]) == 1
    assert "is not held" in capsys.readouterr().err
    assert main(["quarantine", "held", *at]) == 0
    assert capsys.readouterr().out == ""
    assert main(["quarantine", "release", *at, "--link", "orders:mars", "--key", "x"]) == 1
    assert "there is no link orders:mars in us-east-1, only orders:" in capsys.readouterr().err


def test_what_is_in_quarantine_is_listed_and_shown(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    file = tmp_path / "replicator.yaml"
    in_s3 = "quarantine: {s3_bucket: poison, s3_prefix: orders/}"
    file.write_text(Path(MESH).read_text().replace(in_s3, f"quarantine: {{directory: {tmp_path}}}"))
    at = ["--config", str(file), "--region", "us-east-1"]
    origin = Origin(Region("us-east-1"), SourceName("orders"), "17", ShardId("shardId-0"), SequenceNumber(49), 0)
    event = Quarantined(
        LinkName("orders:eu-west-1"), "not_json", "char 0", origin, "k\x1b[2J", b"\xff\x00broken", 0, 1_700_000_000_000
    )
    asyncio.run(FileQuarantine(tmp_path).put(event))

    assert main(["quarantine", "list", *at]) == 0
    text = capsysbinary.readouterr().out.decode()
    document = document_id(origin.key)
    assert all(word in text for word in ("2023-11-14 22:13:20Z", document[:10], "not_json", "k\\x1b[2J", "char 0"))
    assert "orders:eu-west-1: 1 in quarantine" in text
    assert "\x1b[2J" not in text, "a key must not move the terminal's cursor"

    assert main(["quarantine", "list", *at, "--link", "orders:eu-west-1", "--json"]) == 0
    [line] = capsysbinary.readouterr().out.splitlines()
    assert json.loads(line)["id"] == document

    assert main(["quarantine", "show", document[:8], *at]) == 0
    text = capsysbinary.readouterr().out.decode()
    assert "ff 00 62 72 6f 6b 65 6e" in text
    assert "..broken" in text
    assert main(["quarantine", "show", document, *at, "--raw"]) == 0
    assert capsysbinary.readouterr().out == b"\xff\x00broken"
    assert main(["quarantine", "show", "none", *at]) == 1
    assert b"has an id that begins with 'none'" in capsysbinary.readouterr().err


def test_an_event_that_every_link_put_away_is_shown_by_link(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    file = tmp_path / "replicator.yaml"
    in_s3 = "quarantine: {s3_bucket: poison, s3_prefix: orders/}"
    file.write_text(Path(MESH).read_text().replace(in_s3, f"quarantine: {{directory: {tmp_path}}}"))
    at = ["--config", str(file), "--region", "us-east-1"]
    origin = Origin(Region("us-east-1"), SourceName("orders"), "17", ShardId("shardId-0"), SequenceNumber(49), 0)
    links = [LinkName("orders:eu-west-1"), LinkName("orders:ap-southeast-2")]
    for link in links:
        asyncio.run(FileQuarantine(tmp_path).put(Quarantined(link, "not_json", "", origin, "k", b"broken", 0, 1)))
    show = ["quarantine", "show", document_id(origin.key), *at]
    assert main(show) == 1
    assert b"choose one by --link" in capsysbinary.readouterr().err
    for link in links:
        assert main([*show, "--link", link]) == 0
        assert link.encode() in capsysbinary.readouterr().out
    assert main([*show, "--link", "orders:mars"]) == 1
    assert b"there is no link orders:mars" in capsysbinary.readouterr().err


@pytest.mark.parametrize("arguments", [["--seconds", "-3"], ["--seconds", "0"], ["--events", "0"], ["--events", "x"]])
def test_a_demo_of_no_length_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["demo", *arguments])
    assert arguments[0] in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = f"{sys.executable} -m replicator config schema | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("{\n", "")


REPLAY = ["replay", "--config", LAKE, "--region", "us-east-1"]
NOVEMBER = ["--since", "2026-11-01T00:00:00Z", "--until", "2026-11-02T00:00:00Z"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--link", "orders:lake", *NOVEMBER], "orders:lake leads into the lake"),
        (["--link", "orders:sa-east-1", *NOVEMBER], "there is no link orders:sa-east-1 in us-east-1"),
        (["--link", "orders:eu-west-1", *NOVEMBER[:3], "2026-10-01T00:00:00Z"], "--until is not later than --since"),
        (["--link", "orders:eu-west-1", *NOVEMBER[:3], "2999-10-01T00:00:00Z"], "--until is in the future"),
    ],
)
def test_a_replay_that_can_not_be_is_refused_before_anything_is_read(
    wrong: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for origin, how in product(("lake", "stream"), ([], ["--dry-run"])):
        assert main([*REPLAY, "--from", origin, *wrong, *how]) == 1
        assert message in capsys.readouterr().err


def test_a_replay_from_the_stream_needs_a_hub(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["replay", "--config", TABLES, "--region", "us-east-1", "--link", "orders:us-east-1", "--from", "stream"]
    for how in ([], ["--dry-run"]):
        assert main([*argv, *NOVEMBER, *how]) == 1
        assert (
            "sources.orders is of kind dynamodb: only hubs can be read again (hub, hub-to-orders, stock-changes)"
            in capsys.readouterr().err
        )


def test_reads_of_a_replay_are_those_that_a_shard_has(capsys: pytest.CaptureFixture[str]) -> None:
    argv = [*REPLAY, "--link", "orders:eu-west-1", *NOVEMBER]
    assert main([*argv, "--reads", "2"]) == 1
    assert "--reads is for --from stream" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*argv, "--from", "stream", "--reads", "6"])
    assert "6 is more than the 5 that a shard serves" in capsys.readouterr().err


def test_who_interrupts_a_command_is_told_what_comes_of_that(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["it begins anew"]):
        with pytest.raises(KeyboardInterrupt), interruptible(*words):
            raise KeyboardInterrupt
    assert capsys.readouterr().err == "interrupted; the same command goes on from there\ninterrupted; it begins anew\n"


def test_a_bootstrap_knows_senders_that_have_one_redis() -> None:
    config = load(LAKE, {})
    ways = [(region, LinkName("orders:sa-east-1")) for region in config.region_names[:2]]
    assert strangers(config, ways) == config.region_names[:2]
    assert strangers(config, ways[:1]) == []
    own = config.regions[ways[0][0]].model_copy(update={"redis": RedisConfig(url="redis://elsewhere:6379")})
    apart = config.model_copy(update={"regions": {**config.regions, ways[0][0]: own}})
    assert strangers(apart, ways) == []


def test_a_replay_needs_a_lake(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["replay", "--config", MESH, "--region", "us-east-1", "--link", "orders:eu-west-1"]
    assert main([*argv, *NOVEMBER, "--dry-run"]) == 1
    assert "sources.orders has no lake to replay from" in capsys.readouterr().err
