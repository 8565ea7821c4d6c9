"""The SQL of lists kept up to date: what a snapshot did not see of a user's accounts (see migration 0002).

Each statement stands alone, outside any transaction, and asks by itself whether what the user may see has changed; so
nobody's right to see an account outlives it by more than the statement under way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import dict_row

from daemon.storage.connection import Conn

from .access_store import VIEW_COLUMNS, view_of
from .views import AccountView

# The first two conditions are what the index can find, the last what is meant: a transaction may be newer than the
# oldest one that was open then, and have been seen.  What the server has not reached is of another server's making, and
# came here in a dump: it would be news for ever.
_UNSEEN = (
    "{0}.changed >= pg_snapshot_xmin(%(seen)s::pg_snapshot)"
    " AND {0}.changed < pg_snapshot_xmax(pg_current_snapshot())"
    " AND NOT pg_visible_in_snapshot({0}.changed, %(seen)s::pg_snapshot)"
)
# A server that is behind the snapshot has lost transactions, and gives their ids to others.
_ACCESS = (
    "(pg_snapshot_xmax(pg_current_snapshot()) < pg_snapshot_xmax(%(seen)s::pg_snapshot)"
    f" OR EXISTS (SELECT FROM access_changes c WHERE c.user_id = %(user)s AND {_UNSEEN.format('c')}))"
)
# A server whose process was killed recovers and gives ids again that it had not stored, while its postmaster lives on;
# but all statistics begin anew with a recovery (pgstat_reset_after_failure, since PostgreSQL 15).  Somebody who resets
# them by hand makes the lists be read once more.
_SERVER = "greatest(pg_postmaster_start_time(), pg_stat_get_bgwriter_stat_reset_time())"
_MINE = "account_access x ON x.account_id = a.id AND x.user_id = %(user)s"

_PROBE = (
    f"SELECT {_SERVER}, now(), {_ACCESS},"  # noqa: S608 - constants of this module, as below
    f" EXISTS (SELECT FROM accounts a WHERE a.owner_id = %(user)s AND {_UNSEEN.format('a')})"
    f" OR EXISTS (SELECT FROM accounts a JOIN {_MINE} WHERE x.role <> 'owner' AND {_UNSEEN.format('a')})"
)
_HEAD = f"pg_current_snapshot()::text AS seen, {_SERVER} AS server, now() AS now"
_ALL = (
    f"SELECT h.*, a.* FROM (SELECT {_HEAD}, false AS access_changed) h"  # noqa: S608 - as above
    f" LEFT JOIN (SELECT {VIEW_COLUMNS}"
    f" FROM accounts a JOIN {_MINE} WHERE a.desired <> 'removed') a ON true"
)
_CHANGES = (
    f"SELECT h.*, a.* FROM (SELECT {_HEAD}, {_ACCESS} AS access_changed) h LEFT JOIN ("  # noqa: S608 - as above
    f"SELECT {VIEW_COLUMNS} FROM accounts a JOIN {_MINE} WHERE a.owner_id = %(user)s AND {_UNSEEN.format('a')}"
    f" UNION ALL SELECT {VIEW_COLUMNS} FROM accounts a JOIN {_MINE} WHERE x.role <> 'owner' AND {_UNSEEN.format('a')}"
    f" UNION ALL SELECT {VIEW_COLUMNS} FROM accounts a JOIN {_MINE} WHERE a.id = ANY(%(due)s)) a ON true"
)


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether there is anything to read."""

    server: datetime
    """When the server was started, or recovered: another one may not know the transactions that a snapshot names."""
    now: datetime
    access_changed: bool
    """Whether what the user may see has changed since the snapshot."""
    changed: bool
    """Whether an account that they see has."""


@dataclass(frozen=True, slots=True)
class Page:
    """All of a user's accounts, or those that changed."""

    seen: str
    """The snapshot that it was read by."""
    server: datetime
    now: datetime
    access_changed: bool
    views: tuple[AccountView, ...]
    """A removed account is among them as a change, never in a page of all."""


async def probe(conn: Conn, *, user_id: str, seen: str) -> Probe:
    """Whether anything has changed of a user's accounts that the snapshot did not see."""
    cursor = await conn.execute(_PROBE, {"user": user_id, "seen": seen})
    row = await cursor.fetchone()
    assert row is not None, "a SELECT without FROM has a row"
    return Probe(*row)


async def read_all(conn: Conn, *, user_id: str) -> Page:
    """All accounts that a user may see."""
    return await _page(conn, _ALL, {"user": user_id})


async def read_changes(conn: Conn, *, user_id: str, seen: str, due: Sequence[UUID]) -> Page:
    """The user's accounts that changed since the snapshot, and those of `due` in any case."""
    return await _page(conn, _CHANGES, {"user": user_id, "seen": seen, "due": list(due)})


async def _page(conn: Conn, statement: str, parameters: dict[str, object]) -> Page:
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement, parameters)
        rows = await cursor.fetchall()
    head = rows[0]
    views = tuple(view_of(row) for row in rows if row["id"] is not None)
    return Page(head["seen"], head["server"], head["now"], head["access_changed"], views)
