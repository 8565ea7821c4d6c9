"""Accounts put straight into the database, as connecting them by the API would leave them, but a thousand a second."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from uuid import UUID, uuid4

from daemon.network import Endpoint
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.storage.fence import Claim
from daemon.vault import Vault
from daemon.vault.secret import Secret

OWNER = "bench"
"""The user that all accounts belong to."""

AT_ONCE = 250
"""Accounts in one transaction: each is four statements, and a transaction's time is bounded."""


async def connect(
    database: Database, vault: Vault, usernames: Sequence[str], imap: Endpoint, password: str, *, owner: str = OWNER
) -> list[UUID]:
    """Insert one running account for each user name, free to be claimed; their ids in the same order."""
    ids: list[UUID] = []
    for start in range(0, len(usernames), AT_ONCE):
        some = [(uuid4(), name) for name in usernames[start : start + AT_ONCE]]
        await database.run(partial(_insert, vault=vault, some=some, imap=imap, password=password, owner=owner))
        ids.extend(account_id for account_id, _ in some)
    return ids


async def claim(database: Database, account_id: UUID) -> Claim:
    """Claim one account for a node that does not exist: for what runs without a fleet."""
    claimed = Claim(account_id, uuid4(), 1)

    async def work(conn: Conn) -> None:
        await conn.execute(
            "UPDATE claims SET owner = %s, epoch = %s WHERE account_id = %s",
            (claimed.owner, claimed.epoch, account_id),
        )

    await database.run(work)
    return claimed


async def ask_all(database: Database) -> None:
    """Ask for a synchronisation of every account, as their owners would."""

    async def work(conn: Conn) -> None:
        await conn.execute("UPDATE accounts SET sync_requested_at = now()")
        await conn.execute("INSERT INTO commands (account_id, kind) SELECT id, 'sync' FROM accounts")

    await database.run(work)


async def unserved(database: Database) -> int:
    """Accounts whose synchronisation was asked for and has not ended yet."""

    async def work(conn: Conn) -> int:
        cursor = await conn.execute(
            "SELECT count(*) FROM accounts WHERE sync_requested_at > coalesce(sync_served_at, '-infinity')"
        )
        row = await cursor.fetchone()
        assert row is not None, "an aggregate gives one row"
        return int(row[0])

    return await database.run(work)


async def _insert(
    conn: Conn, *, vault: Vault, some: Sequence[tuple[UUID, str]], imap: Endpoint, password: str, owner: str
) -> None:
    await conn.execute(
        "INSERT INTO users (id, email, email_normal, name, plan)"
        " VALUES (%(id)s, %(email)s, %(email)s, '', 'free') ON CONFLICT DO NOTHING",
        {"id": owner, "email": f"{owner}@example.test"},
    )
    for account_id, username in some:
        sealed = vault.seal(account_id, {"password": Secret(password)})
        await conn.execute(
            "INSERT INTO accounts (id, owner_id, email, email_normal, name, imap_host, imap_port, imap_security,"
            " smtp_host, smtp_port, smtp_security, username, data_key, password_sealed, is_default)"
            " VALUES (%s, %s, %s, %s, '', %s, %s, %s, %s, 587, 'starttls', %s, %s, %s,"
            " NOT EXISTS (SELECT FROM accounts WHERE owner_id = %s AND is_default)) ON CONFLICT DO NOTHING",
            (
                *(account_id, owner, username, username, imap.host, imap.port, imap.security.value),
                *(imap.host, username, sealed.data_key, sealed.fields["password"], owner),
            ),
        )
        await conn.execute(
            "INSERT INTO account_access (account_id, user_id, role) VALUES (%s, %s, 'owner') ON CONFLICT DO NOTHING",
            (account_id, owner),
        )
        await conn.execute("INSERT INTO claims (account_id) VALUES (%s) ON CONFLICT DO NOTHING", (account_id,))


