"""What hostile servers and a slow database must not make of an account: parked, lost, or tried without end."""

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import pytest
import trio
import trio.testing

from daemon.account import accounts_store
from daemon.account.actor import TELL_AFTER
from daemon.account.states import State
from daemon.account.tree import INTENSITY, AccountTree
from daemon.fleet import claims_store
from daemon.imap.folder_record import Tally
from daemon.imap.folder_sync import FolderSync
from daemon.storage import database as database_module
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.storage.transaction import Limits
from ops.testservers.dovecot import Dovecot
from ops.testservers.tls import Authority
from tests.daemon.account.running import (
    GREETING,
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
from tests.fix_scripted_imap import Close, On, ScriptedImap, Swallow
from tests.stored import one

ScriptedImapServer = Callable[..., Awaitable[ScriptedImap]]


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
