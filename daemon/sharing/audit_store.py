"""The audit's SQL: who did what to which account, when, and from where.

An entry is written in the transaction that does what it tells of, so there is none without the other.  No secret is in
it: of credentials that are changed it says which fields, never their values.  What changes nothing (to synchronise, to
set what is so already) is not in it; all that is, is counted by a rate of whoever does it, so that nobody can fill it.
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
    conn: Conn, caller: Caller, account_id: UUID, action: Action, detail: Mapping[str, object] | None = None
) -> None:
    """Write one entry in the caller's transaction."""
    await conn.execute(
        "INSERT INTO audit (account_id, user_id, user_email, client, action, detail) VALUES (%s, %s, %s, %s, %s, %s)",
        (account_id, caller.user.id, caller.user.email, caller.client, action.value, Jsonb(dict(detail or {}))),
    )


async def read(conn: Conn, account_id: UUID, before: int | None) -> Sequence[Entry]:
    """The last PAGE entries of an account, newest first; those older than *before*, when it is given."""
    async with conn.cursor(row_factory=class_row(Entry)) as cursor:
        await cursor.execute(
            "SELECT id, at, user_id, user_email, client, action, account_id, detail FROM audit"
            " WHERE account_id = %s AND (%s::bigint IS NULL OR id < %s) ORDER BY id DESC LIMIT %s",
            (account_id, before, before, PAGE),
        )
        return await cursor.fetchall()


async def forget_old(conn: Conn, keep: timedelta) -> None:
    """Remove entries older than is kept."""
    await conn.execute(
        "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < now() - %s ORDER BY at LIMIT %s)",
        (keep, FORGET_AT_ONCE),
    )
