"""From an endpoint and credentials to a session: connect, greeting, TLS, login, under one deadline.

Never in plain text, never opportunistic (RFC 8314): with STARTTLS nothing but STARTTLS is sent before TLS is up, a
refusal ends the attempt, any byte behind the server's OK aborts (CVE-2011-0411 and its kin), and what was said before
is forgotten.  PREAUTH is refused always: before TLS it is the known way around STARTTLS (RFC 9051 section 7.1.4), and
inside it a session that nobody logged in to is nobody's.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from daemon.errors import Fault, FaultKind
from daemon.network import Security
from daemon.network.opening import CLOSED, ENDLESS, UNWELCOME, foreign, greeting_within, login_within

from .authenticate import login
from .faults import Phase, Refused
from .session import Session
from .wire import MAX_LINE, PATIENCE, Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from daemon.network import Dialer, Endpoint
    from daemon.vault.secret import Secret

log = structlog.get_logger(__name__)

IDENTITY: Final = {"name": "accountsd"}
"""What we tell servers of ourselves (RFC 2971): the name, and nothing that dates us."""

_NO_IMAP: Final = foreign("IMAP")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Bounds of opening and using a session, in seconds."""

    login: float = 60.0
    """From the first packet to the authenticated session, all together."""
    greeting: float = 20.0
    """From the connection to the greeting: some servers look us up in the DNS first, none takes longer than 16."""
    silence: float = PATIENCE
    """A single read or write while the server owes us something."""


DEFAULT_TIMEOUTS: Final = Timeouts()


@asynccontextmanager
async def open_session(
    dialer: Dialer,
    endpoint: Endpoint,
    username: str,
    password: Secret,
    *,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
    equal_times: bool = False,
) -> AsyncIterator[Session]:
    """A logged-in session for the time of the block; on leaving it is logged out if it is sound, and closed.

    `equal_times` is `Dialer.dial`'s.

    Raises Fault: HOST_NOT_ALLOWED, CONNECT_FAILED, TLS_FAILED, AUTH_FAILED, PASSWORD_UNSUPPORTED, THROTTLED,
    UNAVAILABLE, LOST, PROTOCOL; ValueError for a user name or password with a line break or NUL.
    """
    session = await _opened(dialer, endpoint, username, password, timeouts, equal_times)
    try:
        yield session
        await session.logout()
    finally:
        await session.aclose()
        log.debug("imap.closed", received=session.wire.received, sent=session.wire.sent)


async def verify_login(
    dialer: Dialer,
    endpoint: Endpoint,
    username: str,
    password: Secret,
    *,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
    equal_times: bool = False,
) -> frozenset[bytes]:
    """Log in and out once; what the server offers.  Takes what `open_session` does, and raises as it does."""
    async with open_session(
        dialer, endpoint, username, password, timeouts=timeouts, equal_times=equal_times
    ) as session:
        return session.capabilities


async def _opened(
    dialer: Dialer, endpoint: Endpoint, username: str, password: Secret, timeouts: Timeouts, equal_times: bool
) -> Session:
    with login_within(timeouts.login) as opening:
        stream = await dialer.dial(
            endpoint.host, endpoint.port, endpoint.security, equal_times=equal_times
        )
        session = Session(Wire(stream, endpoint.host, timeouts.silence))
        try:
            await _greet(session, timeouts.greeting)
            opening.greeted = True
            if endpoint.security is Security.STARTTLS:
                await _start_tls(session, dialer)
            await login(session, username, password)
            await session.identify(**IDENTITY)
        except BaseException:
            await session.aclose()
            raise
    return session


async def _greet(session: Session, seconds: float) -> None:
    """Read the greeting; anything but OK ends the attempt."""
    wire = session.wire
    try:
        with greeting_within(seconds, lambda: wire.pending > 0):
            greeting = await session.read()
    except Fault as fault:
        if fault.kind not in (FaultKind.LOST, FaultKind.PROTOCOL):
            raise  # a BYE with its own reason, or none in time
        raise Fault(FaultKind.CONNECT_FAILED, _no_greeting(fault, wire)) from fault
    if greeting.tag == b"*" and greeting.kind == b"PREAUTH":
        raise Fault(FaultKind.TLS_FAILED, "The mail server claims that we are logged in already; that is refused.")
    if greeting.tag != b"*" or greeting.kind != b"OK":
        raise Fault(FaultKind.CONNECT_FAILED, _NO_IMAP)


def _no_greeting(fault: Fault, wire: Wire) -> str:
    """Why there was none, by what came of it."""
    if fault.kind is FaultKind.PROTOCOL:
        return ENDLESS if wire.pending > MAX_LINE else _NO_IMAP
    if not wire.received:
        return CLOSED
    # A whole line that was read and ended the connection is a BYE (RFC 9051 section 7.1.5).
    return _NO_IMAP if wire.pending else UNWELCOME


async def _start_tls(session: Session, dialer: Dialer) -> None:
    """Upgrade the connection, whatever capabilities the plain text claimed: whoever strips STARTTLS gets nothing."""
    wire = session.wire
    try:
        await session.command(b"STARTTLS", within=wire.patience)
    except Refused as exc:
        offered = exc.status == "NO" or b"STARTTLS" in session.capabilities
        reason = "refused to begin encryption" if offered else "does not offer encryption (STARTTLS)"
        raise Fault(FaultKind.TLS_FAILED, f"The mail server {reason}.") from None
    if wire.pending:
        raise Fault(FaultKind.TLS_FAILED, "Unencrypted data came where encryption should begin; that is an attack.")
    wire.stream = await dialer.start_tls(wire.stream, wire.host)
    session.forget_capabilities()
    session.take_news()
    session.phase = Phase.LOGIN
