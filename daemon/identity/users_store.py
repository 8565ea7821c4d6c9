"""The SQL of users: who called, as their last verified token said."""

from __future__ import annotations

from daemon.storage.connection import Conn

from .users import User, normalise_email


async def remember(conn: Conn, user: User) -> None:
    """Insert or refresh the caller's row; account rows refer to it."""
    await conn.execute(
        "INSERT INTO users (id, email, email_normal, name, plan)"
        " VALUES (%(id)s, %(email)s, %(normal)s, %(name)s, %(plan)s)"
        " ON CONFLICT (id) DO UPDATE SET email = excluded.email, email_normal = excluded.email_normal,"
        " name = excluded.name, plan = excluded.plan, seen_at = now()",
        {
            "id": user.id,
            "email": user.email,
            "normal": normalise_email(user.email),
            "name": user.name,
            "plan": user.plan,
        },
    )


async def lock(conn: Conn, user_id: str) -> None:
    """Serialise what counts the user's accounts (quota, default, duplicates) until the transaction ends."""
    await conn.execute("SELECT 1 FROM users WHERE id = %s FOR NO KEY UPDATE", (user_id,))
