"""The gate, against real servers that stop, start, stall and refuse."""

from __future__ import annotations

import signal

import psycopg
import pytest
import trio

from daemon.errors import FaultKind
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.storage.faults import DatabaseAway
from daemon.storage.transaction import Limits
from tests.fix_postgres import BOTH_SERVERS, Server

pytestmark = pytest.mark.timeout(60)


async def one(conn: Conn, query: bytes = b"SELECT 1") -> object:
    row = await (await conn.execute(query)).fetchone()
    assert row is not None
    return row[0]


@BOTH_SERVERS
async def test_a_fresh_database_is_ready_and_runs_work(db: Database) -> None:
    assert db.ready
    assert await db.run(one) == 1
    assert db.statistics().transactions == 1
    assert db.statistics().pool.open == 1
