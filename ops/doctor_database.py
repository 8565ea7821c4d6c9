"""The doctor's look at the database: reachable, of the right version and clock, and what ails the accounts in it."""

from __future__ import annotations

import pwd
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import psycopg
import trio
from psycopg.conninfo import make_conninfo

from daemon.account.states import State as AccountState
from daemon.settings import Settings
from daemon.state import State
from daemon.storage.binaries import EmbeddedFailed
from daemon.storage.connection import TrioConnection
from daemon.storage.conninfo import complete
from daemon.storage.embedded import embedded_conninfo
from daemon.storage.migrate import OLDEST_SERVER, Applied, SchemaError, plan, read_migrations

from .doctor import Finding, note, ok, wrong

ANSWER_WITHIN: Final = 10.0
"""Seconds for the connection and for each question."""

CLOCKS_APART: Final = 5.0
"""Seconds: sessions are judged by this machine's clock with 30 s of leeway, claims by the database's."""

AILING: Final = 20
"""Accounts that are named one by one."""

_APPLIED = "SELECT version, name, checksum FROM schema_migrations ORDER BY version LIMIT 10000"
_STATES = "SELECT state, count(*) FROM accounts WHERE desired = 'running' GROUP BY state ORDER BY state"
_AILING = (
    "SELECT id, email, state, state_reason FROM accounts WHERE desired = 'running'"
    " AND (state = 'parked' OR trouble_since < now() - interval '5 minutes') ORDER BY trouble_since NULLS LAST LIMIT %s"
)
_NODES = "SELECT count(*) FILTER (WHERE expires_at > now()), count(*) FROM nodes"


async def database(settings: Settings, state: State, *, running: bool) -> AsyncIterator[Finding]:
    """Findings about the database; `running`: whether the daemon answers, which runs the embedded one."""
    dsn = settings.storage.dsn.get_secret_value()
    which = "the configured database" if dsn else "the embedded database"
    if not dsn and not running:
        yield note("the embedded database runs with the daemon only, so it was not looked into")
        return
    try:
        conninfo = complete(dsn or _embedded(state.database), application_name="accountsctl")
    except (psycopg.ProgrammingError, EmbeddedFailed, KeyError, OSError):
        yield wrong(f"there is no way to {which}: " + ("storage.dsn is no connection string" if dsn else "no socket"),
                    "correct storage.dsn" if dsn else "run this as the daemon's user or root")  # fmt: skip
        return
    try:
        with trio.fail_after(ANSWER_WITHIN):
            connection = await TrioConnection.connect(conninfo, autocommit=True, prepare_threshold=None)
    except (psycopg.Error, trio.TooSlowError) as exc:
        said = str(exc).strip().splitlines()[:1] or [f"no answer in {ANSWER_WITHIN:g} s"]
        remedy = "correct storage.dsn, or start the server" if dsn else "run this as the daemon's user or root"
        yield wrong(f"{which} does not let us in: {said[0][:300]}", remedy)
        return
    async with connection:
        try:
            with trio.fail_after(6 * ANSWER_WITHIN):
                async for finding in _look(connection, which):
                    yield finding
        except psycopg.Error as exc:
            yield wrong(f"{which} refused a question: {str(exc).splitlines()[0][:300]}", "has the daemon ever used it?")


def _embedded(home: Path) -> str:
    # The server is run by whom its data belongs to, which is neither root nor us when systemd started the daemon.
    owner = pwd.getpwuid((home / "data").stat().st_uid).pw_name
    return make_conninfo(embedded_conninfo(home), requirepeer=owner)


async def _look(connection: TrioConnection[Any], which: str) -> AsyncIterator[Finding]:
    number = connection.info.server_version
    said = f"{which} is PostgreSQL {number // 10000}.{number % 10000}"
    yield ok(said) if number >= OLDEST_SERVER else wrong(said, "use PostgreSQL 15 or newer")
    before = time.time()
    row = await (await connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8")).fetchone()
    assert row is not None
    apart = float(row[0]) - (before + time.time()) / 2
    if abs(apart) > CLOCKS_APART:
        yield wrong(f"the database's clock is {apart:+.0f} s from this machine's", "synchronise both with NTP")
    else:
        yield ok("the clocks of database and machine agree")
    yield await _schema(connection)
    row = await (await connection.execute(_NODES)).fetchone()
    assert row is not None
    yield ok(f"{row[0]} of {row[1]} known nodes are alive") if row[0] else note("no node is alive in this database")
    async for finding in _accounts(connection):
        yield finding


async def _schema(connection: TrioConnection[Any]) -> Finding:
    rows = await (await connection.execute(_APPLIED)).fetchall()
    try:
        missing = plan([Applied(*row) for row in rows], read_migrations())
    except SchemaError as exc:
        return wrong(f"the schema does not fit this version: {exc}", "run the schema's version or a newer")
    if missing:
        return note(f"{len(missing)} migrations are still to come", "the daemon makes them at its next start")
    return ok(f"the schema is at version {len(rows)}, as this code wants it")


async def _accounts(connection: TrioConnection[Any]) -> AsyncIterator[Finding]:
    rows = await (await connection.execute(_STATES)).fetchall()
    counts = ", ".join(f"{count} {state}" for state, count in rows) or "none"
    yield ok(f"accounts that should run: {counts}")
    for account, email, state, reason in await (await connection.execute(_AILING, (AILING,))).fetchall():
        remedy = "its owner has to connect it again" if state == AccountState.PARKED else "it is tried again by itself"
        yield wrong(f"account {account} ({email}) is {state}: {reason or 'no reason is known'}", remedy)
