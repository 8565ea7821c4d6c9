"""What `TrioConnection` needs of psycopg, kept as tests, for it uses private names.

The first tests fail when the installed version is not the one that was proved; the others are the behaviours that broke
when psycopg moved, or that a cancelled scope breaks.  Every test has a real server and an outer deadline.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from importlib.metadata import requires, version

import psycopg
import pytest
import trio
import trio.testing
from psycopg import AsyncConnection, errors, pq

from daemon.storage.connection import PRIVATE_NAMES, PSYCOPG, Conn, Field, ServerSilent, TrioConnection
from tests.fix_postgres import BOTH_SERVERS

DEADLINE = 30.0
IDLE = pq.TransactionStatus.IDLE
NEVER = 30  # seconds that a query sleeps which is to be cancelled: as long as the deadline of its test


@pytest.fixture
async def conn(database_dsn: str) -> AsyncIterator[Conn]:
    connection: Conn = await TrioConnection.connect(database_dsn, autocommit=True)
    yield connection
    await connection.close()


async def value(conn: Conn, query: bytes = b"SELECT 1") -> object:
    row = await (await conn.execute(query)).fetchone()
    assert row is not None
    return row[0]


def test_the_installed_psycopg_is_the_one_that_was_proved() -> None:
    assert version("psycopg") == PSYCOPG
    assert version("psycopg-binary") == PSYCOPG


def test_the_distribution_pins_that_version() -> None:
    with open("pyproject.toml", encoding="utf-8") as file:
        assert f'"psycopg[binary]=={PSYCOPG}"' in file.read()
    assert requires("psycopg") is not None


async def test_every_private_name_is_there(conn: Conn) -> None:
    assert [name for name in PRIVATE_NAMES if not hasattr(conn, name)] == []
    assert issubclass(errors._WaitTimeout, psycopg.OperationalError)
    assert AsyncConnection.wait.__code__.co_varnames[:4] == ("self", "gen", "interval", "timeout")


@BOTH_SERVERS
async def test_select_and_adaptation(conn: Conn) -> None:
    with trio.fail_after(DEADLINE):
        cursor = await conn.execute("SELECT %s::int, %s::text, %s::bytea, %s::int[]", (7, "äöü", b"\0\1", [1, 2]))
        assert await cursor.fetchall() == [(7, "äöü", b"\0\1", [1, 2])]


async def test_nested_transactions_roll_back_by_themselves(conn: Conn) -> None:
    with trio.fail_after(DEADLINE):
        await conn.execute("CREATE TEMP TABLE t (x int)")
        async with conn.transaction():
            await conn.execute("INSERT INTO t VALUES (1)")
            with suppress(ZeroDivisionError):
                async with conn.transaction():
                    await conn.execute("INSERT INTO t VALUES (2)")
                    raise ZeroDivisionError
            async with conn.transaction() as inner:
                await conn.execute("INSERT INTO t VALUES (3)")
                raise psycopg.Rollback(inner)
        assert await value(conn, b"SELECT array_agg(x) FROM t") == [1]


async def test_copy_in_and_out(conn: Conn) -> None:
    with trio.fail_after(DEADLINE):
        await conn.execute("CREATE TEMP TABLE t (x int, y text)")
        async with conn.cursor() as cursor, cursor.copy("COPY t FROM STDIN") as copy:
            for number in range(20_000):
                await copy.write_row((number, "y" * 100))
        async with conn.cursor() as cursor, cursor.copy("COPY t TO STDOUT") as copy:
            assert len([row async for row in copy.rows()]) == 20_000
        assert conn.reusable


async def test_pipeline_and_executemany(conn: Conn) -> None:
    with trio.fail_after(DEADLINE):
        await conn.execute("CREATE TEMP TABLE t (x int)")
        async with conn.pipeline():
            cursors = [await conn.execute("SELECT %s::int", (number,)) for number in range(500)]
        assert [await cursor.fetchone() for cursor in cursors] == [(number,) for number in range(500)]
        async with conn.cursor() as cursor:
            await cursor.executemany("INSERT INTO t VALUES (%s)", [(number,) for number in range(500)])
        assert await value(conn, b"SELECT count(*) FROM t") == 500
        assert conn.reusable


async def test_server_side_cursor(conn: Conn) -> None:
    with trio.fail_after(DEADLINE):
        async with conn.transaction(), conn.cursor("c") as cursor:
            await cursor.execute("SELECT generate_series(1, 1000)")
            assert len(await cursor.fetchmany(10)) == 10
            assert len([row async for row in cursor]) == 990


async def test_notifications_arrive_and_the_wait_for_them_is_cancelled(conn: Conn, database_dsn: str) -> None:
    with trio.fail_after(DEADLINE):
        await conn.execute("LISTEN news")
        async with await TrioConnection.connect(database_dsn, autocommit=True) as other:
            await other.execute("NOTIFY news, 'a'")
            await other.execute("NOTIFY news, 'b'")
        heard = []
        async with aclosing(conn.notifies()) as notifies:
            async for notify in notifies:
                heard.append(notify.payload)
                if len(heard) == 2:
                    break
        assert heard == ["a", "b"]
        with trio.move_on_after(0.05) as scope:
            async with aclosing(conn.notifies()) as notifies:
                async for _ in notifies:
                    pass
        assert scope.cancelled_caught
        assert await value(conn) == 1


async def test_cancelled_execute_stops_on_the_server_and_leaves_the_connection_usable(conn: Conn) -> None:
    with trio.fail_after(DEADLINE - 5):
        with trio.move_on_after(0.05) as scope:
            await conn.execute("SELECT pg_sleep(%s)", (NEVER,))
        assert scope.cancelled_caught
        assert conn.reusable
        assert await value(conn) == 1


async def test_cancelled_transaction_is_rolled_back(conn: Conn) -> None:
    with trio.fail_after(DEADLINE - 5):
        await conn.execute("CREATE TEMP TABLE t (x int)")
        for wait_in_server in (True, False):
            with trio.move_on_after(0.05) as scope:
                async with conn.transaction():
                    await conn.execute("INSERT INTO t VALUES (1)")
                    if wait_in_server:
                        await conn.execute("SELECT pg_sleep(30)")
                    await trio.sleep_forever()
            assert scope.cancelled_caught
            assert conn.reusable
        assert await value(conn, b"SELECT count(*) FROM t") == 0


@pytest.mark.parametrize("statement", ["COPY t FROM STDIN", "COPY (SELECT generate_series(1, 100000000)) TO STDOUT"])
async def test_cancelled_copy_leaves_the_connection_idle_or_closed(conn: Conn, statement: str) -> None:
    with trio.fail_after(DEADLINE - 5):
        await conn.execute("CREATE TEMP TABLE t (x int)")
        with trio.move_on_after(0.05) as scope:
            async with conn.cursor() as cursor, cursor.copy(statement.encode()) as copy:
                if "STDIN" in statement:
                    await copy.write_row((1,))
                    await trio.sleep_forever()
                async for _ in copy:
                    pass
        assert scope.cancelled_caught
        assert conn.closed or conn.reusable
        if not conn.closed:
            assert await value(conn, b"SELECT count(*) FROM t") == 0


async def test_copy_cancelled_before_its_data_comes_does_not_stay_active(conn: Conn) -> None:
    with trio.fail_after(DEADLINE - 5):
        with trio.move_on_after(0.05):
            async with conn.cursor() as cursor, cursor.copy("COPY (SELECT pg_sleep(30)) TO STDOUT") as copy:
                async for _ in copy:
                    pass
        assert conn.closed or conn.reusable


async def test_cancelled_pipeline_is_left(conn: Conn) -> None:
    with trio.fail_after(DEADLINE - 5):
        with trio.move_on_after(0.05) as scope:
            async with conn.pipeline():
                await conn.execute("SELECT 1")
                await (await conn.execute("SELECT pg_sleep(30)")).fetchone()
        assert scope.cancelled_caught
        assert conn.closed or conn.reusable


async def test_statements_at_once_fail_as_the_first_of_them_that_fails(conn: Conn) -> None:
    with trio.fail_after(DEADLINE):
        await conn.execute("CREATE TEMP TABLE t (x int PRIMARY KEY)")

        async def numbers(*them: int) -> None:
            async with conn.transaction(), conn.at_once():
                for number in them:
                    await conn.execute("INSERT INTO t VALUES (%s)", (number,))
                await conn.execute("SELECT 1 / 0")

        with pytest.raises(errors.UniqueViolation):
            await numbers(1, 2, 1, 3)
        assert conn.reusable
        assert await value(conn, b"SELECT count(*) FROM t") == 0
        async with conn.transaction(), conn.at_once():
            for number in range(2000):  # more than the sockets hold
                await conn.execute("INSERT INTO t SELECT %s WHERE %s <> ''", (number, "x" * 1000))
        assert await value(conn, b"SELECT count(*) FROM t") == 2000


async def test_statements_at_once_can_be_cancelled(conn: Conn) -> None:
    with trio.fail_after(DEADLINE - 5):
        with trio.move_on_after(0.05) as scope:
            async with conn.at_once():
                await conn.execute("SELECT 1")
                await conn.execute("SELECT pg_sleep(30)")
        assert scope.cancelled_caught
        assert conn.closed or conn.reusable


async def test_fields_are_taken_as_they_are(conn: Conn) -> None:
    with trio.fail_after(DEADLINE):
        await conn.execute("CREATE TEMP TABLE t (a int, b text, c text[])")
        values = (Field(b"\0\0\0\x07"), Field("ü".encode()), None)
        await conn.execute("INSERT INTO t VALUES (%s, %s, %s)", values)
        assert await (await conn.execute("SELECT * FROM t")).fetchone() == (7, "ü", None)
        with pytest.raises(errors.DataError):
            await conn.execute("INSERT INTO t (b) VALUES (%s)", (Field(b"\xff"),))


async def test_waiting_for_a_lock_is_cancelled(conn: Conn, database_dsn: str) -> None:
    with trio.fail_after(DEADLINE - 5):
        await conn.execute("CREATE TABLE locked (x int)")
        async with await TrioConnection.connect(database_dsn, autocommit=True) as other, conn.transaction():
            await conn.execute("LOCK TABLE locked")
            with trio.move_on_after(0.05) as scope:
                await other.execute("SELECT * FROM locked")
            assert scope.cancelled_caught
            assert await value(other) == 1


async def test_waiting_for_another_tasks_query_is_cancelled(conn: Conn) -> None:
    with trio.fail_after(DEADLINE - 5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conn.execute, "SELECT pg_sleep(30)")
            await trio.testing.wait_all_tasks_blocked(0.01)
            with trio.move_on_after(0.05) as scope:
                await conn.execute("SELECT 1")
            assert scope.cancelled_caught
            nursery.cancel_scope.cancel()
        assert await value(conn) == 1


async def test_closing_under_another_tasks_query_ends_it(conn: Conn) -> None:
    with trio.fail_after(DEADLINE - 5):
        async with trio.open_nursery() as nursery:

            async def query() -> None:
                with pytest.raises(psycopg.OperationalError):
                    await conn.execute("SELECT pg_sleep(30)")

            nursery.start_soon(query)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await conn.close()


async def test_killed_backend_is_an_operational_error(conn: Conn, database_dsn: str) -> None:
    with trio.fail_after(DEADLINE):
        async with await TrioConnection.connect(database_dsn, autocommit=True) as other:
            await other.execute("SELECT pg_terminate_backend(%s)", (conn.info.backend_pid,))
        with pytest.raises(psycopg.OperationalError):
            await conn.execute("SELECT 1")
        assert not conn.reusable


@pytest.fixture
def deaf_port() -> object:
    """A port that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield listener.getsockname()[1]


