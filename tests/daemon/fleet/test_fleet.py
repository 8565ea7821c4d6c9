"""Whole fleets, two on one database in one process, with real mailboxes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest
import trio

from daemon.account import proofs as proofs_module
from daemon.account.pacing import Pacing
from daemon.account.tree import Runtime
from daemon.fleet import claims_store
from daemon.fleet.fleet import Fleet
from daemon.fleet.gauges import gauges
from daemon.imap.folder_sync import FolderSync
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from ops.testservers.dovecot import Dovecot
from ops.testservers.mail import message
from ops.testservers.tls import Authority
from tests.daemon.account.running import (
    add_account,
    column,
    execute,
    in_state,
    make_runtime,
    until,
)
from tests.fix_dovecot import MailUser
from tests.stored import one


@asynccontextmanager
async def fleet(runtime: Runtime, *, capacity: int = 100, ttl: float = 30.0) -> AsyncIterator[Fleet]:
    """A node's fleet, stopped in the order the daemon stops it in: rounds, accounts, membership."""
    migrated = trio.Event()
    migrated.set()
    made = Fleet(runtime, node=uuid4(), capacity=capacity, ttl=ttl, version="test", migrated=migrated)
    async with trio.open_nursery() as membership:
        await membership.start(runtime.proofs.run)
        await membership.start(made.run_membership)
        async with trio.open_nursery() as accounts:
            await accounts.start(made.run_accounts)
            async with trio.open_nursery() as rounds:
                await rounds.start(made.run_rounds)
                yield made
                rounds.cancel_scope.cancel()
            made.stop_accounts()
            accounts.cancel_scope.deadline = trio.current_time() + 30.0
        assert not accounts.cancel_scope.cancelled_caught, "the accounts did not end in their time"
        membership.cancel_scope.cancel()


async def add_accounts(db: Database, dovecot: Dovecot, user: MailUser, count: int) -> list[UUID]:
    made = [
        (await add_account(db, f"{n}-{user.name}", dovecot.imaps_port, user.password)).account_id for n in range(count)
    ]
    await execute(db, "UPDATE claims SET owner = NULL, epoch = 0")
    return made


async def command(db: Database, account_id: UUID, kind: str) -> None:
    await execute(db, "INSERT INTO commands (account_id, kind) VALUES (%s, %s)", account_id, kind)


async def all_watching(db: Database, count: int) -> bool:
    return await one(db, "SELECT count(*) FROM accounts WHERE state = 'watching'") == count


@pytest.fixture
def runtime(db: Database, authority: Authority, dovecot: Dovecot) -> Runtime:
    return make_runtime(db, authority, dovecot.imaps_port)


async def test_it_runs_what_is_to_run_and_leaves_nothing_claimed(
    db: Database, runtime: Runtime, dovecot: Dovecot, mail_user: MailUser
) -> None:
    await add_accounts(db, dovecot, mail_user, 3)
    async with fleet(runtime) as node:
        await until(lambda: all_watching(db, 3))
        seen = node.statistics()
        assert (seen.running, seen.claimed, seen.lost, dict(seen.states)) == (3, 3, 0, {"watching": 3})
        assert seen.oldest_proof is not None
        assert node.turning
        values = {(g.name, *g.labels.values()): g.value for g in gauges(node, db, runtime.pacing, runtime.lookout)}
        assert values["accountsd_accounts", "watching"] == 3
        assert values["accountsd_database_up",] == 1
        assert await one(db, "SELECT count(*) FROM claims WHERE owner = %s", node.node) == 3
    assert await one(db, "SELECT count(*) FROM claims WHERE owner IS NOT NULL") == 0
    assert await one(db, "SELECT count(*) FROM nodes") == 0


async def test_two_nodes_share_and_one_takes_all_back(
    db: Database, runtime: Runtime, dovecot: Dovecot, mail_user: MailUser
) -> None:
    ids = await add_accounts(db, dovecot, mail_user, 7)

    async def shares(*counts: int) -> bool:
        return sorted([first.statistics().running, second.statistics().running]) == sorted(counts)

    async with fleet(runtime) as first:
        await until(lambda: all_watching(db, 7))
        async with fleet(runtime) as second:
            await until(lambda: shares(3, 4))
            await until(lambda: all_watching(db, 7))
            for account_id in ids:
                user = await column(db, account_id, "username")
                await trio.to_thread.run_sync(dovecot.deliver, user, message("shared"))
            await until(lambda: stored(db, 7))
        await until(lambda: all_running(first, 7))
        await until(lambda: all_watching(db, 7))
        assert first.statistics().lost == 0
    assert await one(db, "SELECT count(*) = count(DISTINCT account_id) FROM messages")


