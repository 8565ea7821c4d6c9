"""The SQL of invitations and shares: every statement is scoped by the caller, or by an account locked for them.

Lock order, here as everywhere: the account, then what hangs on it.  `lock` takes the account so that it cannot be
disconnected meanwhile, and two who change its shares take turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from psycopg.rows import class_row

from daemon.storage.connection import Conn

from .rules import Access, Given
from .views import Invitation, Received, Share

_OWNERS: Final = "(SELECT account_id FROM account_access WHERE user_id = %s AND role = 'owner')"
"""A user's own accounts: what is theirs alone is asked for among these, whatever was judged before."""


async def access(conn: Conn, user_id: str, account_id: UUID, *, removed: bool = False) -> Access | None:
    """The caller's role in a connected account, None without any; *removed*: or in one that was disconnected."""
    cursor = await conn.execute(
        "SELECT x.role FROM accounts a JOIN account_access x ON x.account_id = a.id AND x.user_id = %s"
        " WHERE a.id = %s AND (a.desired <> 'removed' OR %s)",
        (user_id, account_id, removed),
    )
    row = await cursor.fetchone()
    return row[0] if row else None


async def lock(conn: Conn, user_id: str, account_id: UUID) -> Access | None:
    """`access`, with the account locked until the transaction ends; who has no part in it locks nothing.

    The role is read again behind the lock: it may have been revoked while this transaction waited for it.
    """
    if await access(conn, user_id, account_id) is None:
        return None
    await conn.execute("SELECT FROM accounts WHERE id = %s FOR NO KEY UPDATE", (account_id,))
    return await access(conn, user_id, account_id)


@dataclass(frozen=True, slots=True)
class Invitee:
    """How somebody's address stands to an account that they are to be invited to."""

    has_access: bool
    pending: bool
    open_invitations: int


async def invitee(conn: Conn, account_id: UUID, normal: str) -> Invitee:
    """How a normalised address stands to an account that is locked."""
    async with conn.cursor(row_factory=class_row(Invitee)) as cursor:
        await cursor.execute(
            "SELECT EXISTS (SELECT FROM account_access x JOIN users u ON u.id = x.user_id"
            " WHERE x.account_id = %(id)s AND u.email_normal = %(normal)s) AS has_access,"
            " EXISTS (SELECT FROM invitations WHERE account_id = %(id)s AND status = 'pending'"
            " AND invitee_normal = %(normal)s AND expires_at > now()) AS pending,"
            " (SELECT count(*) FROM invitations WHERE account_id = %(id)s AND status = 'pending'"
            " AND expires_at > now()) AS open_invitations",
            {"id": account_id, "normal": normal},
        )
        row = await cursor.fetchone()
    assert row is not None, "a row without FROM"
    return row


@dataclass(frozen=True, slots=True)
class NewInvitation:
    """What is saved of one."""

    id: str
    account_id: UUID
    inviter_id: str
    email: str
    normal: str
    role: Given
    lasting: timedelta


async def invite(conn: Conn, invitation: NewInvitation) -> Invitation:
    """Save an invitation to an account that is locked; an expired one to the same address makes room for it."""
    await conn.execute(
        "UPDATE invitations SET status = 'expired', settled_at = now()"
        " WHERE account_id = %s AND status = 'pending' AND expires_at <= now()",
        (invitation.account_id,),
    )
    async with conn.cursor(row_factory=class_row(Invitation)) as cursor:
        await cursor.execute(
            "INSERT INTO invitations (id, account_id, inviter_id, invitee_email, invitee_normal, role, expires_at)"
            " SELECT %s, account_id, user_id, %s, %s, %s, now() + %s FROM account_access"
            " WHERE account_id = %s AND user_id = %s AND role = 'owner'"
            " RETURNING id, invitee_email, role, created_at, expires_at",
            (
                *(invitation.id, invitation.email, invitation.normal, invitation.role, invitation.lasting),
                *(invitation.account_id, invitation.inviter_id),
            ),
        )
        row = await cursor.fetchone()
    assert row is not None, "the inviter is the owner of an account that is locked"
    return row


async def made(conn: Conn, invitation: NewInvitation) -> Invitation | None:
    """The same if an earlier try has saved it, whatever has become of it since: its COMMIT's answer was lost."""
    async with conn.cursor(row_factory=class_row(Invitation)) as cursor:
        await cursor.execute(
            "SELECT id, invitee_email, role, created_at, expires_at FROM invitations WHERE id = %s AND inviter_id = %s",
            (invitation.id, invitation.inviter_id),
        )
        return await cursor.fetchone()


