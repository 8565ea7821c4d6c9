"""The SQL of placements: flags, disappearances, and the grace in which a disappearance may turn out to be a move."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence
from uuid import UUID

from daemon.storage.connection import Conn

from .incoming import FlagChange

GRACE = 120.0
"""Seconds that a vanished placement is kept: the same message may turn up in another folder (a move seen in two steps);
the field's experience is two minutes."""

SLICE = 20_000
"""UIDs read at once: 160 KB, and a millisecond of work."""


async def apply_flags(conn: Conn, folder_id: int, changes: Iterable[FlagChange]) -> int:
    """Set the flags of stored messages; of others nothing is said.  The number of placements that changed.

    A message that was thought gone and is spoken of again is there.
    """
    changes = list(changes)
    if not changes:
        return 0
    # text[] of differing lengths do not fit one array parameter: one literal a row.
    cursor = await conn.execute(
        "UPDATE placements p SET flags = c.flags::text[], modseq = greatest(c.modseq, p.modseq), vanished_at = NULL"
        " FROM unnest(%s::bigint[], %s::text[], %s::bigint[]) AS c (uid, flags, modseq)"
        " WHERE p.folder_id = %s AND p.uid = c.uid"
        " AND (p.flags IS DISTINCT FROM c.flags::text[] OR p.vanished_at IS NOT NULL"
        "  OR (c.modseq IS NOT NULL AND p.modseq IS DISTINCT FROM greatest(c.modseq, p.modseq)))",
        (
            [change.uid for change in changes],
            [_array_literal(change.flags) for change in changes],
            [change.modseq for change in changes],
            folder_id,
        ),
    )
    return cursor.rowcount


async def vanish(conn: Conn, folder_id: int, ranges: Sequence[range]) -> int:
    """Mark what lies in these ranges of UIDs as gone; how many placements that were."""
    if not ranges:
        return 0
    await conn.execute(
        "DELETE FROM skipped_messages s USING unnest(%s::bigint[], %s::bigint[]) AS r (low, high)"
        " WHERE s.folder_id = %s AND s.uid BETWEEN r.low AND r.high",
        (*_bounds(ranges), folder_id),
    )
    cursor = await conn.execute(
        "UPDATE placements p SET vanished_at = now() FROM unnest(%s::bigint[], %s::bigint[]) AS r (low, high)"
        " WHERE p.folder_id = %s AND p.vanished_at IS NULL AND p.uid BETWEEN r.low AND r.high",
        (*_bounds(ranges), folder_id),
    )
    return cursor.rowcount


async def count_in(conn: Conn, folder_id: int, ranges: Sequence[range]) -> int:
    """How many live placements lie in these ranges."""
    cursor = await conn.execute(
        "SELECT count(DISTINCT p.uid) FROM unnest(%s::bigint[], %s::bigint[]) AS r (low, high)"
        " JOIN placements p ON p.folder_id = %s AND p.uid BETWEEN r.low AND r.high WHERE p.vanished_at IS NULL",
        (*_bounds(ranges), folder_id),
    )
    return int((await cursor.fetchone() or (0,))[0])


async def held_count(conn: Conn, folder_id: int) -> int:
    """How many of the server's messages the store accounts for: those it holds, and those that could not be read."""
    cursor = await conn.execute(
        "SELECT (SELECT count(*) FROM placements WHERE folder_id = %(id)s AND vanished_at IS NULL)"
        " + (SELECT count(*) FROM skipped_messages WHERE folder_id = %(id)s)",
        {"id": folder_id},
    )
    return int((await cursor.fetchone() or (0,))[0])


async def any_vanished(conn: Conn, folder_id: int) -> bool:
    """Whether placements wait for the end of their grace."""
    cursor = await conn.execute(
        "SELECT EXISTS (SELECT FROM placements WHERE folder_id = %s AND vanished_at IS NOT NULL)", (folder_id,)
    )
    return bool((await cursor.fetchone() or (False,))[0])


async def live_uids(conn: Conn, folder_id: int) -> array[int]:
    """The UIDs that the store holds, ascending: 4 bytes each, by slices that come as one value each.

    As two million rows they would be held by the driver first, and as Python integers after, without a pause.
    """
    found = array("I")
    while True:
        cursor = await conn.execute(
            "SELECT string_agg(int8send(uid), ''::bytea ORDER BY uid) FROM (SELECT uid FROM placements"
            " WHERE folder_id = %s AND uid > %s AND vanished_at IS NULL ORDER BY uid LIMIT %s) AS slice",
            (folder_id, found[-1] if found else 0, SLICE),
            binary=True,
        )
        (data,) = await cursor.fetchone() or (None,)
        if data is None:
            return found
        uids = array("Q", data)
        if sys.byteorder == "little":
            uids.byteswap()
        found.extend(array("I", uids))
        if len(uids) < SLICE:
            return found


async def live_among(conn: Conn, folder_id: int, uids: Sequence[int]) -> set[int]:
    """Which of these UIDs, a window of them, the store holds."""
    cursor = await conn.execute(
        "SELECT uid FROM placements WHERE folder_id = %s AND uid = ANY(%s::bigint[]) AND vanished_at IS NULL",
        (folder_id, list(uids)),
    )
    return {row[0] for row in await cursor.fetchall()}


