"""A TCP proxy on the loopback that models a region or a link going away: cut, heal, delay, lose replies."""

import asyncio
import socket
import struct
from asyncio import Task
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

HOST = "127.0.0.1"
CHUNK_BYTES = 64 * 1024
CHUNKS_MAX = 256
"""On their way in one direction of a connection; 16 MiB, so a delay of 100 ms leaves 160 MiB a second."""
BACKLOG = 128

Way = asyncio.Queue[tuple[float, bytes]]
"""Chunks with the loop time at which they arrive."""


@dataclass(slots=True)
class Counters:
    """``bytes_up`` went to the target, ``bytes_down`` came from it; ``bytes_dropped`` were not passed on."""

    connections: int = 0
    aborted: int = 0
    target_refused: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    bytes_dropped: int = 0


class Proxy:
    """Forwards connections to ``target`` (``host:port`` or a URL).

    ``delay_ms`` is added in both directions, to everything alike: more is under way meanwhile, as on a long line.
    With ``drop_replies`` what the target sends vanishes while requests still reach it. Both can be set at any time.
    """

    def __init__(self, target: str, *, delay_ms: int = 0, drop_replies: bool = False) -> None:
        parts = urlsplit(target if "//" in target else f"//{target}")
        if parts.hostname is None or parts.port is None:
            raise ValueError(f"a proxy needs host and port of its target, not {target!r}")
        self._target = (parts.hostname, parts.port)
        self.delay_ms = delay_ms
        self.drop_replies = drop_replies
        self.counters = Counters()
        self.port = 0
        self._socket: socket.socket | None = None
        self._is_listening = False
        self._open: dict[Task[None], socket.socket] = {}

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def start(self, port: int = 0) -> int:
        """Listen; returns the port. Port 0 takes a free one."""
        self._bind(port)
        self.heal()
        return self.port

    async def stop(self) -> None:
        """Abort all connections and close the port."""
        tasks = list(self._open)
        self.cut()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def cut(self) -> None:
        """Refuse new connections and reset all existing ones; the port stays ours. Safe to repeat."""
        if self._is_listening and self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._is_listening = False
            self._socket.close()
            self._bind(self.port)
        for task, client in list(self._open.items()):
            self.counters.aborted += 1
            _reset_on_close(client)
            task.cancel()

    def heal(self) -> None:
        """Accept connections again; safe to repeat."""
        if self._is_listening or self._socket is None:
            return
        self._socket.listen(BACKLOG)
        self._is_listening = True
        asyncio.get_running_loop().add_reader(self._socket, self._accept, self._socket)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    def _bind(self, port: int) -> None:
        """Hold the port. A bound socket that does not listen makes the kernel refuse connections to it."""
        held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((HOST, port))
        held.setblocking(False)
        self._socket, self.port = held, held.getsockname()[1]

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # the client went away between the kernel's notice and our call
        client.setblocking(False)
        self.counters.connections += 1
        task = asyncio.get_running_loop().create_task(self._forward(client))
        self._open[task] = client
        # A task that is cancelled before its first step never comes to close the socket itself.
        task.add_done_callback(lambda done: self._open.pop(done).close())

    async def _forward(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with client, socket.socket(socket.AF_INET, socket.SOCK_STREAM) as target:
            target.setblocking(False)
            try:
                await loop.sock_connect(target, self._target)
            except OSError:
                self.counters.target_refused += 1
                _reset_on_close(client)
                return
            for end in (client, target):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._pump_both(client, target)

    async def _pump_both(self, client: socket.socket, target: socket.socket) -> None:
        """Until both sides have ended, or one failed: then the other is reset, as by a broken network."""
        up, down = Way(CHUNKS_MAX), Way(CHUNKS_MAX)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._receive(client, up))
                pumps.create_task(self._send_up(up, target))
                pumps.create_task(self._receive(target, down))
                pumps.create_task(self._send_down(down, client))
        except* OSError:
            _reset_on_close(client)
            _reset_on_close(target)

    async def _receive(self, end: socket.socket, way: Way) -> None:
        loop = asyncio.get_running_loop()
        chunk = b"begun"
        while chunk:
            chunk = await loop.sock_recv(end, CHUNK_BYTES)
            await way.put((loop.time() + self.delay_ms / 1000, chunk))

    async def _send_up(self, way: Way, target: socket.socket) -> None:
        while chunk := await _arrived(way):
            await asyncio.get_running_loop().sock_sendall(target, chunk)
            self.counters.bytes_up += len(chunk)
        target.shutdown(socket.SHUT_WR)

    async def _send_down(self, way: Way, client: socket.socket) -> None:
        while chunk := await _arrived(way):
            if self.drop_replies:
                self.counters.bytes_dropped += len(chunk)
                continue
            await asyncio.get_running_loop().sock_sendall(client, chunk)
            self.counters.bytes_down += len(chunk)
        client.shutdown(socket.SHUT_WR)


async def _arrived(way: Way) -> bytes:
    """The next chunk, once it is due; empty when the sender has ended."""
    due_s, chunk = await way.get()
    wait_s = due_s - asyncio.get_running_loop().time()
    if wait_s > 0:
        await asyncio.sleep(wait_s)
    return chunk


def _reset_on_close(end: socket.socket) -> None:
    if end.fileno() == -1:
        return  # closed already; its task is about to be forgotten
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
