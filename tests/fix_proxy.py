"""A TCP proxy on the loopback interface that does to a connection what networks do.

    link = await proxy(dovecot.imaps_port)      # connect to 127.0.0.1, link.port
    link.delay = 0.05                           # seconds each way, as latency: throughput is unhurt
    link.rate = 10_000                          # bytes a second each way
    link.cut()                                  # RST to both sides; cut(reset=False) ends with FIN
    link.cut_after(5000)                        # RST after that many more bytes from the server
    link.deafen()                               # reads nothing more, connections stay: windows fill up
    link.swallow()                              # reads and forgets everything, both ways: a dead peer that ACKs
    link.half_open()                            # the server's side is closed, the client is not told
    link.hear()                                 # take deafen and swallow back
    link.flood(b"* 1 EXISTS\\r\\n")               # the client gets this for ever
    link.refuse(); await link.accept()          # nobody listens; listens again on the same port

An RST may outrun the last bytes: `cut_after` is "at most". All of it holds for the connections there are and those
to come; `half_open`, `flood` and `cut` only for the former.
"""

import math
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
import trio

_CHUNK = 16384
_IN_FLIGHT = 256
"""Chunks one direction may hold: 4 MiB, as much as a long fat pipe, and a bound."""

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)

Chunk = tuple[float, bytes]
"""What is on its way, and when it is due (Trio's clock)."""

OpenProxy = Callable[[int], Awaitable["Proxy"]]


class _Link:
    """One client's connection through the proxy."""

    def __init__(self, proxy: "Proxy", client: trio.SocketStream, server: trio.SocketStream) -> None:
        self.proxy, self.client, self.server = proxy, client, server
        self.swallowing = False
        self._to_client = trio.Lock()       # a flood and the server's own words share it
        self.scope = trio.CancelScope()
        self.nursery: trio.Nursery | None = None

    async def run(self) -> None:
        try:
            with self.scope:
                async with trio.open_nursery() as self.nursery:
                    self.nursery.start_soon(self._direction, self.client, self.server, True)
                    self.nursery.start_soon(self._direction, self.server, self.client, False)
        finally:
            self.client.socket.close()
            self.server.socket.close()

    async def _direction(self, source: trio.SocketStream, target: trio.SocketStream, up: bool) -> None:
        send, receive = trio.open_memory_channel[Chunk](_IN_FLIGHT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, source, send, up)
            nursery.start_soon(self._write, target, receive, up)

    async def _read(self, source: trio.SocketStream, send: trio.MemorySendChannel[Chunk], up: bool) -> None:
        proxy = self.proxy
        with send:
            while True:
                await proxy.hearing.wait()
                try:
                    data = await source.receive_some(_CHUNK)
                except _GONE:
                    self.abort()
                    return
                await proxy.hearing.wait()      # deafened while waiting: what came is held
                if not data:
                    return
                if self.swallowing or proxy.swallowing:
                    continue
                if up:
                    proxy.bytes_up += len(data)
                else:
                    data = data[:max(0, int(min(proxy.bytes_left, len(data))))]
                    proxy.bytes_down += len(data)
                    proxy.bytes_left -= len(data)
                await send.send((trio.current_time() + proxy.delay, data))
                if proxy.rate < math.inf:
                    await trio.sleep(len(data) / proxy.rate)

    async def _write(self, target: trio.SocketStream, receive: trio.MemoryReceiveChannel[Chunk], up: bool) -> None:
        with receive:
            async for due, data in receive:
                await trio.sleep_until(due)
                try:
                    await self._send(target, data)
                except _GONE:
                    self.abort()
                    return
                if not up and self.proxy.bytes_left <= 0:
                    self.abort()
                    return
        if not (self.swallowing or self.proxy.swallowing):
            with suppress(*_GONE):
                await target.send_eof()

    async def _send(self, target: trio.SocketStream, data: bytes) -> None:
        if target is self.client:
            async with self._to_client:
                await target.send_all(data)
        else:
            await target.send_all(data)

    async def flood(self, data: bytes) -> None:
        with suppress(*_GONE):
            while True:
                await self._send(self.client, data)

    def abort(self) -> None:
        """RST to both sides (SO_LINGER with zero seconds, socket(7))."""
        for stream in (self.client, self.server):
            with suppress(OSError):
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.scope.cancel()

    def end(self) -> None:
        """FIN to both sides, and nothing more is handed on."""
        self.swallowing = True
        for stream in (self.client, self.server):
            with suppress(OSError):
                stream.socket.shutdown(socket.SHUT_WR)


class Proxy:
    """One listening port in front of one target port; see the module."""

    def __init__(self, target: int, nursery: trio.Nursery) -> None:
        self.target = target
        self.port = 0
        self.delay = 0.0
        self.rate = math.inf
        self.bytes_left = math.inf
        self.bytes_up = self.bytes_down = self.accepted = 0
        self.swallowing = False
        self.hearing = trio.Event()
        self.hearing.set()
        self._nursery = nursery
        self._links: set[_Link] = set()
        self._listening: trio.CancelScope | None = None

    @property
    def open(self) -> int:
        """Connections that are open."""
        return len(self._links)

    async def accept(self) -> None:
        if self._listening is None:
            await self._nursery.start(self._listen)

    def refuse(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            self._listening = None

    def cut(self, *, reset: bool = True) -> None:
        for link in list(self._links):
            if reset:
                link.abort()
            else:
                link.end()

    def cut_after(self, count: int) -> None:
        self.bytes_left = count

    def uncut(self) -> None:
        """Take `cut_after` back, for the connections to come."""
        self.bytes_left = math.inf

    def deafen(self) -> None:
        self.hearing = trio.Event()

    def hear(self) -> None:
        self.hearing.set()
        self.swallowing = False

    def swallow(self) -> None:
        self.swallowing = True

    def half_open(self) -> None:
        for link in self._links:
            link.swallowing = True
            with suppress(OSError):
                link.server.socket.shutdown(socket.SHUT_RDWR)

    def flood(self, data: bytes) -> None:
        for link in self._links:
            assert link.nursery is not None
            link.nursery.start_soon(link.flood, data)

    async def _listen(self, task_status: trio.TaskStatus[None]) -> None:
        with trio.socket.socket() as listener, trio.CancelScope() as self._listening:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            await listener.bind(("127.0.0.1", self.port))
            listener.listen(128)
            self.port = listener.getsockname()[1]
            task_status.started()
            while True:
                client, _ = await listener.accept()
                self.accepted += 1
                self._nursery.start_soon(self._serve, trio.SocketStream(client))

    async def _serve(self, client: trio.SocketStream) -> None:
        try:
            await self.hearing.wait()
            try:
                server = await trio.open_tcp_stream("127.0.0.1", self.target)
            except OSError:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            link = _Link(self, client, server)
            self._links.add(link)
            try:
                await link.run()
            finally:
                self._links.discard(link)
        finally:
            client.socket.close()


@pytest.fixture
async def proxy() -> AsyncIterator[OpenProxy]:
    """`await proxy(port)`: a `Proxy` in front of that loopback port, until the test ends."""
    async with trio.open_nursery() as nursery:

        async def open_proxy(target: int) -> Proxy:
            opened = Proxy(target, nursery)
            await opened.accept()
            return opened

        yield open_proxy
        nursery.cancel_scope.cancel()
