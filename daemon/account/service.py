"""What the control API may ask of accounts: connect, look, synchronise, disconnect.

Nothing here calls an actor: what is asked is written to the database, with a command for whichever node runs the
account, and this node's fleet is nudged.  Connecting verifies both servers before anything is saved, and checks what
can be checked without a server first: a duplicate of the caller's own, and the quota.  Whether somebody else has the
mailbox is told only to who holds its password.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar
from uuid import UUID

import psycopg
import structlog
import trio
from uuid_utils.compat import uuid7

from daemon import events
from daemon.errors import Fault
from daemon.identity import Plans, User, users_store
from daemon.identity.users import normalise_email
from daemon.imap.open import Timeouts
from daemon.imap.open import verify_login as verify_imap
from daemon.network import Dialer
from daemon.smtp.verify import verify_login as verify_smtp
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.storage.faults import DatabaseAway, is_conflict, is_slow
from daemon.vault import Vault

from . import access_store
from .access_store import NewAccount, SyncRequest
from .listing import PATIENCE, Form, Listing
from .views import (
    AccountNotFound,
    AccountView,
    AlreadyConnected,
    CampaignsActive,
    ConnectRequest,
    QuotaReached,
    Service,
    SyncOverview,
    SyncRun,
    VerificationFailed,
)

log = structlog.get_logger(__name__)
T = TypeVar("T")

VERIFY: Final = 30.0
"""Seconds for the verification of one server, from the name to the last reply."""

SYNC_SPACING: Final = 30.0
"""Seconds between two runs on request of one account (API contract, part 2)."""

SYNC_WAIT: Final = 10.0
"""Seconds that a request to synchronise waits for its run before it answers `queued`."""

SYNC_LOOK: Final = 0.1
"""Seconds between looks whether the run is done: it may be another node's."""

