"""The embedded environment: processes that never outlive their parent, moto behind a lock, Valkey, proxy."""

import asyncio
import http.client
import signal
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import msgspec
import pytest
import redis
import redis.asyncio
from botocore.config import Config

from replicator.dev.launch import aws_ready, start_aws
from replicator.dev.processes import Child, ChildError
from replicator.dev.proxy import Proxy
from replicator.dev.valkey import ValkeyCluster, told, valkey

DEADLINE_S = 20.0
REGION = "us-east-1"


def python(log: Path, code: str) -> Child:
    return Child("script", [sys.executable, "-c", code], log)


def exists(pid: int) -> bool:
    """Whether a process runs; a zombie that waits for its parent does not."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


# --- processes -------------------------------------------------------------------------------------------


def test_a_child_is_ready_when_its_log_says_so(tmp_path: Path) -> None:
    code = "import time; print('warming'); print('port 7', flush=True); time.sleep(60)"
    with python(tmp_path / "log", code) as child:
        port = child.wait_ready(lambda line: int(line[5:]) if line.startswith("port ") else None)
        assert port == 7
        assert child.is_alive
    assert not child.is_alive


def test_a_child_that_ends_too_early_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    with (
        python(tmp_path / "log", "raise SystemExit('no such region')") as child,
        pytest.raises(ChildError, match=r"ended with code 1 before it was ready[\s\S]*no such region"),
    ):
        child.wait_ready(lambda line: None)


async def test_a_silent_child_is_reported_at_the_deadline(tmp_path: Path) -> None:
    with (
        python(tmp_path / "log", "import time; time.sleep(60)") as child,
        pytest.raises(ChildError, match=r"was not ready within 0\.2 s"),
    ):
        await child.ready(lambda line: None, 0.2)


async def test_a_child_is_asked_to_end_and_its_code_returned(tmp_path: Path) -> None:
    code = "import signal; print('up', flush=True); signal.sigwait([signal.SIGTERM]); raise SystemExit(3)"
    code = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); " + code
    with python(tmp_path / "log", code) as child:
        await child.ready(lambda line: line == "up" or None)
        child.terminate()
        assert await child.ended(DEADLINE_S) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent was killed")
async def test_killing_the_parent_takes_its_children_along(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from replicator.dev.processes import Child
argv = [sys.executable, "-c", "import time; time.sleep(60)"]
child = Child("grandchild", argv, Path({str(tmp_path / "inner")!r}))
print("pid", child.pid, flush=True)
time.sleep(60)
"""
    with python(tmp_path / "log", code) as child:
        grandchild = child.wait_ready(lambda line: int(line[4:]) if line.startswith("pid ") else None)
        assert exists(grandchild)
        assert child.kill() == -signal.SIGKILL
        await until(lambda: not exists(grandchild))


# --- the AWS process -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["SIGTERM", "stdin"])
async def test_the_aws_process_ends_cleanly_on_sigterm_and_when_its_stdin_closes(tmp_path: Path, how: str) -> None:
    with start_aws(REGION, tmp_path / "log", "--kinesis-only") as child:
        await child.ready(aws_ready)
        if how == "SIGTERM":
            child.terminate()
        else:
            child.close_stdin()
        assert await child.ended(DEADLINE_S) == 0


def test_moto_behind_its_lock_stores_every_concurrent_write(aws_url: str, new_name: Callable[[str], str]) -> None:
    table = new_name("table")
    client = boto3.client("dynamodb", endpoint_url=aws_url, region_name=REGION, config=Config(max_pool_connections=8))
    client.create_table(
        TableName=table,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )

    def write(writer: int) -> None:
        for i in range(25):
            client.put_item(TableName=table, Item={"id": {"S": f"{writer}-{i}"}})
            client.update_item(
                TableName=table, Key={"id": {"S": "sum"}}, UpdateExpression="ADD n :one",
                ExpressionAttributeValues={":one": {"N": "1"}},
            )  # fmt: skip

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert client.scan(TableName=table, Select="COUNT")["Count"] == 201
    assert client.get_item(TableName=table, Key={"id": {"S": "sum"}})["Item"]["n"]["N"] == "200"
    client.close()


def test_moto_answers_on_one_connection_whatever_its_requests_bring(aws_url: str) -> None:
    """A body that nobody reads, one in chunks, an answer without one: the next request is understood all the same."""
    connection = http.client.HTTPConnection(urlsplit(aws_url).netloc, timeout=10)
    connection.connect()
    port = connection.sock.getsockname()[1]
    for method, body in (
        ("GET", None),
        ("GET", b"unread"),
        ("HEAD", None),
        ("POST", iter([b"in ", b"chunks"])),
        ("GET", None),
    ):
        connection.request(method, "/moto-api/", body, encode_chunked=method == "POST")
        reply = connection.getresponse()
        content = reply.read()
        assert (reply.status < 500, reply.will_close, bool(content)) == (True, False, method != "HEAD")
        assert connection.sock.getsockname()[1] == port
    connection.close()


def test_an_event_put_on_a_bus_arrives_in_the_queue_of_its_rule(aws_url: str, new_name: Callable[[str], str]) -> None:
    name = new_name("hub")
    events = boto3.client("events", endpoint_url=aws_url, region_name=REGION)
    sqs = boto3.client("sqs", endpoint_url=aws_url, region_name=REGION)
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.create_event_bus(Name=name)
    events.put_rule(Name=name, EventBusName=name, EventPattern='{"source": ["shop"]}')
    events.put_targets(Rule=name, EventBusName=name, Targets=[{"Id": "q", "Arn": arn}])
    events.put_events(Entries=[{"EventBusName": name, "Source": "shop", "DetailType": "order", "Detail": "{}"}])
    [message] = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5)["Messages"]
    assert msgspec.json.decode(message["Body"])["source"] == "shop"
    events.close()
    sqs.close()


