"""The SQL of folders: their cursors, the rung of the ladder they are on, and how far a first sync has come."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from daemon.storage.connection import Conn

from .plan import Cursor, Method

_COLUMNS = "id, name, uidvalidity, uidnext, highestmodseq, backfill_below, demoted, resyncs, messages_total"


@dataclass(frozen=True, slots=True)
class StoredFolder:
    """A folder as the store has it."""

    id: int
    name: str
    cursor: Cursor | None
    demoted: Method | None
    resyncs: int
    """UIDVALIDITY changes in a row."""
    messages_total: int


async def open_folder(conn: Conn, account_id: UUID, name: str) -> StoredFolder:
    """The row of a folder, made where there is none."""
    await conn.execute(
        "INSERT INTO folders (account_id, name) VALUES (%s, %s) ON CONFLICT (account_id, name) DO NOTHING",
        (account_id, name),
    )
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM folders WHERE account_id = %s AND name = %s",  # noqa: S608 - a constant of this module
        (account_id, name),
    )
    row = await cursor.fetchone()
    assert row is not None, "the row was inserted in this transaction"
    position = Cursor(row[2], row[3], row[4], row[5]) if row[2] is not None else None
    return StoredFolder(row[0], row[1], position, Method(row[6]) if row[6] else None, row[7], row[8])


async def save_cursor(conn: Conn, folder_id: int, cursor: Cursor) -> None:
    """Move the cursor; in the transaction that stores what it now covers."""
    await conn.execute(
        "UPDATE folders SET uidvalidity = %s, uidnext = %s, highestmodseq = %s, backfill_below = %s WHERE id = %s",
        (cursor.uidvalidity, cursor.uidnext, cursor.highestmodseq, cursor.backfill_below, folder_id),
    )


async def begin(conn: Conn, folder_id: int, cursor: Cursor, total: int, method: Method, *, resync: bool) -> None:
    """Start a first sync, or one that begins again after a UIDVALIDITY change."""
    await save_cursor(conn, folder_id, cursor)
    await conn.execute(
        "UPDATE folders SET messages_total = %s, messages_done = 0, bytes_done = 0, method = %s,"
        " resyncs = CASE WHEN %s THEN resyncs + 1 ELSE 0 END WHERE id = %s",
        (total, method.value, resync, folder_id),
    )


async def add_progress(conn: Conn, folder_id: int, messages: int, size: int) -> None:
    """Count what a first sync has stored; the total grows where the server has more than it said at first."""
    await conn.execute(
        "UPDATE folders SET messages_done = messages_done + %s, bytes_done = bytes_done + %s,"
        " messages_total = greatest(messages_total, messages_done + %s) WHERE id = %s",
        (messages, size, messages, folder_id),
    )


async def mark_synced(conn: Conn, folder_id: int, method: Method, *, settled: bool) -> None:
    """The folder was compared with the server and is equal; *settled* ends a row of UIDVALIDITY changes."""
    await conn.execute(
        "UPDATE folders SET synced_at = now(), method = %s, resyncs = CASE WHEN %s THEN 0 ELSE resyncs END,"
        " messages_done = CASE WHEN backfill_below = 1 THEN messages_total ELSE messages_done END WHERE id = %s",
        (method.value, settled, folder_id),
    )


async def demote(conn: Conn, folder_id: int, to: Method, reason: str) -> None:
    """Take a folder down the ladder for good, with the reason."""
    await conn.execute(
        "UPDATE folders SET demoted = %s, demoted_reason = %s, method = %s WHERE id = %s",
        (to.value, reason[:500], to.value, folder_id),
    )
