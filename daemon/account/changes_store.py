"""The SQL of changing an account: what there is, locked, and what is set.

Lock order: the owner's row where defaults move, the account, then what hangs on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from psycopg import sql
from psycopg.rows import class_row

from daemon.network import Endpoint, Security
from daemon.sharing.rules import Access
from daemon.storage.connection import Conn

from .access_store import command


@dataclass(frozen=True, slots=True)
class Changeable:
    """An account as a change finds it."""

    access: Access
    email: str
    name: str
    daily_limit: int | None
    imap_host: str
    imap_port: int
    imap_security: str
    smtp_host: str
    smtp_port: int
    smtp_security: str
    username: str
    credentials_version: int
    is_default: bool
    desired: str

    @property
    def imap(self) -> Endpoint:
        """Where its mail is."""
        return Endpoint(self.imap_host, self.imap_port, Security(self.imap_security))

    @property
    def smtp(self) -> Endpoint:
        """Where it sends."""
        return Endpoint(self.smtp_host, self.smtp_port, Security(self.smtp_security))


_LOOK = (
    "SELECT x.role AS access, a.email, a.name, a.daily_limit, a.imap_host, a.imap_port, a.imap_security, a.smtp_host,"
    " a.smtp_port, a.smtp_security, a.username, a.credentials_version, a.is_default, a.desired FROM accounts a"
    " JOIN account_access x ON x.account_id = a.id AND x.user_id = %s WHERE a.id = %s AND a.desired <> 'removed'"
)
_LOOK_LOCKED = _LOOK + " FOR NO KEY UPDATE OF a"


async def look(conn: Conn, user_id: str, account_id: UUID, *, lock: bool = False) -> Changeable | None:
    """The account if the user has part in it, None if not; *lock* holds it until the transaction ends."""
    async with conn.cursor(row_factory=class_row(Changeable)) as cursor:
        await cursor.execute(_LOOK_LOCKED if lock else _LOOK, (user_id, account_id))
        found = await cursor.fetchone()
        if found is not None and lock:
            # The join was made before the lock was waited for: the share may have been revoked meanwhile.
            await cursor.execute(_LOOK, (user_id, account_id))
            found = await cursor.fetchone()
        return found


async def set_columns(conn: Conn, user_id: str, account_id: UUID, columns: dict[str, object]) -> None:
    """Set columns of an account that is locked and that the user owns or is an admin of; their names are ours."""
    assignments = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in columns)
    statement = sql.SQL(
        "UPDATE accounts SET {} WHERE id = %s AND id IN"
        " (SELECT account_id FROM account_access WHERE user_id = %s AND role IN ('owner', 'admin'))"
    ).format(assignments)
    cursor = await conn.execute(statement, [*columns.values(), account_id, user_id])
    assert cursor.rowcount == 1, "it is locked, and its roles were judged behind the lock"


async def set_credentials(
    conn: Conn,
    owner_id: str,
    account_id: UUID,
    imap: Endpoint,
    smtp: Endpoint,
    username: str,
    sealed: tuple[bytes, bytes],
) -> None:
    """Replace where an owner's account is and how to log in; *sealed* is its data key and its password.

    It begins anew, whatever kept it down: the state is `new`, which its actor takes from the row; a paused one stays as
    paused ones are.  Another host or login is another mailbox, which is first synced then: its number tells sessions
    that the cursors are of the former one, and takes nothing from a session of that one which still runs.

    Raises:
        psycopg.errors.UniqueViolation: the mailbox is connected already.
    """
    cursor = await conn.execute(
        "UPDATE accounts SET imap_host = %s, imap_port = %s, imap_security = %s, smtp_host = %s, smtp_port = %s,"
        " smtp_security = %s, username = %s, data_key = %s, password_sealed = %s,"
        " credentials_version = credentials_version + 1, mailbox = mailbox + moved.moved::int,"
        " first_synced_at = CASE WHEN NOT moved.moved THEN first_synced_at END,"
        " state = CASE WHEN desired = 'running' THEN 'new' ELSE 'stopped' END, state_code = NULL, state_reason = NULL,"
        " state_since = now(), trouble_since = NULL, retry_at = NULL, proof_until = NULL"
        # As the index that keeps mailboxes apart compares them; the row is locked.
        " FROM (SELECT (lower(imap_host), username) <> (lower(%s), %s) AS moved FROM accounts WHERE id = %s) AS moved"
        " WHERE id = %s AND owner_id = %s",
        (
            *(imap.host, imap.port, imap.security.value, smtp.host, smtp.port, smtp.security.value),
            *(username, *sealed, imap.host, username, account_id, account_id, owner_id),
        ),
    )
    assert cursor.rowcount == 1, "it is locked, and its roles were judged behind the lock"
    await command(conn, account_id, "changed")


async def make_default(conn: Conn, owner_id: str, account_id: UUID) -> UUID | None:
    """Make an account its owner's default one; which one it was, if another.  The owner's row is locked."""
    cursor = await conn.execute(
        "UPDATE accounts SET is_default = false WHERE owner_id = %s AND is_default AND id <> %s RETURNING id",
        (owner_id, account_id),
    )
    former = await cursor.fetchone()
    await conn.execute(
        "UPDATE accounts SET is_default = true WHERE id = %s AND owner_id = %s AND NOT is_default",
        (account_id, owner_id),
    )
    return former[0] if former else None
