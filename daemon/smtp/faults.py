"""What an SMTP reply means: the one table from replies to faults.  Pure and total.

Judged by code, enhanced status (RFC 3463, RFC 4954 section 6) and where in the conversation it came.  Text is looked
at only where providers say in words what they should say in codes; it never gets into a reason.  A stranger who names
a server sees reasons, and must not learn from them what that server says.

A login is parked only on the server's word that the credentials are wrong (535, or a status that says the same); any
other refusal may pass.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from daemon.errors import Disposition, Fault, FaultKind
from daemon.network.opening import UNWELCOME

from .replies import Reply


class Phase(StrEnum):
    """Where in the conversation a reply came."""

    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    SENDER = "sender"
    RECIPIENT = "recipient"
    DATA = "data"
    """DATA itself, and the reply to the message."""


# Microsoft (535 5.7.139 and 550 5.7.30) and Google (534 5.7.9) in words; the codes alone have other uses too.
_NO_PASSWORDS: Final = re.compile(
    r"basic authentication|smtpclientauthentication is disabled|application-specific password"
    r"|(?:requires?|only|must use) (?:xoauth2|oauth)",
    re.IGNORECASE,
)
_TOO_MUCH: Final = re.compile(
    r"too (?:many|much|fast|frequent)|rate.?limit|limit (?:is |was |has been )?(?:exceeded|reached)"
    r"|exceeded .{0,40}(?:limit|quota|rate)|quota ?exceeded|throttl|slow down|try again later.{0,20}unusual",
    re.IGNORECASE,
)
_NO_PASSWORD_CODES: Final = frozenset({504, 534, 538})
_NO_PASSWORD_STATUS: Final = frozenset({"5.7.9", "5.7.11", "5.7.30"})
_WRONG_PASSWORD_STATUS: Final = frozenset({"5.7.8"})
_THROTTLED_STATUS: Final = frozenset({
    "4.4.5", "5.4.5",       # congestion (RFC 3463); Google's daily limit is 550 5.4.5
    "4.7.28", "5.7.28",     # Google: unusual rate
    "4.3.2",                # not accepting now: Google and Microsoft use it for "too many at once"
})  # fmt: skip
_TOO_MANY_RECIPIENTS: Final = frozenset({"4.5.3", "5.5.3"})


def judge(reply: Reply, phase: Phase) -> Fault:
    """The fault that a reply is which is not the one hoped for."""
    match phase:
        case Phase.GREETING | Phase.EHLO:
            return _greeting(reply)
        case Phase.STARTTLS:
            return Fault(FaultKind.TLS_FAILED, "The mail server refused to begin encryption.")
        case Phase.AUTH:
            return _login(reply)
        case Phase.SENDER | Phase.RECIPIENT | Phase.DATA:
            return _transaction(reply, phase)


def no_login_offered(mechanisms: frozenset[str]) -> Fault:
    """EHLO offered no mechanism that takes a password; *mechanisms* is what it did offer."""
    if mechanisms:
        return _no_passwords()
    return _parked(FaultKind.PASSWORD_UNSUPPORTED, "The mail server offers no login at this port.")


def starttls_not_offered() -> Fault:
    """EHLO offered no STARTTLS: a server without it, or somebody who strips it; either way nothing is sent."""
    return Fault(FaultKind.TLS_FAILED, "The mail server does not offer encryption (STARTTLS).")


def speaks_of_us(reply: Reply, phase: Phase) -> bool:
    """Whether a reply in a transaction is about the account or the server, and not about this message."""
    return _transaction(reply, phase).kind is not FaultKind.REFUSED


def is_throttling(reply: Reply, phase: Phase) -> bool:
    """Whether a reply says that we send too much, be it with a permanent code: then it is for later, not for never.

    Of a recipient it is believed only by its status: that *their* mailbox takes too much is no limit of ours.
    """
    if reply.enhanced in _THROTTLED_STATUS:
        return True
    if phase is Phase.RECIPIENT or reply.enhanced in _TOO_MANY_RECIPIENTS:
        return False
    return _TOO_MUCH.search(reply.text) is not None


def _greeting(reply: Reply) -> Fault:
    if reply.temporary:
        return _later(reply)
    return Fault(FaultKind.CONNECT_FAILED, UNWELCOME)


def _login(reply: Reply) -> Fault:
    if reply.temporary:
        # RFC 4954 section 6: 432 4.7.12 asks for a password transition, which only the owner can make.
        transition = reply.code == 432 and reply.enhanced in {None, "4.7.12"}
        return _wrong_password() if transition and not is_throttling(reply, Phase.AUTH) else _later(reply)
    if reply.enhanced in _NO_PASSWORD_STATUS or _NO_PASSWORDS.search(reply.text):
        return _no_passwords()
    if reply.code == 535 or reply.enhanced in _WRONG_PASSWORD_STATUS:
        return _wrong_password()
    if reply.code in _NO_PASSWORD_CODES:
        return _no_passwords()
    if reply.code < 400:
        return Fault(FaultKind.PROTOCOL, "The mail server answered the login with something that is no answer.")
    return Fault(FaultKind.AUTH_FAILED, "The mail server refused the login, but not for the password.")


def _transaction(reply: Reply, phase: Phase) -> Fault:
    if reply.code < 400:
        return Fault(FaultKind.PROTOCOL, "The mail server answered with a code that has no meaning here.")
    if is_throttling(reply, phase):
        return _throttled()
    if reply.code == 421 or reply.enhanced == "4.3.0":
        return _unavailable()
    if reply.enhanced == "5.7.30" or (reply.code >= 500 and _NO_PASSWORDS.search(reply.text)):
        return _no_passwords()
    if reply.code == 530:  # RFC 4954 section 6: authentication required, which we had done
        return Fault(FaultKind.AUTH_FAILED, "The mail server no longer accepts this login.")
    if reply.temporary and phase is not Phase.RECIPIENT and reply.code in {451, 454}:
        return _unavailable()
    return Fault(FaultKind.REFUSED, "The mail server refused the message.")


def _later(reply: Reply) -> Fault:
    return _throttled() if is_throttling(reply, Phase.GREETING) else _unavailable()


def _throttled() -> Fault:
    return Fault(FaultKind.THROTTLED, "The mail server asks to slow down.")


def _unavailable() -> Fault:
    return Fault(FaultKind.UNAVAILABLE, "The mail server cannot serve now.")


def _wrong_password() -> Fault:
    return _parked(FaultKind.AUTH_FAILED, "The mail server refused the user name or password.")


def _no_passwords() -> Fault:
    return _parked(
        FaultKind.PASSWORD_UNSUPPORTED,
        "The mail server does not take this password; it asks for an app password or another way to log in.",
    )


def _parked(kind: FaultKind, sentence: str) -> Fault:
    return Fault(kind, sentence, disposition=Disposition.PARK)
