"""What the store holds of an account, to be compared with a plain IMAP dump of its server."""

import hashlib
from dataclasses import dataclass
from uuid import UUID, uuid4

from daemon.network import Endpoint, Security
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.storage.fence import Claim


@dataclass(frozen=True)
class StoredMessage:
    flags: frozenset[str]
    size: int
    sha256: str


async def make_account(
    db: Database,
    *,
    username: str,
    imap: Endpoint,
    owner: str = "user-1",
    data_key: bytes = b"x",
    password_sealed: bytes = b"x",
    account_id: UUID | None = None,
) -> Claim:
    """An account row with a claim of a made-up node, as connecting and claiming would leave them."""
    account_id, node = account_id or uuid4(), uuid4()
    smtp = Endpoint(imap.host, 587, Security.STARTTLS)

    async def work(conn: Conn) -> None:
        await conn.execute(
            "INSERT INTO users (id, email, email_normal, name, plan) VALUES (%s, %s, %s, '', 'free')"
            " ON CONFLICT DO NOTHING",
            (owner, username, username),
        )
        await conn.execute(
            "INSERT INTO accounts (id, owner_id, email, email_normal, name, imap_host, imap_port, imap_security,"
            " smtp_host, smtp_port, smtp_security, username, data_key, password_sealed, is_default)"
            " VALUES (%s, %s, %s, %s, '', %s, %s, %s, %s, %s, %s, %s, %s, %s,"
            " NOT EXISTS (SELECT FROM accounts WHERE owner_id = %s AND is_default))",
            (
                *(account_id, owner, username, username, imap.host, imap.port, imap.security.value),
                *(smtp.host, smtp.port, smtp.security.value, username, data_key, password_sealed, owner),
            ),
        )
        await conn.execute("INSERT INTO account_access VALUES (%s, %s, 'owner')", (account_id, owner))
        await conn.execute(
            "INSERT INTO claims (account_id, owner, epoch) VALUES (%s, %s, 1)", (account_id, node)
        )

    await db.run(work)
    return Claim(account_id, node, 1)


async def stored_messages(db: Database, account_id: UUID, folder: str = "INBOX") -> dict[int, StoredMessage]:
    """Live messages by UID, each body hashed from its parts."""

    async def work(conn: Conn) -> dict[int, StoredMessage]:
        async with conn.cursor(binary=True) as cursor:
            await cursor.execute(
                "SELECT p.uid, p.flags, m.size, (SELECT string_agg(b.data, ''::bytea ORDER BY b.part)"
                "  FROM bodies b WHERE b.message_id = m.id)"
                " FROM placements p JOIN folders f ON f.id = p.folder_id JOIN messages m ON m.id = p.message_id"
                " WHERE f.account_id = %s AND f.name = %s AND p.vanished_at IS NULL",
                (account_id, folder),
            )
            return {
                uid: StoredMessage(frozenset(flags), size, hashlib.sha256(body or b"").hexdigest())
                for uid, flags, size, body in await cursor.fetchall()
            }

    return await db.run(work)


async def one(db: Database, query: str, *parameters: object) -> object:
    """The first column of the first row."""

    async def work(conn: Conn) -> object:
        row = await (await conn.execute(query, parameters)).fetchone()
        return row[0] if row else None

    return await db.run(work)
