"""The Kinesis adapters against servers that answer, fail and lie, and against boto3 on the same stream."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import boto3
import pytest

from replicator.adapters.kinesis_sink import KinesisSink
from replicator.adapters.kinesis_source import KinesisSource
from replicator.aws.http import HttpPool
from replicator.aws.kinesis_api import PREFIX, SERVICE, KinesisApi
from replicator.aws.kinesis_reading import Pace
from replicator.aws.session import AwsSession
from replicator.aws.transport import JsonApi
from replicator.core.model import Origin, ShardId, TrimHorizon
from replicator.dev.kinesis_endpoint import KinesisEndpoint
from replicator.dev.kinesis_faults import Rule
from replicator.errors import InDoubt, Misconfigured, TransientError
from replicator.ports import Entry

REGION = "us-east-1"
FIRST = ShardId("shardId-000000000000")
ENTRIES = [Entry(b"a", "k"), Entry(b"b", "k")]

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def http() -> AsyncIterator[HttpPool]:
    async with HttpPool(8) as session:
        yield session


@pytest.fixture
def client(kinesis_url: str) -> Iterator[Any]:
    made = boto3.client("kinesis", endpoint_url=kinesis_url, region_name=REGION)
    yield made
    made.close()


@pytest.fixture
def stream(client: Any, new_name: Callable[[str], str]) -> str:
    name = new_name("adapters")
    client.create_stream(StreamName=name, ShardCount=1)
    return name


def api_at(http: HttpPool, url: str, stream: str, timeout_s: float = 5.0) -> KinesisApi:
    api = JsonApi(http, AwsSession(), service=SERVICE, region=REGION, url=url, prefix=PREFIX)
    return KinesisApi(api, stream, timeout_s)


async def add_fault(url: str, **rule: object) -> None:
    async with aiohttp.request("POST", f"{url}/_dev/faults", json=[rule]) as response:
        assert response.status == 200, await response.text()


# --- beside boto3 --------------------------------------------------------------------------------------------------


async def test_what_boto3_wrote_is_read_and_what_was_put_boto3_reads(
    http: HttpPool, kinesis_url: str, client: Any, stream: str
) -> None:
    api = api_at(http, kinesis_url, stream)
    client.put_record(StreamName=stream, Data=b"\x00theirs", PartitionKey='ключ "1"')
    source = KinesisSource(api)
    [theirs] = (await source.read(await source.open(FIRST, TrimHorizon()), 10)).records
    assert (theirs.data, theirs.partition_key) == (b"\x00theirs", 'ключ "1"')
    await KinesisSink(api).put([Entry(b"\xffours", '😀\\"\n')])
    iterator = client.get_shard_iterator(StreamName=stream, ShardId=FIRST, ShardIteratorType="TRIM_HORIZON")
    read = client.get_records(ShardIterator=iterator["ShardIterator"])["Records"]
    assert [(r["Data"], r["PartitionKey"]) for r in read][1:] == [(b"\xffours", '😀\\"\n')]
    assert theirs.arrival_ms == round(read[0]["ApproximateArrivalTimestamp"].timestamp() * 1000)
    assert str(theirs.sequence) == read[0]["SequenceNumber"]


async def test_shards_are_listed_through_all_pages(
    http: HttpPool, kinesis_url: str, client: Any, new_name: Callable[[str], str]
) -> None:
    name = new_name("wide")
    client.create_stream(StreamName=name, ShardCount=1001)
    shards = await KinesisSource(api_at(http, kinesis_url, name)).shards()
    assert len({shard.id for shard in shards}) == 1001
    client.delete_stream(StreamName=name)


# --- servers that fail ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def server(handle: Handler) -> AsyncIterator[str]:
    """A server of raw bytes: ``handle`` gets each connection, which is closed behind it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


async def take_request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    [length] = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    await reader.readexactly(int(length.split(b":")[1]))


def answering(raw: bytes) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take_request(reader)
        writer.write(raw)
        await writer.drain()

    return handle


