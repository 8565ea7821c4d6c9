"""The gate, against real servers that stop, start, stall and refuse."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import psycopg
import pytest
import trio

from daemon.errors import FaultKind
from daemon.storage.connection import Conn
from daemon.storage.database import MOST_CONFLICTS, Database
from daemon.storage.faults import DatabaseAway
from daemon.storage.requests import Requests
from daemon.storage.transaction import Limits
from tests.fix_postgres import BOTH_SERVERS, Server

DEADLINE = 40.0
stops_servers = pytest.mark.blocking("the server is stopped and started by the test's own thread, to which it is bound")


async def value(conn: Conn, query: bytes = b"SELECT 1") -> object:
    row = await (await conn.execute(query)).fetchone()
    assert row is not None
    return row[0]


@BOTH_SERVERS
async def test_a_fresh_database_is_ready_and_runs_work(db: Database) -> None:
    assert db.ready
    assert await db.run(value) == 1
    statistics = db.statistics()
    assert (statistics.ready, statistics.reason, statistics.transactions) == (True, None, 1)
    assert statistics.pool.open == 1


async def test_sessions_and_transactions_have_their_limits(db: Database) -> None:
    limits = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")

    async def read(conn: Conn) -> list[str]:
        names = (*limits, "TimeZone", "application_name")
        return [str(await value(conn, f"SHOW {name}".encode())) for name in names]

    assert await db.run(read) == ["30s", "10s", "1min", "UTC", "accountsd"]
    async with db.connection() as conn:  # and nothing of it stays on a connection that a pooler hands on
        assert (await read(conn))[:3] == ["0", "0", "0"]


async def test_a_statement_over_its_limit_leaves_the_gate_open(database_dsn: str) -> None:
    async with Database(database_dsn, limits=Limits(statement=0.05)) as db:
        with trio.fail_after(DEADLINE), pytest.raises(psycopg.errors.QueryCanceled):
            async with db.transaction() as conn:
                await conn.execute("SELECT pg_sleep(30)")
        with trio.fail_after(DEADLINE), pytest.raises(DatabaseAway):  # slow is nobody's fault: tried again, then told
            await db.run(lambda conn: conn.execute("SELECT pg_sleep(30)"), patience=0.5)
        assert db.ready
        assert db.statistics().pool.idle == 1


async def test_constraint_errors_pass_unchanged_and_roll_back(db: Database) -> None:
    async with db.transaction() as conn:
        await conn.execute("CREATE TABLE t (x int PRIMARY KEY)")

    async def twice(conn: Conn) -> None:
        await conn.execute("INSERT INTO t VALUES (1)")
        await conn.execute("INSERT INTO t VALUES (1)")

    with pytest.raises(psycopg.errors.UniqueViolation):
        await db.run(twice)
    assert await db.run(lambda conn: value(conn, b"SELECT count(*) FROM t")) == 0
    assert db.ready


async def test_an_error_swallowed_inside_a_transaction_is_not_taken_for_success(db: Database) -> None:
    async def careless(conn: Conn) -> None:
        with pytest.raises(psycopg.errors.UndefinedTable):
            await conn.execute("SELECT * FROM nowhere")

    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        await db.run(careless)

    async def careful(conn: Conn) -> object:
        with pytest.raises(psycopg.errors.UndefinedTable):
            async with conn.transaction():
                await conn.execute("SELECT * FROM nowhere")
        return await value(conn)

    assert await db.run(careful) == 1


async def test_a_cancelled_transaction_is_rolled_back_and_gives_its_connection_back(db: Database) -> None:
    async with db.transaction() as conn:
        await conn.execute("CREATE TABLE t (x int)")
    with trio.fail_after(DEADLINE):
        with trio.CancelScope() as scope:
            async with db.transaction() as conn:
                await conn.execute("INSERT INTO t VALUES (1)")
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert await db.run(lambda conn: value(conn, b"SELECT count(*) FROM t")) == 0
    assert db.statistics().pool.open == db.statistics().pool.idle == 1


async def test_finished_work_is_committed_even_in_a_scope_cancelled_meanwhile(db: Database) -> None:
    async with db.transaction() as conn:
        await conn.execute("CREATE TABLE t (x int)")
    with trio.CancelScope() as scope:
        async with db.transaction() as conn:
            await conn.execute("INSERT INTO t VALUES (1)")
            scope.cancel()
    assert await db.run(lambda conn: value(conn, b"SELECT count(*) FROM t")) == 1


@stops_servers
async def test_waiting_work_goes_on_by_itself_when_the_server_is_back(private_server: Server) -> None:
    results = []

    async def work(number: int) -> None:
        results.append((number, await db.run(value)))

    with trio.fail_after(DEADLINE):
        async with Database(private_server.dsn, size=3) as db, trio.open_nursery() as nursery:
            await nursery.start(db.watch)
            await db.wait_ready()
            assert await db.run(value) == 1
            private_server.stop()
            async with trio.open_nursery() as workers:
                for number in range(20):
                    workers.start_soon(work, number)
                await db._gate.wait_shut()
                await trio.sleep(0.2)
                assert results == []
                with pytest.raises(DatabaseAway):  # whoever cannot wait is told at once
                    async with db.transaction():
                        pass
                assert db.statistics().reason is not None
                private_server.start()
            assert sorted(results) == [(number, 1) for number in range(20)]
            assert db.statistics().times_shut == 1
            nursery.cancel_scope.cancel()


@stops_servers
async def test_work_interrupted_by_a_crash_is_run_again_from_its_beginning(private_server: Server) -> None:
    runs = []

    async def work(conn: Conn) -> object:
        runs.append(len(runs))
        await conn.execute("INSERT INTO t VALUES (1)")
        if len(runs) == 1:
            private_server.stop(signal.SIGQUIT)
            private_server.start()
        return await value(conn, b"SELECT count(*) FROM t")

    with trio.fail_after(DEADLINE):
        async with Database(private_server.dsn) as db, trio.open_nursery() as nursery:
            await nursery.start(db.watch)
            async with db.connection() as conn:
                await conn.execute("CREATE TABLE t (x int)")
            assert await db.run(work) == 1
            assert runs == [0, 1]
            nursery.cancel_scope.cancel()


@stops_servers
async def test_patience_ends(private_server: Server) -> None:
    with trio.fail_after(DEADLINE):
        async with Database(private_server.dsn) as db, trio.open_nursery() as nursery:
            await nursery.start(db.watch)
            await db.wait_ready()
            private_server.stop()
            for patience in (0.0, 0.1):
                with pytest.raises(DatabaseAway) as caught:
                    await db.run(value, patience=patience)
                assert caught.value.kind is FaultKind.DATABASE_AWAY
            with pytest.raises(DatabaseAway):
                await db.wait_ready(0.05)
            nursery.cancel_scope.cancel()


@stops_servers
async def test_without_a_watcher_the_waiting_probe_by_themselves(private_server: Server) -> None:
    with trio.fail_after(DEADLINE):
        async with Database(private_server.dsn) as db:
            assert not db.ready
            private_server.stop()
            with pytest.raises(DatabaseAway):
                async with db.connection():
                    pass
            async with trio.open_nursery() as nursery:
                nursery.start_soon(db.run, value)
                nursery.start_soon(db.run, value)
                await trio.sleep(0.2)
                private_server.start()
            assert db.ready


@stops_servers
async def test_a_silent_server_shuts_the_gate(private_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.storage.pool.CHECK_WITHIN", 0.2)
    monkeypatch.setattr("daemon.storage.database.PROBE_EVERY", 0.1)
    with trio.fail_after(DEADLINE):
        async with Database(private_server.dsn) as db, trio.open_nursery() as nursery:
            await nursery.start(db.watch)
            await db.wait_ready()
            assert db._probe_conn is not None
            backend = db._probe_conn.info.backend_pid
            os.kill(backend, signal.SIGSTOP)
            await db._gate.wait_shut()
            await db.wait_ready()  # the server itself still takes connections
            nursery.cancel_scope.cancel()


async def test_one_killed_backend_costs_one_more_run(db: Database) -> None:
    runs = []

    async def work(conn: Conn) -> object:
        runs.append(conn.info.backend_pid)
        if len(runs) == 1:
            await conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return await value(conn)

    with trio.fail_after(DEADLINE):
        assert await db.run(work) == 1
    assert len(set(runs)) == 2
    await db.wait_ready()


async def test_a_connection_lost_in_commit_is_told_as_unknown(db: Database) -> None:
    async with db.transaction() as conn:
        await conn.execute("CREATE TABLE t (x int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        await conn.execute(
            "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"
        )
        await conn.execute("CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED "
                           "FOR EACH ROW EXECUTE FUNCTION die()")  # fmt: skip
    with trio.fail_after(DEADLINE), pytest.raises(DatabaseAway) as caught:
        async with db.transaction() as conn:
            await conn.execute("INSERT INTO t VALUES (1)")
    assert caught.value.commit_unknown


async def test_work_that_may_be_stored_is_told_so_and_no_other(db: Database) -> None:
    requests = Requests(db, migrated=lambda: True)
    doubts: list[bool] = []

    async def work(conn: Conn, in_doubt: bool) -> None:
        doubts.append(in_doubt)
        await conn.execute("CREATE TEMP TABLE t (x int) ON COMMIT DROP")
        if len(doubts) == 1:
            raise psycopg.errors.DeadlockDetected  # rolled back
        if len(doubts) == 2:
            await conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")  # lost before COMMIT
        if len(doubts) == 3:
            await conn.execute(
                "CREATE FUNCTION pg_temp.die() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"
            )
            await conn.execute(
                "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED"
                " FOR EACH ROW EXECUTE FUNCTION pg_temp.die()"
            )
            await conn.execute("INSERT INTO t VALUES (1)")

    with trio.fail_after(DEADLINE):
        await requests.settle(work)
    assert doubts == [False, False, False, True]


async def test_deadlocks_are_resolved_by_running_the_loser_again(db: Database) -> None:
    async with db.transaction() as conn:
        await conn.execute("CREATE TABLE t (x int PRIMARY KEY, n int NOT NULL)")
        await conn.execute("INSERT INTO t VALUES (1, 0), (2, 0)")
    met = [trio.Event(), trio.Event()]

    async def add(index: int) -> None:
        async def work(conn: Conn) -> None:
            await conn.execute("SET LOCAL deadlock_timeout = '20ms'")
            for key in ((1, 2), (2, 1))[index]:
                await conn.execute("UPDATE t SET n = n + 1 WHERE x = %s", (key,))
                met[index].set()
                await met[1 - index].wait()

        await db.run(work)

    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(add, 0)
            nursery.start_soon(add, 1)
    assert await db.run(lambda conn: value(conn, b"SELECT array_agg(n) FROM t")) == [2, 2]
    assert db.statistics().conflicts >= 1


async def test_work_that_always_conflicts_is_given_up(db: Database) -> None:
    runs = []

    async def work(conn: Conn) -> None:
        runs.append(conn)
        await conn.execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")

    with trio.fail_after(DEADLINE), pytest.raises(psycopg.errors.SerializationFailure):
        await db.run(work)
    assert len(runs) == MOST_CONFLICTS + 1


async def test_losses_inside_a_nursery_of_the_work_are_recognised(db: Database) -> None:
    async def work(conn: Conn) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conn.execute, "SELECT pg_terminate_backend(pg_backend_pid())")

    with trio.fail_after(DEADLINE), pytest.raises(DatabaseAway):
        async with db.transaction() as conn:
            await work(conn)


@stops_servers
async def test_a_full_server_is_away(private_server: Server) -> None:
    private_server.stop()
    private_server.settings.update(max_connections="4", superuser_reserved_connections="0")
    private_server.start()
    with trio.fail_after(DEADLINE):
        async with Database(private_server.dsn) as db:
            await db.wait_ready()
            others = []
            with suppress(psycopg.OperationalError):
                while True:
                    others.append(psycopg.connect(private_server.dsn))
            with pytest.raises(DatabaseAway) as caught:
                async with db.connection():
                    pass
            assert "too many clients" in caught.value.detail
            for other in others:
                other.close()
            assert await db.run(value) == 1


async def test_a_listening_connection_is_ones_own(db: Database) -> None:
    async with db.dedicated() as conn:
        assert db.statistics().pool.open == 0
        await conn.execute("LISTEN news")
    assert conn.closed
