"""What hostile servers and a slow database must not make of an account: parked, lost, or tried without end."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
import trio
import trio.testing

from daemon.account import accounts_store
from daemon.account.actor import CAPACITY, TELL_AFTER, AccountActor
from daemon.account.commands import Attempting, CaughtUp, Command, LoggedIn, RowChanged, SyncEnded, SyncNow
from daemon.account.pacing import BULK, Pacing
from daemon.account.states import State
from daemon.account.tree import INTENSITY, AccountTree
from daemon.account.turns import Turns
from daemon.errors import Fault, FaultKind
from daemon.fleet import claims_store
from daemon.imap.folder_record import Store, Tally
from daemon.imap.folder_sync import FolderSync
from daemon.storage import database as database_module
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.storage.transaction import Limits
from ops.testservers.dovecot import Dovecot
from ops.testservers.tls import Authority
from tests.daemon.account.running import (
    add_account,
    change_password,
    column,
    execute,
    in_state,
    make_runtime,
    running,
    until,
)
from tests.fix_dovecot import MailUser
from tests.fix_scripted_imap import Close, On, Say, ScriptedImap, Swallow
from tests.stored import one

ScriptedImapServer = Callable[..., Awaitable[ScriptedImap]]

GREETING = Say(b"* OK [CAPABILITY IMAP4rev1 IDLE] hi\r\n")
LOGIN = On(rb"LOGIN|AUTH", b"<tag> OK [CAPABILITY IMAP4rev1 IDLE] in\r\n")
EMPTY = On(
    rb"EXAMINE",
    b"* 0 EXISTS\r\n* OK [UIDVALIDITY 7] v\r\n* OK [UIDNEXT 1] n\r\n<tag> OK [READ-ONLY] done\r\n",
)
IDLE = On(rb"IDLE", b"+ idling\r\n")
DONE = On(rb"DONE", b"<tag> OK done\r\n")


async def seen(kinds: list[str], count: int) -> bool:
    return len(kinds) >= count


# -- whose fault it is -----------------------------------------------------------------------------------------------


async def test_a_folder_refused_for_now_is_asked_for_again_for_ever(
    db: Database, authority: Authority, scripted_imap: ScriptedImapServer
) -> None:
    down = On(rb"EXAMINE", b"<tag> NO [UNAVAILABLE] backend is down for maintenance\r\n")
    server = await scripted_imap(GREETING, LOGIN, down, Close(), tls=True)
    claim = await add_account(db, "u@a.test", server.port, "pw")
    kinds: list[str] = []
    async with running(make_runtime(db, authority, server.port, faults=kinds.append), claim) as tree:
        await until(lambda: seen(kinds, INTENSITY + 2))
        assert set(kinds) == {"server_unavailable"}
        assert not tree.parked
        await in_state(db, claim.account_id, "retrying")
        assert await column(db, claim.account_id, "state_code") == "server_unavailable"
    assert await one(db, "SELECT count(*) FROM events WHERE type = 'account.error'") == 0


async def test_a_row_locked_for_long_parks_nobody(
    db: Database,
    database_dsn: str,
    authority: Authority,
    dovecot: Dovecot,
    mail_user: MailUser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(database_module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(database_module, "MOST_CONFLICTS", 1)
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)
    await execute(db, "INSERT INTO folders (account_id, name) VALUES (%s, 'INBOX')", claim.account_id)
    kinds: list[str] = []
    async with Database(database_dsn, limits=Limits(lock=0.02)) as slow:
        runtime = make_runtime(slow, authority, dovecot.imaps_port, faults=kinds.append, retry_longest=0.05)
        async with db.connection() as holder:
            await holder.execute("BEGIN")
            await holder.execute("SELECT 1 FROM folders FOR UPDATE")
            async with running(runtime, claim) as tree:
                await until(lambda: seen(kinds, INTENSITY + 2))
                assert set(kinds) == {"database_away"}
                assert not tree.parked
                await in_state(db, claim.account_id, "retrying")
                await holder.execute("ROLLBACK")
                await in_state(db, claim.account_id, "watching")


async def test_an_attempt_that_lasts_is_told(
    db: Database, authority: Authority, scripted_imap: ScriptedImapServer
) -> None:
    server = await scripted_imap(GREETING, LOGIN, On(rb"EXAMINE"), Swallow(), tls=True)
    claim = await add_account(db, "u@a.test", server.port, "pw")
    async with running(make_runtime(db, authority, server.port), claim) as tree:
        await in_state(db, claim.account_id, "syncing", 10.0)
        assert tree.state is State.SYNCING


async def test_an_attempt_is_not_told_while_the_last_proof_is_fresh(
    db: Database, authority: Authority, scripted_imap: ScriptedImapServer
) -> None:
    server = await scripted_imap(GREETING, LOGIN, On(rb"EXAMINE"), Swallow(), tls=True)
    claim = await add_account(db, "u@a.test", server.port, "pw")
    await execute(db, "UPDATE accounts SET state = 'watching', proof_until = now() + interval '1 hour'")
    async with running(make_runtime(db, authority, server.port), claim) as tree:
        await until(lambda: has_come_to(tree, State.SYNCING))
        await trio.sleep(TELL_AFTER + 0.2)
        assert await column(db, claim.account_id, "state") == "watching"


async def has_come_to(tree: AccountTree, state: State) -> bool:
    return tree.state is state


# -- who may try again -----------------------------------------------------------------------------------------------


async def test_refused_credentials_are_not_tried_by_another_start(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser
) -> None:
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, "wrong")
    kinds: list[str] = []
    runtime = make_runtime(db, authority, dovecot.imaps_port, faults=kinds.append)
    async with running(runtime, claim):
        await in_state(db, claim.account_id, "parked")
    for _ in range(2):
        async with running(runtime, claim) as tree:
            tree.sync_now()
            await trio.sleep(0.2)
            assert await column(db, claim.account_id, "state") == "parked"
    assert kinds == ["auth_failed"], "one login, whoever starts the account"
    assert await one(db, "SELECT count(*) FROM events WHERE type = 'account.error'") == 1

    async with running(runtime, claim) as tree:
        await change_password(db, claim.account_id, mail_user.password)
        tree.changed()
        await in_state(db, claim.account_id, "watching")
    assert await column(db, claim.account_id, "refused_version") is None


async def test_refused_credentials_are_told_again_after_a_pause(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser
) -> None:
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, "wrong")
    kinds: list[str] = []
    runtime = make_runtime(db, authority, dovecot.imaps_port, faults=kinds.append)
    async with running(runtime, claim):
        await in_state(db, claim.account_id, "parked")
    await execute(db, "UPDATE accounts SET desired = 'paused'")
    await db.run(lambda conn: claims_store.mark_stopped(conn, claim.account_id))
    await execute(db, "UPDATE accounts SET desired = 'running'")
    async with running(runtime, claim):
        await in_state(db, claim.account_id, "parked", 5.0)
        assert await column(db, claim.account_id, "state_code") == "auth_failed"
    async with running(runtime, claim):
        await trio.sleep(0.1)
    assert kinds == ["auth_failed"]


async def test_new_credentials_are_tried_by_the_next_start(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser
) -> None:
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, "wrong")
    runtime = make_runtime(db, authority, dovecot.imaps_port)
    async with running(runtime, claim):
        await in_state(db, claim.account_id, "parked")
    await change_password(db, claim.account_id, mail_user.password)
    async with running(runtime, claim):
        await in_state(db, claim.account_id, "watching")


async def test_credentials_that_come_while_the_row_is_read_are_not_missed(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, "wrong")
    original, read, go_on = accounts_store.load, trio.Event(), trio.Event()

    async def load(conn: Conn, ids: Sequence[UUID]) -> list[accounts_store.AccountRow | None]:
        rows = await original(conn, ids)
        read.set()
        await go_on.wait()
        return rows

    monkeypatch.setattr(accounts_store, "load", load)
    async with running(make_runtime(db, authority, dovecot.imaps_port), claim) as tree:
        with trio.fail_after(10):
            await read.wait()
        await change_password(db, claim.account_id, mail_user.password)
        tree.changed()
        go_on.set()
        await in_state(db, claim.account_id, "watching", 5.0)


async def test_what_a_bug_parked_is_tried_by_the_next_start(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)
    runtime = make_runtime(db, authority, dovecot.imaps_port, retry_first=0.01, retry_longest=0.02)

    async def broken(self: FolderSync) -> Tally:
        raise ZeroDivisionError("a bug of ours")

    with monkeypatch.context() as patch:
        patch.setattr(FolderSync, "run", broken)
        async with running(runtime, claim):
            await in_state(db, claim.account_id, "parked")
    assert await column(db, claim.account_id, "state_code") == "internal_error"
    async with running(runtime, claim):
        await in_state(db, claim.account_id, "watching")


async def test_asking_does_not_shorten_a_pause_that_the_server_named(
    db: Database, authority: Authority, scripted_imap: ScriptedImapServer
) -> None:
    slow_down = On(rb"LOGIN|AUTH", b"<tag> NO Throttled. Suggested Backoff Time: 60000 milliseconds\r\n")
    server = await scripted_imap(GREETING, slow_down, Close(), tls=True)
    claim = await add_account(db, "u@a.test", server.port, "pw")
    async with running(make_runtime(db, authority, server.port), claim) as tree:
        await in_state(db, claim.account_id, "retrying")
        assert await column(db, claim.account_id, "state_code") == "throttled"
        for _ in range(3):
            tree.sync_now()
            await trio.sleep(0.1)
        assert server.connections == 1
        assert await column(db, claim.account_id, "retry_at > now() + interval '50 s'")


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
    actor = AccountActor(Store(db, claim), row, control=control, logged_in=lambda: None)
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
        actor.tell(CaughtUp(0, 1.0, None))
        actor.tell(SyncEnded(Fault(FaultKind.LOST, "The connection was lost."), None))
        nursery.start_soon(actor.run)
        await until(lambda: seen(control.asked, 1))
        assert control.asked == ["restart"], "it begins anew, and that tells how it is"


# -- turns -----------------------------------------------------------------------------------------------------------


class Holders:
    """Who had a turn from when."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.began: dict[str, float] = {}
        self.start = trio.current_time()

    async def hold(self, name: str, seconds: float) -> None:
        async with self.turns():
            self.began[name] = trio.current_time() - self.start
            await trio.sleep(seconds)


