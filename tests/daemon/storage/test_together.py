"""Group commit against a real server: who shares a transaction, and that nobody's row or fault holds up another."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import psycopg
import pytest
import trio

from daemon.account import accounts_store
from daemon.account.accounts_store import AccountRow, Proof, Step, Trouble
from daemon.account.states import State
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.storage.faults import DatabaseAway
from daemon.storage.fence import Claim, ClaimLost
from daemon.storage.together import MOST_LOST, Left, Line, Locked
from tests.daemon.account.running import add_account, column, execute
from tests.stored import one

DEADLINE = 20.0


async def claimed(db: Database, count: int) -> list[Claim]:
    return [await add_account(db, f"u{n}@a.test", 993, "pw") for n in range(count)]


async def progress(db: Database, claim: Claim, state: State = State.CONNECTING) -> None:
    await db.together.write(accounts_store.set_progress, Step(claim.account_id, state), claim)


async def in_state(db: Database, state: str) -> object:
    return await one(db, "SELECT count(*) FROM accounts WHERE state = %s", state)


async def test_many_share_a_transaction(db: Database) -> None:
    claims = await claimed(db, 30)
    before = db.statistics().transactions
    async with trio.open_nursery() as nursery:
        for claim in claims:
            nursery.start_soon(progress, db, claim)
    assert db.statistics().transactions - before <= 2
    assert db.together.writes.alone == 0
    assert await in_state(db, "connecting") == 30


async def test_many_reads_share_a_transaction_and_each_gets_its_own(db: Database) -> None:
    claims = await claimed(db, 30)
    found: dict[UUID, AccountRow | None] = {}

    async def load(claim: Claim) -> None:
        found[claim.account_id] = await db.together.read(accounts_store.load, claim.account_id)

    before = db.statistics().transactions
    async with trio.open_nursery() as nursery:
        for claim in claims:
            nursery.start_soon(load, claim)
    assert db.statistics().transactions - before <= 2
    assert all(row is not None and row.id == account_id for account_id, row in found.items())
    assert len(found) == 30


async def test_works_of_several_kinds_share_one(db: Database) -> None:
    one_claim, another, third = await claimed(db, 3)
    told: list[object] = []

    async def tell(work: Any, value: object, claim: Claim) -> None:
        told.append(await db.together.write(work, value, claim))

    trouble = Trouble(another.account_id, State.RETRYING, "lost", "The connection was lost.", 3.0, 1)
    began = await db.together.read(accounts_store.clock, None)
    before = db.statistics().transactions
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell, accounts_store.set_progress, Step(one_claim.account_id, State.SYNCING), one_claim)
        nursery.start_soon(tell, accounts_store.set_trouble, trouble, another)
        proof = Proof(third.account_id, "u2@a.test", 4, 4, 60.0, began, 1)
        nursery.start_soon(tell, accounts_store.set_caught_up, proof, third)
    assert db.statistics().transactions - before == 1
    assert sorted(map(str, told)) == ["None", "True", "True"]
    assert await column(db, one_claim.account_id, "state") == "syncing"
    assert await column(db, another.account_id, "state_reason") == "The connection was lost."
    assert await column(db, another.account_id, "retry_at IS NOT NULL AND trouble_since IS NOT NULL")
    assert await column(db, third.account_id, "(state, new_messages, sync_new_messages)::text") == "(watching,4,4)"
    assert await one(db, "SELECT account_id FROM events WHERE type = 'account.synced'") == third.account_id
    again = Proof(third.account_id, "u2@a.test", 1, 5, 60.0, None, 1)
    assert await db.together.write(accounts_store.set_caught_up, again, third) is False
    assert await one(db, "SELECT count(*) FROM events") == 1, "only the first time is an event"


async def test_who_lost_its_claim_hears_it_and_the_others_are_stored(db: Database) -> None:
    claims = await claimed(db, 10)
    await execute(db, "UPDATE claims SET epoch = epoch + 1 WHERE account_id = %s", claims[4].account_id)
    lost: list[Claim] = []

    async def write(claim: Claim) -> None:
        try:
            await progress(db, claim)
        except ClaimLost as exc:
            lost.append(exc.claim)

    async with trio.open_nursery() as nursery:
        for claim in claims:
            nursery.start_soon(write, claim)
    assert lost == [claims[4]]
    assert await in_state(db, "connecting") == 9


@pytest.mark.parametrize("table", ["claims WHERE account_id", "accounts WHERE id"])
async def test_a_locked_row_holds_up_nobody_else(db: Database, table: str) -> None:
    claims = await claimed(db, 10)
    done: list[Claim] = []

    async def write(claim: Claim) -> None:
        await progress(db, claim)
        done.append(claim)

    async with trio.open_nursery() as nursery, db.connection() as holder:
        await holder.execute("BEGIN")
        await holder.execute(f"SELECT FROM {table} = %s FOR UPDATE", (claims[0].account_id,))
        for claim in claims:
            nursery.start_soon(write, claim)
        with trio.fail_after(DEADLINE):
            while len(done) < 9:  # noqa: ASYNC110 - what is waited for tells nobody
                await trio.sleep(0.01)
        assert claims[0] not in done
        await holder.execute("ROLLBACK")
    assert claims[0] in done
    assert await in_state(db, "connecting") == 10


async def test_one_bad_value_fails_alone(db: Database) -> None:
    claims = await claimed(db, 10)
    failed: list[psycopg.Error] = []

    async def write(claim: Claim, code: str) -> None:
        trouble = Trouble(claim.account_id, State.RETRYING, code, "It broke.", 1.0, 1)
        try:
            await db.together.write(accounts_store.set_trouble, trouble, claim)
        except psycopg.Error as exc:
            failed.append(exc)

    async with trio.open_nursery() as nursery:
        for n, claim in enumerate(claims):
            nursery.start_soon(write, claim, "x" * 65 if n == 3 else "lost")
    assert [type(exc) for exc in failed] == [psycopg.errors.CheckViolation]
    assert await in_state(db, "retrying") == 9


# -- who leads, and who goes ------------------------------------------------------------------------------------------


class Scripted:
    """A database that has each transaction wait for its gate before COMMIT; without patience it may be away."""

    def __init__(self) -> None:
        self.gates = [trio.Event() for _ in range(8)]
        self.begun = 0
        self.committed: list[Sequence[int]] = []
        self.fail: Exception | None = None
        self.waited = self.patient = 0

    async def run(self, work: Callable[[Any], Awaitable[Any]], *, claim: Any = None, patience: float = 1.0) -> Any:
        self.begun += 1
        if self.fail is not None and patience == 0.0:
            raise self.fail
        self.patient += patience != 0.0
        gate, result = self.gates[self.begun - 1], await work(self)
        await gate.wait()
        return result

    async def wait_ready(self) -> None:
        self.waited += 1
        await trio.lowlevel.checkpoint()

    async def until_begun(self, count: int) -> None:
        while self.begun < count:  # noqa: ASYNC110 - what is waited for tells nobody
            await trio.sleep(0.001)


class Callers:
    """Who asks a line to double a number."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.scripted = Scripted()
        self.line = Line(self.scripted)
        self.nursery = nursery
        self.scopes: dict[int, trio.CancelScope] = {}
        self.results: dict[int, int] = {}
        self.ended: list[int] = []

    async def ask(self, *values: int) -> None:
        for value in values:
            self.scopes[value] = trio.CancelScope()
            self.nursery.start_soon(self._ask, value)
            await trio.sleep(0.002)  # one after the other: the first leads

    async def _ask(self, value: int) -> None:
        try:
            with self.scopes[value]:
                self.results[value] = await self.line.run(double, value, None)
        finally:
            self.ended.append(value)


