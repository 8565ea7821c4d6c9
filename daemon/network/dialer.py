"""Every outbound connection to a user's mail server: resolve, judge the whole answer, connect, TLS.

    dial ── port allowed? ── resolve ── judge all addresses ── connect to one of those ── TLS verified for the host
                                                                                       └─ plain, until `start_tls`

The connection goes to an address that was judged, never to the name again, so a name server that changes its answer
(DNS rebinding) gains nothing.  The caller owns the deadline over all of it; each stage has a bound of its own beneath.
Nothing here tries twice: retrying is the supervisor's.

What a stranger learns is bounded too: one sentence whether a host refuses, is unreachable or is not there, and no
byte that the other side said.

Nor is the inside of our network told.  `HOST_NOT_ALLOWED` is said only of what shows in the words themselves: an
address, a port, `localhost`; no packet goes out for it.  A *name* that leads to a private address ends as one that does
not exist, in the same fault, for to whoever asks one name after another the difference would list the names that only
our name servers know (split-horizon DNS; a public alias of an internal name is the same question).  Whoever waits for
the answer is told both at whole `LOOKUP_STEP`s from the question (`equal_times`), since one of the internal zone comes
sooner than none of the public one; what still shows is a name server that takes longer than a step.  The accounts that
are connected already wait for no step: nobody sees their attempts, and dead names must hold up none of the others.  So
the account of such a name is tried again, and not parked: what the DNS said a moment ago is the network's mood.  The
operator's log tells the two apart.
"""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from daemon.errors import Disposition, Fault, FaultKind

from .attempts import connect_first
from .endpoint import InvalidHost, Security, canonical_host, ip_literal
from .guard import Address, NetworkPolicy, Refusal, judge, judge_name, judge_port
from .keepalive import keep_alive
from .resolver import Resolver, not_found
from .stream import ByteStream, PlainSocket
from .tls import client_context, handshake

CONNECT: Final = 15.0
"""Seconds for all attempts of one dial: four lost SYNs (at 0, 1, 3 and 7 s) and an answer."""

LOOKUP_STEP: Final = 2.0
"""Seconds between the moments at which a name that leads nowhere is told: a public resolver that has to ask the root
and two servers below it is done in one, and who mistyped a name waits so long."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DialerStatistics:
    """How dials ended, since the dialer was made."""

    dialled: int
    connected: int
    refused: int
    """Stopped by the guard."""
    unreachable: int
    """Not resolved, or nobody answered."""
    tls_failed: int
    """STARTTLS's handshakes included."""


class Dialer:
    """Makes connections under one policy; shared by everybody."""

    def __init__(self, policy: NetworkPolicy, resolver: Resolver, *, tls: ssl.SSLContext | None = None) -> None:
        self._policy = policy
        self._resolver = resolver
        self._tls = tls or client_context()
        self._dialled = self._connected = self._refused = self._unreachable = self._tls_failed = 0

    async def dial(
        self, host: str, port: int, security: Security, *, equal_times: bool = False
    ) -> ByteStream:
        """A connection: encrypted and verified for *host* with `Security.TLS`, plain with STARTTLS.

        With `equal_times` a name that leads nowhere and one that leads inside are told at the same moments: for
        whoever chose the name and waits for what becomes of it.

        Raises Fault: HOST_NOT_ALLOWED (park), CONNECT_FAILED (retry), TLS_FAILED (see `tls.judge_handshake`).
        """
        self._dialled += 1
        addresses = await self.allowed_addresses(host, port, equal_times=equal_times)
        sock = await self._connect(addresses, port)
        if security is Security.TLS:
            stream: ByteStream = await self._handshake(sock, canonical_host(host))
        else:
            stream = PlainSocket(sock)
        self._connected += 1
        return stream

    async def start_tls(self, stream: ByteStream, host: str) -> ByteStream:
        """Encrypt a plain connection of this dialer, after the server agreed; *stream* is closed whatever happens.

        Raises Fault(TLS_FAILED); TypeError for a stream that is not a plain one of ours.
        """
        if not isinstance(stream, PlainSocket):
            raise TypeError("only a plain connection made by the dialer can be encrypted")
        return await self._handshake(stream.detach(), canonical_host(host))

    async def allowed_addresses(self, host: str, port: int, *, equal_times: bool = False) -> tuple[Address, ...]:
        """The addresses of *host*, if every one of them, and the port, may be dialled; otherwise as `dial`."""
        try:
            name = canonical_host(host)
        except InvalidHost as exc:
            self._refused += 1
            raise _not_allowed(str(exc)) from None
        if (refusal := judge_port(port, self._policy)) is not None:
            self._note(name, refusal)
            raise _not_allowed("The port is not one that mail servers are reached at.")
        if (literal := ip_literal(name)) is not None:
            refusal = judge((literal,), self._policy)
        else:
            refusal = judge_name(name, self._policy)
        if refusal is not None:
            self._note(name, refusal)
            raise _not_allowed("The host is not on the public internet, or not one we may connect to.")
        if literal is not None:
            return await self._resolver.resolve(name)
        began = trio.current_time()
        try:
            return await self._resolved(name)
        except Fault:
            if equal_times:
                steps = math.floor((trio.current_time() - began) / LOOKUP_STEP) + 1
                await trio.sleep_until(began + steps * LOOKUP_STEP)
            raise

    def statistics(self) -> DialerStatistics:
        """How dials ended so far."""
        return DialerStatistics(
            self._dialled, self._connected, self._refused, self._unreachable, self._tls_failed
        )

    async def _resolved(self, name: str) -> tuple[Address, ...]:
        """The addresses of a name, all of them allowed; one fault if there are none or they are not."""
        try:
            addresses = await self._resolver.resolve(name)
        except Fault:
            self._unreachable += 1
            raise
        if (refusal := judge(addresses, self._policy)) is not None:
            self._note(name, refusal)
            raise not_found()
        return addresses

    async def _connect(self, addresses: Sequence[Address], port: int) -> socket.socket:
        sock = None
        with trio.move_on_after(CONNECT):
            sock = await connect_first(addresses, port)
        if sock is not None and not keep_alive(sock):
            sock.close()  # reset as soon as it was there
            sock = None
        if sock is None:
            self._unreachable += 1
            raise Fault(FaultKind.CONNECT_FAILED, "No server answers at that host and port.")
        return sock

    async def _handshake(self, sock: socket.socket, host: str) -> ByteStream:
        try:
            return await handshake(sock, host, self._tls)
        except Fault:
            self._tls_failed += 1
            raise

    def _note(self, host: str, refusal: Refusal) -> None:
        self._refused += 1
        # At info: users choose the hosts, so that a warning would be theirs to raise.
        log.info("network.refused", host=host, ground=refusal.ground, subject=refusal.subject)


def _not_allowed(sentence: str) -> Fault:
    return Fault(FaultKind.HOST_NOT_ALLOWED, sentence, disposition=Disposition.PARK)


