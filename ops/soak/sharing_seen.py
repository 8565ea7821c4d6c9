"""What everybody must be shown of a world of sharing, and which worlds requests may have made.  Pure.

Of requests that ran at the same time `orders` finds the worlds of every order, one after the other, in which each
answer is the one that came.  A request whose answer was lost may have been carried out or not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Final

from .sharing_model import Accept, Action, Answer, Decline, Expire, Invitation, Invite, Noted, World, apply

AUDIT_PAGE: Final = 100
"""Entries of an audit that are compared: as many as one answer holds."""



@dataclass(frozen=True, slots=True)
class Looked:
    """What one account's own addresses say to one user; a status where they refuse."""

    one: tuple[str, bool, str] | int
    invitations: Mapping[str, tuple[str, str]] | int
    shares: Mapping[str, str] | int
    audit: Sequence[Noted] | int
    """The last AUDIT_PAGE entries, the last first."""


@dataclass(frozen=True, slots=True)
class Seen:
    """All that one user is shown."""

    listed: Sequence[tuple[str, tuple[str, bool, str]]]
    """Accounts in their order."""
    pending: Mapping[str, tuple[str, str]]
    """Open invitations to the user: to which account, as what."""
    overview: Sequence[str]
    """The accounts that the overview of synchronisation tells of."""
    accounts: Mapping[str, Looked]
    """Those that were looked at one by one."""


def seen(now: World, who: str, accounts: Collection[str]) -> Seen:
    """What one user must be shown who looks at all lists and at some accounts."""
    listed = [(key, shown) for key, each in now.accounts.items() if (shown := each.shown(who)) is not None]
    pending = {
        key: (each.account, each.role) for key, each in now.invitations.items() if each.is_open and each.whom == who
    }
    looked = {key: _looked(now, key, who) for key in now.accounts if key in accounts}
    return Seen(listed, pending, [key for key, _ in listed], looked)


def _looked(now: World, key: str, who: str) -> Looked:
    account = now.accounts[key]
    shown = account.shown(who)
    if shown is None:
        gone = account.audit[: -AUDIT_PAGE - 1 : -1] if who == account.owner else 404
        return Looked(404, 404, 404, gone)
    if shown[0] != "owner":
        return Looked(shown, 403, 403, 403)
    return Looked(shown, now.open_to(key), dict(account.shares), account.audit[: -AUDIT_PAGE - 1 : -1])


def touched(now: World, action: Action) -> str | None:
    """The account that something is about, where there is one."""
    if isinstance(action, Accept | Decline | Expire):
        invitation = now.invitations.get(action.invitation)
        return invitation.account if invitation is not None else None
    return action.account


# -- at the same time ----------------------------------------------------------------------------------------------


def orders(now: World, told: Sequence[tuple[Action, Answer | None]]) -> Iterator[World]:
    """Every world that requests which ran at the same time may have made; None is an answer that was lost.

    An invitation whose answer was lost has a name of `unnamed` until somebody has seen its id.
    """
    if not told:
        yield now
    for number, (action, answer) in enumerate(told):
        rest = [*told[:number], *told[number + 1 :]]
        after = deepcopy(now)
        given = apply(after, action, unnamed(action) if answer is None else answer.made)
        if answer is None:
            yield from orders(now, rest)
        if answer is None or given == answer:
            yield from orders(after, rest)


def unnamed(action: Action) -> str:
    """The name of an invitation whose id nobody has been told."""
    return f"? to {action.account} for {action.whom}" if isinstance(action, Invite) else ""


def name(now: World, invitations: Mapping[str, tuple[str, str]], account: str) -> None:
    """Give open invitations to an account, seen by its owner, the ids that they turn out to have."""
    for key, (whom, role) in invitations.items():
        if now.invitations.pop(f"? to {account} for {whom}", None) is not None:
            now.invitations[key] = Invitation(account, whom, role)
