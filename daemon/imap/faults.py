"""What a server's NO, BAD or BYE means: the one table from its words to our faults.  Pure and total.

Judged by provenance: a response code (RFC 5530 and its relatives) says what it says; known sentences of providers fill
in where servers send none; a bare NO to a login is a refused login, but only a code makes it final.  So
`AUTH_FAILED` is PARK with AUTHENTICATIONFAILED and its like, and RETRY without: the caller confirms it by repetition,
because servers say a bare NO for trouble of their own too.

Reasons are our own sentences.  The remote text decides, and is then shown to nobody.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from daemon.errors import Disposition, Fault, FaultKind

from .parse import response_code

MAX_BACKOFF: Final = 300.0
"""Seconds: the longest wait that a server's own figure may impose (imapflow's bound for Microsoft 365's throttling)."""
QUOTA_BACKOFF: Final = 3600.0
"""Seconds to leave an account alone after OVERQUOTA: bandwidth is counted by the day (Gmail), minutes are no use."""

_MAX_TEXT: Final = 512  # bytes of remote text kept to judge by


class Phase(StrEnum):
    """What was going on: the same NO means different things."""

    LOGIN = "login"
    SESSION = "session"


class Refused(Exception):
    """The server answered NO or BAD to a command; the connection is sound and takes the next one.

    `str()` holds no remote text; `text` does, bounded, to be judged by and never shown.
    """

    def __init__(self, command: str, status: str, text: bytes) -> None:
        code = response_code(text)
        self.command = command
        """The command's name, without arguments."""
        self.status = status
        """NO or BAD."""
        self.code = code.name.decode("ascii") if code else None
        """The response code's name, upper case, or None."""
        self.argument = code.argument[:_MAX_TEXT] if code else b""
        """What stood behind the code's name."""
        self.text = text[:_MAX_TEXT].decode("utf-8", "replace")
        super().__init__(f"{command} was answered {status}" + (f" [{self.code}]" if self.code else ""))

    def fault(self, phase: Phase = Phase.SESSION) -> Fault:
        """This refusal as a fault, for whoever cannot go on without the command."""
        return judge(self.status, self.code, self.text, phase)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A line of the table."""

    kind: FaultKind
    reason: str
    disposition: Disposition = Disposition.RETRY
    retry_after: float | None = None

    def fault(self, retry_after: float | None = None) -> Fault:
        """The fault it stands for; *retry_after* is the server's own figure, seconds."""
        return Fault(
            self.kind,
            self.reason,
            disposition=self.disposition,
            retry_after=self.retry_after if retry_after is None else retry_after,
        )


_PARK: Final = Disposition.PARK
_THROTTLED: Final = Judgement(FaultKind.THROTTLED, "The mail server asks us to slow down.")
_BUSY: Final = Judgement(FaultKind.UNAVAILABLE, "The mail server cannot serve this account just now.")
_BROKEN: Final = Judgement(FaultKind.UNAVAILABLE, "The mail server reports an error of its own.")
_WRONG: Final = "The mail server refused the user name or password."
_NOT_NOW: Final = Judgement(FaultKind.REFUSED, "The mail server refused a command.")
_NO_PASSWORDS: Final = Judgement(
    FaultKind.PASSWORD_UNSUPPORTED, "The mail server takes no passwords, only sign-in through its provider.", _PARK
)

CODES: Final[dict[str, Judgement]] = {
    # RFC 5530 section 3
    "UNAVAILABLE": _BUSY,
    "AUTHENTICATIONFAILED": Judgement(FaultKind.AUTH_FAILED, _WRONG, _PARK),
    "AUTHORIZATIONFAILED": Judgement(
        FaultKind.AUTH_FAILED, "The mail server accepted the password but not the use of this mailbox.", _PARK
    ),
    "EXPIRED": Judgement(FaultKind.AUTH_FAILED, "The mail server says that the password has expired.", _PARK),
    "PRIVACYREQUIRED": Judgement(FaultKind.TLS_FAILED, "The mail server wants more encryption than it offers.", _PARK),
    "CONTACTADMIN": Judgement(
        FaultKind.AUTH_FAILED, "The mail server wants its administrator to be asked about this account.", _PARK
    ),
    "INUSE": _BUSY,
    "CORRUPTION": _BROKEN,
    "SERVERBUG": _BROKEN,
    "LIMIT": Judgement(FaultKind.THROTTLED, "The mail server's limit for this account is reached."),
    "OVERQUOTA": Judgement(
        FaultKind.THROTTLED, "The account has used up what its provider allows.", retry_after=QUOTA_BACKOFF
    ),
    # Google: a person has to sign in on a web page first
    "WEBALERT": Judgement(
        FaultKind.AUTH_FAILED, "The provider wants the owner to sign in through a web browser first.", _PARK
    ),
    # Dovecot and Cyrus, undocumented but steady
    "TEMPFAIL": _BUSY,
    "THROTTLED": _THROTTLED,
}
"""Response codes that mean the same wherever they stand.  Others (NONEXISTENT, NOPERM, CANNOT, TRYCREATE, CLIENTBUG...)
concern one command: REFUSED."""


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_SLOW_DOWN: Final = _words(
    r"throttl|back-?off time|rate.?limit|too many (?:simultaneous |concurrent )?"
    r"(?:connections|sessions|log-?ins?|requests|commands|authentication|failed|attempts|login)"
    r"|(?:maximum|max)[a-z ]* connections|connection limit|exceeded (?:command|bandwidth)"
)
_BACKOFF: Final = _words(r"back-?off time:?\s*(\d{1,12})\s*(milliseconds|ms\b|seconds|s\b)?")

