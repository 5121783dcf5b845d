"""Streams for the suites of source and sink."""

import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from streams import Stream, open_stream


@pytest.fixture(params=["memory", "simulated", "kinesis"])
async def stream(
    request: pytest.FixtureRequest, kinesis_url: str, new_name: Callable[[str], str]
) -> AsyncIterator[Stream]:
    """One shard, unless the test is marked with another number."""
    marker = request.node.get_closest_marker("shards")
    async with open_stream(request.param, marker.args[0] if marker else 1, kinesis_url, new_name) as opened:
        yield opened
