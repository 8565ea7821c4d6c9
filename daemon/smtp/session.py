"""From an endpoint and credentials to a connection that sends: connect, greeting, EHLO, TLS, login, one deadline.

Never in plain text, never opportunistic (RFC 8314): with STARTTLS nothing but EHLO and STARTTLS is sent before TLS is
up, any byte behind the server's reply aborts (CVE-2011-0411 and its kin), and EHLO is asked again, for what was
announced in plain text counts for nothing (RFC 3207 section 4.2).  The login is SASL PLAIN, or LOGIN or CRAM-MD5 where
PLAIN is not offered; refused credentials are never tried by a second mechanism, for servers count failures.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import inf
from typing import Final

import aiosmtplib
import structlog

from daemon.errors import Fault, FaultKind
from daemon.network import Dialer, Endpoint, Security
from daemon.network.opening import CLOSED, ENDLESS, foreign, greeting_within, login_within
from daemon.vault.secret import Secret

from .faults import Phase, judge, no_login_offered, starttls_not_offered
from .replies import MAX_LINE, Reply, reply
from .stream import TrioSMTP
from .submission import DEFAULT_PATIENCE, Patience, Submission

log = structlog.get_logger(__name__)

LOCAL_NAME: Final = "[127.0.0.1]"
"""What EHLO says unless the operator has a name for us: an address literal (RFC 5321 section 4.1.3) that tells nothing
of the machine; Thunderbird says the same."""

MECHANISMS: Final = ("plain", "login", "cram-md5")
"""Those that take a password, the preferred first."""

_NOT_THIS_MECHANISM: Final = frozenset({500, 501, 502, 504})
"""Replies to AUTH that are about the mechanism (RFC 4954 section 4), after which another may be tried."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Bounds of opening and leaving a connection, in seconds."""

    login: float = 60.0
    """From the first packet to the login, all together."""
    greeting: float = 30.0
    """From the connection to the greeting: servers look us up in the DNS first, and some wait to see who talks."""
    farewell: float = 5.0
    """For QUIT, whose answer changes nothing."""


DEFAULT_TIMEOUTS: Final = Timeouts()


@asynccontextmanager
async def open_submission(
    dialer: Dialer,
    endpoint: Endpoint,
    username: str,
    password: Secret,
    *,
    local_hostname: str = LOCAL_NAME,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
    patience: Patience = DEFAULT_PATIENCE,
    equal_times: bool = False,
) -> AsyncIterator[Submission]:
    """A connection to send over for the time of the block; on leaving it QUITs if it is sound, and closes.

    `equal_times` is `Dialer.dial`'s.

    Raises Fault: HOST_NOT_ALLOWED, CONNECT_FAILED, TLS_FAILED, AUTH_FAILED, PASSWORD_UNSUPPORTED, THROTTLED,
    UNAVAILABLE, LOST, PROTOCOL; ValueError for a user name or password with a line break or NUL.
    """
    smtp = await _opened(dialer, endpoint, username, password, local_hostname, timeouts, patience, equal_times)
    submission = Submission(smtp, patience)
    try:
        yield submission
        if submission.usable:
            await smtp.say_goodbye(timeouts.farewell)
    finally:
        await smtp.aclose()
        statistics = submission.statistics()
        log.debug("smtp.closed", messages=statistics.messages, accepted=statistics.accepted)


async def _opened(
    dialer: Dialer,
    endpoint: Endpoint,
    username: str,
    password: Secret,
    local_hostname: str,
    timeouts: Timeouts,
    patience: Patience,
    equal_times: bool,
) -> TrioSMTP:
    _check_credentials(username, password)
    with login_within(timeouts.login) as opening:
        stream = await dialer.dial(
            endpoint.host, endpoint.port, endpoint.security, equal_times=equal_times
        )
        try:
            smtp = TrioSMTP(
                stream, host=endpoint.host, local_hostname=local_hostname, patience=patience.command
            )
        except BaseException:
            await stream.aclose()
            raise
        try:
            smtp.wire.encrypted = endpoint.security is Security.TLS
            await _greet(smtp, timeouts.greeting)
            opening.greeted = True
            await _hello(smtp)
            if endpoint.security is Security.STARTTLS:
                await _start_tls(smtp, dialer, endpoint.host)
                await _hello(smtp)
            await _login(smtp, username, password)
        except BaseException:
            await smtp.aclose()
            raise
    return smtp


