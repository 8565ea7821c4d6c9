"""What the API asks of the daemon, as Protocols, so that handlers can be run without a daemon behind them.

Every method is bounded by the handler's own deadline (`[api] handler_timeout`), which cancels it; so an implementation
must be safe to cancel at any await.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol
from uuid import UUID

from daemon.account.campaigns import CampaignStatus
from daemon.account.campaigns_store import Registered
from daemon.account.changing import ChangeRequest
from daemon.account.listing import Form
from daemon.account.views import AccountView, ConnectRequest, ReputationView, SyncOverview, SyncRun
from daemon.identity import User
from daemon.identity.rates import Told
from daemon.sharing.rules import Given
from daemon.sharing.views import Caller, Entry, Invitation, Received, Share


class Listing(Protocol):
    """Lists of accounts, each as one of the callers may see it."""

    async def show(self, user_id: str, /) -> bytes:
        """The user's list in its form, as it is now."""
        ...


class SharingApi(Protocol):
    """Invitations, shares and the audit; `daemon.sharing.service` says what each raises."""

    async def invite(self, caller: Caller, account_id: UUID, email: str, role: Given, told: Told, /) -> Invitation:
        """Invite an address to an account."""
        ...

    async def invitations(self, caller: Caller, account_id: UUID) -> Sequence[Invitation]:
        """An account's open invitations."""
        ...

    async def revoke_invitation(self, caller: Caller, account_id: UUID, invitation_id: str) -> None:
        """Take back an invitation."""
        ...

    async def shares(self, caller: Caller, account_id: UUID) -> Sequence[Share]:
        """With whom an account is shared."""
        ...

    async def revoke_share(self, caller: Caller, account_id: UUID, user_id: str) -> None:
        """Take back a share, or give back one's own."""
        ...

    async def received(self, caller: Caller) -> Sequence[Received]:
        """Open invitations to the caller."""
        ...

    async def accept(self, caller: Caller, invitation_id: str) -> UUID:
        """Accept an invitation; the account that it is to."""
        ...

    async def decline(self, caller: Caller, invitation_id: str) -> None:
        """Decline an invitation."""
        ...

    async def audit(self, caller: Caller, account_id: UUID, before: int | None) -> Sequence[Entry]:
        """What was done to an account."""
        ...


class ChangesApi(Protocol):
    """Changes of accounts; `daemon.account.changing` says what each raises."""

    async def change(self, caller: Caller, account_id: UUID, request: ChangeRequest, told: Told, /) -> AccountView:
        """Change an account, all of it or nothing; as it is then."""
        ...


class CampaignsApi(Protocol):
    """The registry of campaigns; `daemon.account.campaigns` says what it raises."""

    async def register(
        self, caller: Caller, campaign_id: str, account_id: UUID, status: CampaignStatus, told: Told, /
    ) -> None:
        """Note what a campaign does."""
        ...

    async def list(self, caller: Caller) -> Sequence[Registered]:
        """The caller's campaigns that are not completed."""
        ...


class AccountsService(Protocol):
    """Accounts as one caller may see and change them; each method looks only at what `user` may use.

    All raise `daemon.errors.Fault` of kind DATABASE_AWAY when PostgreSQL does not answer, and of kind THROTTLED when
    this caller asks too often.
    """

    @property
    def sharing(self) -> SharingApi:
        """Invitations, shares and the audit."""
        ...

    @property
    def changes(self) -> ChangesApi:
        """Changes of accounts."""
        ...

    @property
    def campaigns(self) -> CampaignsApi:
        """The registry of campaigns."""
        ...

    async def remember(self, user: User) -> None:
        """Note that this user called: an upsert, cheap when nothing changed."""
        ...

    def listing(self, form: Form) -> Listing:
        """The accounts that callers own or share, in a form: asked for once, when the API is made."""
        ...

    async def get_account(self, user: User, account_id: UUID) -> AccountView:
        """One account with its folders' progress.

        Raises:
            AccountNotFound: no such account, or none of the caller's.
        """
        ...

    async def reputations(self, user: User) -> Sequence[ReputationView]:
        """How the accounts that the caller has part in stand, and what they have sent; the oldest first."""
        ...

    async def connect(self, caller: Caller, request: ConnectRequest, told: Told, /) -> AccountView:
        """Verify the credentials against both servers, then save the account; *told* how the caller stands.

        Raises:
            RateExceeded: the caller tried too often, or all callers this host or mailbox.
            AlreadyConnected: this address or this mailbox is connected.
            QuotaReached: the plan allows no further account.
            VerificationFailed: a server did not accept the credentials, or was not reached as asked.
        """
        ...

    async def disconnect(self, caller: Caller, account_id: UUID) -> None:
        """Stop the account for good; its mail stays.

        Raises:
            AccountNotFound: no such account, or not the caller's own.
            CampaignsActive: it is the only remaining default account, and campaigns are active.
        """
        ...

    async def sync_overview(self, user: User) -> Sequence[SyncOverview]:
        """How far each of the caller's accounts is."""
        ...

    async def sync_now(self, caller: Caller, account_id: UUID | None) -> SyncRun:
        """Ask for a synchronisation of one account, the default one when None.

        Raises:
            AccountNotFound: no such account, none of the caller's, or no default account.
            NotAllowed: the caller's role does not allow it.
        """
        ...


class OperationsService(Protocol):
    """What the operator's listener shows."""

    def metrics(self) -> tuple[bytes, str]:
        """The metrics as text, and their content type."""
        ...

    async def live(self) -> Mapping[str, object]:
        """What proves that the process turns; JSON values only."""
        ...

    async def ready(self) -> tuple[bool, Mapping[str, object]]:
        """Whether requests can be served, and what each part says; JSON values only."""
        ...
