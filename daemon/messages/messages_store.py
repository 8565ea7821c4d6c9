"""Storing batches of messages, nothing twice: many by COPY, few by INSERT, both in binary.

One new message is stored in one trip to the database beside the look at what is there: COPY takes two for each table,
and on a node that has much to do every trip waits for its turn.

The caller's transaction also moves the folder's cursor, so a crash at any point leaves messages and cursor agreeing.
Within a batch what is stored already (a batch that was stored before its window was complete, or a COMMIT whose answer
was lost) is recognised by folder and UID and left alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Self
from uuid import UUID

import psycopg
import trio
from uuid_utils.compat import uuid7

from daemon.storage.connection import Conn

from . import copy_rows
from .headers import Address, has_attachment, read_headers
from .incoming import PART, FlagChange, IncomingMessage
from .placements_store import apply_flags

_MESSAGES = f"messages ({copy_rows.MESSAGE_COLUMNS})"
_PLACEMENTS = "placements (folder_id, uid, message_id, flags, modseq)"
_BODIES = "bodies (message_id, part, data)"

FEW = 8
FEW_BYTES = 256 << 10
"""Messages, and bytes of them, up to which a batch is stored by INSERT, in six trips to the database fewer than COPY
makes; a row costs more so, which counts where there are many."""

SNIPPET_SUBJECT = 200
"""Characters of the subject that an `email.received` event carries."""

_UNFIT = (struct.error, UnicodeError, OverflowError)
"""What `copy_rows` raises for a value that its column cannot hold."""

AT_ONCE = 16
"""Messages parsed before other accounts have their turn: about a millisecond, or ten for the worst of headers."""


@dataclass(frozen=True, slots=True)
class Brief:
    """What is still needed of a message's header once its row is made.

    The whole of it is a dozen objects, which for a batch of 500 kept the garbage collector busier than the parser.
    """

    message_id: str | None
    subject: str
    """As far as an event carries it."""
    sender: Sequence[Address]
    """The first one."""


class Prepared:
    """A batch made ready for COPY outside any transaction: parsing takes longer than storing."""

    __slots__ = ("account_id", "briefs", "ids", "messages", "rows")

    def __init__(self, account_id: UUID) -> None:
        self.account_id = account_id
        self.messages: list[IncomingMessage] = []
        self.briefs: list[Brief] = []
        self.ids: list[UUID] = []
        self.rows: list[bytes | None] = []
        """Rows of `messages`; None where a value fits no column."""

    @classmethod
    async def of(cls, account_id: UUID, messages: Sequence[IncomingMessage]) -> Self:
        """Parse a batch, a few messages at a time."""
        prepared = cls(account_id)
        for number, message in enumerate(messages, 1):
            prepared._add(message)
            if number % AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        return prepared

    @property
    def few(self) -> bool:
        """Whether storing it is so little that it goes in one trip: then it must, in `Conn.at_once`."""
        size = sum(len(piece) for message in self.messages[:FEW] for piece in message.pieces)
        return len(self.messages) <= FEW and size <= FEW_BYTES

    def half(self, *, second: bool) -> Self:
        """One half of the batch, to find the message that the database does not take."""
        middle = len(self.messages) // 2
        part = slice(middle, None) if second else slice(middle)
        half = type(self)(self.account_id)
        half.messages, half.briefs = self.messages[part], self.briefs[part]
        half.ids, half.rows = self.ids[part], self.rows[part]
        return half

    def _add(self, message: IncomingMessage) -> None:
        first = message.pieces[0] if message.pieces else b""
        headers = read_headers(first)
        attached = any(has_attachment(piece, headers) for piece in message.pieces)
        message_id = uuid7()  # ordered by time: new rows go to the end of the index
        self.messages.append(message)
        sender = headers.sender[:1] if headers.sender else ()
        self.briefs.append(Brief(headers.message_id, headers.subject[:SNIPPET_SUBJECT], sender))
        self.ids.append(message_id)
        try:
            row = copy_rows.message_row(message_id, self.account_id, headers, message, attached=attached)
        except _UNFIT:
            row = None
        self.rows.append(row)


@dataclass(frozen=True, slots=True)
class Lookup:
    """What of a batch is stored already."""

    fresh: Sequence[int]
    """Positions in the batch of what is not."""
    repeated: Sequence[FlagChange]
    recognised: Mapping[int, UUID]
    """By position: messages that lay under other UIDs, or in a former mailbox, and keep their id and body."""

    def id_of(self, batch: Prepared, position: int) -> UUID:
        """The id that a message of the batch has."""
        return self.recognised.get(position, batch.ids[position])


async def look_up(conn: Conn, folder_id: int, batch: Prepared) -> Lookup:
    """What of a batch is stored; in the transaction that then stores the rest."""
    if not batch.messages:
        return Lookup((), (), {})
    known, renumbered = await _known_uids(conn, folder_id, [message.uid for message in batch.messages])
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
    recognised = await _recognise(conn, folder_id, batch, fresh) if renumbered else {}
    return Lookup(fresh, repeated, recognised)


async def store(conn: Conn, folder_id: int, batch: Prepared, found: Lookup) -> None:
    """Store what of a batch is not stored yet.

    Raises:
        psycopg.DataError: some message has a value that fits no column; for `few`, at the latest at the end of their
            `Conn.at_once`.
    """
    await apply_flags(conn, folder_id, found.repeated)
    ids = {position: found.id_of(batch, position) for position in found.fresh}
    unknown = [position for position in found.fresh if position not in found.recognised]
    write = _insert if batch.few else _copy
    await write(conn, _MESSAGES, _message_rows(batch, unknown))
    await write(conn, _BODIES, _body_rows(batch, unknown))
    await write(conn, _PLACEMENTS, _placement_rows(batch, found.fresh, ids, folder_id))


def received_event(batch: Prepared, found: Lookup, position: int, folder: str) -> dict[str, Any]:
    """What `email.received` tells of a stored message: enough to decide whether to fetch it, no body."""
    brief = batch.briefs[position]
    return {
        "message_id": str(found.id_of(batch, position)),
        "folder": folder,
        "uid": batch.messages[position].uid,
        "from": list(brief.sender),
        "subject": brief.subject,
        "size": batch.messages[position].size,
    }


_Row = tuple[bytes, ...]
"""A row of `copy_rows` in one or several pieces, so that a body is not copied once more."""


async def _copy(conn: Conn, table: str, rows: Iterable[_Row]) -> None:
    """Run one COPY; a value that cannot be written ends it, and is told as the database would tell it."""
    try:
        async with conn.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN (FORMAT BINARY)") as copy:
            for block in copy_rows.blocks(chain.from_iterable(rows)):
                await copy.write(block)
    except _UNFIT as exc:
        raise psycopg.DataError("a value fits no column") from exc


async def _insert(conn: Conn, table: str, rows: Iterable[_Row]) -> None:
    """Send an INSERT for each row."""
    try:
        for row in rows:
            values = copy_rows.fields(b"".join(row))
            marks = ", ".join(["%s"] * len(values))
            await conn.execute(f"INSERT INTO {table} VALUES ({marks})", values)  # noqa: S608  # no word of it is data
    except _UNFIT as exc:
        raise psycopg.DataError("a value fits no column") from exc


def _message_rows(batch: Prepared, positions: Iterable[int]) -> Iterator[_Row]:
    for position in positions:
        row = batch.rows[position]
        if row is None:
            raise psycopg.DataError("a value fits no column")
        yield (row,)


def _body_rows(batch: Prepared, positions: Iterable[int]) -> Iterator[_Row]:
    for position in positions:
        if batch.messages[position].body_state == "stored":
            for number, part in enumerate(_parts(batch.messages[position].pieces)):
                yield copy_rows.body_row(batch.ids[position], number, part)


def _placement_rows(
    batch: Prepared, positions: Iterable[int], ids: dict[int, UUID], folder_id: int
) -> Iterator[_Row]:
    for position in positions:
        message = batch.messages[position]
        yield (copy_rows.placement_row(folder_id, message.uid, ids[position], message.flags, message.modseq),)


def _parts(pieces: Sequence[bytes]) -> Sequence[bytes]:
    """The body in parts of at most PART bytes; nearly every message is one part and is not copied."""
    if len(pieces) == 1 and len(pieces[0]) <= PART:
        return pieces
    return [piece[at : at + PART] for piece in pieces for at in range(0, max(len(piece), 1), PART)]


async def _known_uids(conn: Conn, folder_id: int, uids: Sequence[int]) -> tuple[set[int], bool]:
    """Which of the UIDs are stored; and whether there are messages to be recognised, under other UIDs than before."""
    cursor = await conn.execute(
        "SELECT uid FROM placements WHERE folder_id = %(folder)s AND uid = ANY(%(uids)s::bigint[])"
        " UNION ALL (SELECT 0 FROM former_placements WHERE folder_id = %(folder)s LIMIT 1)",  # no UID is 0
        {"folder": folder_id, "uids": list(uids)},
    )
    known = {row[0] for row in await cursor.fetchall()}
    renumbered = 0 in known
    return known - {0}, renumbered


async def _recognise(conn: Conn, folder_id: int, batch: Prepared, fresh: Sequence[int]) -> dict[int, UUID]:
    """Which of the fresh messages are old ones under a new UID, or of a former mailbox; each used once.

    A former mailbox's hundred thousand may be there for good: so the few that bear the batch's names are looked at,
    whatever the planner thinks.
    """
    keys = {batch.briefs[position].message_id for position in fresh} - {None}
    cursor = await conn.execute(
        "WITH named AS MATERIALIZED (SELECT id, message_id, size, received_at FROM messages"
        "  WHERE account_id = %s AND message_id = ANY(%s))"
        " SELECT m.* FROM named m WHERE EXISTS"
        " (SELECT FROM former_placements f WHERE f.folder_id = %s AND f.message_id = m.id OFFSET 0) ORDER BY m.id",
        (batch.account_id, list(keys), folder_id),
    )
    former: dict[tuple[Any, ...], list[UUID]] = {}
    for row in await cursor.fetchall():
        former.setdefault(tuple(row[1:]), []).append(row[0])
    found: dict[int, UUID] = {}
    for position in fresh:
        message = batch.messages[position]
        candidates = former.get((batch.briefs[position].message_id, message.size, message.received_at))
        if candidates:
            found[position] = candidates.pop(0)
    await conn.execute(
        "DELETE FROM former_placements WHERE folder_id = %s AND message_id = ANY(%s)", (folder_id, list(found.values()))
    )
    return found
