"""A session for a local set-up: the JWT that an identity provider would issue, signed with the daemon's own secret.

Only mode `hs256` can do this, for there the daemon holds the secret that signs; in mode `jwks` sessions come from the
issuer alone.  The user id is derived from the email, so that a second token is the same user again.
"""

from __future__ import annotations

import re
import time
import uuid
from typing import Final

import jwt

from control_api.claims import AUDIENCE, ROLE
from control_api.cookies import SESSION_COOKIE
from control_api.tokens import LOCAL_ISSUER
from daemon.identity.users import MAX_EMAIL, MAX_USER_ID, normalise_email
from daemon.settings import Settings
from daemon.vault.secret import Secret

LONGEST: Final = 24 * 366
"""Hours: a token cannot be taken back, so one for ever would be a password nobody can change."""

_USERS: Final = uuid.UUID("6ac0e1f2-6d0f-5d3b-9a54-0c3c1b6f8b5d")
"""The name space of user ids derived from addresses (RFC 9562 section 5.5)."""

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_PLAN = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class NoToken(Exception):
    """No token can be made: one sentence says why."""


def user_id(email: str) -> str:
    """The `sub` of an address: always the same, whatever its case."""
    return str(uuid.uuid5(_USERS, normalise_email(email)))


def make_token(
    settings: Settings,
    secret: Secret | None,
    email: str,
    *,
    plan: str | None = None,
    hours: float = 24.0,
    sub: str | None = None,
    now: float | None = None,
) -> str:
    """A session token for `email`, good for `hours`.

    Args:
        settings: which mode and which issuer.
        secret: the daemon's session secret (`daemon.state.prepare`), None in mode jwks.
        email: whose session.
        plan: slug for `app_metadata.plan`; None leaves the claim out, and the daemon takes its default plan.
        hours: until it expires.
        sub: the user id; derived from the address when None.
        now: seconds since the epoch; the clock's when None.

    Raises:
        NoToken: mode jwks, or an argument that the daemon would refuse.
    """
    if settings.auth.mode != "hs256" or secret is None:
        raise NoToken("auth.mode is jwks: sessions come from the issuer, and accountsctl has no key to sign one with")
    if not _EMAIL.fullmatch(email) or len(email) > MAX_EMAIL or not email.isprintable():
        raise NoToken(f"{email[:80]!r} is not an email address")
    if plan is not None and not _PLAN.fullmatch(plan):
        raise NoToken(f"{plan[:80]!r} is not a plan's slug: lower case letters, digits, - and _")
    if not 0 < hours <= LONGEST:
        raise NoToken(f"a token is good for more than 0 and at most {LONGEST} hours")
    if sub is not None and not (1 <= len(sub) <= MAX_USER_ID and sub.isprintable()):
        raise NoToken(f"a user id has 1 to {MAX_USER_ID} printable characters")
    issued = int(time.time() if now is None else now)
    claims: dict[str, object] = {
        "iss": settings.auth.issuer or LOCAL_ISSUER,
        "aud": AUDIENCE,
        "role": ROLE,
        "sub": sub or user_id(email),
        "email": email,
        "iat": issued,
        "exp": issued + max(1, int(hours * 3600)),
        "app_metadata": {} if plan is None else {"plan": plan},
    }
    return jwt.encode(claims, secret.reveal(), algorithm="HS256")


def cookie(token: str) -> str:
    """The cookie as a client sends it."""
    return f"{SESSION_COOKIE}={token}"
