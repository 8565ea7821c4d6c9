"""A fleet whose parts fail: claims stay or are fenced, and one account's trouble holds up no other."""

from uuid import UUID

import pytest
import trio

from daemon.account.tree import Runtime
from daemon.fleet import claims_store
from daemon.fleet.fleet import Fleet
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.storage.fence import ClaimLost
from ops.testservers.dovecot import Dovecot
from ops.testservers.tls import Authority
from supervisor import ChildExists, ChildSpec, DynamicSupervisor
from tests.daemon.account.running import add_account, execute, in_state, make_runtime, until
from tests.daemon.fleet.test_fleet import add_accounts, all_running, all_watching, command, fleet, rounds_more
from tests.fix_dovecot import MailUser
from tests.stored import one


@pytest.fixture
def runtime(db: Database, authority: Authority, dovecot: Dovecot) -> Runtime:
    return make_runtime(db, authority, dovecot.imaps_port)


def make_fleet(runtime: Runtime, node: UUID) -> Fleet:
    migrated = trio.Event()
    migrated.set()
    return Fleet(runtime, node=node, capacity=10, ttl=0.15, version="test", migrated=migrated)


def break_heartbeat(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """One heartbeat ends in a bug of ours."""
    original, beats = claims_store.beat, 0

    async def beat(conn: Conn, node_id: UUID, **told: object) -> None:
        nonlocal beats
        beats += 1
        if beats == number:
            raise ZeroDivisionError("a bug of ours")
        await original(conn, node_id, **told)  # type: ignore[arg-type]  # handed through

    monkeypatch.setattr(claims_store, "beat", beat)


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_bug_in_the_heartbeat_gives_nothing_back(
    db: Database, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    claim = await add_account(db, "u@a.test", 993, "pw")
    made = make_fleet(runtime, claim.owner)
    break_heartbeat(monkeypatch, 3)
    with pytest.raises(ZeroDivisionError), trio.fail_after(10):
        await made.run_membership()
    assert await one(db, "SELECT owner FROM claims") == claim.owner
    assert await one(db, "SELECT count(*) FROM nodes") == 1
    epoch, last = await one(db, "SELECT epoch FROM claims"), await one(db, "SELECT heartbeat_at FROM nodes")

    async with trio.open_nursery() as nursery:  # as its supervisor starts it again
        await nursery.start(made.run_membership)
        if not at_once:
            await until(lambda: one(db, "SELECT heartbeat_at > %s FROM nodes", last))
            assert await one(db, "SELECT epoch FROM claims") == epoch, "its accounts run on, so their epoch does"
        nursery.cancel_scope.cancel()
    assert await one(db, "SELECT owner FROM claims") is None, "an orderly end gives back, even before a heartbeat"
    assert await one(db, "SELECT count(*) FROM nodes") == 0


async def test_what_a_killed_predecessor_has_under_way_is_fenced(db: Database, runtime: Runtime) -> None:
    """The same identity again, after kill -9: its server side may still be at work."""
    claim = await add_account(db, "u@a.test", 993, "pw")
    made = make_fleet(runtime, claim.owner)

    async def rename(conn: Conn) -> None:
        await conn.execute("UPDATE accounts SET name = 'late'")

    async with trio.open_nursery() as nursery:
        await nursery.start(made.run_membership)
        await until(lambda: one(db, "SELECT epoch = 2 FROM claims"))
        with pytest.raises(ClaimLost):
            await db.run(rename, claim=claim)
        (now,) = (await db.run(lambda conn: claims_store.owned(conn, claim.owner))).claims
        assert (now.owner, now.epoch) == (claim.owner, claim.epoch + 1)
        await db.run(rename, claim=now)
        nursery.cancel_scope.cancel()


async def test_a_start_that_finds_the_last_life_still_there_is_made_up_for(
    db: Database, runtime: Runtime, dovecot: Dovecot, mail_user: MailUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    (account_id,) = await add_accounts(db, dovecot, mail_user, 1)
    original, tried = DynamicSupervisor.start_child, 0

    def start_child(self: DynamicSupervisor, spec: ChildSpec) -> None:
        nonlocal tried
        tried += 1
        if tried <= 2:
            raise ChildExists(spec.id)
        original(self, spec)

    monkeypatch.setattr(DynamicSupervisor, "start_child", start_child)
    async with fleet(runtime) as node:
        await until(lambda: one(db, "SELECT owner IS NOT NULL FROM claims"))
        assert node.statistics().running == 0
        for _ in range(100):
            node.nudge()
            await trio.sleep(0.02)
            if node.statistics().running:
                break
        await in_state(db, account_id, "watching")
    assert tried == 3


async def test_a_stop_that_hangs_holds_up_no_other_account(
    db: Database, runtime: Runtime, dovecot: Dovecot, mail_user: MailUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, other = await add_accounts(db, dovecot, mail_user, 2)
    original, let_go, asked = DynamicSupervisor.stop_child, trio.Event(), trio.Event()

    async def stop_child(self: DynamicSupervisor, child_id: str) -> None:
        if child_id == str(stuck):
            asked.set()
            await let_go.wait()
        await original(self, child_id)

    monkeypatch.setattr(DynamicSupervisor, "stop_child", stop_child)
    await execute(db, "UPDATE accounts SET desired = 'paused' WHERE id = %s", other)
    async with fleet(runtime) as node:
        await in_state(db, stuck, "watching")
        await execute(db, "UPDATE accounts SET desired = 'paused' WHERE id = %s", stuck)
        await execute(db, "UPDATE accounts SET desired = 'running' WHERE id = %s", other)
        node.nudge()
        with trio.fail_after(10):
            await asked.wait()
        await in_state(db, other, "watching")
        await execute(db, "UPDATE accounts SET sync_requested_at = clock_timestamp() WHERE id = %s", other)
        await command(db, other, "sync")
        node.nudge()
        await until(lambda: one(db, "SELECT sync_served_at >= sync_requested_at FROM accounts WHERE id = %s", other))
        await execute(db, "UPDATE accounts SET desired = 'running' WHERE id = %s", stuck)
        await rounds_more(node)
        assert node.statistics().running == 2, "not started beside its own last life"
        let_go.set()
        await until(lambda: all_watching(db, 2))
        await until(lambda: all_running(node, 2))
