"""The SQL of accounts as their actor and their node see them: what to run, and how it goes.

Everything here that writes is called inside a fenced transaction.  What API handlers read and write, always joined with
`account_access`, is in `access_store`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from psycopg.rows import class_row

from daemon.network import Endpoint, Security
from daemon.storage.connection import Conn

from .states import State


@dataclass(frozen=True, slots=True)
class AccountRow:
    """What a node needs to run an account."""

    id: UUID
    owner_id: str
    email: str
    imap_host: str
    imap_port: int
    imap_security: str
    username: str
    data_key: bytes | None
    password_sealed: bytes | None
    credentials_version: int
    refused_version: int | None
    """The version of the credentials that a server refused for good."""
    desired: Literal["running", "paused", "removed"]
    state: str
    state_reason: str | None
    first_synced_at: datetime | None
    sync_pending: bool
    """Whether a requested synchronisation has not been served."""

    @property
    def imap(self) -> Endpoint:
        """Where its mail is."""
        return Endpoint(self.imap_host, self.imap_port, Security(self.imap_security))


_ROW = (
    "SELECT id, owner_id, email, imap_host, imap_port, imap_security, username, data_key, password_sealed,"
    " credentials_version, refused_version, desired, state, state_reason, first_synced_at,"
    " coalesce(sync_requested_at > coalesce(sync_served_at, '-infinity'), false) AS sync_pending"
    " FROM accounts WHERE id = %s"
)


async def load(conn: Conn, account_id: UUID) -> AccountRow | None:
    """An account's row, or None when it has been purged."""
    async with conn.cursor(row_factory=class_row(AccountRow)) as cursor:
        await cursor.execute(_ROW, (account_id,))
        return await cursor.fetchone()


async def set_progress(conn: Conn, account_id: UUID, state: State) -> None:
    """Enter a state of an attempt under way, or stop; the reason of the last trouble stays until it is over."""
    await conn.execute(
        "UPDATE accounts SET state = %s, state_since = now(), retry_at = NULL WHERE id = %s", (state.value, account_id)
    )


async def set_trouble(
    conn: Conn,
    account_id: UUID,
    state: State,
    *,
    code: str,
    reason: str,
    retry_in: float | None,
    refused: bool = False,
) -> None:
    """Enter a state of trouble.

    Args:
        conn: a fenced transaction.
        account_id: whose.
        state: `RETRYING` or `PARKED`.
        code: a machine's word for the reason.
        reason: a sentence for the owner.
        retry_in: seconds until the next attempt, or None.
        refused: whether the credentials as they are now were refused for good: nobody logs in with them again.
    """
    await conn.execute(
        "UPDATE accounts SET state = %(state)s, state_code = %(code)s, state_reason = %(reason)s,"
        " state_since = CASE WHEN state = %(state)s THEN state_since ELSE now() END,"
        " retry_at = now() + make_interval(secs => %(retry)s), trouble_since = coalesce(trouble_since, now()),"
        " refused_version = CASE WHEN %(refused)s THEN credentials_version END WHERE id = %(id)s",
        {
            "state": state.value,
            "code": code,
            "reason": reason[:500],
            "retry": retry_in,
            "refused": refused,
            "id": account_id,
        },
    )


async def set_caught_up(conn: Conn, account_id: UUID, *, new_messages: int, proof: float, served: float | None) -> bool:
    """The account is up to date now; whether that completed its first synchronisation.

    Args:
        conn: a fenced transaction.
        account_id: whose.
        new_messages: arrived since it was last up to date.
        proof: seconds for which the server's last word counts as proof of life.
        served: seconds ago that the run began which this ends, where one was requested: it serves what was asked
            before it began, and nothing later.
    """
    cursor = await conn.execute(
        "UPDATE accounts a SET state = 'watching', state_code = NULL, state_reason = NULL, retry_at = NULL,"
        " state_since = CASE WHEN a.state = 'watching' THEN a.state_since ELSE now() END, trouble_since = NULL,"
        " first_synced_at = coalesce(a.first_synced_at, now()), last_synced_at = now(), last_contact_at = now(),"
        " refused_version = NULL,"
        " proof_until = now() + make_interval(secs => %(proof)s), new_messages = a.new_messages + %(new)s,"
        " sync_served_at = coalesce(now() - make_interval(secs => %(served)s), a.sync_served_at),"
        " sync_new_messages = CASE WHEN %(served)s::float8 IS NULL THEN a.sync_new_messages ELSE %(new)s END"
        " FROM (SELECT id, first_synced_at FROM accounts WHERE id = %(id)s FOR UPDATE) AS before"
        " WHERE a.id = before.id RETURNING before.first_synced_at IS NULL",
        {"proof": proof, "new": new_messages, "served": served, "id": account_id},
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def rewrap(conn: Conn, account_id: UUID, former: bytes, data_key: bytes) -> None:
    """Store an account's data key under the current key of the ring, unless the credentials changed meanwhile."""
    await conn.execute(
        "UPDATE accounts SET data_key = %s WHERE id = %s AND data_key = %s", (data_key, account_id, former)
    )
