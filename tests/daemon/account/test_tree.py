"""One account's tree against a real Dovecot and PostgreSQL: what the world does to it, and what becomes of it."""

import signal
from collections.abc import Callable
from functools import partial
from uuid import UUID

import pytest
import trio

from daemon.account import sync as sync_module
from daemon.account import tree as tree_module
from daemon.account.states import State
from daemon.imap import watch as watch_module
from daemon.imap.folder_sync import FolderSync
from daemon.imap.open import Timeouts, open_session
from daemon.storage.database import Database
from daemon.storage.migrate import migrate
from ops.testservers.dovecot import Dovecot
from ops.testservers.mail import message, messages
from ops.testservers.tls import Authority
from tests.daemon.account.running import (
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
from tests.fix_postgres import Server
from tests.fix_proxy import OpenProxy
from tests.stored import one, stored_messages

_COUNT = "SELECT count(*) FROM messages WHERE account_id = %s"


async def has(db: Database, account_id: UUID, count: int) -> bool:
    return await one(db, _COUNT, account_id) == count


async def off_loop(work: Callable[..., object], *arguments: object) -> None:
    await trio.to_thread.run_sync(work, *arguments)


def tasks_below(nursery: trio.Nursery) -> list[trio.lowlevel.Task]:
    """All tasks of a nursery's subtree."""
    found = []
    for task in nursery.child_tasks:
        found.append(task)
        for inner in task.child_nurseries:
            found += tasks_below(inner)
    return found


async def test_it_syncs_watches_and_idles_on_two_tasks(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser
) -> None:
    dovecot.seed(mail_user.name, messages(20, seed=1))
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)
    runtime = make_runtime(db, authority, dovecot.imaps_port)
    async with trio.open_nursery() as nursery:
        tree = tree_module.AccountTree(runtime, claim)
        await nursery.start(tree.run)
        await in_state(db, claim.account_id, "watching")
        assert await has(db, claim.account_id, 20)
        assert len(tasks_below(nursery)) == 2
        assert tree.state is State.WATCHING
        assert tree.heard_at is not None
        await off_loop(dovecot.deliver, mail_user.name, message("new"))
        await until(lambda: has(db, claim.account_id, 21))
        await until(lambda: is_one(db, claim.account_id, "new_messages"))
        assert len(tasks_below(nursery)) == 2
        tree.request_stop()
    assert await one(db, "SELECT count(*) FROM events WHERE type = 'account.synced'") == 1


async def is_one(db: Database, account_id: UUID, name: str) -> bool:
    return bool(await column(db, account_id, name) == 1)


async def test_a_refused_password_parks_until_there_is_another(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser
) -> None:
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, "wrong")
    kinds: list[str] = []
    runtime = make_runtime(db, authority, dovecot.imaps_port, faults=kinds.append)
    async with running(runtime, claim) as tree:
        await in_state(db, claim.account_id, "parked")
        assert await column(db, claim.account_id, "state_code") == "auth_failed"
        assert "password" in await column(db, claim.account_id, "state_reason")
        assert await column(db, claim.account_id, "retry_at") is None
        tree.sync_now()  # asking does not help
        await trio.sleep(0.3)
        assert await one(db, "SELECT data->>'code' FROM events WHERE type = 'account.error'") == "auth_failed"

        await change_password(db, claim.account_id, mail_user.password)
        tree.changed()
        await in_state(db, claim.account_id, "watching")
        assert await column(db, claim.account_id, "state_reason") is None
        assert await column(db, claim.account_id, "trouble_since") is None
    assert kinds == ["auth_failed"], "a parked account does not try again"


async def test_its_server_goes_and_comes(
    db: Database, authority: Authority, private_dovecot: Dovecot, new_user: str
) -> None:
    server = private_dovecot
    claim = await add_account(db, new_user, server.imaps_port, server.password)
    kinds: list[str] = []
    runtime = make_runtime(db, authority, server.imaps_port, retry_longest=0.5, faults=kinds.append)
    async with running(runtime, claim):
        await in_state(db, claim.account_id, "watching")
        await off_loop(server.stop)
        await in_state(db, claim.account_id, "retrying")
        retry_in = "extract(epoch FROM retry_at - now())::float"
        assert await until(lambda: column(db, claim.account_id, f"{retry_in} BETWEEN 0 AND 0.6"))
        assert await column(db, claim.account_id, "state_code") in {"connection_lost", "connect_failed"}
        assert await column(db, claim.account_id, "trouble_since IS NOT NULL")
        await until(lambda: seen(kinds, tree_module.INTENSITY + 2))  # it never parks, however often it fails
        assert await column(db, claim.account_id, "state") in {"retrying", "connecting"}
        await off_loop(server.start)
        await off_loop(server.deliver, new_user, message("after"))
        await in_state(db, claim.account_id, "watching")
        await until(lambda: has(db, claim.account_id, 1))