def _check_credentials(username: str, password: Secret) -> None:
    """NUL parts the fields of SASL PLAIN (RFC 4616); a line break is in no password that a server ever saw."""
    for name, value in (("user name", username), ("password", password.reveal())):
        if any(character in value for character in "\0\r\n"):
            raise ValueError(f"the {name} must hold no line break or NUL")


async def _greet(smtp: TrioSMTP, seconds: float) -> None:
    """Read the greeting; each way in which none comes has a sentence of its own."""
    wire = smtp.wire
    try:
        with greeting_within(seconds, lambda: wire.pending > 0):
            answer = reply(*await smtp.greet(inf))
    except Fault as fault:
        if fault.kind is FaultKind.PROTOCOL:
            reason = ENDLESS if wire.pending > MAX_LINE else foreign("SMTP")
        elif fault.kind is FaultKind.LOST:
            reason = CLOSED
        else:
            raise
        raise Fault(FaultKind.CONNECT_FAILED, reason) from fault
    if answer.code != 220:
        _told(answer, Phase.GREETING)
        raise judge(answer, Phase.GREETING)


async def _hello(smtp: TrioSMTP) -> None:
    """EHLO; never HELO, after which there is neither TLS nor login."""
    try:
        await smtp.ehlo()
    except aiosmtplib.SMTPHeloError as exc:
        answer = reply(exc.code, exc.message)
        _told(answer, Phase.EHLO)
        raise judge(answer, Phase.EHLO) from None
    except aiosmtplib.SMTPServerDisconnected:
        raise Fault(FaultKind.LOST, "The connection to the mail server is closed.") from None


async def _start_tls(smtp: TrioSMTP, dialer: Dialer, host: str) -> None:
    if not smtp.supports_extension("starttls"):
        raise starttls_not_offered()
    try:
        answer = reply(*await smtp.encrypt(dialer, host))
    except aiosmtplib.SMTPServerDisconnected:
        raise Fault(FaultKind.LOST, "The connection to the mail server is closed.") from None
    if answer.code != 220:
        _told(answer, Phase.STARTTLS)
        raise judge(answer, Phase.STARTTLS)


async def _login(smtp: TrioSMTP, username: str, password: Secret) -> None:
    offered = frozenset(smtp.server_auth_methods)
    usable = [mechanism for mechanism in MECHANISMS if mechanism in offered]
    if not usable:
        raise no_login_offered(offered)
    for mechanism in usable:
        try:
            await _authenticate(smtp, mechanism, username, password)
        except aiosmtplib.SMTPAuthenticationError as exc:
            answer = reply(exc.code, exc.message)
            if exc.code in _NOT_THIS_MECHANISM and mechanism != usable[-1] and smtp.is_connected:
                continue
            _told(answer, Phase.AUTH)
            raise judge(answer, Phase.AUTH) from None
        except aiosmtplib.SMTPServerDisconnected:
            raise Fault(FaultKind.LOST, "The connection to the mail server is closed.") from None
        return


async def _authenticate(smtp: TrioSMTP, mechanism: str, username: str, password: Secret) -> None:
    if not smtp.wire.encrypted:
        raise AssertionError("credentials are sent over TLS only")
    match mechanism:
        case "plain":
            await smtp.auth_plain(username, password.reveal())
        case "login":
            await smtp.auth_login(username, password.reveal())
        case _:
            await smtp.auth_crammd5(username, password.reveal())


def _told(answer: Reply, phase: Phase) -> None:
    """Codes only: a server may repeat what it was sent, and that was the password."""
    log.info("smtp.refused", phase=phase, code=answer.code, status=answer.enhanced)