async def double(conn: Conn, values: Sequence[int]) -> list[int]:
    return [2 * value for value in values]


async def test_when_the_leader_is_cancelled_the_next_leads() -> None:
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            callers = Callers(nursery)
            await callers.ask(1)
            await callers.scripted.until_begun(1)
            await callers.ask(2, 3)
            callers.scopes[1].cancel()
            await callers.scripted.until_begun(2)
            assert callers.ended == [1]
            callers.scripted.gates[1].set()
    assert callers.results == {2: 4, 3: 6}
    assert callers.line.transactions == 2


async def test_what_a_cancelled_leader_had_begun_for_others_is_begun_again() -> None:
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            callers = Callers(nursery)
            callers.scripted.gates[0].set()
            await callers.ask(1, 2, 3)  # 1 goes at once; then 2 leads 3
            await callers.scripted.until_begun(2)
            callers.scopes[2].cancel()
            await callers.scripted.until_begun(3)
            callers.scripted.gates[2].set()
    assert callers.results == {1: 2, 3: 6}


async def test_who_is_cancelled_while_it_is_written_waits_for_the_end() -> None:
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            callers = Callers(nursery)
            callers.scripted.gates[0].set()
            await callers.ask(1, 2, 3)
            await callers.scripted.until_begun(2)
            callers.scopes[3].cancel()
            await trio.sleep(0.05)
            assert callers.ended == [1], "its part may still be stored: nothing else may come before that"
            callers.scripted.gates[1].set()
    assert callers.results == {1: 2, 2: 4}