async def test_a_server_gone_deaf_is_found_out_by_the_renewal(
    db: Database,
    authority: Authority,
    dovecot: Dovecot,
    mail_user: MailUser,
    proxy: OpenProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link = await proxy(dovecot.imaps_port)
    monkeypatch.setattr(watch_module, "DONE_TIME", 0.5)
    monkeypatch.setattr(sync_module, "open_session", partial(open_session, timeouts=Timeouts(silence=0.5)))
    claim = await add_account(db, mail_user.name, link.port, mail_user.password)
    async with running(make_runtime(db, authority, link.port, renewal=1.0), claim):
        await in_state(db, claim.account_id, "watching")
        link.swallow()
        await off_loop(dovecot.deliver, mail_user.name, message("unheard"))
        await in_state(db, claim.account_id, "retrying")
        link.cut()
        link.hear()
        await until(lambda: has(db, claim.account_id, 1))
        await in_state(db, claim.account_id, "watching")
    assert link.accepted >= 2


async def test_a_bug_parks_its_own_account_only(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    ill = await add_account(db, f"ill-{mail_user.name}", dovecot.imaps_port, mail_user.password)
    well = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)
    kinds: list[str] = []
    runtime = make_runtime(db, authority, dovecot.imaps_port, faults=kinds.append)
    healthy = FolderSync.run

    async def broken(self: FolderSync) -> object:
        if self.record._store.claim == ill:
            raise ZeroDivisionError("a bug of ours")
        return await healthy(self)

    monkeypatch.setattr(FolderSync, "run", broken)
    async with running(runtime, well), trio.open_nursery() as nursery:
        tree = tree_module.AccountTree(runtime, ill)
        await nursery.start(tree.run)
        await in_state(db, well.account_id, "watching")
        await in_state(db, ill.account_id, "parked")
        assert await column(db, ill.account_id, "state_code") == "internal_error"
        assert "Zero" not in await column(db, ill.account_id, "state_reason")
        assert tree.parked
        assert kinds.count("internal_error") == tree_module.INTENSITY + 1, "the one that was too many counts as well"
        told = "SELECT data->>'code' FROM events WHERE type = 'account.error' AND account_id = %s"
        assert await one(db, told, ill.account_id) == "internal_error"
        await off_loop(dovecot.deliver, mail_user.name, message("for the sibling"))
        await until(lambda: has(db, well.account_id, 1))


async def test_sync_now_is_served(db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser) -> None:
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)
    async with running(make_runtime(db, authority, dovecot.imaps_port), claim) as tree:
        await in_state(db, claim.account_id, "watching")
        assert await column(db, claim.account_id, "sync_served_at") is None
        tree.sync_now()
        served = await until(lambda: column(db, claim.account_id, "sync_served_at"))
        tree.sync_now()
        await until(lambda: column(db, claim.account_id, f"sync_served_at > '{served.isoformat()}'"))


async def test_a_request_that_waited_is_served_by_the_start(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser
) -> None:
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)
    await execute(db, "UPDATE accounts SET sync_requested_at = now()")
    async with running(make_runtime(db, authority, dovecot.imaps_port), claim):
        await until(lambda: column(db, claim.account_id, "sync_served_at >= sync_requested_at"))


async def test_sync_now_cuts_a_pause_short(
    db: Database, authority: Authority, private_dovecot: Dovecot, new_user: str
) -> None:
    server = private_dovecot
    await off_loop(server.stop)
    claim = await add_account(db, new_user, server.imaps_port, server.password)
    runtime = make_runtime(db, authority, server.imaps_port, retry_first=600.0, retry_longest=600.0)
    async with running(runtime, claim) as tree:
        await in_state(db, claim.account_id, "retrying")
        await off_loop(server.start)
        tree.sync_now()
        await in_state(db, claim.account_id, "watching")
        assert await column(db, claim.account_id, "sync_served_at IS NOT NULL")


async def test_a_lost_claim_ends_the_tree_by_itself(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser
) -> None:
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)
    kinds: list[str] = []
    runtime = make_runtime(db, authority, dovecot.imaps_port, faults=kinds.append)
    tree = tree_module.AccountTree(runtime, claim)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(tree.run)
            await in_state(db, claim.account_id, "watching")
            await execute(db, "UPDATE claims SET epoch = epoch + 1")
            since = await column(db, claim.account_id, "state_since")
            await off_loop(dovecot.deliver, mail_user.name, message("no longer ours"))
    assert await has(db, claim.account_id, 0)
    assert await column(db, claim.account_id, "state_since") == since, "who lost the claim writes nothing"
    assert kinds == []
    assert not tree.parked


async def test_a_paused_account_is_not_run(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser
) -> None:
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)
    await execute(db, "UPDATE accounts SET desired = 'paused'")
    with trio.fail_after(10):
        await tree_module.AccountTree(make_runtime(db, authority, dovecot.imaps_port), claim).run()
    assert await column(db, claim.account_id, "state") == "new"


async def test_its_database_is_restarted_under_it(
    private_server: Server, authority: Authority, dovecot: Dovecot, mail_user: MailUser
) -> None:
    await migrate(private_server.dsn)
    kinds: list[str] = []
    async with Database(private_server.dsn) as db, trio.open_nursery() as nursery:
        await nursery.start(db.watch)
        claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)
        runtime = make_runtime(db, authority, dovecot.imaps_port, faults=kinds.append)
        async with running(runtime, claim):
            await in_state(db, claim.account_id, "watching")
            await off_loop(private_server.stop, signal.SIGQUIT)
            await off_loop(dovecot.deliver, mail_user.name, message("meanwhile"))
            await trio.sleep(0.5)
            private_server.settings = {}
            pid = await trio.to_thread.run_sync(private_server.start)
            assert pid
            await until(lambda: has(db, claim.account_id, 1))
            await in_state(db, claim.account_id, "watching")
            assert kinds == [], "the database being away is nobody's fault"
            (held,) = (await stored_messages(db, claim.account_id)).values()
            (there,) = (await trio.to_thread.run_sync(dovecot.dump, mail_user.name)).values()
            assert held.sha256 == there.sha256
        nursery.cancel_scope.cancel()
