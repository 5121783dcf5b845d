"""Sources that share streams and queues: what the check accepts, the walk over all places proves."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import event, given
from hypothesis import strategies as st

from replicator.config import Config
from replicator.config_load import check, load
from replicator.config_streams import prove_streams
from replicator.core.streams_graph import StreamError
from replicator.core.topology import TopologyError
from replicator.plan import plan_document

HERE = Path(__file__).parent
STREAMS = ("s", "t", "u")

sinks = st.fixed_dictionaries({"stream": st.sampled_from(STREAMS)}) | st.just({"kind": "sqs", "queue": "q"})
hubs = st.fixed_dictionaries(
    {
        "stream": st.sampled_from(STREAMS),
        "format": st.sampled_from(["json", "cloudevents", "lambda-stream"]),
        "sink": st.sampled_from(["x", "y"]),
    },
    optional={"streams": st.dictionaries(st.just("eu-west-1"), st.sampled_from(STREAMS))},
)
queues = st.fixed_dictionaries({"kind": st.just("sqs"), "queue": st.just("q"), "sink": st.sampled_from(["x", "y"])})


@given(
    st.fixed_dictionaries({"a": hubs, "b": hubs}, optional={"c": queues}),
    st.fixed_dictionaries({"x": sinks, "y": sinks}),
)
def test_the_rules_leave_nothing_that_the_walk_would_refuse(sources: dict[str, Any], sinks: dict[str, Any]) -> None:
    document = {"regions": {"us-east-1": {}, "eu-west-1": {}}, "sources": sources, "sinks": sinks}
    config, problems = check("env:CONFIG", {"CONFIG": yaml.safe_dump(document)})
    if config is not None:
        event("accepted")
        assert prove_streams(config, config.topologies())
        return
    assert all(problem.place.line > 1 for problem in problems)
    unchecked = Config.model_validate(document)
    try:
        prove_streams(unchecked, unchecked.topologies())
    except StreamError:
        event("refused by both")
    else:
        event("refused by a rule alone")


def test_plan_refuses_what_the_check_would_have_refused() -> None:
    """It proves by itself, also for a configuration that came another way."""
    twice = Config.model_validate(yaml.safe_load((HERE / "broken_configs" / "crossed_formats.yaml").read_text()))
    with pytest.raises(TopologyError, match="come back to it"):
        plan_document(twice)


def test_plan_says_what_stops_events_where_sources_read_what_others_write() -> None:
    shared = plan_document(load(str(HERE / "good_configs" / "shared_streams.yaml"), {}))["proof"]
    alone = plan_document(load(str(HERE / "good_configs" / "hub.yaml"), {}))["proof"]
    assert "back, copy, there read what another source writes" in str(shared)
    assert "takes it at most once" in str(alone)
    assert "another source" not in str(alone)


def test_plan_says_what_stops_changes_of_tables_that_are_written_and_read_and_refuses_what_does_not() -> None:
    stamped = plan_document(load(str(HERE / "good_configs" / "tables.yaml"), {}))["proof"]
    assert "orders read what links write; there the writer's stamp in an item is what stops it" in str(stamped)
    round_ = Config.model_validate(yaml.safe_load((HERE / "broken_configs" / "table_sink_goes_round.yaml").read_text()))
    with pytest.raises(TopologyError, match="come back as new ones"):
        plan_document(round_)
