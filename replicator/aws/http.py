"""HTTP/1.1 for requests that are one POST with a body in hand, and for answers of some megabytes: nothing else.

How it works: a connection carries one request after the other, never two at a time. An answer's head is parsed when it
is whole; then the kernel writes the body where it stays. Whoever asks waits for one of ``connections_max`` turns at its
address, so that who does not answer keeps nobody from others, and takes the connection that was given back last, or
makes one.

Why it tells the truth: a connection is used again only when the answer was whole, everything of the request had left
and nothing followed, also nothing that the event loop has not read yet: the kernel is asked. A call that fails, runs
out of time or is cancelled drops its connection. `NoAnswer` says whether anything of the request was handed to the
network: before that nothing can have happened, after it nobody knows. An answer that is not exactly HTTP as we read it
is no answer.
"""

import asyncio
import select
import socket
import ssl
from collections import deque
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from msgspec import Struct

from replicator.aws.http_answer import Answered, AnswerReader, NotHttp

CONNECT_S = 3.0
"""For the addresses of a name together, TLS included."""
NEXT_ADDRESS_S = 0.25
"""How long the first address of a name has before the next one is tried as well (RFC 8305)."""
KEEPALIVE_S = 15.0
"""Idle connections are closed after this, before most load balancers close them under a request."""
JOINED_MAX = 16 * 1024
"""Bodies up to this are sent in one piece with their head; larger ones are not copied for that."""


class NoAnswer(Exception):
    """``has_left``: something of the request was handed to the network."""

    def __init__(self, what: str, *, has_left: bool) -> None:
        super().__init__(what)
        self.has_left = has_left


class Address(Struct, frozen=True):
    """Where connections go to, which are shared by all who ask there."""

    host: str
    port: int
    is_tls: bool

    @classmethod
    def of(cls, url: str) -> "Address":
        parts = urlsplit(url)
        is_tls = parts.scheme == "https"
        return cls(parts.hostname or "", parts.port or (443 if is_tls else 80), is_tls)


class HttpPool:
    """The connections that all APIs of a process share. Use as ``async with``; all are dropped at its end."""

    def __init__(self, connections_max: int, keepalive_s: float = KEEPALIVE_S) -> None:
        """``connections_max`` to an address are in use at one time; as many may be idle beside them."""
        self._connections_max = connections_max
        self._turns: dict[Address, asyncio.Semaphore] = {}
        self._keepalive_s = keepalive_s
        self._idle: dict[Address, deque[_Connection]] = {}
        self._all: set[_Connection] = set()
        self._tls: ssl.SSLContext | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._lookups: dict[Address, asyncio.Future[object]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        for lookup in list(self._lookups.values()):
            lookup.cancel()
        for connection in list(self._all):
            connection.drop()
        # Each is closed by a call that the loop makes next, and one with TLS by another one behind that.
        while self._all:  # noqa: ASYNC110 - there is nothing to wait for but the loop
            await asyncio.sleep(0)

    async def post(self, address: Address, head: bytes, body: bytes, timeout_s: float) -> Answered:
        """``head`` is the whole head of the request, with the empty line behind it. Raises NoAnswer."""
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(timeout_s), self._turns_at(address):
                connection = self._idle_one(address) or await self._connected(address)
                answer = await connection.ask(head, body)
        except (OSError, UnicodeError, NotHttp) as exc:  # a TimeoutError is an OSError, a name may be none of DNS
            what = f"{type(exc).__name__} {exc}".rstrip()
            raise NoAnswer(
                f"{address.host}:{address.port}: {what}", has_left=connection is not None and connection.has_left
            ) from exc
        finally:
            if connection is not None:
                self._give_back(address, connection)
        return answer

    def _turns_at(self, address: Address) -> asyncio.Semaphore:
        turns = self._turns.get(address)
        if turns is None:
            turns = self._turns[address] = asyncio.Semaphore(self._connections_max)
        return turns

    def _idle_one(self, address: Address) -> "_Connection | None":
        """The age is looked at here too: a process that was stopped is asked before its timers are."""
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            is_young = connection.idle_s > asyncio.get_running_loop().time() - self._keepalive_s
            if connection.is_usable and is_young and connection.is_quiet:
                return connection
            connection.drop()
        return None

    async def _connected(self, address: Address) -> "_Connection":
        async with asyncio.timeout(CONNECT_S):
            await self._known(address)
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(self._all),
                address.host,
                address.port,
                ssl=self._context() if address.is_tls else None,
                happy_eyeballs_delay=NEXT_ADDRESS_S,
            )
        return connection

    async def _known(self, address: Address) -> None:
        """Until the name was found. Lookups run in the few threads of the loop and can't be ended, so one that nobody
        answers must take one of them, not all: whoever asks for a name joins the lookup that is under way."""
        lookup = self._lookups.get(address)
        if lookup is None:
            found = asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            lookup = self._lookups[address] = asyncio.ensure_future(found)
            lookup.add_done_callback(lambda done: self._looked_up(address, done))
        await asyncio.shield(lookup)

    def _looked_up(self, address: Address, done: asyncio.Future[object]) -> None:
        del self._lookups[address]
        if not done.cancelled():
            done.exception()  # told to those who wait, if anybody still does

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    def _give_back(self, address: Address, connection: "_Connection") -> None:
        if not connection.is_usable:
            connection.drop()
            return
        loop = asyncio.get_running_loop()
        connection.idle_s = loop.time()
        self._idle.setdefault(address, deque()).append(connection)
        if self._sweep is None:
            self._sweep = loop.call_later(self._keepalive_s, self._drop_old)

    def _drop_old(self) -> None:
        """Those that nobody took for a while; comes again while there are others."""
        loop = asyncio.get_running_loop()
        for address, idle in list(self._idle.items()):
            while idle and idle[0].idle_s <= loop.time() - self._keepalive_s:
                idle.popleft().drop()
            if not idle:
                del self._idle[address]
        oldest_s = min([idle[0].idle_s for idle in self._idle.values()], default=None)
        self._sweep = None if oldest_s is None else loop.call_at(oldest_s + self._keepalive_s, self._drop_old)


