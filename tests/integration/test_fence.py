"""A receiver that fences for us: requests dated back are refused by the endpoint, wherever they were held up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import boto3
import pytest
from trial import DEADLINE_S, EAST, POLL_S, WEST, trial

from replicator.adapters.kinesis_sink import KinesisSink
from replicator.aws.http import HttpPool
from replicator.aws.kinesis_api import PREFIX, SERVICE, KinesisApi
from replicator.aws.kinesis_reading import Pace
from replicator.aws.session import AwsSession
from replicator.aws.transport import JsonApi
from replicator.core.in_doubt import Dated, FenceRules, dated
from replicator.core.model import Origin
from replicator.dev.environment_worker import Worker
from replicator.dev.kinesis_endpoint import KinesisEndpoint
from replicator.dev.kinesis_faults import Rule
from replicator.dev.proxy import Proxy
from replicator.errors import Misconfigured, TransientError
from replicator.ports import Entry

RULES = FenceRules()
STREAM = "fenced"
ENTRIES = [Entry(b"a", "k")]


@pytest.fixture
async def http() -> AsyncIterator[HttpPool]:
    async with HttpPool(8) as session:
        yield session


@pytest.fixture
async def endpoint() -> AsyncIterator[tuple[KinesisEndpoint, str]]:
    """In this process, so that a test can move its clock while a request is under way."""
    served = KinesisEndpoint(EAST)
    url = await served.start()
    client = boto3.client("kinesis", endpoint_url=url, region_name=EAST)
    await asyncio.to_thread(client.create_stream, StreamName=STREAM, ShardCount=1)
    client.close()
    yield served, url
    await served.stop()


def sink_at(http: HttpPool, url: str, session: AwsSession | None = None) -> KinesisSink:
    api = JsonApi(http, session or AwsSession(), service=SERVICE, region=EAST, url=url, prefix=PREFIX)
    return KinesisSink(KinesisApi(api, STREAM, 5.0), read_back_pace=Pace(0.0))


async def dated_now(sink: KinesisSink) -> Dated:
    return dated((await sink.peer_time()).earliest_ms, RULES.lifetime_ms, RULES)


def stored(served: KinesisEndpoint) -> int:
    return served.state.streams[STREAM].counts["records_in"]


@pytest.mark.parametrize(("later_s", "is_taken"), [(20, True), (31, False), (3600, False)])
async def test_a_request_that_a_slow_way_holds_up_for_longer_than_its_lifetime_is_refused(
    http: HttpPool, endpoint: tuple[KinesisEndpoint, str], later_s: int, is_taken: bool
) -> None:
    """The proxy has the request while the endpoint's clock goes on."""
    served, url = endpoint
    async with Proxy(url, delay_ms=0) as way:
        sink = sink_at(http, way.url)
        request = await dated_now(sink)
        way.delay_ms = 300
        up = way.counters.bytes_up
        sending = asyncio.ensure_future(sink.put(ENTRIES, signed_ms=request.date_ms))
        await asyncio.sleep(0)
        served.faults.add([Rule(kind="clock_skew_ms", ms=later_s * 1000)], None)
        assert way.counters.bytes_up == up
        if is_taken:
            assert list(await sending) == [None]
        else:
            with pytest.raises(TransientError) as late:
                await sending
            assert late.value.code == "late"
    assert stored(served) == is_taken


async def test_what_was_refused_is_sent_again_under_a_new_date(
    http: HttpPool, endpoint: tuple[KinesisEndpoint, str]
) -> None:
    served, url = endpoint
    sink = sink_at(http, url)
    old = await dated_now(sink)
    served.faults.add([Rule(kind="clock_skew_ms", ms=60_000)], None)
    with pytest.raises(TransientError):
        await sink.put(ENTRIES, signed_ms=old.date_ms)
    fresh = await dated_now(sink_at(http, url))
    assert list(await sink.put(ENTRIES, signed_ms=fresh.date_ms)) == [None]
    assert stored(served) == 1


