"""Servers that tests share: one set per test process, started when first asked for."""

import gc
import os
import sys
from collections.abc import Callable, Iterator
from itertools import count

import fault_table
import pytest
from hypothesis import settings

from replicator.dev.checker import Verdict
from replicator.dev.launch import aws_ready, start_aws
from replicator.dev.processes import Child
from replicator.dev.valkey import Valkey
from tests.warm_start import WarmStart

REGION = "us-east-1"
"""The region of the shared endpoints: requests to Kinesis must be signed for it."""
RATE_FACTOR = "1000"
_numbers = count(1)

# How long an example takes says more of the machine than of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests, which wait for processes, come evenly among the others: side by side each leaves time to the rest."""
    kinds: tuple[list[pytest.Item], list[pytest.Item]] = ([], [])
    for item in items:
        kinds[item.get_closest_marker("slow") is not None].append(item)
    places = {item: place / len(kind) for kind in kinds for place, item in enumerate(kind)}
    items.sort(key=lambda item: places[item])


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: no collection of garbage needs to go through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def aws_credentials() -> Iterator[None]:
    """Every client signs with the emulators' credential and never looks for an instance's role or a proxy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            patch.delenv(name, raising=False)
            patch.delenv(name.upper(), raising=False)
        for name in (
            "AWS_PROFILE",
            "AWS_SESSION_TOKEN",
            "AWS_ENDPOINT_URL",
            "AWS_REGION",
            "AWS_DEFAULT_REGION",
        ):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def warm_start(aws_credentials: None) -> Iterator[None]:
    """Workers, commands and AWS processes that tests start come from processes that have imported them (Linux)."""
    if sys.platform != "linux":
        yield
        return
    with WarmStart() as warm, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Child, "start", warm.start)
        yield


@pytest.fixture(scope="session")
def kinesis_url(aws_credentials: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Our Kinesis endpoint for us-east-1, with rates a thousand times AWS's."""
    log = tmp_path_factory.mktemp("kinesis") / "log"
    with start_aws(REGION, log, "--kinesis-only", "--limits", RATE_FACTOR) as child:
        yield child.wait_ready(aws_ready).kinesis


@pytest.fixture(scope="session")
def aws_url(aws_credentials: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """moto for everything but Kinesis: DynamoDB, DynamoDB Streams, S3, SQS, EventBridge."""
    log = tmp_path_factory.mktemp("aws") / "log"
    with start_aws(REGION, log) as child:
        ready = child.wait_ready(aws_ready, 60.0)
        assert isinstance(ready.aws, str)
        yield ready.aws


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """A Valkey without a password. Tests that flush or kill it start their own instead."""
    server = Valkey()
    server.start_blocking()
    yield server.url
    server.stop()


@pytest.fixture(scope="session")
def new_name() -> Callable[[str], str]:
    """Makes a name (of a stream, table, queue, bucket, key) that no other test of this process uses."""
    return lambda prefix: f"{prefix}-{next(_numbers)}"


@pytest.fixture
def shown(request: pytest.FixtureRequest) -> Callable[[Verdict], None]:
    """Takes a verdict: it must be clean but for what the README's table says of the faults that the test shows."""
    faults = [name for mark in request.node.iter_markers("fault") for name in mark.args]

    def compare(verdict: Verdict) -> None:
        seen = verdict.faults()
        assert not any(count for name, count in seen.items() if name not in fault_table.COUNTS), verdict
        if faults:
            fault_table.show(faults, seen)
        else:
            assert verdict.clean, verdict

    return compare
