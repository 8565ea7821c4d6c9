"""aiosmtplib on Trio: its SMTP class (EHLO, extensions, AUTH, MAIL, RCPT) over one of our byte streams.

`aiosmtplib.SMTP` asks its protocol object for one thing that we use, `execute_command`, and its transport for whether
it is closing and for its TLS context; all else in it is free of any event loop.  Those private seams are held by a
contract test, and the version is pinned.

Each command is written and its reply read, never two at a time.  A conversation that is interrupted, by cancellation
as well as by a fault, is out of step, so its connection is closed on the spot and never used again.
"""

from __future__ import annotations

from contextlib import suppress
from math import inf
from typing import Any, Final, cast

import aiosmtplib
import trio
from aiosmtplib.protocol import SMTPProtocol
from aiosmtplib.response import SMTPResponse

from daemon.errors import Fault, FaultKind
from daemon.network import ByteStream, Dialer

from .replies import MalformedReply, take_reply

CHUNK: Final = 1 << 14
"""Bytes of one read, a TLS record; replies are far shorter."""

BLOCK: Final = 1 << 16
"""Bytes of one write: each has its own deadline (RFC 5321 section 4.5.3.2.5), so that a slow line may be slow."""

_CONTROL: Final = frozenset(range(0x20)) | {0x7F}


class Wire:
    """The connection under one SMTP conversation: what aiosmtplib takes for its protocol and its transport."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._closed = False
        self.encrypted = False
        """Whether TLS is up."""
        self.sent = 0
        """Bytes."""

    @property
    def transport(self) -> Wire:
        """Protocol and transport are two things for aiosmtplib; here they are one."""
        return self

    @property
    def is_connected(self) -> bool:
        """Whether a further command may be tried."""
        return not self._closed

    @property
    def pending(self) -> int:
        """Bytes of a reply that is not complete."""
        return len(self._buffer)

    def is_closing(self) -> bool:
        """The same, in a transport's words."""
        return self._closed

    def get_extra_info(self, key: str) -> object:
        """What aiosmtplib asks for is "sslcontext", to know whether TLS is up."""
        return self.encrypted or None if key == "sslcontext" else None

    def close(self) -> None:
        """No further command; the stream itself is closed by `aclose`, which whoever made us owes us."""
        self._closed = True

    async def aclose(self) -> None:
        """Close the stream, without a word and without waiting, in a cancelled scope too."""
        self._closed = True
        with trio.CancelScope() as scope:
            scope.cancel()
            await self._stream.aclose()

    async def execute_command(self, *args: bytes, timeout: float | None = None) -> SMTPResponse:  # noqa: ASYNC109
        """Write one command and read its reply.  The name and the parameter are aiosmtplib's.

        Raises Fault (LOST, PROTOCOL); ValueError for a control character, which could smuggle in a command.
        """
        if any(_CONTROL.intersection(arg) for arg in args):
            raise ValueError("an SMTP command must hold no control character")
        return await self.converse(b" ".join(args) + b"\r\n", timeout)

    async def converse(self, data: bytes, seconds: float | None) -> SMTPResponse:
        """Write *data*, if any, and read one reply, within so many seconds."""
        if self._closed:
            raise Fault(FaultKind.LOST, "The connection to the mail server is closed.")
        try:
            with trio.fail_after(inf if seconds is None else seconds):
                if data:
                    await self._stream.send_all(data)
                    self.sent += len(data)
                return await self._read()
        except BaseException as exc:
            self.close()
            _as_fault(exc)
            raise

    async def write(self, data: bytes | bytearray, seconds: float) -> None:
        """Write without reading: a part of a message, in blocks of which each has so many seconds."""
        if self._closed:
            raise Fault(FaultKind.LOST, "The connection to the mail server is closed.")
        try:
            with memoryview(data) as view:
                for start in range(0, len(view), BLOCK):
                    with trio.fail_after(seconds):
                        await self._stream.send_all(view[start : start + BLOCK].tobytes())
                    self.sent += min(BLOCK, len(view) - start)
        except BaseException as exc:
            self.close()
            _as_fault(exc)
            raise

    async def encrypt(self, dialer: Dialer, host: str) -> None:
        """TLS from here on, after the server agreed; what came in plain text behind its reply is an attack."""
        try:
            if self._buffer or self._closed:
                raise Fault(
                    FaultKind.TLS_FAILED, "Unencrypted data came where encryption should begin; that is an attack."
                )
            self._stream = await dialer.start_tls(self._stream, host)
        except BaseException:
            self.close()
            raise
        self.encrypted = True

    async def _read(self) -> SMTPResponse:
        while (raw := take_reply(self._buffer)) is None:
            data = await self._stream.receive_some(CHUNK)
            if not data:
                raise Fault(FaultKind.LOST, "The mail server closed the connection.")
            self._buffer += data
        if self._buffer:
            # Nobody asked for more: the next reply would be paired with the wrong command.
            self.close()
        return SMTPResponse(raw.code, b"\n".join(raw.lines).decode("utf-8", "replace"))


class TrioSMTP(aiosmtplib.SMTP):
    """aiosmtplib's commands over a connection that the dialer made."""

    def __init__(self, stream: ByteStream, *, host: str, local_hostname: str, patience: float) -> None:
        """*host* is whom the certificate must name, *local_hostname* what EHLO says, *patience* seconds a command."""
        super().__init__(hostname=host, local_hostname=local_hostname, timeout=patience)
        self.wire = Wire(stream)
        self.protocol = cast("SMTPProtocol", self.wire)
        self.transport = cast("Any", self.wire)

    async def greet(self, seconds: float) -> SMTPResponse:
        """The server's first words, whatever they are."""
        return await self.wire.converse(b"", seconds)

    async def encrypt(self, dialer: Dialer, host: str) -> SMTPResponse:
        """STARTTLS (RFC 3207): the server's reply; TLS is up if that is 220, and all it said before is forgotten."""
        response = await self.execute_command(b"STARTTLS")
        if response.code == 220:
            await self.wire.encrypt(dialer, host)
            self._reset_server_state()
        return response

    async def aclose(self) -> None:
        """Close the connection at once."""
        self.close()
        await self.wire.aclose()

    async def say_goodbye(self, seconds: float) -> None:
        """QUIT, for whom it may concern: no fault if the server does not answer it."""
        with suppress(Fault, aiosmtplib.SMTPException), trio.move_on_after(seconds):
            await self.execute_command(b"QUIT", timeout=seconds)


def _as_fault(exc: BaseException) -> None:
    """Raise what the connection did as our fault; return for anything else."""
    match exc:
        case trio.TooSlowError():
            raise Fault(FaultKind.LOST, "The mail server did not answer in time.") from None
        case trio.BrokenResourceError() | trio.ClosedResourceError():
            raise Fault(FaultKind.LOST, "The connection to the mail server broke.") from exc
        case MalformedReply():
            raise Fault(FaultKind.PROTOCOL, "The mail server answered with something that is no SMTP reply.") from None
