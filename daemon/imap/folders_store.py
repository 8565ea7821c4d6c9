"""The SQL of folders: their cursors, the rung of the ladder they are on, and how far a first sync has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from daemon.storage.connection import Conn
from daemon.storage.together import Left, LeftOut, Locked

from .plan import Cursor, Method

COUNTED: Final = 2000
"""Placements of a folder that are counted when it is opened: 250 such folders cost the server 60 ms.  A larger one is
counted by itself, so that it holds up nobody."""


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
    mailbox: int
    """Which of the account's mailboxes, one after the other, all this is of."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What lies in a folder."""

    held: int | None
    """Messages of the server's that the store accounts for, live and skipped ones; None when that was not counted."""
    vanished: bool
    """Whether some have vanished and wait for the end of their grace, or that is not known."""
    former: bool
    """Whether some from before a renumbering have not been recognised; those of a former mailbox do not count."""


async def open_folders(
    conn: Conn, places: Sequence[tuple[UUID, str]]
) -> list[tuple[StoredFolder, Contents] | None]:
    """Folders by account and name, with what lies in them; None for one that has no row."""
    cursor = await conn.execute(
        "SELECT f.account_id, f.id, f.name, f.uidvalidity, f.uidnext, f.highestmodseq, f.backfill_below, f.demoted,"
        " f.resyncs, f.messages_total, f.mailbox, p.present, p.vanished, s.skipped,"
        " EXISTS (SELECT FROM former_placements o WHERE o.folder_id = f.id AND NOT o.kept)"
        " FROM unnest(%(accounts)s::uuid[], %(names)s::text[]) AS g (account_id, name)"
        " JOIN folders f ON f.account_id = g.account_id AND f.name = g.name"
        " CROSS JOIN LATERAL (SELECT count(*) AS present, count(vanished_at) AS vanished FROM"
        "  (SELECT vanished_at FROM placements WHERE folder_id = f.id LIMIT %(most)s) AS looked_at) AS p"
        " CROSS JOIN LATERAL (SELECT count(*) AS skipped FROM"
        "  (SELECT FROM skipped_messages WHERE folder_id = f.id LIMIT %(most)s) AS looked_at) AS s",
        {
            "accounts": [account_id for account_id, _ in places],
            "names": [name for _, name in places],
            "most": COUNTED + 1,
        },
    )
    found: dict[tuple[UUID, str], tuple[StoredFolder, Contents]] = {}
    for account_id, folder_id, name, uidvalidity, *rest, present, vanished, skipped, former in await cursor.fetchall():
        uidnext, highestmodseq, backfill_below, demoted, *counts = rest
        position = Cursor(uidvalidity, uidnext, highestmodseq, backfill_below) if uidvalidity is not None else None
        folder = StoredFolder(folder_id, name, position, Method(demoted) if demoted else None, *counts)
        counted = max(present, skipped) <= COUNTED
        contents = Contents(
            present - vanished + skipped if counted else None, bool(vanished) or present > COUNTED, former
        )
        found[account_id, name] = folder, contents
    return [found.get(place) for place in places]


async def make_folders(
    conn: Conn, places: Sequence[tuple[UUID, str]], locked: Locked = Locked.WAIT
) -> list[LeftOut | None]:
    """The rows of folders, where there are none.

    The foreign key locks the account's row, and would wait for whoever is about to remove it: so that is locked first.
    """
    cursor = await conn.execute(
        "WITH held AS MATERIALIZED (SELECT g.* FROM unnest(%s::uuid[], %s::text[]) AS g (account_id, name)"  # noqa: S608 - an enumeration's word
        f"  JOIN accounts a ON a.id = g.account_id FOR KEY SHARE OF a{locked}),"
        " made AS (INSERT INTO folders (account_id, name) SELECT account_id, name FROM held"
        "  ON CONFLICT (account_id, name) DO NOTHING)"
        " SELECT account_id, name FROM held",
        ([account_id for account_id, _ in places], [name for _, name in places]),
    )
    held = set(await cursor.fetchall())
    return [None if place in held else Left.OUT for place in places]


async def save_cursor(conn: Conn, folder_id: int, cursor: Cursor) -> None:
    """Move the cursor; in the transaction that stores what it now covers."""
    await conn.execute(
        "UPDATE folders SET uidvalidity = %s, uidnext = %s, highestmodseq = %s, backfill_below = %s WHERE id = %s",
        (cursor.uidvalidity, cursor.uidnext, cursor.highestmodseq, cursor.backfill_below, folder_id),
    )


async def begin(
    conn: Conn, folder_id: int, mailbox: int, cursor: Cursor, total: int, method: Method, resyncs: int
) -> None:
    """Start a first sync of a mailbox's folder, or one that begins again since its UIDs are void.

    How another mailbox's server contradicted itself is forgotten here, where nobody is left who could write it again.
    """
    await save_cursor(conn, folder_id, cursor)
    await conn.execute(
        "UPDATE folders SET messages_total = %s, messages_done = 0, bytes_done = 0, method = %s, resyncs = %s,"
        " demoted = CASE WHEN mailbox = %s THEN demoted END,"
        " demoted_reason = CASE WHEN mailbox = %s THEN demoted_reason END, mailbox = %s WHERE id = %s",
        (total, method.value, resyncs, mailbox, mailbox, mailbox, folder_id),
    )


async def add_progress(conn: Conn, folder_id: int, messages: int, size: int) -> None:
    """Count what a first sync has stored; the total grows where the server has more than it said at first."""
    await conn.execute(
        "UPDATE folders SET messages_done = messages_done + %s, bytes_done = bytes_done + %s,"
        " messages_total = greatest(messages_total, messages_done + %s) WHERE id = %s",
        (messages, size, messages, folder_id),
    )


@dataclass(frozen=True, slots=True)
class Synced:
    """A folder was compared with the server and is equal."""

    folder_id: int
    method: Method
    settled: bool
    """Whether that ends a row of UIDVALIDITY changes."""


async def mark_synced(conn: Conn, folders: Sequence[Synced], locked: Locked = Locked.WAIT) -> list[LeftOut | None]:
    """Say so of these folders."""
    cursor = await conn.execute(
        "UPDATE folders f SET synced_at = now(), method = g.method,"  # noqa: S608 - an enumeration's word
        " resyncs = CASE WHEN g.settled THEN 0 ELSE f.resyncs END,"
        " messages_done = CASE WHEN f.backfill_below = 1 THEN f.messages_total ELSE f.messages_done END"
        " FROM (SELECT g.* FROM unnest(%s::bigint[], %s::text[], %s::bool[]) AS g (id, method, settled)"
        f"  JOIN folders b ON b.id = g.id FOR NO KEY UPDATE OF b{locked}) AS g WHERE f.id = g.id RETURNING f.id",
        (
            [folder.folder_id for folder in folders],
            [folder.method.value for folder in folders],
            [folder.settled for folder in folders],
        ),
    )
    written = {row[0] for row in await cursor.fetchall()}
    return [None if folder.folder_id in written else Left.OUT for folder in folders]


async def demote(conn: Conn, folder_id: int, to: Method, reason: str) -> None:
    """Take a folder down the ladder for good, with the reason."""
    await conn.execute(
        "UPDATE folders SET demoted = %s, demoted_reason = %s, method = %s WHERE id = %s",
        (to.value, reason[:500], to.value, folder_id),
    )
