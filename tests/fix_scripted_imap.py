"""An IMAP server that says what it is told to, for lies no real server tells.

    server = await scripted_imap(
        Say(b"* OK ready\\r\\n"),
        On(rb"CAPABILITY", b"* CAPABILITY IMAP4rev1 IDLE\\r\\n<tag> OK done\\r\\n"),
        On(rb"LOGIN", b"<tag> OK done\\r\\n"),
        On(rb"UID FETCH", b"* 7 FETCH (FLAGS (\\\\Seen))\\r\\n<tag> OK done\\r\\n"),
        Close(),
    )

Steps are played in order to each connection; `<tag>` in a reply is the tag of the client's last command. A line that
does not match the step's expression is a failure: the connection is closed and the test fails at its end (unless it
takes the failures by `server.take_failures()`). Several scripts (`scripts=[[...], [...]]`) are for one connection after
another, the last for all further ones. `Do(function)` is for what steps cannot say: `async def function(connection)`.

`tls=True` speaks TLS from the first byte with a certificate of `authority`; the step `StartTls()` from then on.
A client's literals, synchronising or not, are taken and shown as part of its line.
"""

import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from ops.testservers.tls import Authority, Certificate

_LINE_LIMIT = 1 << 20
_LITERAL = re.compile(rb"\{(\d+)(\+?)\}\r\n$")


@dataclass(frozen=True, slots=True)
class Say:
    """Send. With `pieces`, that many bytes at a time, each in a packet of its own."""

    data: bytes
    pieces: int = 0


@dataclass(frozen=True, slots=True)
class On:
    """Wait for a line that the expression is found in (case ignored), then send the reply, if any."""

    pattern: bytes
    reply: bytes = b""


@dataclass(frozen=True, slots=True)
class StartTls:
    """Shake hands now. (To inject plaintext, let the reply to STARTTLS carry more than its line.)"""

    certificate: Certificate | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Say nothing for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Forever:
    """Say this again and again, until the client goes."""

    data: bytes
    interval: float = 0.0


@dataclass(frozen=True, slots=True)
class Hang:
    """Neither say nor read anything any more."""


@dataclass(frozen=True, slots=True)
class Swallow:
    """Say nothing any more, but read whatever comes until the client goes."""


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection, by FIN or by RST."""

    reset: bool = False


@dataclass(frozen=True, slots=True)
class Do:
    """Call this with the connection."""

    function: Callable[["Connection"], Awaitable[None]]


Step = Say | On | StartTls | Pause | Forever | Hang | Swallow | Close | Do


class Unexpected(Exception):
    """The client said something else than the script has it say."""


class Connection:
    """One client, as a script sees it."""

    def __init__(self, server: "ScriptedImap", stream: trio.SocketStream) -> None:
        self.server = server
        self.socket = stream.socket
        self.stream: trio.abc.Stream = stream
        self.tag = b""
        self.lines: list[bytes] = []
        self._buffer = bytearray()

    async def say(self, data: bytes, pieces: int = 0) -> None:
        """Send, `<tag>` replaced."""
        data = data.replace(b"<tag>", self.tag)
        for start in range(0, len(data), pieces or len(data) or 1):
            await self.stream.send_all(data[start:start + pieces] if pieces else data)
            if pieces:
                await trio.sleep(0.002)     # a packet each: the reader gets to run in between

    async def line(self) -> bytes:
        """The client's next line without its CRLF, its literals inside; b"" when it closed."""
        whole = b""
        while True:
            piece = await self._until_newline()
            whole += piece
            literal = _LITERAL.search(piece)
            if literal is None:
                break
            if not literal[2]:
                await self.stream.send_all(b"+ go on\r\n")
            whole += await self._exactly(int(literal[1]))
        whole = whole.removesuffix(b"\r\n")
        self.lines.append(whole)
        self.server.lines.append(whole)
        return whole

    async def expect(self, pattern: bytes) -> re.Match[bytes]:
        """The next line, which must match. Raises `Unexpected`."""
        line = await self.line()
        match = re.search(pattern, line, re.IGNORECASE | re.DOTALL)
        if match is None:
            raise Unexpected(f"expected {pattern!r}, got {line[:300]!r}")
        first = line.split(b" ", 1)[0]
        if line.upper() != b"DONE":     # the one client line without a tag (RFC 2177)
            self.tag = first
        return match

    async def start_tls(self, certificate: Certificate | None = None) -> None:
        """Shake hands as the server."""
        context = self.server.context(certificate)
        tls = trio.SSLStream(self.stream, context, server_side=True, https_compatible=True)
        await tls.do_handshake()
        self.stream = tls
        self._buffer.clear()

    async def swallow(self) -> None:
        """Read until the client goes."""
        while await self.stream.receive_some(65536):
            pass

    def close(self, *, reset: bool = False) -> None:
        """End the connection at once."""
        if reset:
            with suppress(OSError):
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    async def _until_newline(self) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > _LINE_LIMIT:
                raise Unexpected("an endless line from the client")
            data = await self.stream.receive_some(65536)
            if not data:
                rest = bytes(self._buffer)
                self._buffer.clear()
                return rest
            self._buffer += data
        return self._take(end + 1)

    async def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            data = await self.stream.receive_some(65536)
            if not data:
                raise Unexpected("the client closed inside a literal")
            self._buffer += data
        return self._take(count)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


