"""Streams that say what a case says, and the dialers that give them: no socket, no waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from daemon.network import ByteStream, Dialer, Security


class Said:
    """A server that has said all it will ever say; what is sent to it goes nowhere."""

    def __init__(self, data: bytes, step: int) -> None:
        """*step*: bytes given at a time, so that framing is met in pieces."""
        self._data = data
        self._at = 0
        self._step = step

    async def receive_some(self, max_bytes: int) -> bytes:
        """The next bytes; b"" when all were given."""
        piece = self._data[self._at : self._at + min(max_bytes, self._step)]
        self._at += len(piece)
        return piece

    async def send_all(self, data: bytes) -> None:
        """Nobody hears it."""

    async def aclose(self) -> None:
        """Nothing is open."""


class Answering:
    """A server that answers each thing it is sent by a function's bytes, and has ended when that gives None."""

    def __init__(self, greeting: bytes, answer: Callable[[bytes], bytes | None], step: int) -> None:
        self._pending = bytearray(greeting)
        self._answer = answer
        self._step = step
        self._ended = False

    async def receive_some(self, max_bytes: int) -> bytes:
        """What is there; b"" when nothing is: nobody waits for a script."""
        size = min(max_bytes, self._step, len(self._pending))
        piece = bytes(self._pending[:size])
        del self._pending[:size]
        return piece

    async def send_all(self, data: bytes) -> None:
        """Take it, and prepare the answer."""
        if self._ended:
            return
        answer = self._answer(data)
        if answer is None:
            self._ended = True
        else:
            self._pending += answer

    async def aclose(self) -> None:
        """Nothing is open."""


class _OneStream:
    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    async def dial(
        self, host: str, port: int, security: Security, *, equal_times: bool = False  # noqa: ARG002  # a dialer's
    ) -> ByteStream:
        return self._stream

    async def start_tls(self, stream: ByteStream, host: str) -> ByteStream:  # noqa: ARG002  # a dialer's
        return stream


def dialer(stream: ByteStream) -> Dialer:
    """What a session asks for its connection: always the given one, and as if it were encrypted."""
    return cast("Dialer", _OneStream(stream))