class _Connection(asyncio.BufferedProtocol):
    """One connection and the one answer it waits for."""

    def __init__(self, everyone: "set[_Connection]") -> None:
        self._everyone = everyone
        self._transport: asyncio.Transport | None = None
        self._reader: AnswerReader | None = None
        self._answer: asyncio.Future[Answered] | None = None
        self._may_go_on = True
        self._stray = memoryview(bytearray(1))
        self._kernel = select.poll()
        self._quiet: list[tuple[int, int]] = []
        self.has_left = False
        """Something of the request that it carries, or carried last."""
        self.idle_s = 0.0

    @property
    def is_usable(self) -> bool:
        """Whether another request may go over it."""
        transport = self._transport
        if transport is None or transport.is_closing() or self._answer is not None:
            return False
        return self._may_go_on and transport.get_write_buffer_size() == 0

    @property
    def is_quiet(self) -> bool:
        """Whether nothing came since its answer, be it the end, and the other side takes what is sent.

        Of a connection that `is_usable`. What the loop has not read yet would be taken for the answer to the next
        request, and over TLS `asyncio` does not tell how much of a request still waits.
        """
        return self._kernel.poll(0) == self._quiet

    async def ask(self, head: bytes, body: bytes) -> Answered:
        """Raises OSError or NotHttp; what is cancelled leaves it unusable."""
        assert self._transport is not None, "it is connected"
        assert self._answer is None, "one request at a time"
        self._reader, self._answer = AnswerReader(), asyncio.get_running_loop().create_future()
        self.has_left = True
        if len(body) <= JOINED_MAX:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)
        answer = await self._answer
        self._answer = None
        return answer

    def drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # --- what the event loop calls ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._everyone.add(self)
        number = transport.get_extra_info("socket").fileno()
        self._kernel.register(number, select.POLLIN | select.POLLOUT)
        self._quiet = [(number, select.POLLOUT)]

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the reader knows better
        return self._stray if self._reader is None else self._reader.space()

    def buffer_updated(self, nbytes: int) -> None:
        reader = self._reader
        if reader is None:
            self.drop()  # nobody asked
            return
        try:
            if reader.took(nbytes):
                self._answered(reader)
        except NotHttp as exc:
            self._failed(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self._everyone.discard(self)
        self._may_go_on = False
        self._failed(exc or ConnectionResetError("the connection was closed"))

    def _answered(self, reader: AnswerReader) -> None:
        self._reader = None
        self._may_go_on = reader.may_go_on
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(reader.answered())

    def _failed(self, exc: Exception) -> None:
        self._reader, self._may_go_on = None, False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc)