@dataclass(slots=True)
class ScriptedImap:
    """The server: where it listens, and what it saw."""

    port: int
    scripts: Sequence[Sequence[Step]]
    authority: Authority
    directory: Path
    tls: bool = False
    host: str = "localhost"
    connections: int = 0
    lines: list[bytes] = field(default_factory=list)
    """Every line of every client, in order of arrival."""
    failures: list[str] = field(default_factory=list)
    _contexts: dict[Certificate | None, ssl.SSLContext] = field(default_factory=dict)

    def take_failures(self) -> list[str]:
        """What did not go by the script so far; the test does not fail for it any more."""
        taken, self.failures = self.failures, []
        return taken

    def context(self, certificate: Certificate | None) -> ssl.SSLContext:
        """The server's TLS context for a certificate (a good one where none is given)."""
        if certificate not in self._contexts:
            stem = f"scripted{len(self._contexts)}"
            made = (certificate or self.authority.issue()).server_context(self.directory, stem)
            self._contexts[certificate] = made
        return self._contexts[certificate]

    async def serve(self, stream: trio.SocketStream) -> None:
        """Play the script of this connection's turn."""
        self.connections += 1
        script = self.scripts[min(self.connections, len(self.scripts)) - 1]
        connection = Connection(self, stream)
        try:
            if self.tls:
                await connection.start_tls()
            for step in script:
                await play(step, connection)
            await connection.swallow()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass        # the client went, or a step closed: the script is over
        except Unexpected as exc:
            self.failures.append(str(exc))
        finally:
            connection.close()


async def play(step: Step, connection: Connection) -> None:
    """Do what a step says."""
    match step:
        case Say(data, pieces):
            await connection.say(data, pieces)
        case On(pattern, reply):
            await connection.expect(pattern)
            await connection.say(reply)
        case StartTls(certificate):
            await connection.start_tls(certificate)
        case Pause(seconds):
            await trio.sleep(seconds)
        case Forever(data, interval):
            while True:
                await connection.say(data)
                await trio.sleep(interval)
        case Hang():
            await trio.sleep_forever()
        case Swallow():
            await connection.swallow()
        case Close(reset):
            connection.close(reset=reset)
            raise trio.ClosedResourceError
        case Do(function):
            await function(connection)


@pytest.fixture
async def scripted_imap(authority: Authority, tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[ScriptedImap]]]:
    """`await scripted_imap(*steps, tls=False)` or `await scripted_imap(scripts=[steps, steps])`."""
    servers: list[ScriptedImap] = []
    async with trio.open_nursery() as nursery:

        async def start(
            *steps: Step, scripts: Sequence[Sequence[Step]] | None = None, tls: bool = False,
        ) -> ScriptedImap:
            directory = tmp_path / f"scripted-imap-{len(servers)}"
            directory.mkdir()
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            port = listener.socket.getsockname()[1]
            server = ScriptedImap(port, scripts or [steps], authority, directory, tls)
            servers.append(server)
            nursery.start_soon(trio.serve_listeners, server.serve, [listener])
            return server

        yield start
        nursery.cancel_scope.cancel()
    failures = [failure for server in servers for failure in server.failures]
    if failures:
        pytest.fail("the client did not keep to the script:\n  " + "\n  ".join(failures), pytrace=False)