def test_an_object_put_to_s3_is_read_back(aws_url: str, new_name: Callable[[str], str]) -> None:
    bucket = new_name("bucket")
    s3 = boto3.client("s3", endpoint_url=aws_url, region_name=REGION, config=Config(s3={"addressing_style": "path"}))
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="a/b", Body=b"x" * 100_000)
    assert s3.get_object(Bucket=bucket, Key="a/b")["Body"].read() == b"x" * 100_000
    s3.close()


# --- Valkey ----------------------------------------------------------------------------------------------


async def test_a_valkey_with_a_password_serves_only_who_knows_it() -> None:
    async with valkey(password="s3:cr@t /") as server:
        async with redis.asyncio.from_url(server.url) as client:
            assert await client.set("a", "1")
        async with redis.asyncio.Redis(port=server.port, retry=None) as client:
            with pytest.raises(redis.AuthenticationError):
                await client.get("a")


async def test_a_killed_valkey_comes_back_on_its_port_without_data() -> None:
    async with valkey() as server:
        port, pid = server.port, server.pid
        async with redis.asyncio.from_url(server.url) as client:
            await client.set("a", "1")
        server.kill()
        assert not exists(pid)
        await server.start()
        assert (server.port, server.pid != pid) == (port, True)
        async with redis.asyncio.from_url(server.url) as client:
            assert await client.get("a") is None


async def test_the_nodes_of_a_cluster_hold_all_slots_in_equal_parts() -> None:
    cluster = ValkeyCluster(3)
    try:
        cluster.start_blocking()
        async with redis.asyncio.RedisCluster.from_url(cluster.url) as client:
            for key in map(str, range(30)):
                assert await client.set(key, "1")
                holder = client.get_node_from_key(key)
                assert holder is not None
                assert holder.port == cluster.holder(client.keyslot(key)).port
        for node in cluster.nodes:
            assert int(told(node, "DBSIZE")) > 0
    finally:
        cluster.stop()


def test_the_shared_valkey_answers(valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as client:
        assert client.ping()


# --- the proxy -------------------------------------------------------------------------------------------


@pytest.fixture
async def echo() -> AsyncIterator[str]:
    """A server that sends back every line, as ``host:port``."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                received.append(line)
                writer.write(line)
                await writer.drain()
        except ConnectionError:
            pass  # the proxy was cut
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


received: list[bytes] = []
"""What the echo server got, over all tests."""


class Client:
    """One connection that sends lines and awaits their echo."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def echo(self, line: bytes) -> bytes:
        self.writer.write(line)
        await self.writer.drain()
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.readline()


@asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    yield Client(reader, writer)
    writer.close()


async def test_a_proxy_forwards_and_counts_both_ways(echo: str) -> None:
    async with Proxy(echo) as proxy, connected(proxy) as client:
        assert await client.echo(b"hello\n") == b"hello\n"
        large = b"x" * 60_000 + b"\n"
        assert await client.echo(large) == large
        assert proxy.counters.connections == 1
        assert proxy.counters.bytes_up == proxy.counters.bytes_down == 6 + 60_001


async def test_the_end_of_a_stream_passes_through_both_ways(echo: str) -> None:
    async with Proxy(echo) as proxy, connected(proxy) as client:
        client.writer.write(b"last\n")
        client.writer.write_eof()
        assert await client.reader.read() == b"last\n"


async def test_a_cut_proxy_resets_and_refuses_until_it_is_healed(echo: str) -> None:
    async with Proxy(echo) as proxy:
        port = proxy.port
        async with connected(proxy) as client:
            await client.echo(b"a\n")
            proxy.cut()
            with pytest.raises(ConnectionResetError):
                await client.echo(b"b\n")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        proxy.cut()
        proxy.heal()
        proxy.heal()
        async with connected(proxy) as client:
            assert await client.echo(b"c\n") == b"c\n"
        assert (proxy.port, proxy.counters.aborted) == (port, 1)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_dropped_reply_vanishes_although_the_request_arrived(echo: str) -> None:
    async with Proxy(echo) as proxy, connected(proxy) as client:
        proxy.drop_replies = True
        client.writer.write(b"unheard\n")
        await until(lambda: proxy.counters.bytes_dropped == 8)
        assert received[-1] == b"unheard\n"
        proxy.drop_replies = False
        assert await client.echo(b"heard\n") == b"heard\n"
        assert proxy.counters.bytes_down == 6


async def test_a_delay_is_added_in_both_directions(echo: str) -> None:
    async with Proxy(echo, delay_ms=100) as proxy, connected(proxy) as client:
        loop = asyncio.get_running_loop()
        start = loop.time()
        await client.echo(b"slow\n")
        assert loop.time() - start >= 0.2


async def test_without_a_target_the_client_is_reset(echo: str) -> None:
    async with Proxy("127.0.0.1:1") as proxy, connected(proxy) as client:
        with pytest.raises(ConnectionResetError):
            await client.echo(b"x\n")
        assert proxy.counters.target_refused == 1


def test_a_target_without_a_port_is_refused() -> None:
    with pytest.raises(ValueError, match="host and port"):
        Proxy("localhost")
