"""Whether the store equals the server: everything that a soak, or any test of a whole daemon, must find at the end."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from daemon.storage.connection import Conn
from daemon.storage.database import Database
from ops.bench.first_sync import stored
from ops.testservers.dovecot import Dovecot
from ops.testservers.mailbox import Stored

_STATUS = re.compile(r"(UIDNEXT|UIDVALIDITY|HIGHESTMODSEQ) (\d+)")


@dataclass(frozen=True, slots=True)
class OnServer:
    """A mailbox as the server has it."""

    messages: dict[int, Stored]
    status: dict[str, int]


def look(dovecot: Dovecot, user: str) -> OnServer:
    """Read a mailbox by plain IMAP; blocks."""
    messages = dovecot.dump(user)
    with dovecot.client(user) as client:
        _, [said] = client.status("INBOX", "(UIDNEXT UIDVALIDITY HIGHESTMODSEQ)")
    return OnServer(messages, {name: int(value) for name, value in _STATUS.findall(said.decode())})


async def differences(database: Database, account_id: UUID, user: str, server: OnServer) -> list[str]:
    """In what the store differs from the server, in sentences; empty where it does not."""
    held = await stored(database, account_id)
    found = _compare(user, held, server.messages)
    return found + await database.run(partial(_consistency, account_id=account_id, user=user, server=server))


def _compare(user: str, held: dict[int, Stored], expected: dict[int, Stored]) -> list[str]:
    found = []
    if missing := sorted(expected.keys() - held.keys()):
        found.append(f"{user}: {len(missing)} messages are missing, UID {missing[:5]}")
    if extra := sorted(held.keys() - expected.keys()):
        found.append(f"{user}: {len(extra)} messages are gone from the server but stored, UID {extra[:5]}")
    for field in ("flags", "size", "sha256"):
        wrong = [u for u in expected.keys() & held.keys() if getattr(held[u], field) != getattr(expected[u], field)]
        if wrong:
            first = min(wrong)
            values = f"{getattr(held[first], field)} stored, {getattr(expected[first], field)} on the server"
            found.append(f"{user}: {field} of {len(wrong)} messages differ, UID {first}: {values}")
    return found


async def _consistency(conn: Conn, account_id: UUID, user: str, server: OnServer) -> list[str]:
    """The cursor against STATUS, and nothing twice."""
    cursor = await conn.execute(
        "SELECT uidvalidity, uidnext, highestmodseq, backfill_below, demoted_reason FROM folders"
        " WHERE account_id = %s AND name = 'INBOX'",
        (account_id,),
    )
    row = await cursor.fetchone()
    if row is None:
        return [f"{user}: the inbox was never opened"]
    uidvalidity, uidnext, modseq, backfill, demoted = row
    found = []
    if (uidvalidity, uidnext, backfill) != (server.status["UIDVALIDITY"], server.status["UIDNEXT"], 1):
        found.append(f"{user}: the cursor is {row}, the server says {server.status}")
    if modseq is not None and modseq > server.status["HIGHESTMODSEQ"]:
        found.append(f"{user}: the cursor's mod-sequence {modseq} is beyond the server's {server.status}")
    if demoted is not None:
        found.append(f"{user}: the folder was demoted, though Dovecot tells the truth: {demoted}")
    cursor = await conn.execute(
        "SELECT m.message_id, count(*) FROM messages m JOIN placements p ON p.message_id = m.id"
        # One that was expunged while it was fetched has no body, and so no name.
        " WHERE m.account_id = %s AND m.message_id IS NOT NULL GROUP BY m.message_id",
        (account_id,),
    )
    twice = [name for name, count in await cursor.fetchall() if count > 1]
    if twice:
        found.append(f"{user}: {len(twice)} messages are stored twice, such as {twice[0]}")
    cursor = await conn.execute(
        "SELECT count(*) FROM messages m WHERE m.account_id = %s"
        " AND NOT EXISTS (SELECT FROM placements p WHERE p.message_id = m.id)",
        (account_id,),
    )
    orphans = await cursor.fetchone()
    if orphans is not None and orphans[0]:
        found.append(f"{user}: {orphans[0]} messages lie nowhere")
    cursor = await conn.execute(
        "SELECT data->>'folder', data->>'uid' FROM events WHERE account_id = %s AND type = 'email.received'",
        (account_id,),
    )
    told = [which for which, count in Counter(await cursor.fetchall()).items() if count > 1]
    if told:
        found.append(f"{user}: {len(told)} arrivals were told twice, such as UID {told[0][1]}")
    return found
