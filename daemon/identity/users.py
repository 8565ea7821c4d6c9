"""A user is who a verified session token says; a plan is what the operator configured for its slug."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from daemon.network import InvalidHost, canonical_host

_SMALL: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)

MAX_USER_ID = 255
"""Characters of a `sub`; Supabase's are UUIDs, other issuers' are opaque text."""

MAX_EMAIL = 254
"""Characters of an address: RFC 5321 section 4.5.3.1.3 allows a path 256 octets, two angle brackets included."""


def normalise_email(email: str) -> str:
    """The form under which addresses are compared: whoever has confirmed one has what belongs to the other.

    So only what is the same mailbox may become the same: A to Z in the local part are small letters (RFC 5321 section
    2.4 lets a server tell them apart, and none in use does), the domain is its A-labels, as DNS compares them.  Other
    letters are left alone: by Unicode's case folding the Kelvin sign is a k, and its mailbox is another one.
    """
    local, at, domain = email.strip().rpartition("@")
    try:
        domain = canonical_host(domain)
    except InvalidHost:
        domain = domain.translate(_SMALL)
    return f"{local.translate(_SMALL)}{at}{domain}"


@dataclass(frozen=True, slots=True)
class User:
    """The caller of one request."""

    id: str
    """The token's `sub`."""
    email: str
    """The token's own `email` claim (never `user_metadata`), or empty."""
    name: str
    """What to call them in an invitation; their email where nothing better is known."""
    plan: str
    """The plan's slug from `app_metadata.plan`, or the default."""


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """What one plan allows; None is no limit."""

    slug: str
    accounts: int | None


class Plans:
    """The configured plans; without any there is no limit."""

    def __init__(self, accounts_by_plan: Mapping[str, int], default: str) -> None:
        self._accounts = dict(accounts_by_plan)
        self.default = default

    def limits(self, slug: str) -> PlanLimits:
        """The limits of a plan; one that is not configured has those of the default plan, under its own name."""
        accounts = self._accounts.get(slug, self._accounts.get(self.default))
        return PlanLimits(slug, accounts)
