"""What accounts have to say at the same time, late, and twice: nobody waits for another, and nothing counts twice."""

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import psycopg
import trio

from daemon.account import accounts_store, owning_store
from daemon.account.accounts_store import Proof, Step, Trouble
from daemon.account.behind import BehindStore
from daemon.account.states import State
from daemon.fleet import claims_store
from daemon.imap import folders_store
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.storage.faults import DatabaseAway
from daemon.storage.fence import Claim
from daemon.storage.together import Line, Locked
from tests.daemon.account.running import add_account, change_password, column, execute, until
from tests.stored import one


async def step(db: Database, claim: Claim, state: State = State.CONNECTING) -> None:
    await db.together.write(accounts_store.set_progress, Step(claim.account_id, state), claim)


async def make_inbox(db: Database, claim: Claim) -> None:
    await db.together.write(folders_store.make_folders, (claim.account_id, "INBOX"), claim)


async def test_a_locked_account_whose_folder_is_made_holds_up_nobody_else(db: Database) -> None:
    locked, other = [await add_account(db, f"u{n}@a.test", 993, "pw") for n in range(2)]
    async with trio.open_nursery() as nursery, db.connection() as holder:
        await holder.execute("BEGIN")
        await holder.execute("SELECT FROM accounts WHERE id = %s FOR UPDATE", (locked.account_id,))
        await step(db, other, State.SYNCING)  # the line is busy: the next two go together
        nursery.start_soon(make_inbox, db, locked)
        with trio.move_on_after(5.0) as waited:
            await step(db, other)
        await holder.execute("ROLLBACK")
    assert not waited.cancelled_caught
    assert await one(db, "SELECT count(*) FROM folders WHERE account_id = %s", locked.account_id) == 1


async def test_a_disconnection_and_a_group_do_not_deadlock(db: Database) -> None:
    """The API removes one account and makes the other the default; a group makes the one's folder and writes both."""
    gone, other = [await add_account(db, f"u{n}@a.test", 993, "pw") for n in range(2)]
    await execute(db, "UPDATE accounts SET is_default = (id = %s)", gone.account_id)
    before = db.statistics().conflicts
    locked, go_on = trio.Event(), trio.Event()

    async def disconnect(conn: Conn) -> None:
        await owning_store.lock_owned(conn, "user-1", gone.account_id)
        locked.set()
        await go_on.wait()
        await owning_store.remove(conn, "user-1", gone.account_id)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(db.run, disconnect)
        await locked.wait()
        await step(db, other, State.SYNCING)  # the line is busy
        nursery.start_soon(step, db, other)
        await trio.sleep(0.01)
        nursery.start_soon(make_inbox, db, gone)
        await until(lambda: one(db, "SELECT count(*) = 1 FROM folders"))  # nor are they held up
        go_on.set()
    assert db.statistics().conflicts == before, "the server had to break a deadlock"


async def test_a_commit_whose_answer_was_lost_counts_no_message_twice(db: Database) -> None:
    claims = [await add_account(db, f"u{n}@a.test", 993, "pw") for n in range(3)]

    class LosesTheAnswer:
        async def run(
            self, work: Callable[[Conn], Awaitable[Any]], *, claim: Claim | None = None, patience: float = math.inf
        ) -> Any:
            result = await db.run(work, claim=claim, patience=patience)
            if patience == 0.0:
                raise DatabaseAway("lost during COMMIT", commit_unknown=True)
            return result

        async def wait_ready(self) -> None:
            await trio.lowlevel.checkpoint()

    line = Line(LosesTheAnswer())
    async with trio.open_nursery() as nursery:
        for claim in claims:
            proof = Proof(claim.account_id, "u@a.test", 3, 7, 60.0, None, 1)
            nursery.start_soon(line.run, accounts_store.set_caught_up, proof, claim)
    assert await one(db, "SELECT array_agg(DISTINCT new_messages) FROM accounts") == [7]
    assert await one(db, "SELECT count(*) FROM events WHERE type = 'account.synced'") == 3


async def test_a_run_begun_after_the_request_serves_it_in_a_busy_group(db: Database) -> None:
    claim, other = [await add_account(db, f"u{n}@a.test", 993, "pw") for n in range(2)]

    async def slow(conn: Conn, values: Sequence[int], locked: Locked) -> list[None]:
        await conn.execute("SELECT pg_sleep(0.2)")
        return [None] * len(values)

    await execute(db, "UPDATE accounts SET sync_requested_at = clock_timestamp() WHERE id = %s", claim.account_id)
    proof = Proof(claim.account_id, "u0@a.test", 0, 0, 60.0, await db.together.read(accounts_store.clock, None), 1)
    later = await one(db, "SELECT clock_timestamp()")
    async with trio.open_nursery() as nursery:
        await step(db, other, State.SYNCING)  # the line is busy
        nursery.start_soon(db.together.write, slow, 0, other)
        await trio.sleep(0.01)
        nursery.start_soon(db.together.write, accounts_store.set_caught_up, proof, claim)
    assert await column(db, claim.account_id, "sync_served_at >= sync_requested_at")
    assert await column(db, claim.account_id, "sync_served_at") < later, "and none that was made after it began"


async def test_new_credentials_are_not_refused_for_the_old_ones(db: Database) -> None:
    claim = await add_account(db, "u@a.test", 993, "old")
    await change_password(db, claim.account_id, "new")  # while an attempt with the old one is under way
    refused = Trouble(claim.account_id, State.PARKED, "auth_failed", "No.", None, 1, refused=True)
    await db.together.write(accounts_store.set_trouble, refused, claim)
    assert await column(db, claim.account_id, "(refused_version, credentials_version)::text") == "(,2)"


async def test_what_an_attempt_says_late_does_not_undo_a_stop(db: Database) -> None:
    claim = await add_account(db, "u@a.test", 993, "pw")
    await execute(db, "UPDATE accounts SET desired = 'paused' WHERE id = %s", claim.account_id)

    async def stop(conn: Conn) -> None:
        await claims_store.mark_stopped(conn, claim.account_id)

    await db.run(stop)
    trouble = Trouble(claim.account_id, State.RETRYING, "lost", "The connection was lost.", 3.0, 1)
    proof = Proof(claim.account_id, "u@a.test", 0, 0, 60.0, None, 1)
    await step(db, claim)
    await db.together.write(accounts_store.set_trouble, trouble, claim)
    assert await db.together.write(accounts_store.set_caught_up, proof, claim) is False
    stored = await column(db, claim.account_id, "(state, state_code, first_synced_at, proof_until)::text")
    assert stored == "(stopped,,,)"


async def test_whoever_is_behind_holds_the_gate_for_an_attempt_only(db: Database) -> None:
    claim = await add_account(db, "u@a.test", 993, "pw")
    gate, attempts, held = trio.Semaphore(1), 0, []
    store = BehindStore(db, claim, lambda: gate)

    async def lose_it_once(conn: Conn) -> None:
        nonlocal attempts
        attempts += 1
        held.append(gate.value == 0)
        if attempts == 1:
            raise psycopg.OperationalError("the connection was lost")

    async with trio.open_nursery() as nursery, db._probing:  # so that the database stays away
        nursery.start_soon(store.run, lose_it_once)
        while db.ready or gate.value == 0:  # noqa: ASYNC110 - what is waited for tells nobody
            await trio.sleep(0.005)
        assert attempts == 1
    assert held == [True, True]