async def test_a_dated_request_whose_credentials_had_expired_is_not_repeated_behind_its_senders_back(
    http: HttpPool, endpoint: tuple[KinesisEndpoint, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its date goes with a right to send that may be gone when new credentials are there."""
    served, url = endpoint
    session = AwsSession()
    sink = sink_at(http, url, session)
    request = await dated_now(sink)
    expired = Rule(kind="throttle", operation="PutRecords", code="ExpiredTokenException", count=1)
    served.faults.add([expired], None)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "renewed")
    with pytest.raises(TransientError) as told:
        await sink.put(ENTRIES, signed_ms=request.date_ms)
    assert (told.value.code, type(told.value)) == ("credentials_renewed", TransientError)
    assert stored(served) == 0
    assert list(await sink.put(ENTRIES, signed_ms=request.date_ms)) == [None]


async def test_credentials_that_stay_expired_need_an_operator(
    http: HttpPool, endpoint: tuple[KinesisEndpoint, str]
) -> None:
    served, url = endpoint
    sink = sink_at(http, url)
    request = await dated_now(sink)
    served.faults.add([Rule(kind="throttle", operation="PutRecords", code="ExpiredTokenException", count=1)], None)
    with pytest.raises(Misconfigured, match="renew the credentials"):
        await sink.put(ENTRIES, signed_ms=request.date_ms)


async def test_shards_that_can_not_hold_a_key_are_not_read(
    http: HttpPool, kinesis_url: str, new_name: Callable[[str], str]
) -> None:
    name = new_name("wide")
    client = boto3.client("kinesis", endpoint_url=kinesis_url, region_name=EAST)
    client.create_stream(StreamName=name, ShardCount=50)
    client.close()
    api = JsonApi(http, AwsSession(), service=SERVICE, region=EAST, url=kinesis_url, prefix=PREFIX)
    sink = KinesisSink(KinesisApi(api, name, 5.0), read_back_pace=Pace(0.0))

    def nothing(_: bytes) -> Origin | None:
        return None

    async def reads() -> int:
        async with aiohttp.request("GET", f"{kinesis_url}/_dev/stats") as reply:
            stats: dict[str, Any] = await reply.json(content_type=None)
        return int(stats["streams"][name].get("reads", 0))

    since_ms = (await sink.peer_time()).earliest_ms
    await sink.put([Entry(b"x", "one"), Entry(b"x", "two")])
    found = await sink.read_back(since_ms, nothing, records_max=100, keys={"one", "two"})
    assert (found.is_complete, found.records_read) == (True, 2)
    assert await reads() <= 2


@pytest.mark.slow
async def test_workers_whose_peers_fence_wait_for_lifetime_and_margin_and_count_no_possible_duplicates(
    tmp_path: Path,
) -> None:
    async with trial(
        tmp_path, in_doubt_wait_s=None, request_lifetime_s=10.0, clock_margin_s=2.0, lease_s=3.0
    ) as running:
        victim = running.environment.workers(EAST)[0]

        async def kill() -> None:
            async with asyncio.timeout(DEADLINE_S):
                while not await sends(victim):
                    await asyncio.sleep(POLL_S)
            victim.kill()

        async def sends(worker: Worker) -> bool:
            status = await running.environment.status(worker)
            return status is not None and any(
                link.counts.get("events_forwarded_total", 0) > 0 for link in status.links.values()
            )

        async def start() -> None:
            await victim.start()

        await running.load_while(kill, start)
        verdict = await running.verdict()
        assert await running.counts("takeovers_in_doubt_total", EAST) > 0
        assert await running.counts("possible_duplicates_total") == 0
        link = f"orders:{WEST}"
        async with asyncio.timeout(DEADLINE_S):
            while await running.environment.metric(victim, "peer_fences", link=link) != 1:
                await asyncio.sleep(POLL_S)
        assert await running.environment.metric(victim, "in_doubt_wait_seconds", link=link) == 12
    assert verdict.clean, verdict
