"""The configuration: what is accepted, and where and how every mistake is reported."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.aws.session import AwsSession
from replicator.bootstrap_lake import open_lake
from replicator.config import Config, LinkDefaults, SecretRef
from replicator.config_load import check, load
from replicator.config_sinks import S3SinkConfig
from replicator.config_sources import KinesisSourceConfig
from replicator.config_yaml import Document
from replicator.core.lake import LAKE
from replicator.core.model import AtTimestamp, Region, SourceName, TrimHorizon
from replicator.errors import ConfigError
from replicator.plan import plan_document

HERE = Path(__file__).parent
GOOD = HERE / "good_configs"
BROKEN = HERE / "broken_configs"
BASE = """\
regions: {us-east-1: {}, eu-west-1: {}, ap-southeast-2: {}}
sources: {orders: {stream: hub, sink: hub}}
sinks: {hub: {stream: hub}}
"""

WRONG = [
    ("unknown_key", 4, 5, "unknown key 'strem' in sources.orders, did you mean 'stream'?"),
    ("region_alias", 2, 3, "'virginia' is no canonical AWS region name, write 'us-east-1'"),
    ("region_upper_case", 1, 26, "'EU_WEST_1' is no canonical AWS region name, write 'eu-west-1'"),
    ("endpoint_with_path", 1, 44, "an endpoint has no path, query or user: requests go to / of its host"),
    ("duplicate_key", 7, 3, "key 'drain_s' is there twice, first on line 5; remove one"),
    ("duplicate_link", 7, 5, "has settings already on line 5; merge the two"),
    ("literal_password", 4, 19, "write 'password: {env: NAME}' or 'password: {file: PATH}'"),
    ("literal_password_in_url", 5, 8, "write 'password: {env: NAME}' or 'url: ${REDIS_URL}'"),
    ("literal_password_in_default", 5, 8, "write 'password: {env: NAME}' or 'url: ${REDIS_URL}'"),
    ("literal_password_in_query", 5, 8, "write 'password: {env: NAME}' or 'url: ${REDIS_URL}'"),
    ("literal_tag_key", 4, 35, "a key must not stand in this file; write '{env: NAME}' or '{file: PATH}'"),
    ("unknown_sink", 3, 31, "there is no sink 'hubb', did you mean 'hub'?"),
    ("wrong_type", 5, 14, "worker.http_port: Input should be a valid integer"),
    ("wrong_choice", 5, 13, "link_defaults.ordering: Input should be 'key' or 'none', not 'kye'"),
    ("syntax", 5, 7, "expected ',' or '}', but got ':', while parsing a flow mapping that begins on line 4"),
    ("unquoted_variable", 4, 22, 'within { } or [ ] write a variable in quotes: "${NAME}"'),
    ("renewal_too_slow", 6, 12, "renew_s (5) must be less than half of duration_s (10)"),
    (
        "lifetime_too_short",
        4,
        37,
        "link_defaults.request_lifetime_s: 12 s are over before a slow request is given up; make it 15 or more",
    ),
    ("timeout_longer_than_lifetime", 4, 29, "30 s are over before a slow request is given up; make it 35 or more"),
    ("lifetime_of_a_link_too_long", 5, 59, "limits.signature_window_s (300); make it 300 or less"),
    ("hold_without_verify", 6, 5, "'hold' holds nothing where in_doubt is 'resend'; write 'in_doubt: verify'"),
    (
        "cycle",
        9,
        7,
        "cycle us-east-1 -> eu-west-1 -> ap-southeast-2 -> us-east-1 for events from us-east-1",
    ),
    (
        "reached_twice",
        9,
        7,
        "ap-southeast-2 is reached twice by events from us-east-1: us-east-1 -> ap-southeast-2 and us-east-1",
    ),
    ("edge_twice", 9, 7, "the link us-east-1 -> eu-west-1 is there twice"),
    ("unreachable", 6, 10, "events from us-east-1 never reach ap-southeast-2"),
    ("unreachable_in_old_generation", 10, 14, "events from us-east-1 never reach ap-southeast-2"),
    ("generation_without_start", 5, 15, "'starts_at' of generation 3 is missing; it must be later than that of"),
    ("generation_starts_too_early", 6, 14, "'starts_at' of generation 3 is not later than that of generation 2"),
    ("generation_twice", 7, 19, "generation 3 is there twice; give every topology its own"),
    ("unknown_hub", 6, 8, "there is no region 'us-west-1', did you mean 'us-east-1'?"),
    ("unknown_peer", 6, 11, "there is no region 'eu-west-2', did you mean 'eu-west-1'?"),
    ("no_such_link", 6, 5, "no link of orders goes from ap-southeast-2 to eu-west-1 in this topology"),
    ("packs_without_lanes", 4, 28, "aggregate: kpl packs events that wait in the lane of their key"),
    ("link_packs_without_lanes", 6, 5, "aggregate: kpl packs events that wait in the lane of their key"),
    ("table_without_hub", 4, 48, "its events go to stream 'other' of eu-west-1, which no source of kind kinesis reads"),
    ("table_into_cloudevents", 4, 48, "the hub 'hub' is read as cloudevents; that works with json or lambda-stream"),
    ("table_unknown_key", 4, 53, "unknown key 'stream' in sources.table"),
    ("table_in_no_region", 4, 63, "there is no region 'eu-west-2', did you mean 'eu-west-1'?"),
    ("table_to_a_peer", 7, 5, "no link of table goes from eu-west-1 or us-east-1 to eu-west-1 in this topology"),
    ("unknown_kind", 4, 10, "sources.table: a source is of kind kinesis, dynamodb, sqs or cdc"),
    ("queue_alias", 4, 54, "'ireland' is no canonical AWS region name, write 'eu-west-1'"),
    ("bus_unknown_key", 4, 41, "unknown key 'detail-type' in sinks.bus, did you mean 'detail_type'?"),
    ("bus_alias", 4, 49, "'ireland' is no canonical AWS region name, write 'eu-west-1'"),
    ("bus_of_aws", 4, 49, "only AWS itself may put events whose source begins with aws.; choose another"),
    ("opaque_to_a_bus", 3, 44, "a sink of kind eventbridge takes JSON events, and this source is opaque"),
    ("queue_sink_unknown_key", 4, 42, "unknown key 'record_bytes_max' in sinks.queue"),
    ("unknown_sink_kind", 4, 10, "sinks.topic: a sink is of kind kinesis, sqs, eventbridge or dynamodb"),
    ("verify_of_a_queue", 6, 13, "in_doubt: verify reads the sink back, which a sink of kind sqs can't"),
    ("bad_pattern", 8, 7, "[0]: the pattern.type[0]: there is no 'prefx'; there is: anything-but"),
    ("filter_of_opaque", 5, 3, "include and exclude look into JSON, and sources.orders is opaque"),
    ("raw_into_lambda_stream", 4, 59, "change records as they are have neither id nor type"),
    ("raw_with_entity", 4, 72, "mode raw passes records on as they are"),
    ("cdc_without_format", 4, 9, "key 'format' is missing in sources.rows"),
    ("cdc_control_of_debezium", 4, 62, "control is for format dms, and this is debezium; leave it out"),
    ("cdc_mode_of_dms", 4, 65, "mode is for format dynamodb, and this is dms; leave it out"),
    ("cdc_before_field_taken", 4, 73, "data holds something else in records of DMS"),
    ("cdc_in_no_region", 4, 69, "there is no region 'eu-west-2', did you mean 'eu-west-1'?"),
    ("cdc_is_the_hub", 4, 29, "'hub' of eu-west-1 is a hub, which a source of kind kinesis reads"),
    ("lake_of_another_kind", 3, 42, "sources.orders.lake: a lake is a sink of kind s3, and there is none"),
    ("lake_as_sink", 3, 31, "a sink of kind s3 keeps events and brings them to nobody"),
    ("lake_of_another_format", 6, 80, "sinks.lake.format: Input should be 'ndjson' or 'parquet', not 'csv'"),
    ("lake_of_two_regions", 6, 28, "eu-west-1 and us-east-1 would share bucket 'one-lake'"),
    ("lake_with_a_filter", 8, 48, "in the order of the hub, and can only be paused; leave ordering out"),
    (
        "continue_from_a_stream",
        3,
        63,
        "sources.orders.continue_from: a lake is a sink of kind s3; there is: lake",
    ),
    ("continue_from_without_lake", 3, 51, "nothing of this source goes into 'lake'; write lake: lake beside it"),
    ("continue_from_another_lake", 3, 63, "this source fills 'lake' and not 'other'; write continue_from: lake"),
    ("link_to_no_lake", 6, 5, "sources.orders has no lake"),
    ("quarantine_queue_alone", 4, 13, "a message of a queue holds 256 KiB, and an event may be larger: name where"),
    ("quarantine_queue_fifo", 4, 21, "poison has no order to keep, and a FIFO queue a lower rate; name a standard"),
    (
        "quarantine_queue_holds_keys",
        5,
        28,
        "a queue keeps none; write 'on_poison: skip', or leave quarantine.queue out",
    ),
    ("quarantine_queue_holds_a_key", 6, 50, "a queue keeps none; write 'on_poison: skip', or leave quarantine.queue"),
    ("quarantine_queue_is_a_source", 6, 21, "'jobs' of eu-west-1 is the queue of sources.messages, where poison"),
    ("quarantine_queue_is_a_sink", 4, 35, "'jobs' of eu-west-1 is the queue of sinks.jobs, where poison would be"),
    ("quarantine_lake_of_another_kind", 4, 20, "quarantine.lake: a lake is a sink of kind s3, and there is none"),
    ("quarantine_among_events", 6, 20, "poison under 'lake/poison/' and events under 'lake/' of sinks.lake would be"),
    ("quarantine_in_two_places", 4, 13, "give exactly one of 'directory', 's3_bucket' and 'lake'"),
    ("stream_read_twice", 4, 47, "stream 'hub' of eu-west-1 is read by sources.orders as well, and both write streams"),
    ("queue_filled_twice", 4, 19, "is read by sources.orders as well, and both write queue 'orders'"),
    ("crossed_formats", 4, 26, "as json, and sources.a writes there as cloudevents: it would not see the tags"),
    ("queue_sink_is_a_source", 6, 35, "queue 'q' of eu-west-1 is read by sources.b, which would take what sources.a"),
    ("queue_sink_behind_a_bus", 7, 54, "queue 'shop' of eu-west-1 is read by sources.shop, which would take what"),
    ("table_sink_goes_round", 4, 12, "would be told as written there, and go round; write written_here: stamp"),
    ("table_sink_without_changes", 3, 28, "nothing brings any into this hub; add a source of kind dynamodb, mode raw"),
    ("table_sink_of_two_tables", 10, 11, "say whose are applied: changes_of: orders or stock"),
    ("table_sink_of_no_changes", 9, 55, "'hub' is no source of DynamoDB's change records that fills the hub"),
    ("table_sink_read_by_another", 8, 9, "table 'orders' of eu-west-1 is written by sinks.orders, and would be told"),
    ("table_sink_verify", 9, 46, "a sink of kind dynamodb can't; leave it out"),
    ("tombstones_too_short", 9, 83, "(777600) must be more than lag_max_s and replay_horizon_s together (777600)"),
    ("claim_check_of_two_regions", 4, 44, "sinks.hub.claim_check: eu-west-1 and us-east-1 would share bucket"),
    ("claim_check_of_opaque", 2, 52, "claim_check of sinks.hub makes pointers of JSON, and this is opaque"),
    ("claim_check_alias", 4, 81, "'ireland' is no canonical AWS region name, write 'eu-west-1'"),
    ("claim_check_of_a_table", 5, 42, "unknown key 'claim_check' in sinks.table"),
    ("redact_of_opaque", 5, 3, "sources.orders is opaque, and in bytes of any kind nothing is found"),
    ("residency_of_opaque", 5, 39, "sources.orders is opaque, and in bytes of any kind nothing is found"),
    ("redact_the_id", 4, 17, "without its own 'id' an event of sources.orders is none, or another one; leave it"),
    ("redact_the_tag", 4, 42, "'_replicator.id' is in the tag, without which the event would come back"),
    ("redact_twice", 4, 25, "'a' is there twice, or another path leads into it; the shorter one is enough"),
    ("redact_no_path", 4, 32, "'a..b' is no path such as detail.customer.email"),
    ("redact_a_table", 11, 36, "sources.hub fills tables that are kept equal, and what lacks something is not"),
    ("hash_without_key", 4, 17, "hash needs a secret, and there is no 'redact_key: {env: NAME}'"),
    ("literal_redact_key", 4, 13, "a key must not stand in this file; write '{env: NAME}' or '{file: PATH}'"),
    ("residency_nowhere", 5, 16, "'euw-*' is none of the regions: eu-west-1, us-east-1"),
    ("relay_reads_elsewhere", 3, 34, "this topology relays, but in ap-southeast-2 its sink is stream 'hub'"),
]
UNLIKE = "table_sink_unlike_its_source"


@pytest.fixture
def check_text(tmp_path: Path) -> Callable[..., list[str]]:
    """Checks BASE with more lines behind it; the problems as text."""

    def run(more: str, **environment: str) -> list[str]:
        file = tmp_path / "replicator.yaml"
        file.write_text(BASE + more)
        return [str(problem) for problem in check(str(file), environment)[1]]

    return run


@pytest.mark.parametrize(("name", "line", "column", "message"), WRONG, ids=[row[0] for row in WRONG])
def test_a_mistake_is_reported_once_at_its_place_with_what_to_write(
    name: str, line: int, column: int, message: str
) -> None:
    config, problems = check(str(BROKEN / f"{name}.yaml"), {})
    assert config is None
    assert [problem.place for problem in problems] == [(line, column)]
    assert message in problems[0].message


def test_every_broken_file_is_a_test() -> None:
    named = {row[0] for row in WRONG} | {"missing_variable", "several", "mixed", UNLIKE}
    assert {file.stem for file in BROKEN.glob("*.yaml")} == named


def test_a_missing_variable_is_named_where_it_stands_and_has_no_second_complaint() -> None:
    problems = check(str(BROKEN / "missing_variable.yaml"), {})[1]
    assert [(problem.place, problem.message) for problem in problems] == [
        ((5, 8), "environment variable REDIS_URL is not set; set it or write ${REDIS_URL:default}"),
        ((7, 14), "environment variable PORT is not set; set it or write ${PORT:default}"),
    ]


@pytest.mark.parametrize(
    ("name", "lines"),
    [("several", [3, 4, 5, 6, 7]), ("mixed", [5, 5, 6, 8, 10, 11, 13, 14, 15]), (UNLIKE, [5, 9, 10, 11, 12])],
    ids=["fields", "fields and references", "one source and one sink"],
)
def test_all_mistakes_of_a_file_are_reported_at_once_in_order_of_place(name: str, lines: list[int]) -> None:
    """One in a field hides none of what refers to nothing, and none is told twice."""
    file = str(BROKEN / f"{name}.yaml")
    problems = check(file, {})[1]
    assert [problem.place.line for problem in problems] == lines
    with pytest.raises(ConfigError) as refused:
        load(file, {})
    assert str(refused.value).splitlines() == [f"{file}:{problem}" for problem in problems]


@pytest.mark.parametrize("name", [name for name, *_ in WRONG if name.startswith("literal_")])
def test_a_secret_written_out_is_not_repeated_in_the_complaint(name: str) -> None:
    problems = check(str(BROKEN / f"{name}.yaml"), {})[1]
    assert problems
    assert all("hunter2" not in str(problem) for problem in problems)


def test_the_good_examples_have_no_problem() -> None:
    for file in sorted(GOOD.glob("*.yaml")):
        assert check(str(file), {})[1] == []


@pytest.mark.parametrize(
    ("word", "around"),
    [
        ("changes_of", ""),
        ("claim_check", "sources: {hub: {stream: orders-hub, sink: hub}}\n"),
        ("residency", "sources: {hub: {stream: orders-hub, sink: hub}}\nsinks: {hub: {stream: orders-hub}}\n"),
    ],
)
def test_the_readmes_examples_have_no_problem(word: str, around: str) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (HERE.parents[1] / "README.md").read_text(), re.DOTALL)
    [example] = [block for block in blocks if word in block]
    regions = "regions: {us-east-1: {}, eu-west-1: {}" + (", eu-central-1: {}" if word == "residency" else "") + "}\n"
    assert check("env:C", {"C": regions + around + example, "REDACT_KEY": "x" * 16})[1] == []


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "words\n", "a: &x [*x]\n", "? [a]\n: 1\n", "\x01"])
def test_what_is_no_configuration_at_all_is_a_problem_and_no_crash(tmp_path: Path, text: str) -> None:
    file = tmp_path / "replicator.yaml"
    file.write_text(text)
    assert check(str(file), {})[1]


@given(st.text(max_size=60))
def test_any_text_is_checked_without_a_crash(text: str) -> None:
    assert check("env:CONFIG", {"CONFIG": text})[1]


@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=20))
def test_any_value_of_a_variable_is_taken_as_it_is(value: str) -> None:
    """A value is never read as YAML syntax: neither a comment, a list nor an anchor."""
    found = Document('a: "${V}"\n', {"V": value}).data
    assert found == {"a": value}


@pytest.mark.parametrize("value", ["a #b", "[x", "&anchor x", "*x", "- a", "a: b", "!tag x", "{", "'"])
def test_an_unquoted_variable_is_not_read_as_yaml_syntax(value: str) -> None:
    assert Document("a: ${V}\n", {"V": value}).data == {"a": value}


def test_an_unquoted_variable_is_typed_and_a_quoted_one_is_text() -> None:
    text = 'port: ${PORT:8080}\npaused: ${PAUSED:true}\nname: "${PORT:8080}"\nescaped: $${PORT}\nempty: "${E:}"\n'
    assert Document(text, {"PAUSED": "false"}).data == {
        "port": 8080,
        "paused": False,
        "name": "8080",
        "escaped": "${PORT}",
        "empty": "",
    }


def test_anchors_and_aliases_work(check_text: Callable[..., list[str]]) -> None:
    assert check_text("redis: &r {timeout_s: 2}\nlink_defaults: {}\nquarantine: {directory: &d q}\n") == []
    shared = Document("a: &x {b: ${V}}\nc: *x\n".replace("${V}", '"${V}"'), {"V": "1"})
    assert shared.data == {"a": {"b": "1"}, "c": {"b": "1"}}


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (
            "worker:\n",
            "4:8: worker: expected a mapping with keys of: drain_s, http_host, http_port, log_level, ready_within_s",
        ),
        (
            "topology: {kind: links, links: [{frm: us-east-1, to: eu-west-1}]}\n",
            "4:34: unknown key 'frm' in topology.links.0, did you mean 'from'?",
        ),
        (
            "topology: {kind: hub}\n",
            "4:11: topology: kind 'hub' needs 'hub'",
        ),
        (
            "topology: {kind: mesh, hub: us-east-1}\n",
            "4:29: topology: 'hub' belongs to another kind than 'mesh'; leave it out, or write 'kind: hub'",
        ),
        (
            "quarantine: {directory: ''}\n",
            "4:25: quarantine.directory: String should have at least 1 character, not ''",
        ),
        (
            "tag_key: {current: k2, keys: {k1: {env: A}}}\n",
            "4:20: tag_key: current key 'k2' is none of k1",
        ),
        (
            "redis: {url: 'redis://[x'}\n",
            "4:14: redis.url: Invalid IPv6 URL",
        ),
    ],
)
def test_other_mistakes(check_text: Callable[..., list[str]], more: str, problem: str) -> None:
    assert problem in check_text(more)


def test_a_password_may_come_from_the_environment(check_text: Callable[..., list[str]]) -> None:
    assert check_text('redis: {url: "${REDIS_URL}"}\n', REDIS_URL="redis://:secret@h/0") == []
    assert check_text('redis: {url: "redis://:${PW}@h/0"}\n', PW="secret") == []
    assert check_text("redis: {password: {env: PW}}\n") == []


@pytest.fixture
def mesh() -> Config:
    return load(str(GOOD / "mesh.yaml"), {})


def test_the_most_special_override_of_a_link_wins(mesh: Config) -> None:
    assert mesh.link("orders", "us-east-1", "ap-southeast-2") == LinkDefaults(in_flight_max=8)
    assert mesh.link("orders", "ap-southeast-2", "eu-west-1") == LinkDefaults(in_flight_max=8, ordering="none")
    assert mesh.link("orders", "us-east-1", "eu-west-1") == LinkDefaults(in_flight_max=2, ordering="none")


def test_a_region_may_have_its_own_redis(mesh: Config) -> None:
    assert mesh.redis_in("ap-southeast-2").on_loss == "pause"
    assert mesh.redis_in("eu-west-1").on_loss == "continue"


def test_older_generations_keep_their_routes(mesh: Config) -> None:
    sydney, ireland, virginia = Region("ap-southeast-2"), Region("eu-west-1"), Region("us-east-1")
    topologies = mesh.topologies()
    assert topologies.newest == 2
    assert topologies.children(2, sydney, sydney) == {ireland, virginia}
    assert topologies.children(1, sydney, sydney) == {virginia}


def test_streams_may_have_other_names_in_some_regions() -> None:
    config = load(str(GOOD / "hub.yaml"), {})
    assert config.sources["orders"].reads_in("eu-west-1") == "orders-eu"
    assert config.sources["orders"].reads_in("us-east-1") == "orders-hub"
    assert config.sinks["hub"].writes_in("eu-west-1") == "orders-eu"


def test_what_can_not_be_read_back_gets_again_what_is_in_doubt() -> None:
    config = load(str(GOOD / "sinks.yaml"), {})
    here, peer = Region("us-east-1"), Region("eu-west-1")
    chosen = {name: config.link(name, here, peer).in_doubt for name in config.sources}
    assert chosen == {"orders": "verify", "paid": "resend", "shop": "resend"}
    assert [config.sinks[name].writes_in(peer) for name in ("paid", "shop")] == ["paid-eu.fifo", "shop-eu"]


@pytest.mark.parametrize(
    ("start", "position"),
    [
        ("latest", AtTimestamp(5)),
        ("trim_horizon", TrimHorizon()),
        ("2026-11-01T00:00:00Z", AtTimestamp(1_793_491_200_000)),
        ("2026-11-01T02:00:00+02:00", AtTimestamp(1_793_491_200_000)),
    ],
)
def test_a_start_is_a_durable_place(start: str, position: object) -> None:
    assert KinesisSourceConfig(stream="s", sink="s", start=start).start_position(5) == position


def test_a_time_without_a_zone_is_refused_with_one_that_is_accepted() -> None:
    with pytest.raises(ValueError, match="write 2026-11-01T00:00:00Z for UTC"):
        KinesisSourceConfig(stream="s", sink="s", start="2026-11-01")


def test_secrets_come_from_a_variable_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"from file\r\n")
    assert SecretRef(env="K").resolve({"K": "from variable"}) == b"from variable"
    assert SecretRef(file=str(tmp_path / "key")).resolve({}) == b"from file"
    with pytest.raises(ConfigError, match="environment variable K is not set"):
        SecretRef(env="K").resolve({})
    with pytest.raises(ConfigError, match="can't be read"):
        SecretRef(file=str(tmp_path / "none")).resolve({})


def test_a_lake_is_one_more_link_that_can_be_paused_and_is_as_it_is_else() -> None:
    config = load(str(GOOD / "lake.yaml"), {})
    east, west = Region("us-east-1"), Region("eu-west-1")
    assert config.links_of(east) == {"orders:eu-west-1": ("orders", west), "orders:lake": ("orders", LAKE)}
    assert config.link("orders", west, LAKE).paused
    there = config.link("orders", east, LAKE)
    assert (there.paused, there.ordering, there.in_flight_max, there.in_doubt) == (False, "none", 1, "resend")
    assert config.sink("orders", LAKE).writes_in(west) == "acme-lake-eu"
    written = {(link["from"], link["to"]): link["writes"] for link in plan_document(config)["links"]}  # type: ignore[attr-defined] - JSON
    assert written[east, LAKE] == "acme-lake"
    assert written[east, west] == "hub"


async def test_a_lake_of_parquet_is_not_opened_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    config, here = load(str(GOOD / "lake.yaml"), {}), Region("us-east-1")
    sink = config.sink("orders", LAKE)
    assert isinstance(sink, S3SinkConfig)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    async with AwsSession() as aws:
        with pytest.raises(ConfigError, match=r"pip install 'region-replicator\[parquet\]'"):
            async with open_lake(config, here, sink, SourceName("orders"), aws):
                pass


def test_nothing_leaves_over_links_into_the_own_hub_and_the_lake() -> None:
    config = load(str(GOOD / "leaving.yaml"), {})
    assert config.link("orders", "us-east-1", "us-east-1").egress.is_idle
    assert config.link("hub", "us-east-1", LAKE).egress.is_idle
    out = config.link("hub", "eu-west-1", "eu-central-1").egress.towards(Region("eu-central-1"))
    assert out.redact
    assert [rule.within for rule in out.residency] == [("us-east-1",)]
    assert not config.link("events", "eu-central-1", "eu-west-1").egress.redact
