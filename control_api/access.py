"""Who may do what: what the declarations of operations and the rules of sharing say together, for any kind of caller.

Nothing here lets anybody pass: the service behind the operation does, by the same rules, under its locks.  This is what
readers are told, in the published document and in the README; and what a test holds against the running daemon, each
operation and each kind of caller.

What is asked of a caller, in this order: is there such an address, and does it take this method (404, 405; both before
anybody is asked who they are), a session (401), and then what the operation itself demands (404, 403).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import Final

from daemon.sharing.rules import (
    ALLOWED,
    Access,
    AccountNotFound,
    Act,
    InvitationNotFound,
    NotAllowed,
    Reply,
    Standing,
    demand,
    demand_reply,
)

from .errors import NotAuthenticated, refusal_for
from .operation import Demand, Operation


class Unknown(StrEnum):
    """Callers without a session, whatever they have instead."""

    ANONYMOUS = "anonymous"
    EXPIRED = "expired token"
    ANON_KEY = "anon key"
    """The issuer's key for web pages: signed as sessions are, of nobody."""
    SERVICE_KEY = "service key"
    """The issuer's key for its own servers, likewise."""


Kind = Unknown | Standing
"""A kind of caller; who is signed in is known by how they stand to the account that the operation names."""

KINDS: Final[tuple[Kind, ...]] = (*Unknown, *Standing)

_ROLES: Final[Mapping[Access, str]] = {"owner": "owner", "admin": "admins", "member": "members"}
"""Roles in words, the one that may most first."""


def status(wanted: Demand | None, kind: Kind) -> int:
    """What this kind of caller is answered where the operation demands this, and the request is right."""
    try:
        _demand(wanted, kind)
    except (NotAuthenticated, AccountNotFound, NotAllowed, InvitationNotFound) as refused:
        return refusal_for(refused).status
    return HTTPStatus.OK.value


def _demand(wanted: Demand | None, kind: Kind) -> None:
    if isinstance(kind, Unknown):
        raise NotAuthenticated
    if isinstance(wanted, Act):
        demand(wanted, kind.access)
    elif wanted is not None:
        demand_reply(wanted, kind)


def cases(operation: Operation) -> Iterator[tuple[str, Demand | None]]:
    """What an operation demands, by the case it demands it in; the case that is not spoken of first, as ""."""
    yield "", operation.act
    yield from operation.also.items()


def for_whom(operation: Operation) -> str:
    """For whom an operation is, in words for readers of the published document."""
    return " ".join(_sentence(case, wanted) for case, wanted in cases(operation))


def _sentence(case: str, wanted: Demand | None) -> str:
    if wanted is None:
        whom = "everybody who is signed in"
    elif isinstance(wanted, Reply):
        whom = "the one who was invited"
    else:
        roles = [name for role, name in _ROLES.items() if role in ALLOWED[wanted]]
        whom = "the account's " + " and ".join(filter(None, (", ".join(roles[:-1]), roles[-1])))
    return f"{case[0].upper()}{case[1:]}: for {whom}." if case else f"For {whom}."
