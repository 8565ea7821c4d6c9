"""What sharing must do, as a few dictionaries: nothing here looks like SQL or HTTP.  Pure.

A `World` is accounts, who has part in them, and invitations.  `apply` does to it what a request asks and says what must
be answered; `sharing_seen` says what everybody must be shown then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

Noted = tuple[str, str, Mapping[str, object]]
"""An entry of an audit: what was done, by whom, and what it tells of TOLD."""

TOLD: Final[Mapping[str, tuple[str, ...]]] = {
    "account.connected": ("revived",),
    "account.disconnected": ("shares", "invitations"),
    "account.changed": ("name", "is_default"),
}
"""By action, details that are compared: others are ids that nobody may have been told, or addresses in capitals."""

MISSING: Final = "not_found"
FORBIDDEN: Final = "not_allowed"


@dataclass(frozen=True, slots=True)
class Invite:
    """Somebody is invited; *shout* writes their address in capitals."""

    who: str
    account: str
    whom: str
    role: str
    shout: bool = False


@dataclass(frozen=True, slots=True)
class Accept:
    """An invitation is accepted."""

    who: str
    invitation: str


@dataclass(frozen=True, slots=True)
class Decline:
    """An invitation is declined."""

    who: str
    invitation: str


@dataclass(frozen=True, slots=True)
class TakeBack:
    """An invitation is taken back."""

    who: str
    account: str
    invitation: str


@dataclass(frozen=True, slots=True)
class Unshare:
    """A share is taken back, or one's own given back."""

    who: str
    account: str
    whom: str


@dataclass(frozen=True, slots=True)
class Disconnect:
    """An account is disconnected."""

    who: str
    account: str


@dataclass(frozen=True, slots=True)
class Connect:
    """An account is connected again by its owner."""

    who: str
    account: str


@dataclass(frozen=True, slots=True)
class Change:
    """An account gets a name, or becomes the default one, or both."""

    who: str
    account: str
    name: str | None = None
    default: bool = False


@dataclass(frozen=True, slots=True)
class Expire:
    """No request: the time of an invitation is over."""

    invitation: str


Action = Invite | Accept | Decline | TakeBack | Unshare | Disconnect | Connect | Change | Expire


@dataclass(frozen=True, slots=True)
class Answer:
    """A request's answer, as far as the model knows what it must be."""

    status: int
    said: object = ""
    """The code of a refusal, or what is told of what was done."""
    made: str = ""
    """The id of the invitation that was made."""


DONE: Final = Answer(200)


@dataclass(slots=True)
class Account:
    """One account, connected or not."""

    owner: str
    name: str
    connected: bool = True
    is_default: bool = False
    shares: dict[str, str] = field(default_factory=dict)
    """With whom, as what."""
    audit: list[Noted] = field(default_factory=list)
    """The first first."""

    def note(self, action: str, who: str, **told: object) -> None:
        """Write an entry."""
        self.audit.append((action, who, told))

    def access(self, who: str) -> str | None:
        """Somebody's role in it."""
        if not self.connected:
            return None
        return "owner" if who == self.owner else self.shares.get(who)

    def shown(self, who: str) -> tuple[str, bool, str] | None:
        """What an answer shows of it to somebody: their role, whether it is their default, its name."""
        access = self.access(who)
        return (access, self.is_default and access == "owner", self.name) if access is not None else None


@dataclass(frozen=True, slots=True)
class Invitation:
    """One that is open or was accepted; all others are as if they had never been."""

    account: str
    whom: str
    role: str
    is_open: bool = True


@dataclass(slots=True)
class World:
    """All that there is: accounts by their address, the one that was connected first first; invitations by their id."""

    accounts: dict[str, Account]
    invitations: dict[str, Invitation] = field(default_factory=dict)

    def open_to(self, account: str) -> dict[str, tuple[str, str]]:
        """Open invitations to an account: whom, as what."""
        return {
            key: (each.whom, each.role)
            for key, each in self.invitations.items()
            if each.account == account and each.is_open
        }


def world(owners: Mapping[str, str]) -> World:
    """Accounts that were just connected, by their address in order, each with its owner."""
    made = World({account: Account(owner, account) for account, owner in owners.items()})
    for each in made.accounts.values():
        each.is_default = not any(o.is_default for o in made.accounts.values() if o.owner == each.owner)
        each.note("account.connected", each.owner, revived=False)
    return made


def apply(now: World, action: Action, made: str = "") -> Answer:
    """Do it to the world; what must be answered.  *made* is the id that a new invitation has."""
    match action:
        case Invite():
            return _invite(now, action, made)
        case Accept():
            return _accept(now, action)
        case Decline():
            return _decline(now, action)
        case TakeBack():
            return _take_back(now, action)
        case Unshare():
            return _unshare(now, action)
        case Disconnect():
            return _disconnect(now, action)
        case Connect():
            return _connect(now, action)
        case Change():
            return _change(now, action)
        case Expire(invitation):
            if (found := now.invitations.get(invitation)) is not None and found.is_open:
                del now.invitations[invitation]
            return DONE