def http_answer(status: str, body: bytes, *headers: str) -> bytes:
    head = "\r\n".join((f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers))
    return head.encode() + b"\r\n\r\n" + body


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take the request and reset the connection."""
    await take_request(reader)
    linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


def put_answer(*codes: str | None, failed: int) -> bytes:
    records = [{"ErrorCode": code} if code else {"SequenceNumber": "1", "ShardId": FIRST} for code in codes]
    return http_answer("200 OK", json.dumps({"FailedRecordCount": failed, "Records": records}).encode())


AMBIGUOUS: dict[str, Handler] = {
    "closed without an answer": answering(b""),
    "reset": reset,
    "half a head": answering(b"HTTP/1.1 200 OK\r\nContent-"),
    "half a body": answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
    "not http": answering(b"SSH-2.0-OpenSSH\r\n\r\n"),
    "not json": answering(http_answer("200 OK", b"<html>")),
    "not text": answering(http_answer("200 OK", b"\xff\xfe")),
    "no count": answering(http_answer("200 OK", b"{}")),
    "bad gateway": answering(http_answer("502 Bad Gateway", b"<html>")),
    "internal failure": answering(http_answer("500 Oops", b'{"__type":"InternalFailure"}')),
    "unavailable": answering(http_answer("503 Busy", b'{"__type":"ServiceUnavailable"}')),
    "elsewhere": answering(http_answer("307 Moved", b"", "Location: /elsewhere")),
    "too few results": answering(put_answer("InternalFailure", failed=2)),
    "another count": answering(put_answer(None, "InternalFailure", failed=2)),
    "failures unnamed": answering(put_answer(None, None, failed=1)),
}


@pytest.mark.parametrize("what", AMBIGUOUS)
async def test_a_put_without_a_true_answer_is_in_doubt(http: HttpPool, what: str) -> None:
    async with server(AMBIGUOUS[what]) as url:
        with pytest.raises(InDoubt) as in_doubt:
            await KinesisSink(api_at(http, url, "s")).put(ENTRIES)
    assert in_doubt.value.sent_ms > 1_700_000_000_000


@pytest.mark.parametrize("what", AMBIGUOUS)
async def test_a_read_without_a_true_answer_can_be_repeated(http: HttpPool, what: str) -> None:
    async with server(AMBIGUOUS[what]) as url:
        with pytest.raises(TransientError) as transient:
            await KinesisSource(api_at(http, url, "s")).describe()
    assert not isinstance(transient.value, Misconfigured)


async def test_a_put_that_nobody_answers_in_time_is_in_doubt(http: HttpPool) -> None:
    hung = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await take_request(reader)
        hung.set()
        await reader.read()

    async with server(hang) as url:
        with pytest.raises(InDoubt, match="Timeout"):
            await KinesisSink(api_at(http, url, "s", timeout_s=0.3)).put(ENTRIES)
    assert hung.is_set()


async def test_failures_that_agree_with_their_count_are_told_entry_by_entry(http: HttpPool) -> None:
    async with server(answering(put_answer(None, "InternalFailure", failed=1))) as url:
        assert await KinesisSink(api_at(http, url, "s")).put(ENTRIES) == [None, "InternalFailure"]


async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def test_a_connection_that_tls_refuses_had_no_effect(http: HttpPool) -> None:
    async with server(close) as url:
        with pytest.raises(TransientError) as refused:
            await KinesisSink(api_at(http, url.replace("http:", "https:"), "s")).put(ENTRIES)
    assert refused.value.code == "connect"


async def test_a_name_that_does_not_resolve_had_no_effect(http: HttpPool) -> None:
    with pytest.raises(TransientError) as unknown:
        await KinesisSink(api_at(http, "http://no-such-host.invalid", "s")).put(ENTRIES)
    assert unknown.value.code == "connect"


async def test_an_effect_followed_by_a_500_is_in_doubt_and_there(http: HttpPool, kinesis_url: str, stream: str) -> None:
    api = api_at(http, kinesis_url, stream)
    await add_fault(kinesis_url, kind="internal_error_after_effect", stream=stream, count=1)
    with pytest.raises(InDoubt):
        await KinesisSink(api).put(ENTRIES)
    source = KinesisSource(api)
    page = await source.read(await source.open(FIRST, TrimHorizon()), 10)
    assert [record.data for record in page.records] == [b"a", b"b"]


# --- reading back --------------------------------------------------------------------------------------------------


def of_no_interest(_: bytes) -> Origin | None:
    return None


async def test_reading_back_goes_on_when_consumers_leave_it_no_reads(
    http: HttpPool, kinesis_url: str, stream: str
) -> None:
    sink = KinesisSink(api_at(http, kinesis_url, stream), read_back_pace=Pace(0.0))
    await sink.put(ENTRIES)
    await add_fault(kinesis_url, kind="throttle", operation="GetRecords", stream=stream, count=5)
    since_ms = (await sink.peer_time()).earliest_ms - 60_000
    found = await sink.read_back(since_ms, of_no_interest, records_max=100)
    assert (found.is_complete, found.records_read) == (True, 2)


async def test_reading_back_that_is_throttled_to_its_time_bound_is_incomplete(
    http: HttpPool, kinesis_url: str, stream: str
) -> None:
    sink = KinesisSink(api_at(http, kinesis_url, stream), read_back_pace=Pace(0.0), read_back_max_s=0.3)
    await add_fault(kinesis_url, kind="throttle", operation="GetRecords", stream=stream)
    found = await sink.read_back(0, of_no_interest, records_max=100)
    assert not found.is_complete


async def test_reading_back_from_an_unreachable_peer_is_an_error_and_no_answer(
    http: HttpPool, kinesis_url: str, stream: str
) -> None:
    """Otherwise an outage would look like events that are not there."""
    sink = KinesisSink(api_at(http, kinesis_url, stream), read_back_pace=Pace(0.0))
    await add_fault(kinesis_url, kind="drop_before", operation="GetRecords", stream=stream, count=1)
    with pytest.raises(TransientError) as away:
        await sink.read_back(0, of_no_interest, records_max=100)
    assert away.value.code == "no_answer"


async def test_reading_back_a_stream_that_is_not_there_needs_an_operator(http: HttpPool, kinesis_url: str) -> None:
    with pytest.raises(Misconfigured, match="create it"):
        await KinesisSink(api_at(http, kinesis_url, "no-such")).read_back(0, of_no_interest, records_max=1)


# --- credentials, signatures, endpoints ----------------------------------------------------------------------------


async def test_expired_credentials_are_renewed_once_and_the_request_repeated(
    http: HttpPool, kinesis_url: str, stream: str
) -> None:
    expired = {"kind": "throttle", "stream": stream, "operation": "PutRecords", "code": "ExpiredTokenException"}
    sink = KinesisSink(api_at(http, kinesis_url, stream))
    await add_fault(kinesis_url, **expired, count=1)
    assert list(await sink.put(ENTRIES)) == [None, None]
    await add_fault(kinesis_url, **expired, count=2)
    with pytest.raises(Misconfigured, match="renew the credentials"):
        await sink.put(ENTRIES)


async def test_refused_credentials_are_looked_up_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    session = AwsSession()
    old = await session.credentials()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "rotated")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "with a token")
    assert await session.credentials() == old
    new = await session.credentials(refused=old)
    assert (new.access_key, new.token) == ("rotated", "with a token")
    assert await session.credentials(refused=old) is new


async def test_without_credentials_the_message_says_how_to_give_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(Misconfigured, match="give the task a role"):
        await AwsSession().credentials()


async def test_credentials_that_are_incomplete_need_an_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(Misconfigured, match="can't be read"):
        await AwsSession().credentials()


async def test_a_wrong_secret_needs_an_operator(
    http: HttpPool, kinesis_url: str, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(Misconfigured, match="then the secret key"):
        await KinesisSink(api_at(http, kinesis_url, stream)).put(ENTRIES)


@pytest.mark.parametrize("token", ["a token\n", "a token\r\nx-amz-target: another", "t\xf6ken"])
async def test_credentials_that_fit_in_no_request_are_named_before_anything_is_sent(
    http: HttpPool, kinesis_url: str, stream: str, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    with pytest.raises(Misconfigured, match="line break") as caught:
        await KinesisSink(api_at(http, kinesis_url, stream)).put([Entry(b"{}", "k")])
    assert caught.value.code == "bad_credentials"


async def test_a_clock_that_is_off_is_named_with_its_offset(http: HttpPool) -> None:
    endpoint = KinesisEndpoint(REGION)
    endpoint.faults.add([Rule(kind="clock_skew_ms", ms=-900_000)], None)
    url = await endpoint.start()
    try:
        with pytest.raises(Misconfigured, match=r"clock is -90[01] s from this machine's"):
            await KinesisSink(api_at(http, url, "s")).put(ENTRIES)
    finally:
        await endpoint.stop()


@pytest.mark.parametrize(
    ("variables", "host"),
    [
        ({}, "kinesis.eu-west-1.amazonaws.com"),
        ({"AWS_USE_DUALSTACK_ENDPOINT": "true"}, "kinesis.eu-west-1.api.aws"),
        ({"AWS_USE_FIPS_ENDPOINT": "true"}, "kinesis-fips.eu-west-1.amazonaws.com"),
        ({"AWS_ENDPOINT_URL_KINESIS": "https://vpce.example"}, "vpce.example"),
    ],
)
async def test_endpoints_are_those_of_botocore(
    variables: dict[str, str], host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert await AwsSession().endpoint("kinesis", "eu-west-1", None) == f"https://{host}"
    assert await AwsSession().endpoint("kinesis", "eu-west-1", "http://own:1") == "http://own:1"


async def test_a_service_without_endpoint_needs_an_operator() -> None:
    with pytest.raises(Misconfigured, match="no endpoint"):
        await AwsSession().endpoint("kinesis", "not a region", None)
