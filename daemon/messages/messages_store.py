"""Storing batches of messages: COPY in binary, nothing twice.

The caller's transaction also moves the folder's cursor, so a crash at any point leaves messages and cursor agreeing.
Within a batch what is stored already (a batch that was stored before its window was complete, or a COMMIT whose answer
was lost) is recognised by folder and UID and left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self
from uuid import UUID

import trio
from uuid_utils.compat import uuid7

from daemon.storage.connection import Conn

from .headers import Headers, has_attachment, read_headers
from .incoming import PART, FlagChange, IncomingMessage
from .placements_store import apply_flags

_MESSAGES = (
    "COPY messages (id, account_id, message_id, in_reply_to, reference_ids, subject, sender, recipients, sent_at,"
    " received_at, size, has_attachments, body_state) FROM STDIN (FORMAT BINARY)"
)
_MESSAGE_TYPES = (
    *("uuid", "uuid", "text", "text", "text[]", "text", "jsonb", "jsonb", "timestamptz"),
    *("timestamptz", "int8", "bool", "text"),
)
_PLACEMENTS = "COPY placements (folder_id, uid, message_id, flags, modseq) FROM STDIN (FORMAT BINARY)"
_BODIES = "COPY bodies (message_id, part, data) FROM STDIN (FORMAT BINARY)"

SNIPPET_SUBJECT = 200
"""Characters of the subject that an `email.received` event carries."""


AT_ONCE = 16
"""Messages parsed before other accounts have their turn: about a millisecond, or ten for the worst of headers."""


class Prepared:
    """A batch made ready for COPY outside any transaction: parsing takes longer than storing."""

    __slots__ = ("account_id", "headers", "messages", "rows")

    def __init__(self, account_id: UUID) -> None:
        self.account_id = account_id
        self.messages: list[IncomingMessage] = []
        self.headers: list[Headers] = []
        self.rows: list[tuple[Any, ...]] = []

    @classmethod
    async def of(cls, account_id: UUID, messages: Sequence[IncomingMessage]) -> Self:
        """Parse a batch, a few messages at a time."""
        prepared = cls(account_id)
        for number, message in enumerate(messages, 1):
            prepared._add(message)
            if number % AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        return prepared

    def half(self, *, second: bool) -> Self:
        """One half of the batch, to find the message that the database does not take."""
        middle = len(self.messages) // 2
        part = slice(middle, None) if second else slice(middle)
        half = type(self)(self.account_id)
        half.messages, half.headers, half.rows = self.messages[part], self.headers[part], self.rows[part]
        return half

    def _add(self, message: IncomingMessage) -> None:
        first = message.pieces[0] if message.pieces else b""
        headers = read_headers(first)
        self.messages.append(message)
        self.headers.append(headers)
        recipients = {"to": headers.to, "cc": headers.cc, "bcc": headers.bcc, "reply_to": headers.reply_to}
        self.rows.append(
            (
                uuid7(),  # ordered by time: new rows go to the end of the index
                self.account_id,
                headers.message_id,
                headers.in_reply_to,
                headers.references,
                headers.subject,
                headers.sender,
                {name: value for name, value in recipients.items() if value},
                headers.date,
                message.received_at,
                message.size,
                any(has_attachment(piece, headers) for piece in message.pieces),
                message.body_state,
            )
        )


async def store(conn: Conn, folder_id: int, batch: Prepared) -> list[int]:
    """Store what of a batch is not stored yet; the positions in the batch of what was new.

    Messages of the folder that went before a UIDVALIDITY change and are recognised keep their id and body.
    """
    if not batch.messages:
        return []
    known = await _known_uids(conn, folder_id, [message.uid for message in batch.messages])
    seen: set[int] = set()
    fresh: list[int] = []
    repeated: list[FlagChange] = []
    for position, message in enumerate(batch.messages):
        if message.uid in seen:
            continue
        seen.add(message.uid)
        if message.uid in known:
            repeated.append(FlagChange(message.uid, message.flags, message.modseq))
        else:
            fresh.append(position)
    await apply_flags(conn, folder_id, repeated)
    ids = {position: batch.rows[position][0] for position in fresh}
    recognised = await _recognise(conn, folder_id, batch, fresh)
    ids.update(recognised)
    unknown = [position for position in fresh if position not in recognised]
    async with conn.cursor() as cursor:
        async with cursor.copy(_MESSAGES) as copy:
            copy.set_types(_MESSAGE_TYPES)
            for position in unknown:
                await copy.write_row(batch.rows[position])
        async with cursor.copy(_BODIES) as copy:
            copy.set_types(("uuid", "int4", "bytea"))
            for position in unknown:
                if batch.messages[position].body_state == "stored":
                    for number, part in enumerate(_parts(batch.messages[position].pieces)):
                        await copy.write_row((ids[position], number, part))
        async with cursor.copy(_PLACEMENTS) as copy:
            copy.set_types(("int8", "int8", "uuid", "text[]", "int8"))
            for position in fresh:
                message = batch.messages[position]
                await copy.write_row((folder_id, message.uid, ids[position], list(message.flags), message.modseq))
    return fresh


def received_event(batch: Prepared, position: int, folder: str) -> dict[str, Any]:
    """What `email.received` tells of a stored message: enough to decide whether to fetch it, no body."""
    headers, row = batch.headers[position], batch.rows[position]
    return {
        "message_id": str(row[0]),
        "folder": folder,
        "uid": batch.messages[position].uid,
        "from": headers.sender[:1],
        "subject": headers.subject[:SNIPPET_SUBJECT],
        "size": batch.messages[position].size,
    }


def _parts(pieces: Sequence[bytes]) -> Sequence[bytes]:
    """The body in parts of at most PART bytes; nearly every message is one part and is not copied."""
    if len(pieces) == 1 and len(pieces[0]) <= PART:
        return pieces
    return [piece[at : at + PART] for piece in pieces for at in range(0, max(len(piece), 1), PART)]


async def _known_uids(conn: Conn, folder_id: int, uids: Sequence[int]) -> set[int]:
    cursor = await conn.execute(
        "SELECT uid FROM placements WHERE folder_id = %s AND uid = ANY(%s::bigint[])", (folder_id, list(uids))
    )
    return {row[0] for row in await cursor.fetchall()}


async def _recognise(conn: Conn, folder_id: int, batch: Prepared, fresh: Sequence[int]) -> dict[int, UUID]:
    """After a UIDVALIDITY change: which of the fresh messages are old ones under a new UID, each used once."""
    cursor = await conn.execute("SELECT 1 FROM former_placements WHERE folder_id = %s LIMIT 1", (folder_id,))
    if await cursor.fetchone() is None:
        return {}
    keys = {batch.rows[position][2] for position in fresh if batch.rows[position][2]}
    cursor = await conn.execute(
        "SELECT m.id, m.message_id, m.size, m.received_at"
        " FROM former_placements f JOIN messages m ON m.id = f.message_id"
        " WHERE f.folder_id = %s AND m.message_id = ANY(%s) ORDER BY m.id",
        (folder_id, list(keys)),
    )
    former: dict[tuple[Any, ...], list[UUID]] = {}
    for row in await cursor.fetchall():
        former.setdefault(tuple(row[1:]), []).append(row[0])
    found: dict[int, UUID] = {}
    for position in fresh:
        message, row = batch.messages[position], batch.rows[position]
        candidates = former.get((row[2], message.size, message.received_at))
        if candidates:
            found[position] = candidates.pop(0)
    await conn.execute(
        "DELETE FROM former_placements WHERE folder_id = %s AND message_id = ANY(%s)", (folder_id, list(found.values()))
    )
    return found