async def supersede(conn: Conn, folder_id: int, uidvalidity: int, *, keep: bool = False) -> None:
    """No UID means anything any more: the messages wait to be recognised.

    After a change of UIDVALIDITY, what is not recognised is gone.  After a move to another mailbox (*keep*) it is not:
    whether somebody deleted it in the former one is not known and never will be, so it stays, as does what was waiting
    since a renumbering there.  What was seen to vanish there needs no grace any more.
    """
    cursor = await conn.execute(
        "DELETE FROM placements WHERE folder_id = %s AND vanished_at IS NOT NULL AND %s RETURNING message_id",
        (folder_id, keep),
    )
    vanished = [row[0] for row in await cursor.fetchall()]
    await conn.execute(
        "INSERT INTO former_placements (folder_id, message_id, uidvalidity, kept)"
        " SELECT DISTINCT folder_id, message_id, %s::bigint, %s FROM placements WHERE folder_id = %s"
        " ON CONFLICT DO NOTHING",
        (uidvalidity, keep, folder_id),
    )
    if keep:
        await conn.execute(
            "UPDATE former_placements SET kept = true WHERE folder_id = %s AND NOT kept", (folder_id,)
        )
    await conn.execute("DELETE FROM placements WHERE folder_id = %s", (folder_id,))
    await conn.execute("DELETE FROM skipped_messages WHERE folder_id = %s", (folder_id,))
    await _drop_unplaced(conn, vanished)


async def former_count(conn: Conn, folder_id: int) -> int:
    """How many messages from before the resync have not been recognised (yet), without those that are kept."""
    cursor = await conn.execute(
        "SELECT count(*) FROM former_placements WHERE folder_id = %s AND NOT kept", (folder_id,)
    )
    return int((await cursor.fetchone() or (0,))[0])


async def forget_former(conn: Conn, folder_id: int) -> int:
    """The resync is complete: what was not recognised is gone, but for what is kept.  How many messages that were."""
    cursor = await conn.execute(
        "DELETE FROM former_placements WHERE folder_id = %s AND NOT kept RETURNING message_id", (folder_id,)
    )
    return await _drop_unplaced(conn, [row[0] for row in await cursor.fetchall()])


async def reap(conn: Conn, folder_id: int, limit: int = 1000) -> int:
    """Remove placements whose grace is over, and messages that then lie nowhere.  How many messages went."""
    cursor = await conn.execute(
        "DELETE FROM placements WHERE (folder_id, uid) IN (SELECT folder_id, uid FROM placements"
        " WHERE folder_id = %s AND vanished_at < now() - make_interval(secs => %s) LIMIT %s) RETURNING message_id",
        (folder_id, GRACE, limit),
    )
    return await _drop_unplaced(conn, [row[0] for row in await cursor.fetchall()])


async def record_skipped(conn: Conn, folder_id: int, uidvalidity: int, uids: Iterable[tuple[int, str]]) -> None:
    """Remember messages that could not be read, with the reason."""
    for uid, reason in uids:
        await conn.execute(
            "INSERT INTO skipped_messages (folder_id, uidvalidity, uid, reason) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (folder_id, uid) DO UPDATE SET reason = excluded.reason, seen_at = now()",
            (folder_id, uidvalidity, uid, reason[:500]),
        )


async def forget_skipped(conn: Conn, folder_id: int, *, keep: Sequence[int]) -> None:
    """Forget skipped messages that the server does not have any more; `keep` are those it has."""
    await conn.execute(
        "DELETE FROM skipped_messages WHERE folder_id = %s AND uid <> ALL(%s::bigint[])", (folder_id, list(keep))
    )


async def skipped_uids(conn: Conn, folder_id: int) -> array[int]:
    """The UIDs that were skipped: they are on the server and not in the store, and that is no difference."""
    cursor = await conn.execute("SELECT uid FROM skipped_messages WHERE folder_id = %s ORDER BY uid", (folder_id,))
    return array("I", [row[0] for row in await cursor.fetchall()])


async def _drop_unplaced(conn: Conn, message_ids: Sequence[UUID]) -> int:
    if not message_ids:
        return 0
    cursor = await conn.execute(
        "DELETE FROM messages m WHERE id = ANY(%s)"
        " AND NOT EXISTS (SELECT 1 FROM placements p WHERE p.message_id = m.id)"
        " AND NOT EXISTS (SELECT 1 FROM former_placements f WHERE f.message_id = m.id)",
        (list(message_ids),),
    )
    return cursor.rowcount


def _bounds(ranges: Sequence[range]) -> tuple[list[int], list[int]]:
    """Lows and highs of the ranges, merged: a server may name the same UIDs a thousand times."""
    lows: list[int] = []
    highs: list[int] = []
    for low, high in sorted((span[0], span[-1]) for span in ranges if span):
        if highs and low <= highs[-1] + 1:
            highs[-1] = max(highs[-1], high)
        else:
            lows.append(low)
            highs.append(high)
    return lows, highs


def _array_literal(items: Sequence[str]) -> str:
    """A PostgreSQL array literal: every element quoted, so that no flag's name can be syntax."""
    return "{" + ",".join('"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"' for item in items) + "}"
