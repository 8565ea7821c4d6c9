"""Everything that can go wrong, as the caller sees it: one total function from an exception to a `Refusal`.

Exceptions carry no status and no code; both are given here and nowhere else, so that this file is the list of what the
API can say.  Whatever is not in the table is our bug: 500, with no detail, for an unforeseen exception may hold
anything.  The sentences are ours too; the one exception is a `Fault.reason`, which by its own contract holds neither a
secret nor the remote server's text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from werkzeug.exceptions import HTTPException, MethodNotAllowed

from daemon.account.campaigns import MOST_CAMPAIGNS, TooManyCampaigns
from daemon.account.changing import ChangedMeanwhile
from daemon.account.views import AlreadyConnected, CampaignsActive, QuotaReached, VerificationFailed
from daemon.errors import Fault, FaultKind, leaves
from daemon.identity.rates import Allowance, RateExceeded
from daemon.sharing.rules import (
    MOST_PENDING,
    AccountNotFound,
    CannotInvite,
    Conflict,
    InvitationNotFound,
    NotAllowed,
    ShareNotFound,
)

from .claims import TokenRefused
from .cookies import SESSION_COOKIE, DuplicateCookie
from .jwks import KeysUnavailable

MAX_SENTENCE: Final = 400
"""Characters of an error's sentence."""

BUSY_PAUSE: Final = 1
"""Seconds a caller is asked to wait when too much is under way: requests last milliseconds, connecting aside."""

AWAY_PAUSE: Final = 5
"""Seconds a caller is asked to wait for the database or the issuer's keys."""

MAX_PAUSE: Final = 3600
"""Seconds a caller is asked to wait at most, whatever a mail server asked of us."""


class NotAuthenticated(Exception):
    """No session came with the request."""


class RequestForged(Exception):
    """Another site may have made the caller's browser send this."""


class NotJson(Exception):
    """A body that is not `application/json`."""


class Busy(Exception):
    """As many requests are under way as may be."""


class BusyCaller(Exception):
    """This caller has as many requests under way as one may have."""


class HandlerTimeout(Exception):
    """The request took longer than a handler may run."""


class BadTarget(Exception):
    """The request target is not a path on this server."""


class InvalidBody(Exception):
    """A body that does not say what the operation needs; the messages never repeat what it said."""

    def __init__(self, fields: Mapping[str, list[str]], form: list[str]) -> None:
        super().__init__("the body is not valid")
        self.fields = dict(fields)
        self.form = form


class InvalidQuery(Exception):
    """A parameter of the query that is not what the operation takes."""

    def __init__(self, name: str, sentence: str) -> None:
        super().__init__("the query is not valid")
        self.name = name
        self.sentence = sentence


@dataclass(frozen=True, slots=True)
class Refusal:
    """One failure as it goes out; `extra` are members of the envelope beside the three that are always there."""

    status: int
    code: str
    sentence: str
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, object] = field(default_factory=dict)

    def envelope(self) -> dict[str, object]:
        """The JSON document."""
        return {"success": False, "error": self.sentence[:MAX_SENTENCE], "code": self.code, **self.extra}


def _later(status: int, code: str, sentence: str, seconds: float) -> Refusal:
    """A refusal that says when to come back: in the header (RFC 9110 section 10.2.3) and in the body."""
    pause = math.ceil(min(MAX_PAUSE, max(1.0, seconds)))
    return Refusal(status, code, sentence, {"Retry-After": str(pause)}, {"retryAfter": pause})


_UNAUTHENTICATED: Final = Refusal(
    401,
    "not_authenticated",
    "Sign in first: no valid session came with the request.",
    {"WWW-Authenticate": f'Cookie cookie-name="{SESSION_COOKIE}"'},  # RFC 9110 section 11.6.1 wants one with a 401
)
_INTERNAL: Final = Refusal(500, "internal_error", "Something went wrong here; it has been recorded.")

