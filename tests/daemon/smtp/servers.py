"""SMTP servers for tests: what to connect with, and one of a few lines that says what a test wants.

    async def script(peer):
        await peer.log_in()
        await peer.expect(b"MAIL FROM:.*"); await peer.say(b"250 ok")

A script runs after the TLS handshake unless `plain=True`.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from daemon.network import Endpoint, Security
from daemon.smtp import Submission, open_submission
from daemon.vault.secret import Secret
from tests.daemon.network.loopback import dialer_to, serving

PASSWORD = Secret("pw")
USER = "ann@example.test"
MESSAGE = b"From: ann@example.test\r\nTo: bob@example.test\r\nMessage-ID: <1@example.test>\r\n\r\nHello\r\n"
BOB, EVE = "bob@example.test", "eve@example.test"
BIG = b"Subject: big\r\n\r\n" + b"x" * 70 + (b"0123456789" * 7 + b"\r\n") * 150_000  # 10.8 MB


def parts(result) -> list[str]:
    """Everybody a result accounts for."""
    return sorted([*result.accepted, *result.refused, *result.deferred, *result.unknown])


class Peer:
    """The server's end."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.buffer = b""

    async def line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            data = await self.stream.receive_some(65536)
            if not data:
                raise trio.BrokenResourceError("the client went")
            self.buffer += bytes(data)
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    async def expect(self, pattern: bytes) -> bytes:
        line = await self.line()
        assert re.fullmatch(pattern, line, re.DOTALL), (pattern, line)
        return line

    async def say(self, *lines: bytes) -> None:
        await self.stream.send_all(b"".join(line + b"\r\n" for line in lines))

    async def greet(self, *extensions: bytes) -> None:
        await self.say(b"220 smtp.example.test ESMTP")
        await self.hello(*extensions)

    async def hello(self, *extensions: bytes) -> None:
        await self.expect(rb"EHLO \[127.0.0.1\]")
        lines = [b"smtp.example.test", *extensions]
        await self.say(*(b"250-" + line for line in lines[:-1]), b"250 " + lines[-1])

    async def log_in(self, *extensions: bytes) -> None:
        await self.greet(b"AUTH PLAIN", *extensions)
        await self.expect(rb"AUTH PLAIN \S+")
        await self.say(b"235 2.7.0 welcome")

    async def message(self) -> bytes:
        """Up to the end of the message."""
        while not self.buffer.endswith(b"\r\n.\r\n"):
            data = await self.stream.receive_some(65536)
            if not data:
                raise trio.BrokenResourceError("the client went")
            self.buffer += bytes(data)
        message, self.buffer = self.buffer, b""
        return message

    async def wait_for_end(self) -> bytes:
        """All that the client still says."""
        heard = self.buffer
        try:
            while data := await self.stream.receive_some(65536):
                heard += bytes(data)
        except trio.BrokenResourceError:
            pass
        return heard


Script = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def endpoint_of(script: Script, context, ca_file, *, security=Security.TLS) -> AsyncIterator:
    """(dialer, endpoint) of a server that plays *script*; with STARTTLS, the script starts in plain text."""
    async def play(stream):
        await script(Peer(stream))

    async with serving(play, context if security is Security.TLS else None) as port:
        yield dialer_to(port, ca_file=ca_file), Endpoint("localhost", port, security)


@asynccontextmanager
async def talk(script: Script, context, ca_file, **options) -> AsyncIterator[Submission]:
    """A submission, logged in, with a server that plays *script*."""
    async with (
        endpoint_of(script, context, ca_file) as (dialer, endpoint),
        open_submission(dialer, endpoint, USER, PASSWORD, **options) as submission,
    ):
        yield submission