READ_AGAIN: Final = 0.1
"""Seconds until a statement is tried again whose connection was lost, for the next one may be alive; doubled each time
for one that a time limit ended or that gave way to another."""

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
        database: Database,
        dialer: Dialer,
        vault: Vault,
        plans: Plans,
        *,
        migrated: Callable[[], bool],
        nudge: Callable[[], None],
    ) -> None:
        self._database = database
        self._dialer = dialer
        self._vault = vault
        self._plans = plans
        self._migrated = migrated
        self._nudge = nudge
        self._remembered: dict[str, User] = {}
        self._connected = self._refused = self._disconnected = 0

    def statistics(self) -> AccountServiceStatistics:
        """What was asked since the start."""
        return AccountServiceStatistics(self._connected, self._refused, self._disconnected)

    async def _run(self, work: Callable[[Conn], Awaitable[T]]) -> T:
        """One transaction; DatabaseAway when the database is away for longer than a request waits."""
        if not self._migrated():
            raise DatabaseAway("the schema has not been brought up to date yet")
        with trio.move_on_after(PATIENCE):  # a server that has fallen silent under way is away as well
            return await self._database.run(work, patience=PATIENCE)
        raise DatabaseAway("the database did not answer in the time of a request")

    async def _read(self, work: Callable[[Conn], Awaitable[T]]) -> T:
        """One statement outside any transaction; DatabaseAway when it is away for longer than a request waits."""
        if not self._migrated():
            raise DatabaseAway("the schema has not been brought up to date yet")
        pause = READ_AGAIN
        with trio.move_on_after(PATIENCE):  # cancels it on the server as well
            while True:
                await self._database.wait_ready()
                try:
                    async with self._database.connection() as conn:
                        return await work(conn)
                except DatabaseAway:
                    await trio.sleep(READ_AGAIN)
                except psycopg.Error as exc:
                    if not is_slow(exc) and not is_conflict(exc):
                        raise
                    await trio.sleep(pause)
                    pause *= 2
        raise DatabaseAway("the database did not answer in the time of a request")

    async def remember(self, user: User) -> None:
        """Store who called, when that is news."""
        if self._remembered.get(user.id) == user:
            return
        await self._run(partial(users_store.remember, user=user))
        if len(self._remembered) >= REMEMBER:
            self._remembered.clear()
        self._remembered[user.id] = user

    def listing(self, form: Form) -> Listing:
        """The accounts that callers may see, kept in a form and brought up to date at each call."""
        return Listing(self._read, form, patience=PATIENCE)

    async def get_account(self, user: User, account_id: UUID) -> AccountView:
        """One account with its folders.

        Raises:
            AccountNotFound: unknown, or not the caller's to see.
        """
        get = partial(access_store.get_view, user_id=user.id, account_id=account_id)
        view = await self._run(get)
        if view is None:
            raise AccountNotFound
        return view

    # -- connecting ----------------------------------------------------------------------------------------------------

    async def connect(self, user: User, request: ConnectRequest) -> AccountView:
        """Verify a mailbox's credentials at both servers, and save it.

        Raises:
            AlreadyConnected: the caller has connected this address, or somebody this mailbox.
            QuotaReached: the caller's plan allows no more.
            VerificationFailed: a server said no, or could not be reached as asked; nothing was saved.
            DatabaseAway: nothing was saved.
        """
        await self.remember(user)
        await self._run(partial(self._check, user=user, email=request.email))
        try:
            await self._verify(request)
        except VerificationFailed as failed:
            self._refused += 1
            log.info("connect.refused", service=failed.service.value, kind=failed.fault.kind.value)
            raise
        saving = _Saving(uuid7())
        try:
            account_id = await self._run(partial(self._save, user=user, request=request, saving=saving))
        except psycopg.errors.UniqueViolation:
            raise AlreadyConnected from None
        self._connected += 1
        self._nudge()
        return await self.get_account(user, account_id)

    async def _check(self, conn: Conn, *, user: User, email: str) -> None:
        """What can be refused without a server."""
        if await access_store.is_connected(conn, user.id, normalise_email(email)):
            raise AlreadyConnected
        limits = self._plans.limits(user.plan)
        if limits.accounts is not None and await access_store.count_owned(conn, user.id) >= limits.accounts:
            raise QuotaReached(limits.slug, limits.accounts)

    async def _verify(self, request: ConnectRequest) -> None:
        """Both servers at once; of two failures the IMAP server's is told."""
        failures: dict[Service, Fault] = {}

        async def imap() -> None:
            try:
                await verify_imap(
                    self._dialer, request.imap, request.username, request.password,
                    timeouts=Timeouts(login=VERIFY), equal_times=True,
                )  # fmt: skip
            except Fault as fault:
                failures[Service.IMAP] = fault

        async def smtp() -> None:
            try:
                await verify_smtp(
                    self._dialer, request.smtp, request.username, request.password, deadline=VERIFY, equal_times=True
                )
            except Fault as fault:
                failures[Service.SMTP] = fault

        async with trio.open_nursery() as nursery:
            nursery.start_soon(imap)
            nursery.start_soon(smtp)
        for service in Service:
            if service in failures:
                raise VerificationFailed(service, failures[service])

    async def _save(self, conn: Conn, *, user: User, request: ConnectRequest, saving: _Saving) -> UUID:
        """Save what was verified; a mailbox that the caller disconnected before comes back with its id and mail."""
        await users_store.lock(conn, user.id)
        for tried in filter(None, (saving.former, saving.fresh)):
            if await access_store.is_running(conn, tried):
                return tried  # an earlier try was committed although its answer was lost
        await self._check(conn, user=user, email=request.email)
        former = await access_store.find_removed(conn, user.id, request.imap.host, request.username)
        saving.former = former
        account_id = former or saving.fresh
        sealed = self._vault.seal(account_id, {"password": request.password})
        account = NewAccount(
            id=account_id,
            owner_id=user.id,
            email=request.email,
            email_normal=normalise_email(request.email),
            name=request.name or request.email,
            imap=request.imap,
            smtp=request.smtp,
            username=request.username,
            data_key=sealed.data_key,
            password_sealed=sealed.fields["password"],
        )
        await access_store.save(conn, account)
        connected = {"email": account.email, "revived": former is not None}
        await events.append(conn, events.EventType.ACCOUNT_CONNECTED, account_id, connected)
        return account_id

    # -- disconnecting -------------------------------------------------------------------------------------------------

    async def disconnect(self, user: User, account_id: UUID) -> None:
        """Stop an account and forget its credentials; its mail stays.

        Raises:
            AccountNotFound: unknown, or not the caller's own.
            CampaignsActive: it is the only remaining default account while campaigns are active.
        """
        tried = False

        async def remove(conn: Conn) -> None:
            nonlocal tried
            again, tried = tried, True
            # A COMMIT whose answer was lost may have done it already: then that is the answer.
            if not (again and await access_store.just_removed(conn, user.id, account_id)):
                await self._remove(conn, user=user, account_id=account_id)

        await self._run(remove)
        self._disconnected += 1
        self._nudge()

    async def _remove(self, conn: Conn, *, user: User, account_id: UUID) -> None:
        await users_store.lock(conn, user.id)
        owned = await access_store.lock_owned(conn, user.id, account_id)
        if owned is None:
            raise AccountNotFound
        if owned.is_default and not owned.others and owned.campaigns:
            raise CampaignsActive
        await access_store.remove(conn, user.id, account_id)
        await events.append(conn, events.EventType.ACCOUNT_DISCONNECTED, account_id, {"email": owned.email})

    # -- synchronising -------------------------------------------------------------------------------------------------

    async def sync_overview(self, user: User) -> Sequence[SyncOverview]:
        """How the synchronisation of the caller's accounts goes."""
        return await self._run(partial(access_store.overview, user_id=user.id))

    async def sync_now(self, user: User, account_id: UUID | None) -> SyncRun:
        """Synchronise an account now, the default one when none is named; waits a while for the run.

        At most one run in SYNC_SPACING; a repeat answers the previous run's result as `queued`.

        Raises:
            AccountNotFound: unknown, or not the caller's to synchronise.
        """
        ask = partial(self._ask, user=user, account_id=account_id)
        asked, repeat = await self._run(ask)
        if repeat or not asked.runnable:
            return SyncRun(asked.account_id, "queued", asked.new_messages, asked.last_synced_at)
        self._nudge()
        look = partial(self._look, user=user, account_id=asked.account_id, lock=False)
        with trio.move_on_after(SYNC_WAIT):
            while True:
                await trio.sleep(SYNC_LOOK)
                now = await self._run(look)
                if now is None:
                    raise AccountNotFound  # disconnected meanwhile
                if now.served:
                    return SyncRun(now.account_id, "synced", now.new_messages, now.served_at)
        return SyncRun(asked.account_id, "queued", asked.new_messages, asked.last_synced_at)

    async def _ask(self, conn: Conn, *, user: User, account_id: UUID | None) -> tuple[SyncRequest, bool]:
        asked = await self._look(conn, user=user, account_id=account_id, lock=True)
        if asked is None:
            raise AccountNotFound
        if not asked.recent and asked.runnable:
            await access_store.request_sync(conn, asked.account_id)
        return asked, asked.recent

    @staticmethod
    async def _look(conn: Conn, *, user: User, account_id: UUID | None, lock: bool) -> SyncRequest | None:
        return await access_store.sync_request(
            conn, user.id, account_id, spacing=SYNC_SPACING, roles=("owner", "admin"), lock=lock
        )
