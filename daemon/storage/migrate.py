"""Schema migrations: numbered SQL files, applied once, in order, each whole or not at all.

`migrations/NNNN_words.sql`, numbered from 0001 without gaps and never edited once released: each applied file's
checksum is in `schema_migrations` and is compared at every start.  Each file runs in one transaction together with its
row there, so a failing file leaves nothing; hence a file holds no BEGIN or COMMIT, and nothing that refuses to run in a
transaction (CREATE INDEX CONCURRENTLY).  Nodes that start at the same time take turns by a transaction-scoped advisory
lock, which is safe behind a pooler as a session's lock is not.

A database restored into another server is told here, by `identity`, once the schema is up to date.

A migration must not stop a running fleet: it gives up after LOCK_TIMEOUT rather than queue every other transaction
behind its own wait for a table.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
import trio
from psycopg import pq

from . import identity
from .connection import TrioConnection
from .conninfo import complete
from .transaction import ANSWER_MARGIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .connection import Conn

log = structlog.get_logger(__name__)

MIGRATIONS: Final = Path(__file__).parent / "migrations"

LOCK_TIMEOUT: Final = 4.0
"""Seconds that a statement waits for a table: everybody else waits behind it for as long."""

STATEMENT_TIMEOUT: Final = 600.0
"""Seconds for one statement, and for another node's migration: an index on a large table takes minutes."""

OLDEST_SERVER: Final = 150000
"""PostgreSQL 15, in the form of server_version_num; the SQL of the daemon uses nothing newer."""

LARGEST_FILE: Final = 1 << 20
"""Bytes; a migration is written by hand."""

_LOCK_KEY: Final = 0x6163_6374_7364  # "acctsd": ours among the advisory locks of this database
_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    integer     PRIMARY KEY,
    name       text        NOT NULL,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


class SchemaError(Exception):
    """The schema cannot be brought to this version of the code; a person has to look."""


class SchemaTooNew(SchemaError):
    """A newer version of the code has migrated this database; run that version or a newer one."""


class SchemaDamaged(SchemaError):
    """Files and history do not agree: a gap, an edited file, a file that ends its own transaction."""


class ServerUnfit(SchemaError):
    """The server is older than PostgreSQL 15, or the database does not store UTF-8."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    version: int
    name: str
    sql: bytes

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, whatever its line ends."""
        return hashlib.sha256(self.sql.replace(b"\r\n", b"\n")).hexdigest()


@dataclass(frozen=True, slots=True)
class Applied:
    """One row of schema_migrations."""

    version: int
    name: str
    checksum: str


def read_migrations(directory: Path = MIGRATIONS) -> list[Migration]:
    """The files of a directory in order.

    Raises:
        SchemaDamaged: numbers have a gap or meet twice, or a file is named otherwise or too large.
    """
    found = []
    for path in sorted(directory.glob("*.sql")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise SchemaDamaged(f"{path.name}: a migration is named NNNN_words.sql")
        if path.stat().st_size > LARGEST_FILE:
            raise SchemaDamaged(f"{path.name} is larger than {LARGEST_FILE} bytes")
        found.append(Migration(int(match[1]), match[2], path.read_bytes()))
    for expected, migration in enumerate(found, start=1):
        if migration.version != expected:
            raise SchemaDamaged(f"migration {expected:04} is missing or there twice in {directory}")
    return found


def plan(applied: Sequence[Applied], files: Sequence[Migration]) -> list[Migration]:
    """The files still to be applied, given what was applied, in order of version.

    Raises:
        SchemaTooNew: more was applied than there are files.
        SchemaDamaged: what was applied is not what the files say.
    """
    for expected, row in enumerate(applied, start=1):
        if row.version != expected:
            raise SchemaDamaged(f"the database lacks migration {expected:04} but has {row.version:04}")
    for row, file in zip(applied, files, strict=False):
        if row.checksum != file.checksum:
            raise SchemaDamaged(
                f"migration {file.version:04}_{file.name}.sql is not the file that was applied ({row.name}): "
                "restore it, and put the change into a new migration"
            )
    if len(applied) > len(files):
        raise SchemaTooNew(
            f"the database has schema version {applied[-1].version}, this code knows {len(files)}: "
            "run the newer version of the code"
        )
    return list(files[len(applied) :])


async def migrate(conninfo: str, *, directory: Path = MIGRATIONS) -> list[int]:
    """Bring the database to the newest schema; gives the versions applied by this call.

    Raises:
        SchemaError: see its subclasses.
        psycopg.Error: a file failed (and left nothing), a lock was not to be had, or the server is away.
    """
    files = await trio.to_thread.run_sync(read_migrations, directory)
    done: list[int] = []
    conn: Conn = await TrioConnection.connect(complete(conninfo), autocommit=True, prepare_threshold=None)
    conn.answer_within = STATEMENT_TIMEOUT + ANSWER_MARGIN
    async with conn:
        await _check_server(conn)
        while (version := await _apply_next(conn, files)) is not None:
            done.append(version)
    return done


async def _check_server(conn: Conn) -> None:
    version = conn.info.server_version
    if version < OLDEST_SERVER:
        raise ServerUnfit(f"PostgreSQL 15 or newer is needed, this is {version // 10000}")
    row = await (await conn.execute("SHOW server_encoding")).fetchone()
    if row != ("UTF8",):
        raise ServerUnfit("the database must be created with ENCODING 'UTF8'")


async def _apply_next(conn: Conn, files: Sequence[Migration]) -> int | None:
    """Apply the first file that is missing, under the lock; None when there is none."""
    async with conn.transaction():
        # No lock limit yet: waiting for another node's migration is right, however long it takes.
        await conn.execute(_local("lock_timeout", 0))
        await conn.execute(_local("statement_timeout", STATEMENT_TIMEOUT))
        await conn.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK_KEY,))
        await conn.execute(_local("lock_timeout", LOCK_TIMEOUT))
        missing = plan(await _history(conn), files)
        if not missing:
            await identity.settle(conn)
            return None
        migration = missing[0]
        began = trio.current_time()
        await _execute_file(conn, migration)
        await conn.execute(
            "INSERT INTO schema_migrations (version, name, checksum) VALUES (%s, %s, %s)",
            (migration.version, migration.name, migration.checksum),
        )
    took = round(trio.current_time() - began, 3)
    log.info("schema.migrated", version=migration.version, name=migration.name, took=took)
    return migration.version


async def _history(conn: Conn) -> list[Applied]:
    # Looked for first: CREATE TABLE IF NOT EXISTS says so in a notice at every start.
    row = await (await conn.execute("SELECT to_regclass('schema_migrations') IS NULL")).fetchone()
    if row == (True,):
        await conn.execute(_TABLE)
    cursor = await conn.execute("SELECT version, name, checksum FROM schema_migrations ORDER BY version")
    return [Applied(*row) for row in await cursor.fetchall()]


async def _execute_file(conn: Conn, migration: Migration) -> None:
    """Run all statements of a file, in the transaction that is open, and see that they left it open."""
    before = await _transaction_id(conn)
    await conn.execute(migration.sql, prepare=False)
    if conn.pgconn.transaction_status != pq.TransactionStatus.INTRANS or await _transaction_id(conn) != before:
        raise SchemaDamaged(f"migration {migration.version:04} ends its own transaction: take BEGIN and COMMIT out")


async def _transaction_id(conn: Conn) -> object:
    row = await (await conn.execute("SELECT pg_current_xact_id()::text")).fetchone()
    return row and row[0]


def _local(setting: str, seconds: float) -> bytes:
    return f"SET LOCAL {setting} = {round(seconds * 1000)}".encode()
