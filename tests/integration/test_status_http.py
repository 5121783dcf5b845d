"""The status port over a real socket."""

import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest

from replicator.adapters.status_http import status_server
from replicator.adapters.telemetry import OtelTelemetry
from replicator.errors import ConfigError


class Worker:
    """A health view whose answers the test sets."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.facts: dict[str, object] = {
            "region": "us-east-1",
            "links": {"orders:eu-west-1": {"lag_ms": None}},
        }

    def ready(self) -> list[str]:
        return self.reasons

    def status(self) -> dict[str, object]:
        return self.facts


class Setup:
    """A running status port, what stands behind it, and a client."""

    def __init__(self, port: int, worker: Worker, telemetry: OtelTelemetry, http: aiohttp.ClientSession) -> None:
        self.port, self.worker, self.telemetry, self.http = port, worker, telemetry, http


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    worker, telemetry = Worker(), OtelTelemetry(region="us-east-1", worker="w1")
    async with (
        status_server(worker, telemetry) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
    ):
        yield Setup(port, worker, telemetry, http)
    telemetry.close()


async def test_healthz_answers_as_long_as_the_event_loop_turns(setup: Setup) -> None:
    setup.worker.reasons = ["the lease store does not answer"]
    async with setup.http.get("/healthz") as reply:
        assert (reply.status, await reply.json()) == (200, {"status": "ok"})


async def test_readyz_is_200_without_reasons_against_it(setup: Setup) -> None:
    async with setup.http.get("/readyz") as reply:
        assert (reply.status, await reply.json()) == (200, {"ready": True, "reasons": []})


async def test_readyz_is_503_and_names_every_reason(setup: Setup) -> None:
    setup.worker.reasons = ["the lease store does not answer", "source orders does not answer"]
    async with setup.http.get("/readyz") as reply:
        assert reply.status == 503
        assert await reply.json() == {"ready": False, "reasons": setup.worker.reasons}


async def test_status_is_the_snapshot_as_json(setup: Setup) -> None:
    async with setup.http.get("/status") as reply:
        assert reply.content_type == "application/json"
        assert await reply.json() == setup.worker.facts


async def test_metrics_are_prometheus_text_as_of_now(setup: Setup) -> None:
    for total in (3, 6):
        setup.telemetry.count("events_forwarded_total", 3, link="orders:eu-west-1")
        async with setup.http.get("/metrics") as reply:
            assert reply.headers["Content-Type"].startswith("text/plain; version=")
            assert f'replicator_events_forwarded_total{{link="orders:eu-west-1"}} {total}.0' in await reply.text()


async def test_anything_else_is_not_found_and_nothing_can_be_written(setup: Setup) -> None:
    async with setup.http.get("/config") as reply:
        assert reply.status == 404
    async with setup.http.post("/status") as reply:
        assert reply.status == 405


async def test_it_listens_on_loopback_only(setup: Setup) -> None:
    with socket.socket() as listener:
        # A socket bound to the wildcard would hold the port on this address as well.
        listener.bind(("127.0.0.2", setup.port))


async def test_a_port_in_use_is_a_configuration_error_that_says_so(setup: Setup) -> None:
    with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{setup.port}: another process has this port"):
        async with status_server(setup.worker, setup.telemetry, port=setup.port):
            pass


async def test_a_foreign_address_is_a_configuration_error(setup: Setup) -> None:
    with pytest.raises(ConfigError, match="no such address"):
        async with status_server(setup.worker, setup.telemetry, host="192.0.2.1"):
            pass


async def test_the_port_is_free_again_afterwards(setup: Setup) -> None:
    async with status_server(setup.worker, setup.telemetry) as first:
        pass
    async with status_server(setup.worker, setup.telemetry, port=first) as second:
        assert second == first