_LOGIN_TEXTS: Final[tuple[tuple[re.Pattern[str], Judgement], ...]] = (
    (
        _words(r"app(?:lication)?[- ](?:specific )?password|application password|app password"),
        Judgement(FaultKind.AUTH_FAILED, "The provider wants an app password instead of the account's own.", _PARK),
    ),
    (
        _words(r"basic ?auth[a-z]* ?(?:is |has been )?(?:blocked|disabled|not supported)|basicauthblocked"),
        _NO_PASSWORDS,
    ),
    (
        _words(r"web ?login required|(?:log|sign) ?in (?:via|using|with) (?:a |your )?(?:web )?browser"),
        CODES["WEBALERT"],
    ),
    (
        _words(r"not enabled for imap|imap (?:access )?is (?:disabled|not enabled)|enable imap"),
        Judgement(FaultKind.AUTH_FAILED, "IMAP access is switched off for this account.", _PARK),
    ),
    (_words(r"temporar|try again later|internal (?:server )?error|not connected|unavailable"), _BUSY),
)
"""Sentences of providers that say more than their code, tried in this order at login only."""

_TEXT_MAY_SAY_MORE: Final = frozenset({None, "ALERT", "AUTHENTICATIONFAILED", "AUTHORIZATIONFAILED"})


def judge(status: str, code: str | None, text: str, phase: Phase) -> Fault:
    """The fault that a refusal or a goodbye stands for; total: every text of every server has one.

    *status* is NO, BAD or BYE.
    """
    if _SLOW_DOWN.search(text):
        return _THROTTLED.fault(_server_backoff(text))
    if phase is Phase.LOGIN and status != "BAD" and code in _TEXT_MAY_SAY_MORE:
        for pattern, judgement in _LOGIN_TEXTS:
            if pattern.search(text):
                # "Temporarily ..." beside AUTHENTICATIONFAILED is believed: retrying is the side to err on.
                return judgement.fault()
    if code is not None and (judgement_of_code := CODES.get(code)) is not None:
        return judgement_of_code.fault()
    if status == "BYE":
        return Fault(FaultKind.LOST, "The mail server ended the session.")
    if phase is Phase.LOGIN and status == "NO":
        return Fault(FaultKind.AUTH_FAILED, _WRONG)
    return _NOT_NOW.fault()


def bye(text: bytes, phase: Phase = Phase.SESSION) -> Fault:
    """The fault of an untagged BYE; in a session that had logged in it never judges the credentials."""
    code = response_code(text)
    words = text[:_MAX_TEXT].decode("utf-8", "replace")
    fault = judge("BYE", code.name.decode("ascii") if code else None, words, phase)
    if phase is Phase.SESSION and fault.disposition is Disposition.PARK:
        return Fault(FaultKind.LOST, "The mail server ended the session.")
    return fault


def _server_backoff(text: str) -> float | None:
    """Seconds that the server names (`Suggested Backoff Time: 17000 milliseconds`), at most `MAX_BACKOFF`."""
    match = _BACKOFF.search(text)
    if match is None:
        return None
    seconds = int(match[1]) / (1 if (match[2] or "ms").lower().startswith("s") else 1000)
    return min(seconds, MAX_BACKOFF)


_LONG_WORD: Final = re.compile(r"\S*@\S*|\S{25,}")
_UNPRINTABLE: Final = re.compile(r"[^ -~]+")


def telling(text: str) -> str:
    """Remote text fit for a debug log: printable, short, without addresses and without what looks like a token."""
    return _LONG_WORD.sub("...", _UNPRINTABLE.sub(" ", text))[:160]
