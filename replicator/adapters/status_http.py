"""The status port: ``/healthz``, ``/readyz``, ``/metrics`` and ``/status`` over HTTP, read-only.

It carries no secrets but names regions, streams and lags, so it listens on loopback unless told otherwise.
"""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

import msgspec
from aiohttp import web

from replicator.errors import ConfigError

SHUTDOWN_S: Final = 1.0
"""How long open requests may take at the end; a scrape must not eat the drain budget."""


class HealthView(Protocol):
    """What the worker tells about itself; both are called per request and must not block."""

    def ready(self) -> list[str]:
        """Reasons why this worker is not ready; empty when it is."""
        ...

    def status(self) -> dict[str, object]:
        """A snapshot that msgspec can write as JSON; no secrets."""
        ...


class MetricsView(Protocol):
    """What ``/metrics`` answers."""

    @property
    def content_type(self) -> str: ...

    def render(self) -> bytes: ...


@asynccontextmanager
async def status_server(
    health: HealthView, metrics: MetricsView, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[int]:
    """Serve until the block ends; yields the bound port (``port`` 0 takes a free one).

    Raises ConfigError when the address can't be had.
    """
    runner = web.AppRunner(_application(health, metrics), access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        yield await _listen(runner, host, port)
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> int:
    try:
        await web.TCPSite(runner, host, port).start()
    except (OSError, OverflowError) as exc:
        raise ConfigError(f"the status port can't listen on {host}:{port}: {_reason(exc)}") from exc
    # The first address: a name that stands for several gets a socket for each, and a free port of its own.
    return int(runner.addresses[0][1])


def _reason(exc: OSError | OverflowError) -> str:
    code = exc.errno if isinstance(exc, OSError) else None
    if code == errno.EADDRINUSE:
        return "another process has this port; choose another one, or 0 for a free one"
    if code == errno.EACCES:
        return "not permitted; choose a port above 1023"
    if code == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    return str(exc)


def _application(health: HealthView, metrics: MetricsView) -> web.Application:
    async def healthz(_: web.Request) -> web.Response:
        # That this answers at all is the statement: the event loop turns.
        return _json({"status": "ok"})

    async def readyz(_: web.Request) -> web.Response:
        reasons = health.ready()
        return _json({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    async def status(_: web.Request) -> web.Response:
        return _json(health.status())

    async def metrics_text(_: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": metrics.content_type})

    application = web.Application()
    application.router.add_get("/healthz", healthz)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", metrics_text)
    application.router.add_get("/status", status)
    return application


def _json(body: dict[str, object], *, status: int = 200) -> web.Response:
    headers = {"Cache-Control": "no-store"}
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json", headers=headers)
