"""Connections to AWS, against servers that behave as they please: what was sent, what came, and what is used again."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from replicator.aws.http import Address, HttpPool, NoAnswer
from replicator.aws.http_answer import Answered
from replicator.dev.certificate import make_certificate

LARGE = b"x" * 3_000_000
HEAD_END = b"\r\n\r\n"


class Connected(Struct, eq=False):
    """One connection as a server sees it; ``number`` counts from 0."""

    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> bytes:
        """The body of the next one."""
        head = await self.reader.readuntil(HEAD_END)
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return await self.reader.readexactly(size)

    async def answer(self, body: bytes, *lines: str) -> None:
        self.writer.write(answered(body, *lines))
        await self.writer.drain()

    async def echo(self) -> None:
        while True:
            await self.answer(await self.request())

    async def ended(self) -> None:
        """Until the client has closed it."""
        while await self.reader.read(65536):
            pass


def answered(body: bytes, *lines: str) -> bytes:
    return "\r\n".join(("HTTP/1.1 200 OK", f"content-length: {len(body)}", *lines, "", "")).encode() + body


class Server:
    def __init__(self, behave: Callable[[Connected], Awaitable[None]], context: ssl.SSLContext | None) -> None:
        self._behave = behave
        self._context = context
        self.connections = 0
        self.ended = 0
        self.address: Address

    @asynccontextmanager
    async def run(self) -> AsyncIterator["Server"]:
        async with asyncio.TaskGroup() as group:
            server = await asyncio.start_server(
                lambda reader, writer: group.create_task(self._serve(reader, writer)) and None,
                "127.0.0.1",
                0,
                ssl=self._context,
            )
            port = server.sockets[0].getsockname()[1]
            self.address = Address("127.0.0.1", port, is_tls=self._context is not None)
            yield self
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.connections = self.connections, self.connections + 1
        try:
            async with asyncio.timeout(20):
                await self._behave(Connected(number, reader, writer))
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.ended += 1
            writer.close()


def serving(behave: Callable[[Connected], Awaitable[None]], context: ssl.SSLContext | None = None) -> Server:
    return Server(behave, context)


async def ask(http: HttpPool, server: Server, body: bytes, timeout_s: float = 10.0) -> Answered:
    head = f"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    return await http.post(server.address, head, body, timeout_s)


async def no_answer(http: HttpPool, server: Server, body: bytes = b"?", timeout_s: float = 10.0) -> NoAnswer:
    with pytest.raises(NoAnswer) as caught:
        await ask(http, server, body, timeout_s)
    return caught.value


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.01)


async def test_one_connection_carries_one_request_after_the_other_small_and_large() -> None:
    async with serving(Connected.echo).run() as server, HttpPool(4) as http:
        for body in (b"", b"one", LARGE, b"two", LARGE):
            assert (await ask(http, server, body)).body == body
        assert server.connections == 1


async def test_requests_at_the_same_time_have_connections_of_their_own_within_the_bound() -> None:
    most, now = 0, 0

    async def slowly(connected: Connected) -> None:
        nonlocal most, now
        while True:
            body = await connected.request()
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.02)
            now -= 1
            await connected.answer(body)

    async with serving(slowly).run() as server, HttpPool(3) as http:
        bodies = [b"%d" % number for number in range(12)]
        answers = await asyncio.gather(*(ask(http, server, body) for body in bodies))
        assert [answer.body for answer in answers] == bodies
        assert (most, server.connections) == (3, 3)


async def test_who_waits_for_a_turn_until_the_time_is_over_has_sent_nothing() -> None:
    async with serving(Connected.ended).run() as server, HttpPool(1) as http:
        first = asyncio.ensure_future(no_answer(http, server, timeout_s=0.4))
        await until(lambda: server.connections == 1)
        second = await no_answer(http, server, timeout_s=0.1)
        assert (second.has_left, (await first).has_left) == (False, True)
        assert "TimeoutError" in str(second)


async def test_who_does_not_answer_keeps_nobody_from_others() -> None:
    async with serving(Connected.ended).run() as silent, serving(Connected.echo).run() as server, HttpPool(1) as http:
        waiting = asyncio.ensure_future(no_answer(http, silent, timeout_s=0.5))
        await until(lambda: silent.connections == 1)
        assert (await ask(http, server, b"a")).body == b"a"
        assert not waiting.done()
        await waiting


async def test_a_connection_that_the_server_ends_is_not_used_again() -> None:
    async def once(connected: Connected) -> None:
        await connected.answer(await connected.request(), "connection: close")
        await connected.ended()

    async with serving(once).run() as server, HttpPool(1) as http:
        assert (await ask(http, server, b"a")).body == b"a"
        assert (await ask(http, server, b"b")).body == b"b"
        assert server.connections == 2


async def test_a_connection_that_was_closed_while_idle_is_not_used_again() -> None:
    async def once(connected: Connected) -> None:
        await connected.answer(await connected.request())

    async with serving(once).run() as server, HttpPool(1) as http:
        for number, body in enumerate((b"a", b"b"), 1):
            assert (await ask(http, server, body)).body == body
            await until(lambda number=number: server.ended == number)  # type: ignore[misc]
            await asyncio.sleep(0.05)


async def test_a_connection_that_is_closed_right_behind_an_answer_is_not_used_again() -> None:
    async def once(connected: Connected) -> None:
        connected.writer.write(answered(await connected.request()))

    async with serving(once).run() as server, HttpPool(1) as http:
        for number in range(1, 21):
            assert (await ask(http, server, b"a")).body == b"a"
            assert server.connections == number


async def test_what_came_while_the_loop_stood_still_is_seen_before_a_connection_is_used_again() -> None:
    """Its end, here: the request that goes out next would be in doubt."""
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as threads:
        listening.settimeout(5)

        def serve() -> None:
            for _ in range(2):
                connected, _ = listening.accept()
                with connected:
                    connected.recv(65536)
                    connected.sendall(answered(b""))

        served = threads.submit(serve)
        async with HttpPool(1) as http:
            address = Address("127.0.0.1", listening.getsockname()[1], is_tls=False)
            await http.post(address, b"POST / HTTP/1.1\r\n\r\n", b"", 5.0)
            time.sleep(0.3)  # noqa: ASYNC251 - the loop is to stand still, while the server closes
            await http.post(address, b"POST / HTTP/1.1\r\n\r\n", b"", 5.0)
        served.result()


async def test_an_idle_connection_is_closed_in_time_and_a_used_one_is_not() -> None:
    async with serving(Connected.echo).run() as server, HttpPool(2, keepalive_s=0.3) as http:
        await asyncio.gather(ask(http, server, b"a"), ask(http, server, b"b"))
        assert server.connections == 2
        async with asyncio.timeout(10):
            while server.ended == 0:
                assert (await ask(http, server, b"c")).body == b"c"
                await asyncio.sleep(0.02)
        assert (server.connections, server.ended) == (2, 1)
        await until(lambda: server.ended == 2)


async def test_a_process_that_was_stopped_does_not_send_over_connections_that_are_too_old() -> None:
    async with serving(Connected.echo).run() as server, HttpPool(1, keepalive_s=0.2) as http:
        await ask(http, server, b"a")
        time.sleep(0.3)  # noqa: ASYNC251 - the loop is to stand still, as it does in a process that is stopped
        assert (await ask(http, server, b"b")).body == b"b"
        assert server.connections == 2


async def test_bytes_that_nobody_asked_for_end_a_connection_before_they_are_taken_for_an_answer() -> None:
    async def talkative(connected: Connected) -> None:
        if connected.number:
            await connected.echo()
        await connected.answer(await connected.request())
        await asyncio.sleep(0.05)
        await connected.answer(b"nobody asked")
        await connected.ended()

    async with serving(talkative).run() as server, HttpPool(1) as http:
        assert (await ask(http, server, b"a")).body == b"a"
        await until(lambda: server.ended == 1)
        assert (await ask(http, server, b"b")).body == b"b"


async def test_a_second_answer_to_one_request_is_not_that_to_the_next() -> None:
    """The first fills its place to the last byte, so that the second stays in the kernel until that is asked."""

    async def twice(connected: Connected) -> None:
        if connected.number:
            await connected.echo()
        await connected.request()
        connected.writer.write(answered(b"x" * 200_000) + answered(b"of nobody"))
        await connected.ended()

    async with serving(twice).run() as server, HttpPool(1) as http:
        assert len((await ask(http, server, b"a")).body) == 200_000
        assert (await ask(http, server, b"b")).body == b"b"


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
async def test_the_answer_of_one_request_is_never_another_ones(how: str) -> None:
    may_answer = asyncio.Event()

    async def late(connected: Connected) -> None:
        if connected.number:
            await connected.echo()
        body = await connected.request()
        await may_answer.wait()
        await connected.answer(body)
        await connected.ended()

    async with serving(late).run() as server, HttpPool(1) as http:
        first = asyncio.ensure_future(ask(http, server, b"first", 0.2 if how == "timed out" else 10.0))
        await until(lambda: server.connections == 1)
        if how == "cancelled":
            first.cancel()
        await asyncio.wait((first,))
        assert first.cancelled() or isinstance(first.exception(), NoAnswer)
        may_answer.set()
        assert (await ask(http, server, b"second")).body == b"second"


async def test_a_request_that_was_cut_may_have_had_an_effect_wherever_it_was_cut() -> None:
    async def cut(connected: Connected) -> None:
        match connected.number:
            case 0:
                return  # before a byte was read
            case 1:
                await connected.request()
            case 2:
                await connected.request()
                connected.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
            case 3:
                await connected.request()
                connected.writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
            case 4:
                await connected.request()
                connected.writer.write(b"HTTP/1.1 200 OK\r\n\r\n")  # of a body that has no length, nothing

    async with serving(cut).run() as server, HttpPool(1) as http:
        for _ in range(5):
            assert (await no_answer(http, server)).has_left


@pytest.mark.parametrize("is_tls", [False, True])
async def test_an_answer_that_comes_before_the_request_has_left_counts_and_ends_the_connection(
    is_tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hasty(connected: Connected) -> None:
        await connected.reader.readuntil(HEAD_END)
        await connected.answer(b"too large")
        if connected.number == 0:
            await may_go_on.wait()

    may_go_on = asyncio.Event()
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
    async with serving(hasty, certificate.server_context() if is_tls else None).run() as server, HttpPool(1) as http:
        assert (await ask(http, server, LARGE * 5)).body == b"too large"
        assert (await ask(http, server, b"")).body == b"too large"
        assert server.connections == 2
        may_go_on.set()


async def test_who_can_not_be_connected_to_was_sent_nothing() -> None:
    async with serving(Connected.echo).run() as server:
        address = server.address
    async with HttpPool(1) as http:
        for where in (address, Address("no-such-name.invalid", 80, is_tls=False), Address("a..b", 80, is_tls=False)):
            with pytest.raises(NoAnswer) as caught:
                await http.post(where, b"", b"", 5.0)
            assert not caught.value.has_left
            assert f"{where.host}:{where.port}" in str(caught.value)


async def test_a_name_that_is_looked_up_for_long_keeps_nobody_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    may_end, as_ever = threading.Event(), socket.getaddrinfo

    def lookup(host: str, *rest: Any, **named: Any) -> Any:
        if host == "dead.example":
            may_end.wait(20)
            raise socket.gaierror(socket.EAI_AGAIN, "nobody answers")
        return as_ever(host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    dead = Address("dead.example", 80, is_tls=False)
    async with serving(Connected.echo).run() as server, HttpPool(100) as http:
        server.address = Address("localhost", server.address.port, is_tls=False)
        waiting = [asyncio.ensure_future(http.post(dead, b"", b"", 10.0)) for _ in range(20)]
        try:
            await asyncio.sleep(0.05)
            assert (await ask(http, server, b"a", 5.0)).body == b"a"
        finally:
            may_end.set()
        for failed in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(failed, NoAnswer)
            assert not failed.has_left


async def test_a_name_with_several_addresses_is_reached_at_the_one_that_answers() -> None:
    async with serving(Connected.echo).run() as server, HttpPool(1) as http:
        server.address = Address("localhost", server.address.port, is_tls=False)
        assert (await ask(http, server, b"a")).body == b"a"


async def test_over_tls_it_is_the_same_and_who_is_not_trusted_is_sent_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path)
    async with serving(Connected.echo, certificate.server_context()).run() as server:
        async with HttpPool(1) as http:
            refused = await no_answer(http, server)
            assert not refused.has_left
            assert "CERTIFICATE_VERIFY_FAILED" in str(refused)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
        async with HttpPool(2) as http:
            for body in (b"", b"one", LARGE, b"two"):
                assert (await ask(http, server, body)).body == body
            assert server.connections == 1


async def test_the_end_of_the_pool_ends_all_connections() -> None:
    async with serving(Connected.echo).run() as server:
        async with HttpPool(2) as http:
            await asyncio.gather(ask(http, server, b"a"), ask(http, server, b"b"))
        await until(lambda: server.ended == 2)
