"""Logs: one JSON object a line, for our events and everybody else's, without secrets."""

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator

import pytest
import structlog

from replicator.adapters.logs import configure_logs

Line = dict[str, object]


class Captured:
    """A configured stream and the lines written to it."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def configure(self, level="info", region="us-east-1", worker="w1") -> None:
        configure_logs(level, region=region, worker=worker, stream=self.stream)

    @property
    def lines(self) -> list[Line]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def captured() -> Iterator[Captured]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    captured = Captured()
    captured.configure()
    yield captured
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_a_line_says_when_what_where_and_who(captured: Captured) -> None:
    structlog.get_logger().info("lease_taken", shard="shard-1", epoch=4)
    (line,) = captured.lines
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(line.pop("timestamp")))
    assert line == {
        "event": "lease_taken",
        "level": "info",
        "region": "us-east-1",
        "worker": "w1",
        "shard": "shard-1",
        "epoch": 4,
    }


def test_bound_context_stands_on_every_line(captured: Captured) -> None:
    structlog.contextvars.bind_contextvars(source="orders")
    logger = structlog.get_logger().bind(link="orders:eu-west-1")
    logger.info("one")
    logger.info("two")
    assert [(line["link"], line["source"]) for line in captured.lines] == [("orders:eu-west-1", "orders")] * 2


@pytest.mark.parametrize(("level", "heard"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_the_level_cuts_our_lines(captured: Captured, level: str, heard: int) -> None:
    captured.configure(level)
    for method in ("debug", "info", "warning", "error"):
        getattr(structlog.get_logger(), method)("x")
    assert len(captured.lines) == heard


def test_a_library_goes_the_same_way(captured: Captured) -> None:
    logging.getLogger("aiohttp.server").warning("odd request from %s", "127.0.0.1")
    (line,) = captured.lines
    assert line["event"] == "odd request from 127.0.0.1"
    assert (line["logger"], line["level"], line["region"]) == ("aiohttp.server", "warning", "us-east-1")


def test_libraries_stay_quiet_below_warning_at_our_debug_level(captured: Captured) -> None:
    captured.configure("debug")
    logging.getLogger("botocore.auth").debug("x-amz-security-token:abc")
    assert captured.lines == []


def test_warnings_go_the_same_way(captured: Captured) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert "DeprecationWarning: old" in str(captured.lines[0]["event"])


@pytest.mark.parametrize("logger", [structlog.get_logger(), logging.getLogger("asyncio")], ids=["ours", "library"])
def test_an_exception_is_one_line_with_its_traceback(captured: Captured, logger) -> None:
    logger.error("stopped", exc_info=ValueError("broken"))
    (line,) = captured.lines
    assert line["event"] == "stopped"
    assert "ValueError: broken" in str(line["exception"])
    assert "exc_info" not in line


def test_values_without_a_json_form_are_written_as_text(captured: Captured) -> None:
    structlog.get_logger().info("x", path=ValueError("odd"), data=b"ab", more=(1, {"a": {2}}))
    (line,) = captured.lines
    assert (line["path"], line["data"], line["more"]) == ("odd", "b'ab'", [1, {"a": [2]}])


def test_secrets_are_masked_by_key_at_any_depth(captured: Captured) -> None:
    structlog.get_logger().info(
        "config", redis={"password": "hunter2"}, tag_key="hunter2", aws_secret_access_key="hunter2"
    )
    assert "hunter2" not in captured.stream.getvalue()
    assert captured.lines[0]["redis"] == {"password": "***"}


@pytest.mark.parametrize(
    "text",
    [
        "redis://user:hunter2@cache:6379/0 does not answer",
        "redis://:hunter2@cache:6379",
        "Authorization: AWS4-HMAC-SHA256 Credential=x, Signature=" + "0a" * 31 + "0b",
        "x-amz-security-token:hunter2",
        "X-Amz-Security-Token=hunter2&a=b",
    ],
)
def test_secrets_are_masked_by_shape_in_text_and_tracebacks(captured: Captured, text: str) -> None:
    structlog.get_logger().error(text, exc_info=ValueError(text))
    logging.getLogger("redis").error(text, exc_info=ValueError(text))
    out = captured.stream.getvalue()
    assert len(captured.lines) == 2
    assert "hunter2" not in out
    assert "0a0a" not in out
    assert out.count("***") >= 4


def test_configuring_again_replaces_what_was_there(captured: Captured) -> None:
    logger = structlog.get_logger()
    logger.info("one")
    captured.configure("info", "eu-west-1", "w2")
    logger.info("two")
    assert [line["region"] for line in captured.lines] == ["us-east-1", "eu-west-1"]
