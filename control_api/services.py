"""What the API asks of the daemon: two Protocols, so that handlers can be run without a daemon behind them.

Every method is bounded by the handler's own deadline (`[api] handler_timeout`), which cancels it; so an implementation
must be safe to cancel at any await.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol
from uuid import UUID

from daemon.account.listing import Form
from daemon.account.views import AccountView, ConnectRequest, SyncOverview, SyncRun
from daemon.identity import User


class Listing(Protocol):
    """Lists of accounts, each as one of the callers may see it."""

    async def show(self, user_id: str, /) -> bytes:
        """The user's list in its form, as it is now."""
        ...


class AccountsService(Protocol):
    """Accounts as one caller may see and change them; each method looks only at what `user` may use.

    All raise `daemon.errors.Fault` of kind DATABASE_AWAY when PostgreSQL does not answer, and of kind THROTTLED when
    this caller asks too often.
    """

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

    async def connect(self, user: User, request: ConnectRequest) -> AccountView:
        """Verify the credentials against both servers, then save the account.

        Raises:
            AlreadyConnected: this address or this mailbox is connected.
            QuotaReached: the plan allows no further account.
            VerificationFailed: a server did not accept the credentials, or was not reached as asked.
        """
        ...

    async def disconnect(self, user: User, account_id: UUID) -> None:
        """Stop the account for good; its mail stays.

        Raises:
            AccountNotFound: no such account, or not the caller's own.
            CampaignsActive: it is the only remaining default account, and campaigns are active.
        """
        ...

    async def sync_overview(self, user: User) -> Sequence[SyncOverview]:
        """How far each of the caller's accounts is."""
        ...

    async def sync_now(self, user: User, account_id: UUID | None) -> SyncRun:
        """Ask for a synchronisation of one account, the default one when None.

        Raises:
            AccountNotFound: no such account, none of the caller's, or no default account.
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