_FIXED: Final[Mapping[type[BaseException], Refusal]] = {
    NotAuthenticated: _UNAUTHENTICATED,
    TokenRefused: _UNAUTHENTICATED,
    DuplicateCookie: _UNAUTHENTICATED,
    RequestForged: Refusal(403, "cross_site_request", "Requests from this site are not accepted."),
    NotJson: Refusal(415, "unsupported_media_type", "The body must be JSON, sent as application/json."),
    BadTarget: Refusal(400, "bad_request", "The request could not be understood."),
    Busy: _later(503, "busy", "Too many requests are under way; try again shortly.", BUSY_PAUSE),
    BusyCaller: _later(429, "rate_limited", "You have too many requests under way; wait for some to end.", BUSY_PAUSE),
    HandlerTimeout: _later(503, "timed_out", "The request took too long and was given up.", BUSY_PAUSE),
    KeysUnavailable: _later(503, "not_ready", "Sessions cannot be verified at the moment; try again.", AWAY_PAUSE),
    AccountNotFound: Refusal(404, "not_found", "There is no such account."),
    NotAllowed: Refusal(403, "not_allowed", "Your role in this account does not allow that."),
    InvitationNotFound: Refusal(404, "not_found", "There is no such invitation."),
    ShareNotFound: Refusal(404, "not_found", "The account is not shared with this user."),
    ChangedMeanwhile: Refusal(
        409, "changed_meanwhile", "The credentials were changed by somebody else meanwhile; look, and try again."
    ),
    AlreadyConnected: Refusal(409, "already_connected", "This email address or mailbox is already connected."),
    TooManyCampaigns: Refusal(
        409, "too_many_campaigns", f"At most {MOST_CAMPAIGNS} of your campaigns may be registered: complete some first."
    ),
    CampaignsActive: Refusal(
        403,
        "campaigns_active",
        "This is your only remaining default account, and campaigns of yours are active: complete them first.",
    ),
}

_CONFLICTS: Final[Mapping[Conflict, str]] = {
    Conflict.ONESELF: "This is your own address.",
    Conflict.SHARED: "This person has access to the account already.",
    Conflict.INVITED: "This person has been invited already.",
    Conflict.TOO_MANY: f"At most {MOST_PENDING} invitations of an account may be open.",
}

_VERIFICATION_CODES: Final[Mapping[FaultKind, str]] = {
    FaultKind.AUTH_FAILED: "{service}_auth_failed",
    FaultKind.TLS_FAILED: "{service}_tls_failed",
    FaultKind.CONNECT_FAILED: "{service}_connect_failed",
    FaultKind.LOST: "{service}_connect_failed",
    FaultKind.UNAVAILABLE: "{service}_connect_failed",
    FaultKind.THROTTLED: "{service}_connect_failed",
    FaultKind.REFUSED: "{service}_connect_failed",
    FaultKind.PROTOCOL: "{service}_connect_failed",
    FaultKind.UNREADABLE: "{service}_connect_failed",
    FaultKind.HOST_NOT_ALLOWED: "host_not_allowed",
    FaultKind.PASSWORD_UNSUPPORTED: "password_login_unsupported",
}

_HTTP: Final[Mapping[int, tuple[str, str]]] = {
    400: ("bad_request", "The request could not be understood."),
    404: ("not_found", "There is nothing at this address."),
    405: ("method_not_allowed", "This method is not available at this address."),
    408: ("request_timeout", "The body did not arrive in time."),
    413: ("body_too_large", "The body is larger than this server accepts."),
}


def refusal_for(exc: BaseException) -> Refusal:
    """What the caller is told; total over all exceptions and groups of them.

    In a group anything unforeseen outweighs the rest, for it is a bug that must not hide behind a named failure.
    """
    found = [_single(leaf) for leaf in leaves(exc)]
    return next((refusal for refusal in found if refusal.status == _INTERNAL.status), found[0])