async def test_who_is_cancelled_before_it_is_written_goes_at_once_and_writes_nothing() -> None:
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            callers = Callers(nursery)
            await callers.ask(1, 2)
            await callers.scripted.until_begun(1)
            callers.scopes[2].cancel()
            while callers.ended != [2]:  # noqa: ASYNC110 - what is waited for tells nobody
                await trio.sleep(0.001)
            callers.scripted.gates[0].set()
    assert callers.results == {1: 2}
    assert callers.line.transactions == 1


async def test_a_group_that_lost_the_database_waits_for_it_and_goes_together() -> None:
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            callers = Callers(nursery)
            callers.scripted.fail = DatabaseAway("gone")
            for gate in callers.scripted.gates:
                gate.set()
            await callers.ask(1, 2, 3)
            callers.scripted.fail = None
    assert callers.results == {1: 2, 2: 4, 3: 6}
    assert (callers.scripted.waited, callers.scripted.patient) == (1, 0)


async def test_after_an_outage_those_who_waited_go_together(db: Database) -> None:
    claims = await claimed(db, 50)
    await db._lost("gone")
    before = db.statistics().transactions
    async with trio.open_nursery() as nursery:
        for claim in claims:
            nursery.start_soon(progress, db, claim)
    assert db.statistics().transactions - before <= 2
    assert await in_state(db, "connecting") == 50


async def test_a_group_that_loses_the_database_each_time_goes_one_by_one() -> None:
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            callers = Callers(nursery)
            callers.scripted.fail = DatabaseAway("gone")
            for gate in callers.scripted.gates:
                gate.set()
            await callers.ask(1, 2)
    assert callers.results == {1: 2, 2: 4}
    assert callers.line.alone == 2
    assert callers.scripted.begun == MOST_LOST + 2


async def test_a_bug_in_a_work_is_raised_where_it_was_asked_for(db: Database) -> None:
    (claim, other) = await claimed(db, 2)
    raised: list[Exception] = []

    async def broken(conn: Conn, values: Sequence[int], locked: Locked) -> list[int]:
        raise ZeroDivisionError

    async def ask() -> None:
        try:
            await db.together.write(broken, 1, claim)
        except ZeroDivisionError as exc:
            raised.append(exc)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(progress, db, other)
    assert len(raised) == 1
    assert await column(db, other.account_id, "state") == "connecting"


async def test_what_is_left_out_is_asked_again_with_patience(db: Database) -> None:
    (claim,) = await claimed(db, 1)
    seen: list[Locked] = []

    async def work(conn: Conn, values: Sequence[int], locked: Locked) -> list[Any]:
        seen.append(locked)
        return [Left.OUT if locked is Locked.SKIP else value for value in values]

    assert await db.together.write(work, 7, claim) == 7
    assert seen == [Locked.SKIP, Locked.WAIT]
