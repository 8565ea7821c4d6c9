"""Byte streams over a non-blocking socket, plain and TLS, with nothing buffered between us and the kernel.

`trio.SSLStream` decrypts through memory BIOs that keep the largest size they ever had: 110 KiB more for each account
after its first sync, and 1.6 times the CPU.  Here OpenSSL works on the socket itself and Trio only waits for it.
Because the plain stream buffers nothing either, STARTTLS hands the bare socket over: what a server sent too early is
still in the kernel, is read as TLS, and ends the handshake.

One task may read while another writes, as with every Trio stream.  A cancelled `receive_some` loses no byte; after a
cancelled `send_all` an unknown part was sent, and the stream is good for `aclose` only.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol, TypeVar

import trio

LARGEST_READ: Final = 1 << 15
"""Bytes given out at once, whatever the caller would take: two TLS records, one turn among many accounts."""

GATHERED: Final = 32
"""TLS records of one read, beside the first: honest ones have a KiB or more, and a thousand of one byte take 10 ms."""

SHORT: Final = 1024
"""Bytes that are sent without giving others their turn when the kernel takes them at once: a command, whose answer is
waited for next.  A turn of the loop for nothing costs 0.1 ms, three times in each renewal of IDLE."""

_scratch: Final = memoryview(bytearray(LARGEST_READ))  # shared: filled and copied out without a checkpoint between
_T = TypeVar("_T")
_Wait = Callable[[socket.socket], Awaitable[None]]


class ByteStream(Protocol):
    """A connection to a mail server."""

    async def receive_some(self, max_bytes: int) -> bytes:
        """Between 1 and *max_bytes* bytes; b"" once the other side has ended.

        Raises trio.BrokenResourceError when the connection is lost, trio.ClosedResourceError after `aclose`.  A reset
        may read as an end: with TLS, Python does not tell them apart.
        """
        ...

    async def send_all(self, data: bytes) -> None:
        """Hand all of *data* to the kernel.  Raises as `receive_some`.

        A command (SHORT) that the kernel takes at once gives others no turn: the wait for its answer does.
        """
        ...

    async def aclose(self) -> None:
        """Close at once, without waiting for anybody, even in a cancelled scope; again is harmless."""
        ...


class WatchedSocket:
    """What a `Lookout` needs of a connection: to read and write without waiting, outside of any task's own steps.

    For whoever has the connection to itself: nobody may be in `receive_some` or `send_all` meanwhile.
    """

    __slots__ = ("_socket",)

    _socket: socket.socket

    def fileno(self) -> int:
        """The descriptor; -1 once closed."""
        return self._socket.fileno()

    def receive_now(self) -> bytes | None:
        """What is here, of one TLS record at most; None: nothing whole; b"": the other side has ended.

        Raises trio.BrokenResourceError when the connection is lost, trio.ClosedResourceError after `aclose`.
        """
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError("the stream is closed")
        try:
            # As much as a record may have: OpenSSL holds nothing back then, and the kernel tells of all the rest.
            size = self._socket.recv_into(_scratch)
        except (ssl.SSLWantReadError, BlockingIOError):
            return None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""
        except OSError as exc:
            raise trio.BrokenResourceError("the connection is lost") from exc
        return bytes(_scratch[:size])

    def send_now(self, data: bytes) -> None:
        """Hand all of *data*, at most SHORT bytes, to the kernel.  Raises as `receive_now`.

        A kernel that does not take so little has thousands of bytes that the other side did not acknowledge: a
        connection on which it is not our turn to speak, and lost.
        """
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError("the stream is closed")
        try:
            sent = self._socket.send(data)
        except OSError as exc:  # that it would have to wait, too
            raise trio.BrokenResourceError("the connection is lost") from exc
        if sent < len(data):
            raise trio.BrokenResourceError("the other side takes nothing")


class PlainSocket(WatchedSocket):
    """An unencrypted connection: what STARTTLS starts from."""

    __slots__ = ()

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock

    async def receive_some(self, max_bytes: int) -> bytes:
        """See ByteStream."""
        return await _when_ready(self._socket, trio.lowlevel.wait_readable, self._receive, max_bytes)

    async def send_all(self, data: bytes) -> None:
        """See ByteStream."""
        await _send_all(self._socket, data)

    async def aclose(self) -> None:
        """See ByteStream."""
        _close(self._socket)
        await trio.lowlevel.checkpoint()

    def detach(self) -> socket.socket:
        """Give the socket away; this stream is closed from now on.  Raises trio.ClosedResourceError when it was."""
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError("the stream is closed")
        trio.lowlevel.notify_closing(self._socket)
        sock = socket.socket(fileno=self._socket.detach())
        sock.setblocking(False)  # a new object takes itself for a blocking one, whatever the descriptor is
        return sock

    def _receive(self, max_bytes: int) -> bytes:
        size = self._socket.recv_into(_scratch[:max_bytes])
        return bytes(_scratch[:size])


class TLSSocket(WatchedSocket):
    """An encrypted connection whose handshake is done.  Made by `tls.handshake`."""

    __slots__ = ()

    _socket: ssl.SSLSocket

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._socket = sock

    async def do_handshake(self) -> None:
        """Greet and verify.  Raises ssl.SSLError and OSError as they come."""
        await until_done(self._socket, trio.lowlevel.wait_readable, self._socket.do_handshake)

    async def receive_some(self, max_bytes: int) -> bytes:
        """See ByteStream.  An end without TLS's own farewell is an end too: IMAP and SMTP delimit what they say."""
        return await _when_ready(self._socket, trio.lowlevel.wait_readable, self._receive, max_bytes)

    async def send_all(self, data: bytes) -> None:
        """See ByteStream."""
        await _send_all(self._socket, data)

    async def aclose(self) -> None:
        """See ByteStream.  Says TLS's farewell if the kernel takes it at once."""
        if self._socket.fileno() >= 0:
            with suppress(OSError, ValueError):
                self._socket.unwrap()
            _close(self._socket)
        await trio.lowlevel.checkpoint()

    def version(self) -> str | None:
        """The protocol spoken, such as TLSv1.3."""
        return self._socket.version()

    def _receive(self, max_bytes: int) -> bytes:
        # Some servers write records of 1 or 2 KiB, and each read gives one: gather those that are here.
        most = min(max_bytes, LARGEST_READ)
        try:
            size = self._socket.recv_into(_scratch[:most])
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""
        with suppress(OSError):  # nothing more yet, or an end that the next call meets
            for _ in range(GATHERED):
                if not 0 < size < most or not (more := self._socket.recv_into(_scratch[size:most])):
                    break
                size += more
        return bytes(_scratch[:size])


