"""The fence against a real server: what it lets through, and that a takeover waits for it."""

from __future__ import annotations

from uuid import UUID, uuid4

import psycopg
import pytest
import trio
from psycopg import sql

from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.storage.faults import DatabaseAway
from daemon.storage.fence import Claim, ClaimLost
from daemon.storage.transaction import Limits

DEADLINE = 20.0
TAKE_OVER = "UPDATE claims SET owner = %s, epoch = epoch + 1 WHERE account_id = %s"


@pytest.fixture
async def claim(database_dsn: str) -> Claim:
    """A claim in a table that has the columns the fence reads, apart from the real one and its foreign keys."""
    mine = Claim(uuid4(), uuid4(), 3)
    with psycopg.connect(database_dsn, autocommit=True) as conn:
        conn.execute("CREATE SCHEMA apart")
        conn.execute("CREATE TABLE apart.claims (account_id uuid PRIMARY KEY, owner uuid, epoch bigint NOT NULL)")
        conn.execute("CREATE TABLE apart.written (x int)")
        conn.execute("INSERT INTO apart.claims VALUES (%s, %s, %s)", (mine.account_id, mine.owner, mine.epoch))
        here = sql.Identifier(conn.info.dbname)
        conn.execute(sql.SQL("ALTER DATABASE {} SET search_path = apart").format(here))
    return mine


async def write(conn: Conn) -> None:
    await conn.execute("INSERT INTO written VALUES (1)")


async def written(db: Database) -> int:
    async with db.transaction() as conn:
        row = await (await conn.execute("SELECT count(*) FROM written")).fetchone()
    assert row is not None
    return int(row[0])


async def test_the_owner_in_its_epoch_passes(claim: Claim, db: Database) -> None:
    await db.run(write, claim=claim)
    assert await written(db) == 1


async def test_the_schema_has_what_the_fence_reads(db: Database) -> None:
    with pytest.raises(ClaimLost):
        await db.run(write, claim=Claim(uuid4(), uuid4(), 1))


@pytest.mark.parametrize("wrong", ["owner", "epoch", "account", "free"])
async def test_anybody_else_writes_nothing(claim: Claim, db: Database, wrong: str) -> None:
    stale = {
        "owner": Claim(claim.account_id, uuid4(), claim.epoch),
        "epoch": Claim(claim.account_id, claim.owner, claim.epoch - 1),
        "account": Claim(UUID(int=0), claim.owner, claim.epoch),
        "free": claim,
    }[wrong]
    if wrong == "free":
        async with db.transaction() as conn:
            await conn.execute("UPDATE claims SET owner = NULL WHERE account_id = %s", (claim.account_id,))
    with pytest.raises(ClaimLost) as caught:
        await db.run(write, claim=stale)
    assert caught.value.claim == stale
    assert await written(db) == 0
    assert db.ready


async def test_a_takeover_waits_for_the_fenced_transaction_and_the_next_one_is_fenced_off(
    claim: Claim, db: Database
) -> None:
    events = []
    fenced, finish = trio.Event(), trio.Event()

    async def slow_work(conn: Conn) -> None:
        fenced.set()
        await finish.wait()
        await write(conn)
        events.append("written")

    async def take_over() -> None:
        async with db.transaction() as conn:
            await conn.execute(TAKE_OVER, (uuid4(), claim.account_id))
            events.append("taken over")

    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: db.run(slow_work, claim=claim))
            await fenced.wait()
            nursery.start_soon(take_over)
            await wait_for_lock(db)
            finish.set()
        assert events == ["written", "taken over"]
        with pytest.raises(ClaimLost):
            await db.run(write, claim=claim)
    assert await written(db) == 1


async def test_a_fenced_transaction_that_waited_for_a_takeover_is_fenced_off(claim: Claim, db: Database) -> None:
    lost = []

    async def try_to_write() -> None:
        with pytest.raises(ClaimLost):
            await db.run(write, claim=claim)
        lost.append(claim)

    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery, db.transaction() as conn:
            await conn.execute(TAKE_OVER, (uuid4(), claim.account_id))
            nursery.start_soon(try_to_write)
            await wait_for_lock(db)
    assert lost == [claim]
    assert await written(db) == 0


async def test_two_fenced_transactions_of_one_owner_go_side_by_side(claim: Claim, db: Database) -> None:
    with trio.fail_after(DEADLINE):
        async with db.transaction(claim) as one, db.transaction(claim) as two:
            await write(one)
            await write(two)
    assert await written(db) == 2


async def test_waiting_at_a_held_claim_is_bounded_by_the_lock_limit(claim: Claim, database_dsn: str) -> None:
    with trio.fail_after(DEADLINE):
        async with Database(database_dsn, limits=Limits(lock=0.05)) as db, db.transaction() as conn:
            await conn.execute(TAKE_OVER, (uuid4(), claim.account_id))
            with pytest.raises(DatabaseAway) as caught:
                await db.run(write, claim=claim, patience=0.2)
    assert isinstance(caught.value.__cause__, psycopg.errors.LockNotAvailable)


async def wait_for_lock(db: Database) -> None:
    """Until some session of this database waits for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    count = 0
    while not count:
        async with db.connection() as conn:
            row = await (await conn.execute(query)).fetchone()
            assert row is not None
            count = row[0]
        await trio.sleep(0.01)
