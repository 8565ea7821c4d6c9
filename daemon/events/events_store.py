"""The event log's SQL: append in the caller's transaction, read in an order that never skips.

A sequence alone is no order to read by: a transaction may take number 7, another take 8 and commit, and a reader that
has seen 8 never comes back for 7.  So each row carries its transaction's id, readers order by (xid, id), and read only
what is below the xmin of their snapshot, where nothing can appear any more.  In a database that was restored into
another server both count from `events_ahead` (see `storage.identity`), so that order and cursors outlive it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from daemon.storage.connection import Conn


class EventType(StrEnum):
    """The types of the API contract, part 2."""

    EMAIL_RECEIVED = "email.received"
    ACCOUNT_CONNECTED = "account.connected"
    ACCOUNT_SYNCED = "account.synced"
    ACCOUNT_ERROR = "account.error"
    ACCOUNT_DISCONNECTED = "account.disconnected"
    FOLDER_RESET = "folder.reset"


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the log."""

    cursor: tuple[int, int]
    """(transaction, sequence): where a reader goes on; the first counts from `events_ahead`."""
    type: str
    account_id: UUID | None
    data: Mapping[str, Any]
    created_at: datetime


async def append(conn: Conn, kind: EventType, account_id: UUID, data: Mapping[str, Any]) -> None:
    """Write one event in the caller's transaction."""
    await append_many(conn, kind, account_id, (data,))


async def append_many(conn: Conn, kind: EventType, account_id: UUID, data: Iterable[Mapping[str, Any]]) -> None:
    """Write events of one type and account, in order, in one statement."""
    documents = [Jsonb(dict(document)) for document in data]
    if documents:
        await conn.execute(
            "INSERT INTO events (type, account_id, data)"
            " SELECT %s, %s, document FROM unnest(%s::jsonb[]) WITH ORDINALITY AS d (document, n) ORDER BY n",
            (kind.value, account_id, documents),
        )


async def append_each(conn: Conn, kind: EventType, told: Sequence[tuple[UUID, Mapping[str, Any]]]) -> None:
    """Write one event of a type for each of several accounts, in order, in one statement."""
    if told:
        await conn.execute(
            "INSERT INTO events (type, account_id, data) SELECT %s, account_id, document"
            " FROM unnest(%s::uuid[], %s::jsonb[]) WITH ORDINALITY AS d (account_id, document, n) ORDER BY n",
            (kind.value, [account_id for account_id, _ in told], [Jsonb(dict(data)) for _, data in told]),
        )


async def read_after(conn: Conn, cursor: tuple[int, int], limit: int) -> Sequence[Event]:
    """Up to `limit` events behind a cursor ((0, 0) is the beginning), never one that a later call would precede."""
    rows = await conn.execute(
        "SELECT xid::text::bigint, id, type, account_id, data, created_at FROM events"
        " WHERE (xid, id) > (%s::text::xid8, %s) AND xid < (SELECT"
        " (events_ahead + pg_snapshot_xmin(pg_current_snapshot())::text::bigint)::text::xid8 FROM server_identity)"
        " ORDER BY xid, id LIMIT %s",
        (str(cursor[0]), cursor[1], limit),
    )
    return [Event((row[0], row[1]), row[2], row[3], row[4], row[5]) for row in await rows.fetchall()]
