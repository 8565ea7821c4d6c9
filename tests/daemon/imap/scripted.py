"""A server that says what a test wants, over real loopback sockets.

    async def script(peer):
        await peer.greet()
        tag = await peer.expect(b"NOOP")
        await peer.say(b"* 5 EXISTS", tag + b" OK done")

`scripted(script)` is its port; `talk(script)` a `Session` on a plain connection to it, for what comes after TLS;
`watched(script)` one on a socket that the `Lookout` beside it can watch.  A script that ends closes the connection; one
that fails fails the test.
"""

import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

from daemon.imap.session import Session
from daemon.imap.wire import Wire
from daemon.network import Lookout, PlainSocket

BOUND = 30
"""Seconds for any one conversation; only a hang takes that long."""


class Stream:
    """A Trio stream as `daemon.network` offers them: an end is an end, however it came."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream

    async def receive_some(self, max_bytes: int) -> bytes:
        return bytes(await self.stream.receive_some(max_bytes))

    async def send_all(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def aclose(self) -> None:
        await self.stream.aclose()


class Peer:
    """The server's end."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.buffer = b""

    async def line(self) -> bytes:
        """The client's next line."""
        while b"\r\n" not in self.buffer:
            data = await self.stream.receive_some(65536)
            if not data:
                raise EOFError
            self.buffer += bytes(data)
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    async def block(self, size: int) -> bytes:
        while len(self.buffer) < size:
            self.buffer += bytes(await self.stream.receive_some(65536))
        block, self.buffer = self.buffer[:size], self.buffer[size:]
        return block

    async def expect(self, pattern: bytes) -> bytes:
        """The tag of the client's next command, which must be (a regular expression) *pattern*."""
        tag, _, command = (await self.line()).partition(b" ")
        assert re.fullmatch(pattern, command, re.DOTALL), (pattern, command)
        return tag

    async def raw(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def say(self, *lines: bytes) -> None:
        await self.raw(b"".join(line + b"\r\n" for line in lines))

    async def greet(self, capabilities: bytes = b"IMAP4rev1 SASL-IR AUTH=PLAIN IDLE") -> None:
        await self.say(b"* OK [CAPABILITY " + capabilities + b"] ready")

    async def answer_login(self, capabilities: bytes = b"IMAP4rev1 IDLE") -> None:
        tag = await self.expect(rb"AUTHENTICATE PLAIN \S+")
        await self.say(tag + b" OK [CAPABILITY " + capabilities + b"] welcome")

    async def start_tls(self, context: ssl.SSLContext) -> None:
        self.stream = trio.SSLStream(self.stream, context, server_side=True, https_compatible=True)
        await self.stream.do_handshake()

    async def hear_out(self) -> bytes:
        """All that the client still says, until it goes."""
        heard = self.buffer
        try:
            while data := await self.stream.receive_some(65536):
                heard += bytes(data)
        except trio.BrokenResourceError:
            pass
        return heard


Script = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def scripted(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on 127.0.0.1 that plays *script* to each client; its port."""

    async def serve(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        try:
            if tls is not None:
                await peer.start_tls(tls)
            await script(peer)
        except (trio.BrokenResourceError, EOFError):
            pass  # the client had enough
        finally:
            await trio.aclose_forcefully(peer.stream)

    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
            yield listeners[0].socket.getsockname()[1]
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def talk(script: Script, capabilities: bytes = b"IMAP4REV1 IDLE ENABLE") -> AsyncIterator[Session]:
    """A session, as if logged in, with a server that plays *script*."""
    async with scripted(script) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        session = Session(Wire(Stream(stream), "localhost", patience=BOUND))
        session.capabilities = frozenset(capabilities.split())
        try:
            yield session
        finally:
            await session.aclose()


@asynccontextmanager
async def watched(
    script: Script, capabilities: bytes = b"IMAP4REV1 IDLE ENABLE"
) -> AsyncIterator[tuple[Session, Lookout]]:
    """The same, on a socket of the daemon's own, and a lookout that runs."""
    async with scripted(script) as port, looking_out() as lookout:
        session = connected(port, capabilities)
        try:
            yield session, lookout
        finally:
            await session.aclose()


@asynccontextmanager
async def looking_out() -> AsyncIterator[Lookout]:
    """A lookout that runs; in the end nothing is left in it."""
    lookout = Lookout()
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(lookout.run)
            yield lookout
            assert lookout.waiting == 0
            nursery.cancel_scope.cancel()
    finally:
        lookout.close()


def connected(port: int, capabilities: bytes = b"IMAP4REV1 IDLE ENABLE") -> Session:
    """A session, as if logged in, on a socket of the daemon's own."""
    sock = socket.create_connection(("127.0.0.1", port))  # listening, so the kernel connects at once
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    session = Session(Wire(PlainSocket(sock), "localhost", patience=BOUND))
    session.capabilities = frozenset(capabilities.split())
    return session
