"""What may not leave a region does not leave it in a replay either, from the lake or from the stream."""

import asyncio
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from test_event_lake import LakeReader, hub_of, until
from trial import EAST, WEST, Commands, Trial, trial

from replicator.dev.clients import kinesis_client

pytestmark = pytest.mark.slow

LINK = f"orders:{WEST}"
LEAVING = """\
  redact: {who.email: mark, who.name: remove}
  residency: [{within: [us-*], paths: [passport]}]
"""
SECRETS = (b"jo@example.org", b"Jo Secret", b"P1")
COUNT, STAYS = 30, 3
"""Events, of which so many must not leave."""


def put(running: Trial) -> None:
    client: Any = kinesis_client(running.environment.regions[EAST].ready.kinesis, EAST)
    for number in range(COUNT):
        event = {"id": f"e-{number}", "n": number, "who": {"email": "jo@example.org", "name": "Jo Secret", "no": 7}}
        event |= {"passport": "P1"} if number % (COUNT // STAYS) == 0 else {}
        client.put_record(StreamName=running.stream, PartitionKey="k", Data=json.dumps(event).encode())
    client.close()


async def test_replays_from_lake_and_stream_keep_to_what_may_leave(tmp_path: Path) -> None:
    since_s = time.time() - 60
    async with trial(tmp_path, shards=1, workers=1, lake=True, leaving=LEAVING, clock_margin_s=1) as running:
        await asyncio.to_thread(put, running)
        await until(running, lambda: len(hub_of(running, WEST)) == COUNT - STAYS)
        await until(running, lambda: len(LakeReader(running, EAST).read()) == COUNT)
        times = [datetime.fromtimestamp(s, UTC).isoformat() for s in (since_s, time.time())]
        chosen = ["--link", LINK, "--since", times[0], "--until", times[1], "--force"]
        replays = Commands(running, tmp_path, "replay", "--region", EAST, *chosen)
        said = {kind: await replays.done(kind, "--from", kind) for kind in ("lake", "stream")}
        hub = await asyncio.to_thread(hub_of, running, WEST)
        own = await asyncio.to_thread(hub_of, running, EAST)
    for kind, (code, text) in said.items():
        assert code == 1, text
        assert f"{COUNT} events of the {kind} over {LINK}: {COUNT - STAYS} sent, " in text
        assert f"{STAYS} residency poison" in text
    assert all(SECRETS[0] in data for _, data in own.values()), "the region's own hub keeps what came"
    assert len(hub) == 3 * (COUNT - STAYS)
    assert not [data for _, data in hub.values() if any(secret in data for secret in SECRETS)]
    assert all(json.loads(data)["who"] == {"email": "[redacted]", "no": 7} for _, data in hub.values())
