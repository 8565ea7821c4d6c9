"""What the API answers about shares; see `answers` for what holds of all answers."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from daemon.account.campaigns_store import Registered
from daemon.sharing.rules import Given
from daemon.sharing.views import Entry, Invitation, Received, Share

from .answers import AnswerModel, Time


class OpenInvitation(AnswerModel):
    """An invitation that waits for its answer."""

    id: str
    invitee_email: str
    role: Given
    status: Literal["pending"] = "pending"
    created_at: Time
    expires_at: Time

    @classmethod
    def of(cls, invitation: Invitation) -> OpenInvitation:
        """From the daemon's view."""
        return cls(
            id=invitation.id,
            invitee_email=invitation.invitee_email,
            role=invitation.role,
            created_at=invitation.created_at,
            expires_at=invitation.expires_at,
        )


class Invitations(AnswerModel):
    """An account's open invitations."""

    success: Literal[True] = True
    invitations: list[OpenInvitation]


class InvitationMade(AnswerModel):
    """The invitation was made."""

    success: Literal[True] = True
    invitation: OpenInvitation


class SharedWith(AnswerModel):
    """Somebody who has part in an account."""

    user_id: str
    email: str
    role: Given
    shared_at: Time

    @classmethod
    def of(cls, share: Share) -> SharedWith:
        """From the daemon's view."""
        return cls(user_id=share.user_id, email=share.email, role=share.role, shared_at=share.shared_at)


class Shares(AnswerModel):
    """With whom an account is shared."""

    success: Literal[True] = True
    shares: list[SharedWith]


class ReceivedInvitation(AnswerModel):
    """An invitation to the caller."""

    id: str
    account_email: str
    inviter_name: str
    role: Given
    created_at: Time
    expires_at: Time

    @classmethod
    def of(cls, invitation: Received) -> ReceivedInvitation:
        """From the daemon's view."""
        return cls(
            id=invitation.id,
            account_email=invitation.account_email,
            inviter_name=invitation.inviter_name,
            role=invitation.role,
            created_at=invitation.created_at,
            expires_at=invitation.expires_at,
        )


class ReceivedInvitations(AnswerModel):
    """All open invitations to the caller."""

    success: Literal[True] = True
    invitations: list[ReceivedInvitation]


class Accepted(AnswerModel):
    """The caller has part in the account now."""

    success: Literal[True] = True
    account_id: UUID


class AuditEntry(AnswerModel):
    """One thing that somebody did to an account."""

    id: int
    at: Time
    user_id: str
    user_email: str
    client: str
    action: str
    detail: dict[str, object]

    @classmethod
    def of(cls, entry: Entry) -> AuditEntry:
        """From the daemon's view."""
        return cls(
            id=entry.id,
            at=entry.at,
            user_id=entry.user_id,
            user_email=entry.user_email,
            client=entry.client,
            action=entry.action,
            detail=dict(entry.detail),
        )


class Audit(AnswerModel):
    """What was done to an account, newest first."""

    success: Literal[True] = True
    entries: list[AuditEntry]


class RegisteredCampaign(AnswerModel):
    """One of the caller's campaigns."""

    id: str
    account_id: UUID
    status: Literal["active", "paused"]
    updated_at: Time

    @classmethod
    def of(cls, campaign: Registered) -> RegisteredCampaign:
        """From the daemon's view."""
        return cls(
            id=campaign.id,
            account_id=campaign.account_id,
            status=campaign.status,
            updated_at=campaign.updated_at,
        )


class Campaigns(AnswerModel):
    """The caller's campaigns that are not completed."""

    success: Literal[True] = True
    campaigns: list[RegisteredCampaign]
