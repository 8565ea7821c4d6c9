"""Lists while the database is away, and after it was another one for a while."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import trio
from psycopg import sql

from daemon.account import service as service_module
from daemon.account.listing import LIST_COST, Form, Listing
from daemon.account.service import AccountService
from daemon.identity import users_store
from daemon.storage import requests as requests_module
from daemon.storage.database import Database
from daemon.storage.faults import DatabaseAway
from daemon.storage.migrate import migrate
from daemon.storage.requests import Requests
from tests.daemon.account.running import execute
from tests.daemon.account.test_listing import ANN, BOB, FORM, Lists
from tests.daemon.account.test_service import RATES
from tests.fix_postgres import BOTH_SERVERS, Server
from tests.stored import one

FOREIGN = "'900000000'::xid8"  # a transaction that no server of the tests reaches
EMPTY = Form(lambda view: b"", lambda shown: b"".join(shown))


@pytest.fixture
async def lists(db: Database, database_dsn: str) -> Lists:
    for user in (ANN, BOB):
        await db.run(lambda conn, user=user: users_store.remember(conn, user))  # type: ignore[misc]  # mypy: lambda
    return Lists(db, database_dsn)


# -- transactions that another server made, or this one lost -----------------------------------------------------------


@pytest.fixture(params=["embedded", "debian"])
def mortal(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of the test's own, of either kind."""
    server = Server(request.param)
    try:
        server.start()
        yield server
    finally:
        server.remove()


async def test_a_share_revoked_after_a_crash_by_an_id_given_again(mortal: Server) -> None:
    """A process of the server is killed: the postmaster lives on, and gives ids again that it had not stored."""
    await trio.to_thread.run_sync(mortal.execute, sql.SQL("CREATE DATABASE crash"))
    dsn = f"host={mortal.socket} user=postgres dbname=crash"
    await migrate(dsn)
    async with Database(dsn) as db, trio.open_nursery() as nursery:
        await nursery.start(db.watch)
        await db.wait_ready(30)
        await revoke_after_a_crash(db, dsn)
        nursery.cancel_scope.cancel()


async def revoke_after_a_crash(db: Database, dsn: str) -> None:
    for user in (ANN, BOB):
        await db.run(lambda conn, user=user: users_store.remember(conn, user))  # type: ignore[misc]  # mypy: lambda
    lists = Lists(db, dsn)
    account = await lists.account(BOB)
    await execute(db, f"INSERT INTO account_access (account_id, user_id, role) VALUES ('{account}', 'ann', 'member')")
    assert [row[0] for row in await lists.same(ANN)] == [account]
    with psycopg.connect(dsn, autocommit=True) as victim:
        await lists.set(account, "name = 'x'")
        for _ in range(60):  # as transactions end whose client hung up: nothing of theirs is flushed
            victim.execute("BEGIN")
            victim.execute("SELECT pg_current_xact_id()")
            victim.execute("ROLLBACK")
        await lists.kept(ANN)
        started = victim.execute("SELECT pg_postmaster_start_time()").fetchone()
        os.kill(victim.info.backend_pid, signal.SIGKILL)
    await revoke(dsn, started)
    with trio.fail_after(30):
        while True:
            try:
                assert await lists.kept(ANN) == []
                return
            except DatabaseAway:
                await db.wait_ready()


async def revoke(dsn: str, started: object) -> None:
    with trio.fail_after(30):
        while True:
            try:
                with psycopg.connect(dsn) as conn:
                    assert conn.execute("SELECT pg_postmaster_start_time()").fetchone() == started
                    conn.execute("DELETE FROM account_access WHERE user_id = 'ann'")
                    return
            except psycopg.OperationalError:
                await trio.sleep(0.1)


@BOTH_SERVERS
async def test_statistics_reset_by_hand_cost_one_reading(database_dsn: str, lists: Lists) -> None:
    await lists.account()
    await lists.same()
    read = lists.listing.statistics().read
    with psycopg.connect(database_dsn, autocommit=True) as conn:
        conn.execute("SELECT pg_stat_reset_shared('bgwriter')")
    for _ in range(3):
        await lists.same()
    assert lists.listing.statistics().read == read + 1


async def test_a_role_without_rights_knows_when_the_server_began(database_dsn: str) -> None:
    with psycopg.connect(database_dsn) as conn:
        conn.execute("CREATE ROLE nobody_special")
        conn.execute("SET ROLE nobody_special")
        assert conn.execute("SELECT pg_stat_get_bgwriter_stat_reset_time() IS NOT NULL").fetchone() == (True,)
        conn.rollback()


async def test_a_server_behind_the_snapshot_is_read_from_the_start(lists: Lists) -> None:
    await lists.account()
    await lists.same()
    kept = lists.listing._entries[ANN.id].kept
    assert kept is not None
    object.__setattr__(kept, "seen", "900000000:900000000:")
    await lists.same()
    assert lists.listing.statistics().read == 2