def _single(exc: BaseException) -> Refusal:
    if (fixed := _FIXED.get(type(exc))) is not None:
        return fixed
    match exc:
        case QuotaReached():
            return _quota(exc)
        case VerificationFailed():
            return _verification(exc)
        case CannotInvite():
            return Refusal(409, exc.conflict.value, _CONFLICTS[exc.conflict])
        case RateExceeded():
            return _rate(exc.allowance)
        case Fault():
            return _fault(exc)
        case InvalidBody():
            details = {"fieldErrors": exc.fields, "formErrors": exc.form}
            return Refusal(400, "validation_failed", "The body is not valid.", extra={"details": details})
        case InvalidQuery():
            details = {"fieldErrors": {exc.name: [exc.sentence]}, "formErrors": []}
            return Refusal(400, "validation_failed", "The query is not valid.", extra={"details": details})
        case HTTPException():
            return _http(exc)
        case _:
            return _INTERNAL


def _quota(exc: QuotaReached) -> Refusal:
    sentence = f"Your plan allows {exc.limit} connected account{'' if exc.limit == 1 else 's'}."
    upgrade = {"feature": "accounts", "current_plan": {"slug": exc.plan}}
    return Refusal(403, "plan_limit_exceeded", sentence, extra={"upgrade": upgrade})


def rate_headers(allowance: Allowance) -> dict[str, str]:
    """How the caller stands to a rate, as headers tell it (API contract, section 0)."""
    return {
        "X-RateLimit-Limit": str(allowance.rate.limit),
        "X-RateLimit-Remaining": str(allowance.remaining),
        "X-RateLimit-Reset": str(allowance.reset_at),
    }


_OFTEN: Final[Mapping[str, str]] = {
    "connect.user": "You have tried to connect too often",
    "connect.host": "Too many have tried to connect at this host",
    "connect.own_mailbox": "You have tried this mailbox too often",
    "connect.mailbox": "This mailbox has been tried too often",
    "change.user": "You have changed too much in a short time",
    "invite.user": "You have sent too many invitations",
}
"""What was done too often, by rate."""


def _rate(allowance: Allowance) -> Refusal:
    pause = math.ceil(max(1.0, allowance.retry_after or BUSY_PAUSE))  # of our own making, so told as it is
    sentence = f"{_OFTEN.get(allowance.rate.name, 'That was done too often')}; try again in {_lasting(pause)}."
    headers = {"Retry-After": str(pause), **rate_headers(allowance)}
    return Refusal(429, "rate_limited", sentence, headers, {"retryAfter": pause})


def _lasting(seconds: int) -> str:
    """So long, in words: rounded up."""
    for size, name in ((3600, "hour"), (60, "minute"), (1, "second")):
        if seconds > size or size == 1:
            count = math.ceil(seconds / size)
            return f"{count} {name}{'' if count == 1 else 's'}"
    raise AssertionError("a second is the smallest")


def _verification(exc: VerificationFailed) -> Refusal:
    code = _VERIFICATION_CODES.get(exc.fault.kind)
    if code is None:  # the database being away is nobody's credentials
        return _fault(exc.fault)
    service = exc.service.value
    return Refusal(400, code.format(service=service), f"{service.upper()}: {exc.fault.reason}")


def _fault(exc: Fault) -> Refusal:
    """A fault of the world that is not about the caller's servers."""
    if exc.kind is FaultKind.THROTTLED:
        return _later(429, "rate_limited", exc.reason, exc.retry_after or BUSY_PAUSE)
    return _later(503, "not_ready", "The service is not ready at the moment; try again.", exc.retry_after or AWAY_PAUSE)


def _http(exc: HTTPException) -> Refusal:
    """What the framework itself refuses; a status we do not know is a bug of ours, not a new promise."""
    known = _HTTP.get(exc.code or 0)
    if known is None:
        return _INTERNAL
    headers = {}
    if isinstance(exc, MethodNotAllowed):
        headers["Allow"] = ", ".join(sorted(exc.valid_methods or ()))  # RFC 9110 section 15.5.6
    return Refusal(exc.code or 0, *known, headers=headers)
