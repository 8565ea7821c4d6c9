"""What the control API may ask of accounts: connect, look, synchronise, disconnect.

Nothing here calls an actor: what is asked is written to the database, with a command for whichever node runs the
account, and this node's fleet is nudged.  Connecting verifies both servers before anything is saved, and checks what
can be checked without a server first: a duplicate of the caller's own, and the quota.  Whether somebody else has the
mailbox is told only to who holds its password.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import UUID

import psycopg
import structlog
import trio
from uuid_utils.compat import uuid7

from daemon import events
from daemon.identity import Plans, User, rates_store, users_store
from daemon.identity.rates import Told, untold
from daemon.identity.users import normalise_email
from daemon.network import Dialer
from daemon.sharing import audit_store, sharing_store
from daemon.sharing.audit_store import Action
from daemon.sharing.rules import AccountNotFound, Act, demand
from daemon.sharing.service import SharingService
from daemon.sharing.views import Caller
from daemon.storage.connection import Conn
from daemon.storage.requests import PATIENCE, Requests
from daemon.vault import Vault

from . import access_store, owning_store, reputation_store
from .access_store import SyncRequest
from .caller_rates import CallerRates
from .campaigns import CampaignRegistry
from .changing import AccountChanges
from .listing import Form, Listing
from .owning_store import NewAccount
from .verifying import verify
from .views import (
    AccountView,
    AlreadyConnected,
    CampaignsActive,
    ConnectRequest,
    QuotaReached,
    ReputationView,
    SyncOverview,
    SyncRun,
    VerificationFailed,
)

log = structlog.get_logger(__name__)

SYNC_SPACING: Final = 30.0
"""Seconds between two runs on request of one account (API contract, part 2)."""

SYNC_WAIT: Final = 10.0
"""Seconds that a request to synchronise waits for its run before it answers `queued`."""

SYNC_LOOK: Final = 0.1
"""Seconds between looks whether the run is done: it may be another node's."""

REMEMBER: Final = 10_000
"""Callers remembered as stored, so that a request is not a write; beyond it all are forgotten and stored again."""


@dataclass(frozen=True, slots=True)
class AccountServiceStatistics:
    """What was asked."""

    connected: int
    refused: int
    disconnected: int


@dataclass(slots=True)
class _Saving:
    """The ids under which one connect tries to save, over all its tries."""

    fresh: UUID
    former: UUID | None = None


