"""The network between the daemon and its mail server, which a soak cuts and deafens: a TCP proxy on loopback.

Every fault meets a share of the connections there are, chosen by the caller's random numbers.
"""

from __future__ import annotations

import random
import socket
import struct
from contextlib import suppress
from typing import Final

import trio

_CHUNK: Final = 65536

_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class _Link:
    """One connection of the daemon's."""

    __slots__ = ("client", "hearing", "number", "scope", "server")

    def __init__(self, number: int, client: trio.SocketStream, server: trio.SocketStream) -> None:
        self.number = number
        self.client = client
        self.server = server
        self.hearing = trio.Event()
        self.hearing.set()
        self.scope = trio.CancelScope()

    async def run(self) -> None:
        try:
            with self.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pass, self.client, self.server)
                    nursery.start_soon(self._pass, self.server, self.client)
        finally:
            self.client.socket.close()
            self.server.socket.close()

    async def _pass(self, source: trio.SocketStream, target: trio.SocketStream) -> None:
        try:
            while data := await source.receive_some(_CHUNK):
                await self.hearing.wait()
                await target.send_all(data)
        except _GONE:
            pass
        self.scope.cancel()  # either end ends both: IMAP knows no half-open connection

    def reset(self) -> None:
        for stream in (self.client, self.server):
            with suppress(OSError):
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.scope.cancel()


class Proxy:
    """A listening port in front of another port of this machine."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.accepted = 0
        self._links: set[_Link] = set()

    @property
    def open(self) -> int:
        """Connections that are open."""
        return len(self._links)

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; `started` tells the port."""
        with trio.socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            await listener.bind(("127.0.0.1", 0))
            listener.listen(1024)
            self.port = listener.getsockname()[1]
            task_status.started(self.port)
            async with trio.open_nursery() as nursery:
                while True:
                    client, _ = await listener.accept()
                    self.accepted += 1
                    nursery.start_soon(self._serve, self.accepted, trio.SocketStream(client))

    async def _serve(self, number: int, client: trio.SocketStream) -> None:
        try:
            server = await trio.open_tcp_stream("127.0.0.1", self.target)
        except OSError:  # the server is being restarted: the daemon sees its connection refused
            client.socket.close()
            return
        link = _Link(number, client, server)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)

    def some(self, share: float, rng: random.Random) -> list[_Link]:
        """A share of the connections, at least one where there is one."""
        links = sorted(self._links, key=lambda link: link.number)
        return rng.sample(links, min(len(links), max(1, round(share * len(links)))))

    def cut(self, share: float, rng: random.Random, *, reset: bool) -> int:
        """End connections, by RST or in order; how many."""
        links = self.some(share, rng)
        for link in links:
            if reset:
                link.reset()
            else:
                link.scope.cancel()
        return len(links)

    def deafen(self, share: float, rng: random.Random) -> list[_Link]:
        """Let nothing more through on some connections, which stay open."""
        links = self.some(share, rng)
        for link in links:
            link.hearing = trio.Event()
        return links

    def hear(self, links: list[_Link] | None = None) -> None:
        """Take `deafen` back, everywhere or on these."""
        for link in list(self._links) if links is None else links:
            link.hearing.set()