async def open_invitations(conn: Conn, owner_id: str, account_id: UUID) -> Sequence[Invitation]:
    """Those of an owner's account, the oldest first."""
    async with conn.cursor(row_factory=class_row(Invitation)) as cursor:
        await cursor.execute(
            "SELECT id, invitee_email, role, created_at, expires_at FROM invitations"  # noqa: S608 - this module's words
            f" WHERE account_id = %s AND account_id IN {_OWNERS} AND status = 'pending' AND expires_at > now()"
            " ORDER BY created_at, id",
            (account_id, owner_id),
        )
        return await cursor.fetchall()


async def received(conn: Conn, user_id: str, normal: str) -> Sequence[Received]:
    """Open invitations to a user's address, the oldest first; not to accounts that are their own."""
    async with conn.cursor(row_factory=class_row(Received)) as cursor:
        await cursor.execute(
            "SELECT i.id, a.email AS account_email, u.name AS inviter_name, i.role, i.created_at, i.expires_at"
            " FROM invitations i JOIN accounts a ON a.id = i.account_id AND a.desired <> 'removed'"
            " JOIN users u ON u.id = i.inviter_id"
            " WHERE i.invitee_normal = %s AND i.status = 'pending' AND i.expires_at > now() AND a.owner_id <> %s"
            " ORDER BY i.created_at, i.id LIMIT 500",
            (normal, user_id),
        )
        return await cursor.fetchall()


async def revoke_invitation(conn: Conn, owner_id: str, account_id: UUID, invitation_id: str) -> str | None:
    """Take back an open invitation to an owner's account, which is locked; whose it was, None where there is none."""
    cursor = await conn.execute(
        "UPDATE invitations SET status = 'revoked', settled_at = now() WHERE id = %s AND account_id = %s"  # noqa: S608 - as above
        f" AND account_id IN {_OWNERS} AND status = 'pending' AND expires_at > now() RETURNING invitee_email",
        (invitation_id, account_id, owner_id),
    )
    row = await cursor.fetchone()
    return row[0] if row else None


@dataclass(frozen=True, slots=True)
class Addressed:
    """An invitation to the caller."""

    account_id: UUID
    role: Given
    status: str


async def addressed(conn: Conn, invitation_id: str, normal: str) -> Addressed | None:
    """An invitation to this address that is open or was accepted, with its account locked; None without one."""
    found = (
        "SELECT i.account_id, i.role, i.status FROM invitations i JOIN accounts a ON a.id = i.account_id"
        " WHERE i.id = %s AND i.invitee_normal = %s AND a.desired <> 'removed'"
        " AND (i.status = 'accepted' OR i.status = 'pending' AND i.expires_at > now())"
    )
    async with conn.cursor(row_factory=class_row(Addressed)) as cursor:
        await cursor.execute(found, (invitation_id, normal))
        row = await cursor.fetchone()
        if row is None:
            return None
        await conn.execute("SELECT FROM accounts WHERE id = %s FOR NO KEY UPDATE", (row.account_id,))
        await cursor.execute(found, (invitation_id, normal))  # as it is behind the lock
        return await cursor.fetchone()


async def settle(conn: Conn, invitation_id: str, status: str) -> None:
    """Note what an invitee answered; its account is locked."""
    await conn.execute(
        "UPDATE invitations SET status = %s, settled_at = now() WHERE id = %s AND status = 'pending'",
        (status, invitation_id),
    )


async def share(conn: Conn, account_id: UUID, user_id: str, role: Given) -> None:
    """Let a user have part in an account that is locked; a guest with another role has this one now, an owner stays."""
    await conn.execute(
        "INSERT INTO account_access AS x (account_id, user_id, role) VALUES (%s, %s, %s)"
        " ON CONFLICT (account_id, user_id) DO UPDATE SET role = excluded.role WHERE x.role <> 'owner'",
        (account_id, user_id, role),
    )


async def shares(conn: Conn, owner_id: str, account_id: UUID) -> Sequence[Share]:
    """With whom an owner's account is shared, the oldest share first."""
    async with conn.cursor(row_factory=class_row(Share)) as cursor:
        await cursor.execute(
            "SELECT x.user_id, u.email, x.role, x.created_at AS shared_at FROM account_access x"  # noqa: S608 - as above
            " JOIN users u ON u.id = x.user_id WHERE x.account_id = %s AND x.role <> 'owner'"
            f" AND x.account_id IN {_OWNERS} ORDER BY x.created_at, x.user_id",
            (account_id, owner_id),
        )
        return await cursor.fetchall()


async def unshare(conn: Conn, caller_id: str, account_id: UUID, user_id: str) -> bool:
    """Take back a share of the caller's account, which is locked, or give back their own; whether there was one."""
    cursor = await conn.execute(
        "DELETE FROM account_access WHERE account_id = %s AND user_id = %s AND role <> 'owner'"  # noqa: S608 - as above
        f" AND (user_id = %s OR account_id IN {_OWNERS})",
        (account_id, user_id, caller_id, caller_id),
    )
    return cursor.rowcount > 0
