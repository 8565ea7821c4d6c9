"""Whether the database is still on the server whose transactions its rows name.

Rows hold transaction ids: `events.xid` for the order of the log, `accounts.changed` and `access_changes.changed` for
the lists.  A dump takes them along into another server, whose own ids begin anew, mostly far below.  What the lists
have is no trouble: ids that the server has not reached tell nothing (`list_store`).  The log, though, would hide what
it has and put new events before old ones.  So the ids that the log holds are counted from `events_ahead`: 0 on the
first server, and on each further one the greatest id in the log.  It is one number and the default of one column,
whatever the size of the log, and the cursors of its readers stay good.

It is looked at once a start, by the migrator and in its transaction: a database that is restored under a running daemon
needs that daemon started again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from psycopg import sql

if TYPE_CHECKING:
    from .connection import Conn

log = structlog.get_logger(__name__)


async def settle(conn: Conn) -> bool:
    """Compare the server with the one that is remembered, and go on behind the log on another; whether it is another.

    The transaction that is open holds the migrator's lock.  Nothing is done to a schema that remembers no server.

    Raises:
        psycopg.errors.LockNotAvailable: somebody has been writing events for longer than the lock limit.
    """
    row = await (await conn.execute("SELECT to_regclass('server_identity') IS NULL")).fetchone()
    if row == (True,):
        return False
    cursor = await conn.execute(
        "SELECT s.identifier, c.system_identifier FROM server_identity s, pg_control_system() c"
    )
    identifiers = await cursor.fetchone()
    if identifiers is None:
        raise RuntimeError("server_identity has no row: the dump that was restored is not whole")
    before, now = identifiers
    if before == now:
        return False
    # Nobody writes events by the old default from here on, and who did has ended.
    await conn.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
    cursor = await conn.execute(
        "UPDATE server_identity SET identifier = %s, events_ahead = greatest(events_ahead,"
        " (SELECT xid::text::bigint FROM events ORDER BY xid DESC LIMIT 1)) RETURNING events_ahead",
        (now,),
    )
    (ahead,) = await cursor.fetchone() or (0,)
    default = sql.SQL("ALTER TABLE events ALTER xid SET DEFAULT ({} + pg_current_xact_id()::text::bigint)::text::xid8")
    await conn.execute(default.format(int(ahead)))
    log.warning("schema.other_server", before=before, now=now, events_ahead=ahead)
    return True