async def _send_all(sock: socket.socket, data: bytes) -> None:
    with memoryview(data) as view:
        sent, turn = 0, len(view) > SHORT
        while sent < len(view):
            sent += await _when_ready(sock, trio.lowlevel.wait_writable, sock.send, view[sent:], turn=turn)


async def _when_ready(
    sock: socket.socket, blocked: _Wait, operation: Callable[..., _T], *args: object, turn: bool = True
) -> _T:
    """`until_done` with Trio's names for what goes wrong."""
    if sock.fileno() < 0:
        raise trio.ClosedResourceError("the stream is closed")
    try:
        return await until_done(sock, blocked, operation, *args, turn=turn)
    except OSError as exc:  # ssl.SSLError is one
        if sock.fileno() < 0:
            raise trio.ClosedResourceError("the stream was closed meanwhile") from None
        raise trio.BrokenResourceError("the connection is lost") from exc


async def until_done(
    sock: socket.socket, blocked: _Wait, operation: Callable[..., _T], *args: object, turn: bool = True
) -> _T:
    """Run a non-blocking operation as often as it takes.

    It is a checkpoint also when it succeeds at once; without *turn* it only looks then whether it was cancelled.

    TLS says itself what it waits for; a plain socket waits as *blocked* does.  Raises OSError as the operation does.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    waited = False
    while True:
        try:
            result = operation(*args)
        except ssl.SSLWantReadError:
            await trio.lowlevel.wait_readable(sock)
        except ssl.SSLWantWriteError:
            await trio.lowlevel.wait_writable(sock)
        except BlockingIOError:
            await blocked(sock)
        else:
            if turn and not waited:
                await trio.lowlevel.cancel_shielded_checkpoint()
            return result
        waited = True


def _close(sock: socket.socket) -> None:
    if sock.fileno() >= 0:
        trio.lowlevel.notify_closing(sock)
        sock.close()
