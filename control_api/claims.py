"""From a token's claims, whose signature has been verified, to the user: pure, with the time passed in.

The rules are Supabase's own list (signature, `exp`, `iss`, `aud`) and one more: `role` must be `authenticated`, so that
the project's anon and service keys, which are JWTs of the same issuer, are no sessions.  Nothing of `user_metadata` is
believed, for the user writes it; their display name is taken from it as a name and nothing else.  `iat` says when a
token was made and forbids nothing (RFC 7519 section 4.1.6): a token that is not to be used yet says so in `nbf`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

from daemon.identity import User
from daemon.identity.users import MAX_EMAIL, MAX_USER_ID

LEEWAY: Final = 30.0
"""Seconds that the issuer's clock and ours may differ."""

AUDIENCE: Final = "authenticated"
ROLE: Final = "authenticated"

MAX_NAME: Final = 200
"""Characters of a display name: as long as an account's name may be."""

MAX_AUDIENCES: Final = 16
"""Entries of an `aud` array that are looked at; Supabase sends one."""

_PLAN = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class TokenRefused(Exception):
    """The token is no session of ours; the reason is a word for the log, never shown to the caller."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def user_from_claims(claims: Mapping[str, object], *, issuer: str, now: float, default_plan: str) -> User:
    """The caller these claims name; `now` is in seconds since the epoch.

    Raises:
        TokenRefused: expired, not yet valid, of another issuer or audience, not a user's, or malformed.
    """
    check_times(claims, now)
    if claims.get("iss") != issuer:
        raise TokenRefused("issuer")
    if AUDIENCE not in _audiences(claims.get("aud")):
        raise TokenRefused("audience")
    if claims.get("role") != ROLE:
        raise TokenRefused("role")
    user_id = claims.get("sub")
    # Printable also keeps NUL and lone surrogates out, neither of which PostgreSQL's text can hold.
    if not isinstance(user_id, str) or not 1 <= len(user_id) <= MAX_USER_ID or not user_id.isprintable():
        raise TokenRefused("subject")
    if user_id.startswith("/"):  # it could not be named in a path, as that of a share is
        raise TokenRefused("subject")
    email = _email(claims.get("email"))
    return User(user_id, email, _name(claims.get("user_metadata")) or email, _plan(claims, default_plan))


def check_times(claims: Mapping[str, object], now: float) -> None:
    """Judge `exp` and `nbf` at a moment, in seconds since the epoch.

    Raises:
        TokenRefused: expired, not yet valid, or without an end.
    """
    expires = _seconds(claims.get("exp"))
    if expires is None:
        raise TokenRefused("expiry_missing")
    if now >= expires + LEEWAY:  # RFC 7519 section 4.1.4: not accepted on or after
        raise TokenRefused("expired")
    if "nbf" in claims:
        begins = _seconds(claims["nbf"])
        if begins is None or now < begins - LEEWAY:
            raise TokenRefused("not_yet_valid")


def _seconds(value: object) -> float | None:
    """A NumericDate (RFC 7519 section 2), or None where it is none: text, true, NaN, or beyond a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None


def _audiences(value: object) -> list[object]:
    """`aud` is a string or an array of strings (RFC 7519 section 4.1.3)."""
    return value[:MAX_AUDIENCES] if isinstance(value, list) else [value]


def _email(value: object) -> str:
    """The token's own address, or empty: a user who signed in by telephone has none."""
    if isinstance(value, str) and len(value) <= MAX_EMAIL and value.isprintable():
        return value
    return ""


def _plan(claims: Mapping[str, object], default: str) -> str:
    metadata = claims.get("app_metadata")
    plan = metadata.get("plan") if isinstance(metadata, Mapping) else None
    return plan if isinstance(plan, str) and _PLAN.fullmatch(plan) else default


def _name(metadata: object) -> str:
    if not isinstance(metadata, Mapping):
        return ""
    for key in ("full_name", "name"):
        if isinstance(value := metadata.get(key), str):
            shown = "".join(char for char in value[: 2 * MAX_NAME] if char.isprintable())
            if shown := shown.strip()[:MAX_NAME]:
                return shown
    return ""
