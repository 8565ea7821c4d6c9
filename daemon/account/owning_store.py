"""The SQL of connecting and disconnecting: what makes an account somebody's own, and ends it."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from daemon.network import Endpoint
from daemon.storage.connection import Conn

from .access_store import command


async def is_connected(conn: Conn, user_id: str, email_normal: str) -> bool:
    """Whether the user has connected this address already."""
    cursor = await conn.execute(
        "SELECT 1 FROM accounts WHERE owner_id = %s AND email_normal = %s AND desired <> 'removed'",
        (user_id, email_normal),
    )
    return await cursor.fetchone() is not None


async def is_running(conn: Conn, account_id: UUID) -> bool:
    """Whether there is a connected account of this id."""
    cursor = await conn.execute("SELECT 1 FROM accounts WHERE id = %s AND desired <> 'removed'", (account_id,))
    return await cursor.fetchone() is not None


async def just_removed(conn: Conn, user_id: str, account_id: UUID) -> bool:
    """Whether the user's own account was disconnected a moment ago."""
    cursor = await conn.execute(
        "SELECT 1 FROM accounts WHERE id = %s AND owner_id = %s AND removed_at > now() - interval '1 minute'",
        (account_id, user_id),
    )
    return await cursor.fetchone() is not None


async def count_owned(conn: Conn, user_id: str) -> int:
    """How many accounts the user has connected; shared ones are their owners'."""
    cursor = await conn.execute(
        "SELECT count(*) FROM accounts WHERE owner_id = %s AND desired <> 'removed'", (user_id,)
    )
    return int((await cursor.fetchone() or (0,))[0])


@dataclass(frozen=True, slots=True)
class NewAccount:
    """What is saved when a mailbox is connected, credentials sealed."""

    id: UUID
    owner_id: str
    email: str
    email_normal: str
    name: str | None
    """None: the email, or of one that is revived what it was called before."""
    imap: Endpoint
    smtp: Endpoint
    username: str
    data_key: bytes
    password_sealed: bytes

    def parameters(self) -> dict[str, object]:
        """Its columns."""
        columns: dict[str, object] = {
            "id": self.id,
            "owner_id": self.owner_id,
            "email": self.email,
            "email_normal": self.email_normal,
            "name": self.name or self.email,
            "username": self.username,
            "data_key": self.data_key,
            "password_sealed": self.password_sealed,
        }
        for service, endpoint in (("imap", self.imap), ("smtp", self.smtp)):
            columns[f"{service}_host"] = endpoint.host
            columns[f"{service}_port"] = endpoint.port
            columns[f"{service}_security"] = endpoint.security.value
        return columns


async def find_removed(conn: Conn, user_id: str, imap_host: str, username: str) -> UUID | None:
    """The user's own disconnected account of this mailbox, newest first: connecting it again revives it."""
    cursor = await conn.execute(
        "SELECT id FROM accounts WHERE owner_id = %s AND desired = 'removed' AND lower(imap_host) = lower(%s)"
        " AND username = %s ORDER BY removed_at DESC LIMIT 1 FOR NO KEY UPDATE",
        (user_id, imap_host, username),
    )
    row = await cursor.fetchone()
    return row[0] if row else None