class AccountService:
    """Implements what the control API needs of accounts."""

    def __init__(
        self,
        requests: Requests,
        dialer: Dialer,
        vault: Vault,
        plans: Plans,
        *,
        rates: CallerRates,
        nudge: Callable[[], None],
    ) -> None:
        self._requests = requests
        self._dialer = dialer
        self._vault = vault
        self._plans = plans
        self._rates = rates
        self._nudge = nudge
        self.sharing = SharingService(requests, rates.invitations)
        self.changes = AccountChanges(requests, dialer, vault, rates=rates, nudge=nudge)
        self.campaigns = CampaignRegistry(requests, rates.changes)
        self._remembered: dict[str, User] = {}
        self._connected = self._refused = self._disconnected = 0

    def statistics(self) -> AccountServiceStatistics:
        """What was asked since the start."""
        return AccountServiceStatistics(self._connected, self._refused, self._disconnected)

    async def remember(self, user: User) -> None:
        """Store who called, when that is news."""
        if self._remembered.get(user.id) == user:
            return
        await self._requests.run(partial(users_store.remember, user=user))
        if len(self._remembered) >= REMEMBER:
            self._remembered.clear()
        self._remembered[user.id] = user

    def listing(self, form: Form) -> Listing:
        """The accounts that callers may see, kept in a form and brought up to date at each call."""
        return Listing(self._requests.read, form, patience=PATIENCE)

    async def get_account(self, user: User, account_id: UUID) -> AccountView:
        """One account with its folders.

        Raises:
            AccountNotFound: unknown, or not the caller's to see.
        """
        get = partial(access_store.get_view, user_id=user.id, account_id=account_id)
        view = await self._requests.run(get)
        if view is None:
            raise AccountNotFound
        demand(Act.SEE, view.access)
        return view

    async def reputations(self, user: User) -> Sequence[ReputationView]:
        """How the accounts that the caller has part in stand, and what they have sent; the oldest first."""
        return await self._requests.read(partial(reputation_store.reputations, user_id=user.id))

    # -- connecting ----------------------------------------------------------------------------------------------------

    async def connect(self, caller: Caller, request: ConnectRequest, told: Told = untold) -> AccountView:
        """Verify a mailbox's credentials at both servers, and save it; *told* how the caller stands to their rate.

        Raises:
            RateExceeded: the caller tried too often, or all callers this host or mailbox.
            AlreadyConnected: the caller has connected this address, or somebody this mailbox.
            QuotaReached: the caller's plan allows no more.
            VerificationFailed: a server said no, or could not be reached as asked; nothing was saved.
            DatabaseAway: nothing was saved; or it is not known, where it went away during COMMIT.
        """
        user = caller.user
        await rates_store.count(self._requests, self._rates.connects, user, told)
        await self.remember(user)
        await self._requests.run(partial(self._check, user=user, email=request.email))
        await self._rates.count_target(self._requests, user, (request.imap, request.smtp), request.username)
        try:
            await verify(self._dialer, request.imap, request.smtp, request.username, request.password)
        except VerificationFailed as failed:
            self._refused += 1
            log.info("connect.refused", service=failed.service.value, kind=failed.fault.kind.value)
            raise
        saving = _Saving(uuid7())

        async def save(conn: Conn, in_doubt: bool) -> AccountView:
            account_id = await self._save(conn, in_doubt, caller=caller, request=request, saving=saving)
            view = await access_store.get_view(conn, user.id, account_id)  # as it was saved, whatever follows
            assert view is not None, "nobody disconnects it behind the lock of its owner"
            return view

        try:
            view = await self._requests.settle(save)
        except psycopg.errors.UniqueViolation:
            raise AlreadyConnected from None
        self._connected += 1
        self._nudge()
        return view

    async def _check(self, conn: Conn, *, user: User, email: str) -> None:
        """What can be refused without a server."""
        if await owning_store.is_connected(conn, user.id, normalise_email(email)):
            raise AlreadyConnected
        limits = self._plans.limits(user.plan)
        if limits.accounts is not None and await owning_store.count_owned(conn, user.id) >= limits.accounts:
            raise QuotaReached(limits.slug, limits.accounts)

    async def _save(
        self, conn: Conn, in_doubt: bool, *, caller: Caller, request: ConnectRequest, saving: _Saving
    ) -> UUID:
        """Save what was verified; a mailbox that the caller disconnected before comes back with its id and mail."""
        user = caller.user
        await users_store.lock(conn, user.id)
        for tried in filter(None, (saving.former, saving.fresh)) if in_doubt else ():
            if await owning_store.is_running(conn, tried):
                return tried
        await self._check(conn, user=user, email=request.email)
        former = await owning_store.find_removed(conn, user.id, request.imap.host, request.username)
        saving.former = former
        account_id = former or saving.fresh
        sealed = self._vault.seal(account_id, {"password": request.password})
        account = NewAccount(
            id=account_id,
            owner_id=user.id,
            email=request.email,
            email_normal=normalise_email(request.email),
            name=request.name,
            imap=request.imap,
            smtp=request.smtp,
            username=request.username,
            data_key=sealed.data_key,
            password_sealed=sealed.fields["password"],
        )
        await owning_store.save(conn, account)
        connected = {"email": account.email, "revived": former is not None}
        await events.append(conn, events.EventType.ACCOUNT_CONNECTED, account_id, connected)
        await audit_store.note(conn, caller, account_id, Action.CONNECTED, connected)
        return account_id

    # -- disconnecting -------------------------------------------------------------------------------------------------

    async def disconnect(self, caller: Caller, account_id: UUID) -> None:
        """Stop an account and forget its credentials; its mail stays.

        Raises:
            AccountNotFound: unknown, or not the caller's own.
            CampaignsActive: it is the only remaining default account while campaigns are active.
        """

        async def remove(conn: Conn, in_doubt: bool) -> None:
            await users_store.lock(conn, caller.user.id)  # behind it an earlier try is stored, or never will be
            if not (in_doubt and await owning_store.just_removed(conn, caller.user.id, account_id)):
                await self._remove(conn, caller=caller, account_id=account_id)

        await self._requests.settle(remove)
        self._disconnected += 1
        self._nudge()

    async def _remove(self, conn: Conn, *, caller: Caller, account_id: UUID) -> None:
        user = caller.user
        demand(Act.DISCONNECT, await sharing_store.access(conn, user.id, account_id))
        owned = await owning_store.lock_owned(conn, user.id, account_id)
        if owned is None:
            raise AccountNotFound
        if owned.is_default and not owned.others and owned.campaigns:
            raise CampaignsActive
        removed = await owning_store.remove(conn, user.id, account_id)
        await events.append(conn, events.EventType.ACCOUNT_DISCONNECTED, account_id, {"email": owned.email})
        gone = {"shares": removed.shares, "invitations": removed.invitations}
        await audit_store.note(conn, caller, account_id, Action.DISCONNECTED, gone)
        if removed.new_default is not None:
            await audit_store.note(conn, caller, removed.new_default, Action.CHANGED, {"is_default": True})

    # -- synchronising -------------------------------------------------------------------------------------------------

    async def sync_overview(self, user: User) -> Sequence[SyncOverview]:
        """How the synchronisation of the caller's accounts goes."""
        return await self._requests.run(partial(access_store.overview, user_id=user.id))

    async def sync_now(self, caller: Caller, account_id: UUID | None) -> SyncRun:
        """Synchronise an account now, the default one when none is named; waits a while for the run.

        At most one run in SYNC_SPACING; a repeat answers the previous run's result as `queued`.

        Raises:
            AccountNotFound: unknown, or the caller has no part in it.
            NotAllowed: their role does not allow it.
        """
        ask = partial(self._ask, user=caller.user, account_id=account_id)
        asked, repeat = await self._requests.settle(ask)
        if repeat or not asked.runnable:
            return SyncRun(asked.account_id, "queued", asked.new_messages, asked.last_synced_at)
        self._nudge()
        look = partial(self._look, user=caller.user, account_id=asked.account_id, lock=False)
        with trio.move_on_after(SYNC_WAIT):
            while True:
                await trio.sleep(SYNC_LOOK)
                now = await self._requests.run(look)  # it may have been disconnected meanwhile, or the share revoked
                if now.served:
                    return SyncRun(now.account_id, "synced", now.new_messages, now.served_at)
        return SyncRun(asked.account_id, "queued", asked.new_messages, asked.last_synced_at)

    async def _ask(
        self, conn: Conn, in_doubt: bool, *, user: User, account_id: UUID | None
    ) -> tuple[SyncRequest, bool]:
        """Leave the request, and whether it is a repeat; a recent one that may be this one's own is none."""
        asked = await self._look(conn, user=user, account_id=account_id, lock=True)
        if not asked.recent and asked.runnable:
            await access_store.request_sync(conn, asked.account_id)
        return asked, asked.recent and not in_doubt

    @staticmethod
    async def _look(conn: Conn, *, user: User, account_id: UUID | None, lock: bool) -> SyncRequest:
        asked = await access_store.sync_request(conn, user.id, account_id, spacing=SYNC_SPACING, lock=lock)
        demand(Act.SYNC, asked.access if asked is not None else None)
        if asked is None:
            raise AccountNotFound
        return asked
