"""The audit's SQL: who did what to which account, when, and from where.

An entry is written in the transaction that does what it tells of, so there is none without the other.  No secret is in
it: of credentials that are changed it says which fields, never their values.  What changes nothing (to synchronise, to
set what is so already) is not in it.  What is in it is bounded by rates, by its age, and by MOST_ENTRIES of one user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from daemon.storage.connection import Conn

from .views import Caller, Entry

PAGE: Final = 100
"""Entries of one answer."""

MOST_ENTRIES: Final = 100_000
"""Entries of what one user did to one account: ten times as many as hours in the time that entries are kept for."""

TRIM_EVERY: Final = 500
"""One entry in so many looks whether its account has too many: to look is to walk over MOST_ENTRIES of an index."""

FORGET_AT_ONCE: Final = 10_000
"""Entries removed in one transaction, which is a fraction of a second; what is left goes the next time."""


class Action(StrEnum):
    """What can be done to an account."""

    CONNECTED = "account.connected"
    CHANGED = "account.changed"
    DISCONNECTED = "account.disconnected"
    INVITED = "invitation.created"
    INVITATION_REVOKED = "invitation.revoked"
    INVITATION_ACCEPTED = "invitation.accepted"
    INVITATION_DECLINED = "invitation.declined"
    SHARE_REVOKED = "share.revoked"
    SHARE_LEFT = "share.left"
    CAMPAIGN = "campaign.registered"


async def note(
    conn: Conn,
    caller: Caller,
    account_id: UUID,
    action: Action,
    detail: Mapping[str, object] | None = None,
    *,
    request: UUID | None = None,
) -> None:
    """Write one entry in the caller's transaction; *request*: by which `was_noted` knows it."""
    cursor = await conn.execute(
        "INSERT INTO audit (account_id, user_id, user_email, client, action, detail, request)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING id",
        (
            *(account_id, caller.user.id, caller.user.email, caller.client, action.value, Jsonb(dict(detail or {}))),
            request,
        ),
    )
    (entry,) = await cursor.fetchone() or (0,)
    if entry % TRIM_EVERY == 0:
        await trim(conn, account_id, caller.user.id, MOST_ENTRIES)


async def trim(conn: Conn, account_id: UUID, user_id: str, most: int) -> None:
    """Remove the oldest beyond so many entries of one user about an account: nobody pushes out what others did."""
    await conn.execute(
        "DELETE FROM audit WHERE account_id = %(id)s AND user_id = %(user)s AND id <= (SELECT id FROM audit"
        " WHERE account_id = %(id)s AND user_id = %(user)s ORDER BY id DESC OFFSET %(most)s LIMIT 1)",
        {"id": account_id, "user": user_id, "most": most},
    )


async def was_noted(conn: Conn, request: UUID) -> bool:
    """Whether what this request asked for is done and noted."""
    cursor = await conn.execute("SELECT FROM audit WHERE request = %s", (request,))
    return await cursor.fetchone() is not None


async def read(conn: Conn, owner_id: str, account_id: UUID, before: int | None) -> Sequence[Entry]:
    """The last PAGE entries of an owner's account, newest first; those older than *before*, when it is given."""
    async with conn.cursor(row_factory=class_row(Entry)) as cursor:
        await cursor.execute(
            "SELECT id, at, user_id, user_email, client, action, account_id, detail FROM audit"
            " WHERE account_id = (SELECT id FROM accounts WHERE id = %s AND owner_id = %s)"
            " AND (%s::bigint IS NULL OR id < %s) ORDER BY id DESC LIMIT %s",
            (account_id, owner_id, before, before, PAGE),
        )
        return await cursor.fetchall()


async def forget_old(conn: Conn, keep: timedelta) -> None:
    """Remove entries older than is kept."""
    await conn.execute(
        "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < now() - %s ORDER BY at LIMIT %s)",
        (keep, FORGET_AT_ONCE),
    )