async def test_a_turn_is_lent_and_no_longer(autojump_clock: trio.testing.MockClock) -> None:
    holders = Holders(Turns(2, lent=60.0))
    async with trio.open_nursery() as nursery:
        for name, seconds in [("drips", 1e6), ("quick", 5.0), ("third", 1e6), ("fourth", 1.0), ("fifth", 1.0)]:
            nursery.start_soon(holders.hold, name, seconds)
            await trio.sleep(0.0)
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(1000.0)
        assert holders.began == {"drips": 0.0, "quick": 0.0, "third": 5.0, "fourth": 60.0, "fifth": 61.0}
        assert holders.turns.taken == 2, "those that drip go on without one"
        nursery.cancel_scope.cancel()
    assert holders.turns.taken == 0


async def test_who_gives_up_waiting_for_a_turn_holds_nobody_up(autojump_clock: trio.testing.MockClock) -> None:
    holders = Holders(Turns(1, lent=60.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(holders.hold, "first", 10.0)
        await trio.sleep(1.0)
        with trio.move_on_after(2.0):
            await holders.hold("impatient", 1.0)
        nursery.start_soon(holders.hold, "next", 1.0)
    assert holders.began == {"first": 0.0, "next": 10.0}


async def test_many_slow_holders_delay_the_last_by_their_turns_only(autojump_clock: trio.testing.MockClock) -> None:
    holders = Holders(Pacing(starting=1, starting_per_host=1, first_syncs=4).first_syncs)
    async with trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(holders.hold, str(number), 1e6)
        await trio.sleep(1000.0)
        assert sorted(holders.began.values()) == [0.0] * 4 + [BULK] * 4 + [2 * BULK] * 4
        nursery.cancel_scope.cancel()
