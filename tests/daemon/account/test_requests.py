"""What is asked of an account is done: after a session that broke, during a run, and with a full mailbox."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from daemon.account import accounts_store
from daemon.account.actor import CAPACITY, AccountActor
from daemon.account.commands import Attempting, CaughtUp, Command, LoggedIn, RowChanged, SyncEnded, SyncNow
from daemon.account.proofs import Proofs
from daemon.errors import Fault, FaultKind
from daemon.imap.folder_record import Store, Tally
from daemon.imap.folder_sync import FolderSync
from daemon.storage.connection import TrioConnection
from daemon.storage.database import Database
from ops.testservers.dovecot import Dovecot
from ops.testservers.tls import Authority
from tests.daemon.account.running import (
    DONE,
    EMPTY,
    GREETING,
    IDLE,
    LOGIN,
    add_account,
    change_password,
    column,
    execute,
    in_state,
    make_runtime,
    running,
    seen,
    until,
)
from tests.fix_dovecot import MailUser
from tests.fix_scripted_imap import Close, On, ScriptedImap

ScriptedImapServer = Callable[..., Awaitable[ScriptedImap]]


# -- requests --------------------------------------------------------------------------------------------------------


async def test_a_request_whose_session_breaks_is_served_by_the_next(
    db: Database, authority: Authority, scripted_imap: ScriptedImapServer
) -> None:
    breaks = [GREETING, LOGIN, EMPTY, IDLE, DONE, On(rb"EXAMINE"), Close()]
    server = await scripted_imap(scripts=[breaks, [GREETING, LOGIN, EMPTY, IDLE]], tls=True)
    claim = await add_account(db, "u@a.test", server.port, "pw")
    async with running(make_runtime(db, authority, server.port), claim) as tree:
        await in_state(db, claim.account_id, "watching")
        await execute(db, "UPDATE accounts SET sync_requested_at = clock_timestamp()")
        tree.sync_now()
        await until(lambda: column(db, claim.account_id, "sync_served_at >= sync_requested_at"))
        assert server.connections == 2


async def test_a_request_made_during_a_run_is_served_by_one_after_it(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)
    original = FolderSync.run
    runs = 0
    began, go_on = trio.Event(), trio.Event()
    served_by_the_earlier: list[object] = []

    async def watched(self: FolderSync) -> Tally:
        nonlocal runs
        runs += 1
        if runs == 2:
            began.set()
            await go_on.wait()
        if runs == 3:
            await until(lambda: column(db, claim.account_id, "sync_served_at"))
            served_by_the_earlier.append(await column(db, claim.account_id, "sync_served_at >= sync_requested_at"))
        return await original(self)

    monkeypatch.setattr(FolderSync, "run", watched)
    async with running(make_runtime(db, authority, dovecot.imaps_port), claim) as tree:
        await in_state(db, claim.account_id, "watching")
        tree.sync_now()
        with trio.fail_after(10):
            await began.wait()
        await execute(db, "UPDATE accounts SET sync_requested_at = clock_timestamp()")
        tree.sync_now()
        go_on.set()
        await until(lambda: column(db, claim.account_id, "sync_served_at >= sync_requested_at"))
    assert served_by_the_earlier == [False]


async def test_a_request_is_served_although_the_database_answers_late(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that begins for the server long before its node hears so dates nothing back."""
    execute_now = TrioConnection.execute

    async def late(self: TrioConnection[Any], query: Any, *args: Any, **named: Any) -> Any:
        cursor = await execute_now(self, query, *args, **named)
        if isinstance(query, bytes) and query.startswith(b"BEGIN"):
            await trio.sleep(0.3)
        return cursor

    claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)
    async with running(make_runtime(db, authority, dovecot.imaps_port), claim) as tree:
        await in_state(db, claim.account_id, "watching")
        monkeypatch.setattr(TrioConnection, "execute", late)
        async with db.connection() as conn:
            await execute_now(conn, "UPDATE accounts SET sync_requested_at = clock_timestamp()")
        tree.sync_now()
        await until(lambda: column(db, claim.account_id, "sync_served_at >= sync_requested_at"), 10.0)
        monkeypatch.undo()


# -- a full mailbox --------------------------------------------------------------------------------------------------


class Control:
    """What the actor asked of the sync child."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def request(self) -> None:
        self.asked.append("request")

    def restart(self) -> None:
        self.asked.append("restart")


@asynccontextmanager
async def crowded_actor(db: Database, filler: Command) -> AsyncIterator[tuple[AccountActor, Control, trio.Nursery]]:
    """An actor whose mailbox is full of one command; it runs once the block starts it."""
    claim = await add_account(db, "u@a.test", 993, "pw")
    (row,) = await db.run(lambda conn: accounts_store.load(conn, [claim.account_id]))
    assert row is not None
    control = Control()
    actor = AccountActor(Store(db, claim), Proofs(db), row, control=control, logged_in=lambda: None)
    for _ in range(CAPACITY):
        actor.tell(filler)
    assert actor.mailbox.statistics().queued == CAPACITY
    async with trio.open_nursery() as nursery:
        yield actor, control, nursery
        nursery.cancel_scope.cancel()


async def test_a_full_mailbox_loses_no_new_credentials(db: Database) -> None:
    async with crowded_actor(db, SyncNow()) as (actor, control, nursery):
        await change_password(db, actor.account_id, "another")
        actor.tell(RowChanged())
        actor.tell(RowChanged())
        nursery.start_soon(actor.run)
        await until(lambda: seen(control.asked, CAPACITY + 1))
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert control.asked.count("restart") == 1
        assert actor.row.credentials_version == 2


async def test_a_full_mailbox_loses_no_request(db: Database) -> None:
    async with crowded_actor(db, RowChanged()) as (actor, control, nursery):
        actor.tell(SyncNow())
        actor.tell(Attempting())  # mere progress: left out
        actor.tell(LoggedIn())
        nursery.start_soon(actor.run)
        await until(lambda: seen(control.asked, 1))
        assert control.asked == ["request"]


async def test_a_full_mailbox_loses_no_end_of_an_attempt(db: Database) -> None:
    async with crowded_actor(db, RowChanged()) as (actor, control, nursery):
        actor.tell(CaughtUp(0, 1.0, None, 1))
        actor.tell(SyncEnded(Fault(FaultKind.LOST, "The connection was lost."), None, 1))
        nursery.start_soon(actor.run)
        await until(lambda: seen(control.asked, 1))
        assert control.asked == ["restart"], "it begins anew, and that tells how it is"
