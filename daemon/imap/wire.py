"""Lines and counted blocks over one byte stream, with a bound on every size and every wait.

Framing and nothing more: what a line means is `responses` and above.  The buffer is given back when it is empty, so
an idle session holds none.  A cancelled read loses no byte: what came in stays here, which is what lets IDLE wait
under a cancel scope.

Two clocks guard a server that says nothing or says it by drops: each single read or write has `patience` seconds
(silence), and whoever reads a whole response puts `within` around it (slowness).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final

import trio

from daemon.errors import Fault, FaultKind
from daemon.network import WatchedSocket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.network import ByteStream

MAX_LINE: Final = 1 << 20
"""Bytes of one line.  A VANISHED or SEARCH of 100,000 scattered UIDs has 0.7 MB; RFC 9051 names no limit."""

MAX_LITERAL: Final = 4 << 20
"""Bytes of one literal.  Bodies are asked for in pieces of 1 MiB, so nobody honest sends more; and what each of a
thousand sessions may hold in memory at once is bounded by it."""

CHUNK: Final = 1 << 15
"""Bytes of one read: also how much one session parses before another task has its turn (about 1 to 5 ms)."""

PATIENCE: Final = 60.0
"""Seconds that a single read or write may take while the server owes us something."""


@dataclass(frozen=True, slots=True)
class WireStatistics:
    """What went over one connection."""

    received: int
    """Bytes since the connection was opened, without TLS."""
    sent: int
    """Bytes, likewise."""
    buffered: int
    """Bytes received and not yet read by a command."""
    heard_at: float
    """`trio.current_time()` at the last byte from the server."""


class Wire:
    """One connection; for one task at a time.

    Every method that waits raises `Fault`: LOST when the connection ends or stays silent, PROTOCOL when a bound breaks.
    """

    __slots__ = ("_buffer", "_start", "heard_at", "host", "patience", "received", "sent", "stream")

    def __init__(self, stream: ByteStream, host: str, patience: float = PATIENCE) -> None:
        self.stream = stream
        self.host = host
        self.patience = patience
        self.heard_at = trio.current_time()
        """When the server last sent anything: the connection's proof of life."""
        self.received = 0
        self.sent = 0
        self._buffer = bytearray()
        self._start = 0

    @property
    def pending(self) -> int:
        """Bytes that are here and not yet taken."""
        return len(self._buffer) - self._start

    @property
    def has_line(self) -> bool:
        """Whether `take_line` has something to give."""
        return self._buffer.find(b"\n", self._start) >= 0

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Bound what runs inside; too slow is LOST, and the connection of no more use."""
        try:
            with trio.fail_after(seconds):
                yield
        except trio.TooSlowError:
            raise Fault(FaultKind.LOST, f"The mail server did not answer within {seconds:g} seconds.") from None

    async def send(self, data: bytes) -> None:
        """Send all of *data*."""
        with self.within(self.patience), _lost_when_broken():
            await self.stream.send_all(data)
        self.sent += len(data)
        if self.pending:  # a server that answers before it is asked would never let others have their turn
            await trio.lowlevel.checkpoint()

    @property
    def descriptor(self) -> int:
        """Of the connection, for a `Lookout`; -1 for a stream that has none to be watched."""
        return self.stream.fileno() if isinstance(self.stream, WatchedSocket) else -1

    def send_now(self, data: bytes) -> None:
        """Send a short command without waiting; raises as `send`."""
        assert isinstance(self.stream, WatchedSocket), "whoever is watched has a descriptor"
        with _lost_when_broken():
            self.stream.send_now(data)
        self.sent += len(data)

    def receive_now(self) -> bool:
        """Take in what is here, without waiting; whether there was something.  Raises LOST as `wait_line` does."""
        assert isinstance(self.stream, WatchedSocket), "whoever is watched has a descriptor"
        with _lost_when_broken():
            data = self.stream.receive_now()
        if data is None:
            return False
        self._heard(data)
        self._shift()
        self._buffer += data
        return True

    def take_line(self) -> bytes | None:
        """A line that is here already, without its line end; None when there is none."""
        end = self._buffer.find(b"\n", self._start) + 1
        if not end:
            return None
        line = self._take(end)
        return line[:-2] if line.endswith(b"\r\n") else line[:-1]

    def take_simple_line(self) -> bytes | None:
        """`take_line`, but None also for one that a literal belongs to, which is left here."""
        end = self._buffer.find(b"\n", self._start) + 1
        if self._buffer.endswith((b"}\r\n", b"}\n"), self._start, end):
            return None
        return self.take_line()

    async def wait_line(self, patience: float = inf) -> None:
        """Until `take_line` has something to give; cancelling it loses nothing."""
        seen = self._start
        while self._buffer.find(b"\n", seen) < 0:
            if self.pending > MAX_LINE:
                raise Fault(FaultKind.PROTOCOL, f"The mail server sent a line of more than {MAX_LINE} bytes.")
            data = await self._receive(CHUNK, patience)
            self._shift()
            seen = len(self._buffer)
            self._buffer += data

    async def block(self, size: int) -> bytes:
        """Exactly *size* bytes."""
        if size > MAX_LITERAL:
            raise Fault(FaultKind.PROTOCOL, f"The mail server announced a literal of more than {MAX_LITERAL} bytes.")
        if self.pending >= size:
            return self._take(self._start + size)
        # Parts, joined once: memory follows what has come, never what was announced.
        parts = [self._take(len(self._buffer))]
        missing = size - len(parts[0])
        try:
            while missing:
                parts.append(await self._receive(min(missing, CHUNK), self.patience))
                missing -= len(parts[-1])
        except trio.Cancelled:
            self._buffer = bytearray().join(parts)
            raise
        return b"".join(parts)

    async def aclose(self) -> None:
        """Close without a word to the server, and without waiting for anybody."""
        with trio.CancelScope() as scope:
            scope.cancel()
            await self.stream.aclose()

    def statistics(self) -> WireStatistics:
        """What went over the connection."""
        return WireStatistics(self.received, self.sent, self.pending, self.heard_at)

    async def _receive(self, most: int, patience: float) -> bytes:
        if patience == inf:  # the idle wait: no scope, no frame more than needed, ten thousand of them sit here
            with _lost_when_broken():
                data = await self.stream.receive_some(most)
        else:
            with self.within(patience), _lost_when_broken():
                data = await self.stream.receive_some(most)
        self._heard(data)
        return data

    def _heard(self, data: bytes) -> None:
        if not data:
            raise Fault(FaultKind.LOST, "The mail server closed the connection.")
        self.heard_at = trio.current_time()
        self.received += len(data)

    def _shift(self) -> None:
        """Give back the room of what was taken."""
        if self._start:
            del self._buffer[: self._start]
            self._start = 0

    def _take(self, end: int) -> bytes:
        with memoryview(self._buffer) as view:
            out = bytes(view[self._start : end])
        if end == len(self._buffer):
            self._buffer = bytearray()
            self._start = 0
        else:
            self._start = end
        return out


@contextmanager
def _lost_when_broken() -> Iterator[None]:
    try:
        yield
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as exc:
        raise Fault(FaultKind.LOST, "The connection to the mail server broke.") from exc