async def save(conn: Conn, account: NewAccount) -> None:
    """Insert an account, or revive the removed one of the same id, with its access, claim and first command.

    Raises:
        psycopg.errors.UniqueViolation: the address or the mailbox is connected already.
    """
    columns = account.parameters()
    given = {name: f"excluded.{name}" for name in columns if name not in {"id", "owner_id"}}
    if account.name is None:  # it was called something, or as its address, which may be another now
        given["name"] = "CASE WHEN accounts.name = accounts.email THEN excluded.email ELSE accounts.name END"
    await conn.execute(
        f"INSERT INTO accounts ({', '.join(columns)}, is_default)"  # noqa: S608 - names of this module
        f" VALUES ({', '.join(f'%({name})s' for name in columns)},"
        " NOT EXISTS (SELECT 1 FROM accounts WHERE owner_id = %(owner_id)s AND is_default))"
        " ON CONFLICT (id) DO UPDATE SET "
        + ", ".join(f"{name} = {value}" for name, value in given.items())
        + ", is_default = excluded.is_default, desired = 'running', removed_at = NULL, state = 'new',"
        " state_code = NULL, state_reason = NULL, state_since = now(), trouble_since = NULL, retry_at = NULL,"
        " first_synced_at = NULL, proof_until = NULL, connected_at = now(),"
        " credentials_version = accounts.credentials_version + 1",
        columns,
    )
    await conn.execute(
        "INSERT INTO account_access (account_id, user_id, role) VALUES (%s, %s, 'owner') ON CONFLICT DO NOTHING",
        (account.id, account.owner_id),
    )
    await conn.execute("INSERT INTO claims (account_id) VALUES (%s) ON CONFLICT DO NOTHING", (account.id,))
    await command(conn, account.id, "changed")


@dataclass(frozen=True, slots=True)
class Owned:
    """What disconnecting depends on."""

    email: str
    is_default: bool
    others: int
    """The owner's other connected accounts."""
    campaigns: int
    """The owner's active campaigns."""


async def lock_owned(conn: Conn, user_id: str, account_id: UUID) -> Owned | None:
    """The user's own account, locked until the transaction ends; None when it is not theirs or not connected."""
    cursor = await conn.execute(
        "SELECT a.email, a.is_default, (SELECT count(*) FROM accounts o WHERE o.owner_id = a.owner_id"
        " AND o.id <> a.id AND o.desired <> 'removed'),"
        " (SELECT count(*) FROM campaigns c WHERE c.user_id = a.owner_id AND c.status = 'active')"
        " FROM accounts a JOIN account_access x ON x.account_id = a.id AND x.role = 'owner'"
        " WHERE a.id = %s AND x.user_id = %s AND a.desired <> 'removed' FOR NO KEY UPDATE OF a",
        (account_id, user_id),
    )
    row = await cursor.fetchone()
    return Owned(*row) if row else None


@dataclass(frozen=True, slots=True)
class Removed:
    """What went with a disconnected account."""

    shares: int
    invitations: int
    """Open ones."""
    new_default: UUID | None
    """The account that is its owner's default now, where this one was."""


async def remove(conn: Conn, user_id: str, account_id: UUID) -> Removed:
    """Disconnect: credentials, shares and invitations go; mail stays; the oldest other account becomes the default."""
    await conn.execute(
        "UPDATE accounts SET desired = 'removed', removed_at = now(), is_default = false, data_key = NULL,"
        " password_sealed = NULL, sync_requested_at = NULL, sync_served_at = NULL WHERE id = %s",
        (account_id,),
    )
    shares = await conn.execute(
        "DELETE FROM account_access WHERE account_id = %s AND role <> 'owner'", (account_id,)
    )
    invitations = await conn.execute(
        "WITH gone AS (DELETE FROM invitations WHERE account_id = %s RETURNING status, expires_at)"
        " SELECT count(*) FROM gone WHERE status = 'pending' AND expires_at > now()",
        (account_id,),
    )
    default = await conn.execute(
        "UPDATE accounts SET is_default = true WHERE id = (SELECT id FROM accounts WHERE owner_id = %s"
        " AND desired <> 'removed' ORDER BY created_at, id LIMIT 1)"
        " AND NOT EXISTS (SELECT 1 FROM accounts WHERE owner_id = %s AND is_default) RETURNING id",
        (user_id, user_id),
    )
    await command(conn, account_id, "changed")
    (open_invitations,) = await invitations.fetchone() or (0,)
    (new_default,) = await default.fetchone() or (None,)
    return Removed(shares.rowcount, open_invitations, new_default)
