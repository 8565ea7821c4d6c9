"""A database restored into another server, whose transaction ids are far behind those that its rows hold."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import psycopg
import pytest
import trio
from psycopg import sql

from daemon import events
from daemon.events import Event
from daemon.network import Endpoint, Security
from daemon.storage.database import Database
from daemon.storage.migrate import migrate
from tests.fix_postgres import BOTH_SERVERS, Server, server_binaries
from tests.stored import make_account

IMAP = Endpoint("imap.example.test", 993, Security.TLS)
RECEIVED = events.EventType.EMAIL_RECEIVED
DEADLINE = 60.0
FOREIGN = 900_000_000  # a transaction that no server of the tests reaches


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[Database]:
    async with Database(dsn) as db, trio.open_nursery() as nursery:
        await nursery.start(db.watch)
        await db.wait_ready(DEADLINE)
        yield db
        nursery.cancel_scope.cancel()


async def tell(db: Database, account_id: UUID, *numbers: int) -> None:
    for n in numbers:
        await db.run(lambda conn, n=n: events.append(conn, RECEIVED, account_id, {"n": n}))  # type: ignore[misc]  # mypy


async def read(db: Database, cursor: tuple[int, int] = (0, 0)) -> list[Event]:
    return list(await db.run(lambda conn: events.read_after(conn, cursor, 100)))


def numbers(found: list[Event]) -> list[object]:
    return [event.data["n"] for event in found]


def come_from_elsewhere(dsn: str) -> None:
    """Make the database what a restore would: rows of a server that is far ahead, and that server's identity."""
    with psycopg.connect(dsn) as conn:
        conn.execute("UPDATE events SET xid = (xid::text::bigint + %s)::text::xid8", (FOREIGN,))
        conn.execute("UPDATE server_identity SET identifier = 1")


@BOTH_SERVERS
async def test_the_log_goes_on_behind_what_was_restored_however_often(database_dsn: str) -> None:
    with trio.fail_after(DEADLINE):
        async with opened(database_dsn) as db:
            account_id = (await make_account(db, username="you@example.test", imap=IMAP)).account_id
            await tell(db, account_id, 1, 2)
            come_from_elsewhere(database_dsn)
            assert await read(db) == [], "hidden, for the ids are this server's future"
            for expected in ([1, 2, 3, 4], [1, 2, 3, 4, 5, 6]):
                assert await migrate(database_dsn) == []
                before = await read(db)
                await tell(db, account_id, *expected[-2:])
                assert numbers(await read(db)) == expected
                assert numbers(await read(db, before[-1].cursor)) == expected[-2:], "cursors outlive a restore"
                come_from_elsewhere(database_dsn)


async def test_a_late_commit_is_not_skipped_there_either(database_dsn: str) -> None:
    with trio.fail_after(DEADLINE):
        async with opened(database_dsn) as db:
            account_id = (await make_account(db, username="you@example.test", imap=IMAP)).account_id
            await tell(db, account_id, 1)
            come_from_elsewhere(database_dsn)
            await migrate(database_dsn)
            async with db.transaction() as slow:
                await events.append(slow, RECEIVED, account_id, {"n": 2})
                await tell(db, account_id, 3)
                assert numbers(await read(db)) == [1]
            assert numbers(await read(db)) == [1, 2, 3]


async def test_the_same_server_is_left_alone(database_dsn: str) -> None:
    with psycopg.connect(database_dsn) as conn:
        default = "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = 'events'::regclass"
        before = conn.execute(default).fetchall()
        conn.commit()
        conn.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        with trio.fail_after(DEADLINE):
            assert await migrate(database_dsn) == []
            assert await migrate(database_dsn) == []
        assert conn.execute(default).fetchall() == before


async def test_whoever_may_use_the_database_may_know_its_server(database_dsn: str) -> None:
    with psycopg.connect(database_dsn) as conn:
        conn.execute("CREATE ROLE nobody_special")
        conn.execute("SET ROLE nobody_special")
        assert conn.execute("SELECT system_identifier IS NOT NULL FROM pg_control_system()").fetchone() == (True,)
        conn.rollback()


async def test_a_dump_is_restored_into_a_new_server(database_dsn: str, private_server: Server) -> None:
    """By the server's own tools, as an operator does it."""
    binaries = server_binaries("embedded")
    dump = shutil.which("pg_dump", path=str(binaries)) or shutil.which("pg_dump")
    psql = shutil.which("psql", path=str(binaries)) or shutil.which("psql")
    if dump is None or psql is None:
        pytest.skip("no pg_dump or no psql")
    with trio.fail_after(DEADLINE):
        async with opened(database_dsn) as db:
            account_id = (await make_account(db, username="you@example.test", imap=IMAP)).account_id
            await tell(db, account_id, 1, 2)
        text = await trio.run_process([dump, database_dsn], capture_stdout=True, capture_stderr=True, check=False)
        if text.returncode:
            pytest.skip("pg_dump is older than the server")
        await trio.to_thread.run_sync(private_server.execute, sql.SQL("CREATE DATABASE restored"))
        dsn = f"host={private_server.socket} user=postgres dbname=restored"
        await trio.run_process([psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", dsn], stdin=text.stdout, capture_stdout=True)
        assert await migrate(dsn) == []
        async with opened(dsn) as db:
            await tell(db, account_id, 3)
            assert numbers(await read(db)) == [1, 2, 3]


async def test_access_is_given_with_an_empty_search_path(database_dsn: str) -> None:
    """As every script of pg_dump has it."""
    with trio.fail_after(DEADLINE):
        async with opened(database_dsn) as db:
            account_id = (await make_account(db, username="you@example.test", imap=IMAP)).account_id
    with psycopg.connect(database_dsn) as conn:
        conn.execute("INSERT INTO users (id, email, email_normal, name, plan) VALUES ('bob', '', '', '', 'free')")
        conn.execute("SELECT set_config('search_path', '', true)")
        conn.execute("INSERT INTO public.account_access VALUES (%s, 'bob', 'member')", (account_id,))
