"""The SQL of campaigns: what the system that runs them has told; the user's row is locked by who changes anything."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from psycopg.rows import class_row

from daemon.storage.connection import Conn


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign that a user has told of."""

    account_id: UUID
    status: str


async def find(conn: Conn, user_id: str, campaign_id: str) -> Campaign | None:
    """What is known of one of a user's campaigns."""
    async with conn.cursor(row_factory=class_row(Campaign)) as cursor:
        await cursor.execute(
            "SELECT account_id, status FROM campaigns WHERE user_id = %s AND id = %s", (user_id, campaign_id)
        )
        return await cursor.fetchone()


async def count(conn: Conn, user_id: str) -> int:
    """How many campaigns of a user are not completed."""
    cursor = await conn.execute("SELECT count(*) FROM campaigns WHERE user_id = %s", (user_id,))
    return int((await cursor.fetchone() or (0,))[0])


@dataclass(frozen=True, slots=True)
class Registered:
    """One as its user sees it."""

    id: str
    account_id: UUID
    status: Literal["active", "paused"]
    updated_at: datetime


async def registered(conn: Conn, user_id: str) -> list[Registered]:
    """A user's campaigns, by their ids; as many as one may have."""
    async with conn.cursor(row_factory=class_row(Registered)) as cursor:
        await cursor.execute(
            "SELECT id, account_id, status, updated_at FROM campaigns WHERE user_id = %s AND status <> 'completed'"
            " ORDER BY id",
            (user_id,),
        )
        return await cursor.fetchall()


async def put(conn: Conn, user_id: str, campaign_id: str, campaign: Campaign) -> None:
    """Note what a user's campaign does, and as which account."""
    await conn.execute(
        "INSERT INTO campaigns (user_id, id, account_id, status) VALUES (%s, %s, %s, %s) ON CONFLICT (user_id, id)"
        " DO UPDATE SET account_id = excluded.account_id, status = excluded.status, updated_at = now()",
        (user_id, campaign_id, campaign.account_id, campaign.status),
    )


async def forget(conn: Conn, user_id: str, campaign_id: str) -> None:
    """Forget a campaign: nothing depends on one that is completed."""
    await conn.execute("DELETE FROM campaigns WHERE user_id = %s AND id = %s", (user_id, campaign_id))