async def test_silent_server_ends_by_connect_timeout(deaf_port: int) -> None:
    with trio.fail_after(DEADLINE), pytest.raises(errors.ConnectionTimeout):
        await TrioConnection.connect(f"host=127.0.0.1 port={deaf_port} user=x connect_timeout=2 gssencmode=disable")


async def test_silent_server_ends_by_a_cancel_scope(deaf_port: int) -> None:
    with trio.fail_after(DEADLINE), trio.move_on_after(0.05) as scope:
        await TrioConnection.connect(f"host=127.0.0.1 port={deaf_port} user=x gssencmode=disable")
    assert scope.cancelled_caught


async def test_refused_port_and_unknown_host_are_operational_errors() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with trio.fail_after(DEADLINE), pytest.raises(psycopg.OperationalError):
            await TrioConnection.connect(f"host=127.0.0.1 port={port} user=x gssencmode=disable")
    with trio.fail_after(DEADLINE), pytest.raises(psycopg.OperationalError):
        await TrioConnection.connect("host=nowhere.invalid user=x gssencmode=disable")


async def test_answer_that_does_not_come_in_time_closes_the_connection(conn: Conn) -> None:
    conn.answer_within = 0.05
    with trio.fail_after(DEADLINE - 5), pytest.raises(ServerSilent):
        await conn.execute("SELECT pg_sleep(30)")
    assert conn.closed