async def stored(db: Database, count: int) -> bool:
    return await one(db, "SELECT count(*) FROM messages") == count


async def all_running(node: Fleet, count: int) -> bool:
    return node.statistics().running == count


async def test_nobody_runs_more_than_its_capacity(
    db: Database, runtime: Runtime, dovecot: Dovecot, mail_user: MailUser
) -> None:
    await add_accounts(db, dovecot, mail_user, 5)
    async with fleet(runtime, capacity=2) as small:
        await until(lambda: all_watching(db, 2))
        await rounds_more(small)
        assert small.statistics().running == 2
        async with fleet(runtime, capacity=10) as large:
            await until(lambda: all_watching(db, 5))
            assert (small.statistics().running, large.statistics().running) == (2, 3)


async def rounds_more(node: Fleet) -> None:
    """Until a round has begun and ended that knows what is so now, and one more."""
    last = node.statistics().rounds + 3  # the first of them may be under way already
    await until(lambda: has_made(node, last))


async def has_made(node: Fleet, rounds: int) -> bool:
    node.nudge()
    return node.statistics().rounds >= rounds


async def runs(node: Fleet, count: int) -> bool:
    return node.statistics().running == count


async def test_a_paused_account_stops_and_runs_again(
    db: Database, runtime: Runtime, dovecot: Dovecot, mail_user: MailUser
) -> None:
    (account_id,) = await add_accounts(db, dovecot, mail_user, 1)
    async with fleet(runtime) as node:
        await in_state(db, account_id, "watching")
        await execute(db, "UPDATE accounts SET desired = 'paused'")
        await command(db, account_id, "changed")
        node.nudge()
        await in_state(db, account_id, "stopped")
        assert await until(lambda: one(db, "SELECT owner IS NULL FROM claims"))
        await until(lambda: runs(node, 0))  # the tree is forgotten after its claim was given back
        await execute(db, "UPDATE accounts SET desired = 'running'")
        node.nudge()
        await in_state(db, account_id, "watching")


async def test_requests_reach_the_account(
    db: Database, runtime: Runtime, dovecot: Dovecot, mail_user: MailUser
) -> None:
    (account_id,) = await add_accounts(db, dovecot, mail_user, 1)
    async with fleet(runtime):
        await in_state(db, account_id, "watching")
        await execute(db, "UPDATE accounts SET sync_requested_at = now()")
        await command(db, account_id, "sync")
        await until(lambda: column(db, account_id, "sync_served_at >= sync_requested_at"))


async def test_an_account_that_a_bug_parked_runs_again_when_asked(
    db: Database, runtime: Runtime, dovecot: Dovecot, mail_user: MailUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    (account_id,) = await add_accounts(db, dovecot, mail_user, 1)

    async def broken(self: FolderSync) -> None:
        raise ZeroDivisionError("a bug of ours")

    async with fleet(runtime) as node:
        with monkeypatch.context() as patch:
            patch.setattr(FolderSync, "run", broken)
            await in_state(db, account_id, "parked")
            await rounds_more(node)  # it stays down
            assert await column(db, account_id, "state") == "parked"
            assert node.statistics().running == 1
        await command(db, account_id, "changed")
        await in_state(db, account_id, "watching")


async def test_an_account_claimed_elsewhere_is_stopped_here(
    db: Database, runtime: Runtime, dovecot: Dovecot, mail_user: MailUser
) -> None:
    (account_id,) = await add_accounts(db, dovecot, mail_user, 1)
    thief = uuid4()
    async with fleet(runtime) as node:
        await in_state(db, account_id, "watching")
        await execute(
            db,
            "INSERT INTO nodes (id, name, version, capacity, expires_at)"
            " VALUES (%s, 'thief', '1', 1, now() + interval '1 hour')",
            thief,
        )
        await execute(db, "UPDATE claims SET owner = %s, epoch = epoch + 1", thief)
        await until(lambda: all_running(node, 0))
        assert await column(db, account_id, "state") == "watching", "what it is now is the other node's to say"
        await execute(db, "DELETE FROM nodes WHERE id = %s", thief)
        await until(lambda: all_running(node, 1))
        assert await one(db, "SELECT owner FROM claims") == node.node


async def test_a_fleet_waits_while_the_host_is_silent_for_nobody_else(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser
) -> None:
    """Accounts of a server that accepts and says nothing hold no place another host needs."""
    async with trio.open_nursery() as nursery:
        [silent] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = silent.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, _say_nothing, [silent])
        for number in range(6):
            await add_account(db, f"s{number}-{mail_user.name}", port, mail_user.password)
        await execute(db, "UPDATE accounts SET imap_host = '127.0.0.1'")
        await add_accounts(db, dovecot, mail_user, 2)
        pacing = Pacing(starting=2, starting_per_host=2, first_syncs=2)
        runtime = make_runtime(db, authority, dovecot.imaps_port, port, pacing=pacing)
        async with fleet(runtime):
            await until(lambda: all_watching(db, 2))
        nursery.cancel_scope.cancel()


