"""A provider that throttles: a gate in front of a real server, which lets so many logins a second in and no more.

TLS ends here; behind it is the real server's own protocol.  Beyond the rate an attempt is turned away in one of the
ways that providers have, in turn: BYE instead of a greeting, NO [UNAVAILABLE] or NO [LIMIT] to the login, or the
connection closed without a word.  Every attempt counts when its connection is accepted.
"""

from __future__ import annotations

import ssl
import time
from collections import Counter
from contextlib import suppress
from typing import Any, Final

import trio

from .hostile_talk import Gone, Honest, Talk

_CHUNK: Final = 65536
_GONE: Final = (Gone, trio.BrokenResourceError, trio.ClosedResourceError, OSError)

_MOST: Final = 100_000
"""Attempts whose times are kept."""


class _Refusing(Honest):
    """Greets, and says NO to the login."""

    def __init__(self, talk: Talk, words: bytes) -> None:
        super().__init__(talk, {})
        self._words = words

    async def on_authenticate(self, command: bytes) -> None:
        """NO."""
        del command
        await self.say(self.tag + b" NO " + self._words + b"\r\n")


class Gate:
    """One provider.

    Args:
        context: the TLS of its front.
        backend: the real server's plain port on the loopback interface.
        rate: logins a second that it lets in; a second's worth at once.
    """

    def __init__(self, context: ssl.SSLContext, *, backend: int, rate: float) -> None:
        self._context = context
        self._backend = backend
        self._rate = self._tokens = rate
        self._at = self._began = time.monotonic()
        self._times: list[float] = []
        self._ways: Counter[str] = Counter()
        self._refusals = 0

    def seen(self) -> dict[str, Any]:
        """How it was asked: attempts by second, and how they ended."""
        seconds = Counter(int(at) for at in self._times)
        last = max(seconds, default=-1)
        return {"attempts_by_second": [seconds[s] for s in range(last + 1)], "ended": dict(self._ways)}

    async def serve(self, stream: trio.SocketStream) -> None:
        """One attempt."""
        now = time.monotonic()
        if not self._times:
            self._began = now
        if len(self._times) < _MOST:
            self._times.append(now - self._began)
        self._tokens = min(self._rate, self._tokens + (now - self._at) * self._rate)
        self._at = now
        let_in = self._tokens >= 1.0
        self._tokens -= let_in
        tls = trio.SSLStream(stream, self._context, server_side=True, https_compatible=True)
        try:
            with suppress(*_GONE):
                await (self._pass(tls) if let_in else self._turn_away(tls))
        finally:
            stream.socket.close()

    async def _turn_away(self, tls: trio.SSLStream[trio.SocketStream]) -> None:
        self._refusals += 1
        way = ("bye", "unavailable", "limit", "closed")[self._refusals % 4]
        self._ways[way] += 1
        if way == "closed":
            return
        await tls.do_handshake()
        talk = Talk(tls)
        if way == "bye":
            await talk.say(b"* BYE Too many connections\r\n")
        elif way == "unavailable":
            await _Refusing(talk, b"[UNAVAILABLE] Temporarily unavailable").run()
        else:
            await _Refusing(talk, b"[LIMIT] Rate limit hit").run()

    async def _pass(self, tls: trio.SSLStream[trio.SocketStream]) -> None:
        self._ways["let in"] += 1
        await tls.do_handshake()
        async with await trio.open_tcp_stream("127.0.0.1", self._backend) as server, trio.open_nursery() as nursery:
            nursery.start_soon(_relay, tls, server, nursery.cancel_scope)
            nursery.start_soon(_relay, server, tls, nursery.cancel_scope)


async def _relay(source: trio.abc.Stream, target: trio.abc.Stream, scope: trio.CancelScope) -> None:
    with suppress(*_GONE):
        while data := await source.receive_some(_CHUNK):
            await target.send_all(data)
    scope.cancel()