@pytest.mark.parametrize(
    "restored",
    [
        f"INSERT INTO access_changes VALUES ('ann', {FOREIGN})",
        f"SET LOCAL session_replication_role = replica; UPDATE accounts SET changed = {FOREIGN}",
    ],
)
async def test_what_a_dump_brings_is_not_news_for_ever(lists: Lists, restored: str) -> None:
    await lists.account()
    await execute(lists.db, restored)
    for _ in range(2):
        await lists.same()
    before = lists.listing.statistics()
    await lists.same()
    after = lists.listing.statistics()
    assert (after.read, after.amended) == (before.read, before.amended)
    await execute(lists.db, "UPDATE account_access SET role = role")
    assert await one(lists.db, "SELECT count(*) FROM access_changes WHERE user_id = 'ann'") == 1


async def test_a_change_is_told_whatever_ended_since_its_transaction_began(lists: Lists) -> None:
    account = await lists.account()
    await execute(lists.db, f"INSERT INTO account_access VALUES ('{account}', 'bob', 'member')")
    async with lists.open() as old:
        await old.execute("BEGIN")
        await old.execute("SELECT pg_current_xact_id()")
        await lists.set(account, "name = 'Newer'")
        assert len(await lists.same(BOB)) == 1
        for role in ("admin", "member"):
            await old.execute("UPDATE account_access SET role = %s WHERE user_id = 'bob'", (role,))
            await lists.set(account, f"name = '{role}'")
        await old.execute("DELETE FROM account_access WHERE user_id = 'bob'")
        await old.execute("COMMIT")
    assert await lists.same(BOB) == []


# -- a database that does not answer -----------------------------------------------------------------------------------


async def test_who_asks_together_is_told_together(autojump_clock: trio.abc.Clock) -> None:
    """Not one after another, each after a patience of its own."""
    asked, took = [], []

    async def read(work: Any) -> Any:
        asked.append(work)
        await trio.sleep(3)
        raise DatabaseAway("silent")

    listing = Listing(read, EMPTY)

    async def ask(after: float) -> None:
        await trio.sleep(after)
        began = trio.current_time()
        with pytest.raises(DatabaseAway):
            await listing.show("ann")
        took.append(trio.current_time() - began)

    async with trio.open_nursery() as nursery:
        for number in range(32):
            nursery.start_soon(ask, 0 if number < 16 else 1)
    assert max(took) <= 5.0
    assert len(asked) <= 3


async def test_nobody_waits_longer_than_a_request_does(autojump_clock: trio.abc.Clock) -> None:
    """However many statements a list takes, and whoever runs them."""
    async def read(work: Any) -> Any:
        await trio.sleep_forever()

    listing = Listing(read, EMPTY, patience=5.0)
    took = []

    async def ask(after: float) -> None:
        await trio.sleep(after)
        began = trio.current_time()
        with pytest.raises(DatabaseAway), trio.fail_after(60):
            await listing.show("ann")
        took.append(trio.current_time() - began)

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(ask, number / 2)
    assert max(took) <= 5.1


async def test_who_hung_up_fails_for_nobody_else(lists: Lists) -> None:
    await lists.account()
    go_on = trio.Event()
    plain = lists.listing._read

    async def slow(work: Any) -> Any:
        await go_on.wait()
        return await plain(work)

    lists.listing._read = slow
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as leaving:
            leaving.start_soon(lists.kept)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(lists.kept)
            await trio.testing.wait_all_tasks_blocked()
            leaving.cancel_scope.cancel()
        go_on.set()
    assert lists.listing.statistics().read == 1


async def test_memory_is_bounded_while_nothing_is_read() -> None:
    async def read(work: Any) -> Any:
        raise DatabaseAway("away")

    listing = Listing(read, EMPTY, budget=10 * LIST_COST)
    for number in range(100):
        with pytest.raises(DatabaseAway):
            await listing.show(f"user-{number}")
    statistics = listing.statistics()
    assert (statistics.lists, statistics.cost) == (10, 10 * LIST_COST)


@pytest.mark.parametrize("what", ["list", "overview"])
async def test_a_time_limit_of_the_server_is_a_database_that_is_away(
    database_dsn: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(requests_module, "PATIENCE", 1.0)
    monkeypatch.setattr(service_module, "PATIENCE", 1.0)
    limited = database_dsn + " options='-c statement_timeout=300 -c lock_timeout=100'"
    async with Database(limited) as db, trio.open_nursery() as nursery:
        await nursery.start(db.watch)
        await db.wait_ready(30)
        await db.run(lambda conn: users_store.remember(conn, ANN))
        unused: Any = None
        service = AccountService(
            Requests(db, migrated=lambda: True), unused, unused, unused, rates=RATES, nudge=lambda: None
        )
        listing = service.listing(FORM)
        await listing.show("ann")
        with psycopg.connect(database_dsn) as conn:
            conn.execute("LOCK accounts IN ACCESS EXCLUSIVE MODE")  # as a migration does
            with pytest.raises(DatabaseAway):
                await (listing.show("ann") if what == "list" else service.sync_overview(ANN))
        await listing.show("ann")
        nursery.cancel_scope.cancel()
