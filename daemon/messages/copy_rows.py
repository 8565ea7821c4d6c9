"""Rows of COPY in PostgreSQL's binary format, written by hand for the three tables of mail.

psycopg's writer finds a dumper for each value of each row; here each table's row is one function, at a third of the
cost.  Format: "COPY", section "Binary Format" of PostgreSQL's manual; a value is what the type's `_recv` function
reads: text as UTF-8, timestamptz as microseconds since 2000, an array as dimensions, flags, element type and elements,
jsonb as a version byte 1 and text.  The tests hold each row against psycopg's own, byte for byte.  Pure.

Raises:
    struct.error, UnicodeError: for a value that its column cannot hold.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Final

from daemon.storage.connection import Field

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from uuid import UUID

    from .headers import Address, Headers
    from .incoming import IncomingMessage

SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
"""Before the first row: the magic, no flags, no extension."""

TRAILER: Final = b"\xff\xff"
"""After the last row."""

BLOCK: Final = 64 << 10
"""Bytes given to the connection at once: some rows, and well below a socket's buffer."""

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_DAY: Final = 86_400_000_000  # microseconds
_NULL: Final = b"\xff\xff\xff\xff"
_TEXT: Final = 25  # the type's OID, which never changes
_NO_ELEMENTS: Final = struct.pack("!iiII", 12, 0, 0, _TEXT)
_ids: Final = struct.Struct("!hi16si16s").pack
_int: Final = struct.Struct("!i").pack
_long: Final = struct.Struct("!iq").pack
_array: Final = struct.Struct("!iIIIII").pack
_size_and_attachments: Final = struct.Struct("!iqi?").pack
_body: Final = struct.Struct("!hi16siii").pack
_placement: Final = struct.Struct("!hiqiqi16s").pack


def message_row(
    message_id: UUID, account_id: UUID, headers: Headers, message: IncomingMessage, *, attached: bool
) -> bytes:
    """A row of `messages`, in the order of `MESSAGE_COLUMNS`."""
    return b"".join((
        _ids(13, 16, message_id.bytes, 16, account_id.bytes),
        _text(headers.message_id),
        _text(headers.in_reply_to),
        _texts(headers.references),
        _text(headers.subject),
        _jsonb(_addresses(headers.sender)),
        _jsonb(_recipients(headers)),
        _moment(headers.date),
        _moment(message.received_at),
        _size_and_attachments(8, message.size, 1, attached),
        _text(message.body_state),
    ))  # fmt: skip


MESSAGE_COLUMNS: Final = (
    "id, account_id, message_id, in_reply_to, reference_ids, subject, sender, recipients, sent_at, received_at, size,"
    " has_attachments, body_state"
)


def placement_row(folder_id: int, uid: int, message_id: UUID, flags: Sequence[str], modseq: int | None) -> bytes:
    """A row of `placements`: folder_id, uid, message_id, flags, modseq."""
    last = _NULL if modseq is None else _long(8, modseq)
    return _placement(5, 8, folder_id, 8, uid, 16, message_id.bytes) + _texts(flags) + last


def body_row(message_id: UUID, part: int, data: bytes) -> tuple[bytes, bytes]:
    """A row of `bodies`: message_id, part, data; in two pieces, so that the data is not copied once more."""
    return _body(3, 16, message_id.bytes, 4, part, len(data)), data


def fields(row: bytes) -> list[Field | None]:
    """The values of a row, as binary parameters of an INSERT."""
    (count,) = struct.unpack_from("!h", row)
    values: list[Field | None] = []
    at = 2
    for _ in range(count):
        (size,) = struct.unpack_from("!i", row, at)
        at += 4
        values.append(None if size < 0 else Field(row[at : at + size]))
        at += max(size, 0)
    return values


def blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Signature, *pieces* of rows and trailer, joined to blocks of about BLOCK bytes."""
    block, size = [SIGNATURE], 0
    for piece in pieces:
        block.append(piece)
        size += len(piece)
        if size >= BLOCK:
            yield b"".join(block)
            block, size = [], 0
    block.append(TRAILER)
    yield b"".join(block)


def _text(value: str | None) -> bytes:
    if value is None:
        return _NULL
    data = value.encode()
    return _int(len(data)) + data


def _texts(values: Sequence[str]) -> bytes:
    if not values:
        return _NO_ELEMENTS
    elements = b"".join([_text(value) for value in values])
    return _array(20 + len(elements), 1, 0, _TEXT, len(values), 1) + elements


def _moment(value: datetime | None) -> bytes:
    if value is None:
        return _NULL
    since: timedelta = value - _EPOCH
    return _long(8, since.days * _DAY + since.seconds * 1_000_000 + since.microseconds)


def _jsonb(text: str) -> bytes:
    return _int(len(text) + 1) + b"\x01" + text.encode("ascii")


def _addresses(addresses: Sequence[Address]) -> str:
    quote = encode_basestring_ascii
    pairs = [f'{{"name": {quote(each["name"])}, "email": {quote(each["email"])}}}' for each in addresses]
    return f"[{', '.join(pairs)}]"


def _recipients(headers: Headers) -> str:
    lists = (("to", headers.to), ("cc", headers.cc), ("bcc", headers.bcc), ("reply_to", headers.reply_to))
    return "{" + ", ".join([f'"{name}": {_addresses(addresses)}' for name, addresses in lists if addresses]) + "}"
