"""Invitations, shares and the audit, as callers of the control API ask for them.

Each method is one transaction: the caller's role is read under the lock of the account, judged by the rules, and what
was done is noted in the audit beside it.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from uuid import UUID

import psycopg

from daemon.identity import rates_store
from daemon.identity.rates import Rate, Told, untold
from daemon.identity.users import normalise_email
from daemon.storage.connection import Conn
from daemon.storage.requests import Requests

from . import audit_store, sharing_store
from .audit_store import Action
from .rules import (
    EXPIRY,
    Access,
    AccountNotFound,
    Act,
    CannotInvite,
    Conflict,
    Given,
    InvitationNotFound,
    Reply,
    ShareNotFound,
    Standing,
    demand,
    demand_reply,
    judge_invitation,
)
from .sharing_store import NewInvitation
from .views import Caller, Entry, Invitation, Received, Share


class SharingService:
    """Implements what the control API needs of shares."""

    def __init__(self, requests: Requests, rate: Rate) -> None:
        self._requests = requests
        self._rate = rate

    # -- the owner's side ----------------------------------------------------------------------------------------------

    async def invite(
        self, caller: Caller, account_id: UUID, email: str, role: Given, told: Told = untold
    ) -> Invitation:
        """Invite an address to have part in an account; *told* how the caller stands to their rate.

        Raises:
            RateExceeded: it is one too many.
            AccountNotFound, NotAllowed: by the rules.
            CannotInvite: oneself, somebody with access, twice, or one too many.
        """
        await rates_store.count(self._requests, self._rate, caller.user, told)
        invitation = NewInvitation(
            id=f"inv_{secrets.token_hex(16)}",
            account_id=account_id,
            inviter_id=caller.user.id,
            email=email.strip(),
            normal=normalise_email(email),
            role=role,
            lasting=EXPIRY,
        )

        async def work(conn: Conn, in_doubt: bool) -> Invitation:
            access = await sharing_store.lock(conn, caller.user.id, invitation.account_id)
            made = await sharing_store.made(conn, invitation) if in_doubt else None
            return made or await self._invite(conn, caller=caller, access=access, invitation=invitation)

        try:
            return await self._requests.settle(work)
        except psycopg.errors.UniqueViolation:
            raise CannotInvite(Conflict.INVITED) from None

    @staticmethod
    async def _invite(
        conn: Conn, *, caller: Caller, access: Access | None, invitation: NewInvitation
    ) -> Invitation:
        demand(Act.INVITE, access)
        invitee = await sharing_store.invitee(conn, invitation.account_id, invitation.normal)
        judge_invitation(
            invitation.normal,
            normalise_email(caller.user.email),
            has_access=invitee.has_access,
            pending=invitee.pending,
            open_invitations=invitee.open_invitations,
        )
        made = await sharing_store.invite(conn, invitation)
        detail = {"invitation_id": made.id, "invitee_email": made.invitee_email, "role": made.role}
        await audit_store.note(conn, caller, invitation.account_id, Action.INVITED, detail)
        return made

    async def invitations(self, caller: Caller, account_id: UUID) -> Sequence[Invitation]:
        """Open invitations to an account.

        Raises:
            AccountNotFound, NotAllowed: by the rules.
        """

        async def work(conn: Conn) -> Sequence[Invitation]:
            demand(Act.LIST_INVITATIONS, await sharing_store.access(conn, caller.user.id, account_id))
            return await sharing_store.open_invitations(conn, caller.user.id, account_id)

        return await self._requests.run(work)

    async def revoke_invitation(self, caller: Caller, account_id: UUID, invitation_id: str) -> None:
        """Take back an open invitation.

        Raises:
            AccountNotFound, NotAllowed: by the rules.
            InvitationNotFound: there is no open one of this id.
        """

        async def work(conn: Conn) -> None:
            demand(Act.REVOKE_INVITATION, await sharing_store.lock(conn, caller.user.id, account_id))
            invitee = await sharing_store.revoke_invitation(conn, caller.user.id, account_id, invitation_id)
            if invitee is None:
                raise InvitationNotFound
            detail = {"invitation_id": invitation_id, "invitee_email": invitee}
            await audit_store.note(conn, caller, account_id, Action.INVITATION_REVOKED, detail)

        await self._once(work)

    async def shares(self, caller: Caller, account_id: UUID) -> Sequence[Share]:
        """With whom an account is shared.

        Raises:
            AccountNotFound, NotAllowed: by the rules.
        """

        async def work(conn: Conn) -> Sequence[Share]:
            demand(Act.LIST_SHARES, await sharing_store.access(conn, caller.user.id, account_id))
            return await sharing_store.shares(conn, caller.user.id, account_id)

        return await self._requests.run(work)

    async def revoke_share(self, caller: Caller, account_id: UUID, user_id: str) -> None:
        """Take back a share; one's own is given back.  From the commit on no request of that user sees the account.

        Raises:
            AccountNotFound, NotAllowed: by the rules.
            ShareNotFound: the account is not shared with that user.
        """

        async def work(conn: Conn) -> None:
            access = await sharing_store.lock(conn, caller.user.id, account_id)
            leaving = user_id == caller.user.id and access != "owner"
            demand(Act.LEAVE if leaving else Act.REVOKE_SHARE, access)
            if not await sharing_store.unshare(conn, caller.user.id, account_id, user_id):
                raise ShareNotFound
            action = Action.SHARE_LEFT if leaving else Action.SHARE_REVOKED
            await audit_store.note(conn, caller, account_id, action, {"user_id": user_id})

        await self._once(work)

    async def audit(self, caller: Caller, account_id: UUID, before: int | None) -> Sequence[Entry]:
        """What was done to an account, the last first; its owner may read it after it was disconnected, too.

        Raises:
            AccountNotFound, NotAllowed: by the rules.
        """

        async def work(conn: Conn) -> Sequence[Entry]:
            demand(Act.AUDIT, await sharing_store.access(conn, caller.user.id, account_id, removed=True))
            return await audit_store.read(conn, caller.user.id, account_id, before)

        return await self._requests.run(work)

    # -- the invitee's side --------------------------------------------------------------------------------------------

    async def received(self, caller: Caller) -> Sequence[Received]:
        """Open invitations to the caller's own address; a caller without one has none."""
        normal = normalise_email(caller.user.email)
        if not normal:
            return ()
        return await self._requests.run(partial(sharing_store.received, user_id=caller.user.id, normal=normal))

    async def accept(self, caller: Caller, invitation_id: str) -> UUID:
        """Have part in an account; which one.  Again by the same user, as long as they have it, is the same.

        Raises:
            InvitationNotFound: unknown, somebody else's, declined, revoked, expired, or of an account that is gone.
        """

        async def work(conn: Conn) -> UUID:
            invitation, standing = await self._addressed(conn, caller, invitation_id)
            demand_reply(Reply.ACCEPT, standing)
            if standing is not Standing.INVITED:
                return invitation.account_id
            await sharing_store.share(conn, invitation.account_id, caller.user.id, invitation.role)
            await sharing_store.settle(conn, invitation_id, "accepted")
            detail = {"invitation_id": invitation_id, "role": invitation.role}
            await audit_store.note(conn, caller, invitation.account_id, Action.INVITATION_ACCEPTED, detail)
            return invitation.account_id

        return await self._requests.run(work)

    async def decline(self, caller: Caller, invitation_id: str) -> None:
        """Refuse an invitation.

        Raises:
            InvitationNotFound: as `accept`, or it was accepted.
        """

        async def work(conn: Conn) -> None:
            invitation, standing = await self._addressed(conn, caller, invitation_id)
            demand_reply(Reply.DECLINE, standing)
            await sharing_store.settle(conn, invitation_id, "declined")
            detail = {"invitation_id": invitation_id}
            await audit_store.note(conn, caller, invitation.account_id, Action.INVITATION_DECLINED, detail)

        await self._once(work)

    async def _once(self, work: Callable[[Conn], Awaitable[None]]) -> None:
        """Run what takes something away; a COMMIT whose answer was lost may have taken it, and that is the answer."""

        async def take(conn: Conn, in_doubt: bool) -> None:
            try:
                await work(conn)
            except (AccountNotFound, InvitationNotFound, ShareNotFound):  # of one's own share the account goes with it
                if not in_doubt:
                    raise

        await self._requests.settle(take)

    @staticmethod
    async def _addressed(
        conn: Conn, caller: Caller, invitation_id: str
    ) -> tuple[sharing_store.Addressed, Standing]:
        """An invitation to the caller, its account locked, and how they stand to that for it."""
        normal = normalise_email(caller.user.email)
        invitation = await sharing_store.addressed(conn, invitation_id, normal) if normal else None
        if invitation is None:
            raise InvitationNotFound
        access = await sharing_store.access(conn, caller.user.id, invitation.account_id)
        if invitation.status == "pending" and access != "owner":  # whose address has become the one invited
            return invitation, Standing.INVITED
        return invitation, Standing.FORMER if access is None else Standing(access)