def _refused(account: Account, who: str, *roles: str) -> Answer | None:
    """How somebody without one of these roles is refused."""
    access = account.access(who)
    if access is None:
        return Answer(404, MISSING)
    return None if access in roles else Answer(403, FORBIDDEN)


def _invite(now: World, action: Invite, made: str) -> Answer:
    account = now.accounts[action.account]
    if (refused := _refused(account, action.who, "owner")) is not None:
        return refused
    if action.whom == action.who:
        return Answer(409, "own_address")
    if action.whom in account.shares:
        return Answer(409, "already_shared")
    if any(whom == action.whom for whom, _ in now.open_to(action.account).values()):
        return Answer(409, "already_invited")
    now.invitations[made] = Invitation(action.account, action.whom, action.role)
    account.note("invitation.created", action.who)
    return Answer(200, (action.whom, action.role), made)


def _accept(now: World, action: Accept) -> Answer:
    invitation = now.invitations.get(action.invitation)
    if invitation is None or invitation.whom != action.who:
        return Answer(404, MISSING)
    account = now.accounts[invitation.account]
    if not invitation.is_open:
        again = action.who in account.shares
        return Answer(200, invitation.account) if again else Answer(404, MISSING)
    account.shares[action.who] = invitation.role
    account.note("invitation.accepted", action.who)
    now.invitations[action.invitation] = Invitation(invitation.account, invitation.whom, invitation.role, is_open=False)
    return Answer(200, invitation.account)


def _decline(now: World, action: Decline) -> Answer:
    invitation = now.invitations.get(action.invitation)
    if invitation is None or invitation.whom != action.who or not invitation.is_open:
        return Answer(404, MISSING)
    del now.invitations[action.invitation]
    now.accounts[invitation.account].note("invitation.declined", action.who)
    return DONE


def _take_back(now: World, action: TakeBack) -> Answer:
    account = now.accounts[action.account]
    if (refused := _refused(account, action.who, "owner")) is not None:
        return refused
    if action.invitation not in now.open_to(action.account):
        return Answer(404, MISSING)
    del now.invitations[action.invitation]
    account.note("invitation.revoked", action.who)
    return DONE


def _unshare(now: World, action: Unshare) -> Answer:
    account = now.accounts[action.account]
    leaving = action.who == action.whom and action.who in account.shares
    if (refused := _refused(account, action.who, "owner", *(["admin", "member"] if leaving else []))) is not None:
        return refused
    if account.shares.pop(action.whom, None) is None:
        return Answer(404, MISSING)
    account.note("share.left" if leaving else "share.revoked", action.who)
    return DONE


def _disconnect(now: World, action: Disconnect) -> Answer:
    account = now.accounts[action.account]
    if account.access(action.who) != "owner":
        return Answer(404, MISSING)
    gone = {"shares": len(account.shares), "invitations": len(now.open_to(action.account))}
    account.note("account.disconnected", action.who, **gone)
    account.connected = False
    account.shares.clear()
    now.invitations = {key: each for key, each in now.invitations.items() if each.account != action.account}
    if account.is_default:
        account.is_default = False
        others = (each for each in now.accounts.values() if each.owner == account.owner and each.connected)
        if (oldest := next(others, None)) is not None:
            oldest.is_default = True
            oldest.note("account.changed", action.who, is_default=True)
    return DONE


def _connect(now: World, action: Connect) -> Answer:
    account = now.accounts[action.account]
    if account.connected:
        return Answer(409, "already_connected")
    account.connected = True  # it is called what it was called before
    account.is_default = not any(o.is_default for o in now.accounts.values() if o.owner == account.owner)
    account.note("account.connected", action.who, revived=True)
    return Answer(200, (action.account, "pending"))


def _change(now: World, action: Change) -> Answer:
    account = now.accounts[action.account]
    roles = ("owner",) if action.default else ("owner", "admin")
    if (refused := _refused(account, action.who, *roles)) is not None:
        return refused
    changed: dict[str, object] = {}
    if action.name is not None and action.name != account.name:
        account.name = changed["name"] = action.name
    if action.default and not account.is_default:
        for each in now.accounts.values():
            if each.owner == account.owner and each.is_default:
                each.is_default = False
                each.note("account.changed", action.who, is_default=False)
        account.is_default = changed["is_default"] = True
    if changed:
        account.note("account.changed", action.who, **changed)
    return Answer(200, account.shown(action.who))
