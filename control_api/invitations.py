"""The resources of sharing: invitations and shares of an account, invitations that one has received, the audit."""

from __future__ import annotations

from collections.abc import Sequence

from daemon.sharing.rules import Act, Reply

from .answers import Done
from .answers_sharing import (
    Accepted,
    Audit,
    AuditEntry,
    InvitationMade,
    Invitations,
    OpenInvitation,
    ReceivedInvitation,
    ReceivedInvitations,
    SharedWith,
    Shares,
)
from .operation import Call, Operation
from .schemas_sharing import AnswerBody, InviteBody, number_in
from .services import SharingApi

_TAG = "Sharing"
_INVITATIONS = "/mail/accounts/{account_id}/invitations"
_INVITATION = "/mail/accounts/{account_id}/invitations/{invitation_id}"
_SHARES = "/mail/accounts/{account_id}/shares"
_SHARE = "/mail/accounts/{account_id}/shares/{user_id}"
_AUDIT = "/mail/accounts/{account_id}/audit"
_NO_ACCOUNT = "There is no such account, or you have no part in it: which of the two is never told."
_NOT_ALLOWED = "`not_allowed`: your role in the account does not allow that."
_NO_INVITATION = "There is no such invitation, or it is not yours, or no longer open: which of these is never told."


def operations(service: SharingApi) -> Sequence[Operation]:
    """The operations of these resources."""

    async def list_invitations(call: Call) -> Invitations:
        found = await service.invitations(call.caller, call.ids["account_id"])
        return Invitations(invitations=[OpenInvitation.of(invitation) for invitation in found])

    async def invite(call: Call) -> InvitationMade:
        body = call.body_as(InviteBody)
        made = await service.invite(call.caller, call.ids["account_id"], body.email, body.role, call.told)
        return InvitationMade(invitation=OpenInvitation.of(made))

    async def revoke_invitation(call: Call) -> Done:
        await service.revoke_invitation(call.caller, call.ids["account_id"], call.words["invitation_id"])
        return Done()

    async def list_shares(call: Call) -> Shares:
        found = await service.shares(call.caller, call.ids["account_id"])
        return Shares(shares=[SharedWith.of(share) for share in found])

    async def revoke_share(call: Call) -> Done:
        await service.revoke_share(call.caller, call.ids["account_id"], call.words["user_id"])
        return Done()

    async def received(call: Call) -> ReceivedInvitations:
        found = await service.received(call.caller)
        return ReceivedInvitations(invitations=[ReceivedInvitation.of(invitation) for invitation in found])

    async def accept(call: Call) -> Accepted:
        return Accepted(account_id=await service.accept(call.caller, call.body_as(AnswerBody).invitation_id))

    async def decline(call: Call) -> Done:
        await service.decline(call.caller, call.body_as(AnswerBody).invitation_id)
        return Done()

    async def audit(call: Call) -> Audit:
        found = await service.audit(call.caller, call.ids["account_id"], number_in(call.query, "before"))
        return Audit(entries=[AuditEntry.of(entry) for entry in found])

    owner = {403: _NOT_ALLOWED, 404: _NO_ACCOUNT}
    return (
        Operation(
            "GET", _INVITATIONS, "listInvitations", "List an account's open invitations", _TAG, list_invitations,
            Invitations, act=Act.LIST_INVITATIONS, refusals=owner,
        ),
        Operation(
            "POST", _INVITATIONS, "invite", "Invite somebody to an account", _TAG, invite, InvitationMade,
            act=Act.INVITE, body=InviteBody, limited=True,
            description="The invitation belongs to whoever signs in with this address. It holds for 31 days.",
            refusals={
                **owner,
                400: "`validation_failed`.",
                409: "`own_address`, `already_shared`, `already_invited`, `too_many_invitations`.",
            },
        ),
        Operation(
            "DELETE", _INVITATION, "revokeInvitation", "Take back an invitation", _TAG, revoke_invitation, Done,
            act=Act.REVOKE_INVITATION,
            refusals={403: _NOT_ALLOWED, 404: f"{_NO_ACCOUNT} Or: {_NO_INVITATION}"},
        ),
        Operation(
            "GET", _SHARES, "listShares", "List with whom an account is shared", _TAG, list_shares, Shares,
            act=Act.LIST_SHARES, refusals=owner,
        ),
        Operation(
            "DELETE", _SHARE, "revokeShare", "Take back a share", _TAG, revoke_share, Done,
            act=Act.REVOKE_SHARE, also={"one's own": Act.LEAVE},
            description="The owner takes back anybody's; everybody may give back their own. It holds at once.",
            refusals={403: _NOT_ALLOWED, 404: f"{_NO_ACCOUNT} Or the account is not shared with this user."},
        ),
        Operation(
            "GET", "/mail/invitations/pending", "listReceivedInvitations", "List the invitations you have received",
            _TAG, received, ReceivedInvitations,
        ),
        Operation(
            "POST", "/mail/invitations/accept", "acceptInvitation", "Accept an invitation", _TAG, accept, Accepted,
            act=Reply.ACCEPT, body=AnswerBody, refusals={400: "`validation_failed`.", 404: _NO_INVITATION},
        ),
        Operation(
            "POST", "/mail/invitations/decline", "declineInvitation", "Decline an invitation", _TAG, decline, Done,
            act=Reply.DECLINE, body=AnswerBody, refusals={400: "`validation_failed`.", 404: _NO_INVITATION},
        ),
        Operation(
            "GET", _AUDIT, "getAudit", "See who did what to an account", _TAG, audit, Audit,
            act=Act.AUDIT, query={"before": "Entries older than the one with this id."},
            description="The last hundred entries, newest first.",
            refusals={**owner, 400: "`validation_failed`: `before` is no number."},
        ),
    )
