"""Looking into a store that is being killed: on a connection of its own, without waiting, again and again.

What must hold at any moment, however the writer ended, is said here; that the store equals the server in the end, by
`verify`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Final, TypeVar

import psycopg
import trio

from daemon.storage.connection import Conn, TrioConnection

T = TypeVar("T")

WITHIN: Final = 10.0
"""Seconds for one look, on two busy cores; a database that recovers is asked again."""

_FOLDERS: Final = """
SELECT a.username, f.uidvalidity, f.uidnext, f.backfill_below, f.messages_total, f.messages_done, f.highestmodseq,
       count(p.uid), count(p.uid) FILTER (WHERE p.uid >= f.uidnext OR p.uid < f.backfill_below)
  FROM folders f JOIN accounts a ON a.id = f.account_id LEFT JOIN placements p ON p.folder_id = f.id
 WHERE f.uidnext IS NOT NULL GROUP BY f.id, a.username
"""
_TWICE: Final = """
SELECT a.username, count(*) FROM (
    SELECT m.account_id FROM messages m JOIN placements p ON p.message_id = m.id
     WHERE m.message_id IS NOT NULL -- as those have not that were expunged while they were fetched
     GROUP BY m.account_id, m.message_id HAVING count(*) > 1) t
  JOIN accounts a ON a.id = t.account_id GROUP BY a.username
"""
_NOWHERE: Final = """
SELECT count(*) FROM messages m WHERE NOT EXISTS (SELECT FROM placements p WHERE p.message_id = m.id)
"""
_TOLD: Final = """
SELECT count(*), count(DISTINCT (account_id, data->>'folder', data->>'uid')) FROM events WHERE type = 'email.received'
"""


@dataclass(frozen=True, slots=True)
class Folder:
    """An inbox as the store has it."""

    uidvalidity: int
    uidnext: int
    backfill_below: int
    total: int
    done: int
    modseq: int
    placements: int
    beyond: int
    """Placements that the cursor does not cover: servers that answer several FETCH commands at a time give some of a
    later window before the earlier one is whole."""

    @property
    def complete(self) -> bool:
        """Whether its first synchronisation is over."""
        return self.backfill_below == 1

    @property
    def covered(self) -> int:
        """How many UIDs the cursor covers."""
        return self.uidnext - self.backfill_below


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The store at one moment."""

    folders: dict[str, Folder]
    told: int
    """Arrivals told."""
    problems: tuple[str, ...]

    @property
    def stored(self) -> int:
        """Messages in all inboxes."""
        return sum(folder.placements for folder in self.folders.values())


class Peek:
    """One connection to a database that comes and goes."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._conn: Conn | None = None

    async def ask(self, work: Callable[[Conn], Awaitable[T]]) -> T | None:
        """What `work` finds in a read-only snapshot, or None while the database does not answer."""
        try:
            with trio.fail_after(WITHIN):
                if self._conn is None:
                    self._conn = await TrioConnection.connect(
                        self._conninfo, autocommit=True, prepare_threshold=None, application_name="soak"
                    )
                async with self._conn.transaction():
                    await self._conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                    return await work(self._conn)
        except psycopg.errors.UndefinedTable:  # the schema is not there yet
            return None
        except (psycopg.OperationalError, psycopg.InterfaceError, trio.TooSlowError):
            await self.aclose()
            return None

    async def aclose(self) -> None:
        """Close the connection; the next question opens another."""
        conn, self._conn = self._conn, None
        if conn is not None:
            await conn.close()


async def progress(conn: Conn) -> tuple[int, int]:
    """A number that grows with everything stored; and how many first synchronisations are not complete."""
    cursor = await conn.execute(
        "SELECT coalesce(sum(messages_done + uidnext), 0)::bigint, (SELECT count(*) FROM accounts)"
        " - count(*) FILTER (WHERE backfill_below = 1) FROM folders WHERE name = 'INBOX'"
    )
    row = await cursor.fetchone()
    assert row is not None, "an aggregate gives one row"
    return row[0], row[1]


async def snapshot(conn: Conn) -> Snapshot:
    """Everything that is compared, and what is wrong by itself."""
    folders = {row[0]: Folder(*row[1:]) for row in await (await conn.execute(_FOLDERS)).fetchall()}
    problems = [f"{user}: {n} messages are stored twice" for user, n in await (await conn.execute(_TWICE)).fetchall()]
    nowhere = await (await conn.execute(_NOWHERE)).fetchone()
    if nowhere != (0,):
        problems.append(f"{nowhere} messages lie nowhere")
    told = await (await conn.execute(_TOLD)).fetchone()
    assert told is not None, "an aggregate gives one row"
    if told[0] != told[1]:
        problems.append(f"{told[0] - told[1]} arrivals were told twice")
    return Snapshot(folders, told[0], tuple(problems))


def compare(before: Snapshot | None, after: Snapshot, gapless: Collection[str]) -> list[str]:
    """What is wrong with a later snapshot: in itself, and as the successor of an earlier one.

    Args:
        before: what was committed then, and must be there still; None at first.
        after: as it is now.
        gapless: users whose messages have the UIDs 1, 2, 3... and are never expunged: of them everything that the
            cursor covers must be there.
    """
    found = list(after.problems)
    for user, folder in after.folders.items():
        if user in gapless and folder.placements - folder.beyond != folder.covered:
            found.append(f"{user}: the cursor covers {folder.covered} messages, {folder.placements} are stored")
    if before is None:
        return found
    if after.told < before.told:
        found.append(f"{before.told - after.told} events are lost")
    for user, former in before.folders.items():
        now = after.folders.get(user)
        if now is None:
            found.append(f"{user}: the folder is lost")
            continue
        for name, more in (("uidvalidity", 0), ("uidnext", 1), ("backfill_below", -1), ("done", 1), ("modseq", 1)):
            step = (getattr(now, name) or 0) - (getattr(former, name) or 0)
            if step and step * more <= 0:
                found.append(f"{user}: {name} went from {getattr(former, name)} to {getattr(now, name)}")
        if user in gapless and now.placements < former.placements:
            found.append(f"{user}: {former.placements - now.placements} stored messages are lost")
    return found