async def _say_nothing(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def test_quiet_rounds_do_not_read_all_claims(
    db: Database, runtime: Runtime, dovecot: Dovecot, mail_user: MailUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand rows a second would be a tenth of a core; that something has changed is one number."""
    ids = await add_accounts(db, dovecot, mail_user, 2)
    original, reads = claims_store.owned, 0

    async def owned(conn: Conn, node_id: UUID) -> claims_store.Owned:
        nonlocal reads
        reads += 1
        return await original(conn, node_id)

    monkeypatch.setattr(claims_store, "owned", owned)
    async with fleet(runtime) as node:
        await until(lambda: all_watching(db, 2))

        async def quiet() -> bool:
            rounds, before = node.statistics().rounds, reads
            while node.statistics().rounds < rounds + 5:
                node.nudge()
                await trio.sleep(0.02)
            return reads == before

        assert await quiet()
        await execute(db, "UPDATE accounts SET desired = 'paused' WHERE id = %s", ids[0])
        await until(lambda: all_running(node, 1))
        await until(quiet)
        await execute(db, "UPDATE accounts SET desired = 'running' WHERE id = %s", ids[0])
        await until(lambda: all_running(node, 2))
        await execute(db, "UPDATE claims SET epoch = epoch + 1 WHERE account_id = %s", ids[1])
        before = reads
        await until(lambda: settled(db, node, reads > before))
        await until(quiet)


async def settled(db: Database, node: Fleet, noticed: bool) -> bool:
    return noticed and await all_running(node, 2) and await all_watching(db, 2)


async def test_a_restart_of_many_is_written_together(
    db: Database, runtime: Runtime, dovecot: Dovecot, mail_user: MailUser
) -> None:
    """One by one each account would cost nine transactions; a state that lasts for a moment is not written at all."""
    made = await add_accounts(db, dovecot, mail_user, 20)
    async with fleet(runtime):
        await until(lambda: all_watching(db, 20))
    since = await one(db, "SELECT max(last_synced_at) FROM accounts")
    before = db.statistics().transactions
    async with fleet(runtime) as node:
        with trio.fail_after(20):
            while node.statistics().states.get("watching") != len(made):  # noqa: ASYNC110 - asking would be counted
                await trio.sleep(0.05)
        spent = db.statistics().transactions - before
    renewed = "SELECT count(*) FROM accounts WHERE last_synced_at > %s AND state = 'watching'"
    assert await one(db, renewed, since) == len(made), "what watches has been written"
    assert await one(db, "SELECT count(*) FROM folders WHERE synced_at > %s", since) == len(made)
    assert spent < 4 * len(made)


async def test_proofs_that_only_renew_are_stored_together(
    db: Database,
    authority: Authority,
    dovecot: Dovecot,
    mail_user: MailUser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proofs_module, "EVERY", 1.0)
    await add_accounts(db, dovecot, mail_user, 10)
    async with fleet(make_runtime(db, authority, dovecot.imaps_port, renewal=0.2)):
        await until(lambda: all_watching(db, 10))
        await trio.sleep(1.0)  # the first comparison of each counts what there is
        proved = await one(db, "SELECT max(proof_until) FROM accounts")
        before = db.statistics().transactions
        await trio.sleep(2.2)
        spent = db.statistics().transactions - before
        assert await one(db, "SELECT count(*) FROM accounts WHERE proof_until > %s", proved) == 10
        assert spent < 30, "of a hundred renewals"
