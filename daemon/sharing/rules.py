"""Who may do what with an account, and when an invitation holds: pure.

    stranger ──invited──► invitee ──accepts──► member or admin ──leaves, or is revoked──► stranger again
                             └──declines, or 31 days pass, or the owner takes it back──► stranger again

A caller stands to an account by the row of `account_access` that they have, or by none.  Whoever has none is answered
that there is no such account, whether there is one or not.  Whoever has one, but not the right, is told that they may
not: they know that the account is there; but for what is `UNTOLD`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Final, Literal

Access = Literal["owner", "admin", "member"]
"""A role: what a row of `account_access` says."""

Given = Literal["admin", "member"]
"""A role that an invitation gives: all there are but the owner's, which stays where it is."""

EXPIRY: Final = timedelta(days=31)
"""How long an invitation holds (API contract, part 1: the reference's example)."""

MOST_PENDING: Final = 100
"""Invitations of one account that may be open: nobody shares a mailbox with more people at once, and each is a row that
a stranger's address has not confirmed."""


class Act(StrEnum):
    """What a caller may want to do with an account."""

    SEE = "see"
    """In lists, by itself, its messages."""
    SYNC = "sync"
    CHANGE = "change"
    """Its name, its own daily limit, whether it is paused."""
    CHANGE_CREDENTIALS = "change_credentials"
    """Where its servers are, and how to log in: whoever may do that can lead the account to another mailbox."""
    MAKE_DEFAULT = "make_default"
    INVITE = "invite"
    LIST_INVITATIONS = "list_invitations"
    REVOKE_INVITATION = "revoke_invitation"
    LIST_SHARES = "list_shares"
    REVOKE_SHARE = "revoke_share"
    LEAVE = "leave"
    """Give back one's own share."""
    AUDIT = "audit"
    CAMPAIGN = "campaign"
    """Say that a campaign sends as it."""
    DISCONNECT = "disconnect"


_OWNER: Final[frozenset[Access]] = frozenset({"owner"})
_ADMINS: Final[frozenset[Access]] = frozenset({"owner", "admin"})
_ALL: Final[frozenset[Access]] = frozenset({"owner", "admin", "member"})

ALLOWED: Final[Mapping[Act, frozenset[Access]]] = {
    Act.SEE: _ALL,
    Act.SYNC: _ADMINS,
    Act.CHANGE: _ADMINS,
    Act.CHANGE_CREDENTIALS: _OWNER,
    Act.MAKE_DEFAULT: _OWNER,
    Act.INVITE: _OWNER,
    Act.LIST_INVITATIONS: _OWNER,
    Act.REVOKE_INVITATION: _OWNER,
    Act.LIST_SHARES: _OWNER,
    Act.REVOKE_SHARE: _OWNER,
    Act.LEAVE: _ALL - _OWNER,
    Act.AUDIT: _OWNER,
    Act.CAMPAIGN: _ALL,
    Act.DISCONNECT: _OWNER,
}
"""The rules (API contract, part 3, "Sharing"): which roles may do it."""

UNTOLD: Final[frozenset[Act]] = frozenset({Act.LEAVE, Act.DISCONNECT})
"""Where somebody with the wrong role, too, is answered that there is nothing: an owner has no share to give back, and
to disconnect an account that is not one's own is 404 in the reference."""


class Standing(StrEnum):
    """How somebody who is signed in stands to an account."""

    STRANGER = "stranger"
    INVITED = "invited"
    DECLINED = "declined"
    """Was invited, and did not want to."""
    FORMER = "former member"
    """Had a share, and has it no longer."""
    MEMBER = "member"
    ADMIN = "admin"
    OWNER = "owner"

    @property
    def access(self) -> Access | None:
        """Their role, None without any."""
        return _ROLES.get(self)


_ROLES: Final[Mapping[Standing, Access]] = {
    Standing.OWNER: "owner", Standing.ADMIN: "admin", Standing.MEMBER: "member",
}  # fmt: skip


class Reply(StrEnum):
    """What somebody who was invited may say."""

    ACCEPT = "accept"
    DECLINE = "decline"


REPLIES: Final[Mapping[Reply, frozenset[Standing]]] = {
    Reply.ACCEPT: frozenset({Standing.INVITED, Standing.MEMBER, Standing.ADMIN}),
    Reply.DECLINE: frozenset({Standing.INVITED}),
}
"""Whose reply to their own invitation is taken: who accepted may say so again as long as they have their share.
Everybody else finds no invitation, and nobody finds another's."""


class AccountNotFound(Exception):
    """No such account, or not one the caller may use: which of the two is never told."""


class NotAllowed(Exception):
    """The caller has the account, but not this right."""


def demand(act: Act, access: Access | None) -> None:
    """Let pass who may; *access* is the caller's role, None without any.

    Raises:
        AccountNotFound: the caller has no part in the account; or may not, and it is not told.
        NotAllowed: their role does not allow it.
    """
    if access in ALLOWED[act]:
        return
    if access is None or act in UNTOLD:
        raise AccountNotFound
    raise NotAllowed


class Conflict(StrEnum):
    """Why somebody cannot be invited."""

    ONESELF = "own_address"
    SHARED = "already_shared"
    INVITED = "already_invited"
    TOO_MANY = "too_many_invitations"


class CannotInvite(Exception):
    """The invitation would say nothing new, or be one too many."""

    def __init__(self, conflict: Conflict) -> None:
        super().__init__(conflict.value)
        self.conflict = conflict


def judge_invitation(invitee: str, inviter: str, *, has_access: bool, pending: bool, open_invitations: int) -> None:
    """Let pass who may be invited; addresses are normalised.

    Raises:
        CannotInvite: of several reasons the one that comes first in `Conflict`.
    """
    if invitee == inviter:
        raise CannotInvite(Conflict.ONESELF)
    if has_access:
        raise CannotInvite(Conflict.SHARED)
    if pending:
        raise CannotInvite(Conflict.INVITED)
    if open_invitations >= MOST_PENDING:
        raise CannotInvite(Conflict.TOO_MANY)


class InvitationNotFound(Exception):
    """No such invitation, or not the caller's, or no longer open: which of these is never told."""


def demand_reply(reply: Reply, standing: Standing) -> None:
    """Let pass who may say so to the invitation that is theirs.

    Raises:
        InvitationNotFound: it is not, or no longer, theirs to answer so.
    """
    if standing not in REPLIES[reply]:
        raise InvitationNotFound


class ShareNotFound(Exception):
    """The account is not shared with this user."""
