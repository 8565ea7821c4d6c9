"""The header fields that a list of mail shows, read fast and without believing any of them.

The standard parser with its modern policy needs 628 µs a message, the old one 108 µs; a first sync can afford neither.
So the fields wanted are cut out of the header block by one expression, and each is read by the simplest means that is
exact for it: `words` (RFC 2047), `dates`, and `addresses` for lists of them.  Nothing here raises: a field that cannot
be read is empty, and the raw message is stored byte for byte beside it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from .addresses import read_addresses
from .dates import date_of
from .words import decoded

if TYPE_CHECKING:
    from datetime import datetime

MAX_HEADER: Final = 256 << 10
"""Bytes of the header block that are looked at; Exchange takes 256 KiB, Postfix 100 KiB."""

MAX_TEXT: Final = 2_000
"""Characters kept of a subject or name: RFC 5322 section 2.1.1 limits a line to 998, and subjects may be folded."""

MAX_ADDRESSES: Final = 200
"""Addresses kept of one field."""

MAX_ADDRESS_FIELD: Final = 4 << 10
"""Characters of an address field that are parsed: 120 addresses of usual length, in 0.8 ms (measured)."""

MAX_REFERENCES: Final = 100
"""Identifiers kept of References, the newest: RFC 5322 sets no limit, threads of thousands exist."""

_MAX_FIELD: Final = 16 << 10  # bytes of one field looked at: the standard library's parsers are not linear

_SIMPLE: Final = 400  # characters of a field that may hold just one address: a name and an address, each bounded

# Each begins with a line feed, which the search leaps to; one is put before the first.
_FIELDS: Final = re.compile(
    rb"\n(subject|from|to|cc|bcc|reply-to|date|message-id|in-reply-to|references|content-type)[ \t]*:[ \t]*"
    rb"([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)",
    re.IGNORECASE,
)
_FOLD: Final = re.compile(r"\r?\n[ \t]+")
_ATOM: Final = r'[^\s<>"(),:;@\\]+'
_ONE_ADDRESS: Final = re.compile(rf'(?:"?([^"<>(),:;@\\]*)"?[ ]*)?<({_ATOM}@{_ATOM})>|({_ATOM}@{_ATOM})')
MAX_IDENTIFIER: Final = 500
"""Bytes kept of a Message-ID: it is indexed, and a row of a PostgreSQL index has room for 2,700."""

_IDENTIFIER: Final = re.compile(r"<([^<>\s]{1,995})>")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")

Address = dict[str, str]


@dataclass(frozen=True, slots=True)
class Headers:
    """What a list shows of a message."""

    subject: str
    sender: list[Address]
    to: list[Address]
    cc: list[Address]
    bcc: list[Address]
    reply_to: list[Address]
    date: datetime | None
    message_id: str | None
    in_reply_to: str | None
    references: list[str]
    multipart: bool


def read_headers(message: bytes) -> Headers:
    """Read the fields of a message, or of its beginning; never raises for what the bytes are."""
    fields: dict[bytes, str] = {}
    for match in _FIELDS.finditer(b"\n" + _block(message)):
        name = match[1].lower()
        if name not in fields:  # the first of several: what a reader of the message is shown
            fields[name] = _text(match[2][:_MAX_FIELD])
    get = fields.get
    return Headers(
        subject=_clean(decoded(get(b"subject", ""))),
        sender=_addresses(get(b"from", "")),
        to=_addresses(get(b"to", "")),
        cc=_addresses(get(b"cc", "")),
        bcc=_addresses(get(b"bcc", "")),
        reply_to=_addresses(get(b"reply-to", "")),
        date=date_of(get(b"date", "")),
        message_id=_identifier(get(b"message-id", "")),
        in_reply_to=_identifier(get(b"in-reply-to", "")),
        references=[_cut(i) for i in _IDENTIFIER.findall(get(b"references", ""))[-MAX_REFERENCES:]],
        multipart=get(b"content-type", "").lstrip()[:10].lower() == "multipart/",
    )


def has_attachment(message: bytes, headers: Headers) -> bool:
    """Whether some part says that it is an attachment (RFC 2183); only multiparts are looked at."""
    return headers.multipart and b"content-disposition: attachment" in message.lower()


def _block(message: bytes) -> bytes:
    """The header block: up to the first empty line, whichever way lines end."""
    head = message[:MAX_HEADER]
    end = head.find(b"\n\r\n")
    bare = head.find(b"\n\n", 0, end + 1 if end >= 0 else None)
    if bare >= 0:
        end = bare
    return head[:end] if end >= 0 else head


def _text(raw: bytes) -> str:
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        try:
            text = raw.decode("utf-8")  # RFC 6532; what is not UTF-8 is most often Latin-1
        except UnicodeDecodeError:
            text = raw.decode("latin-1")
    return _FOLD.sub(" ", text) if "\n" in text else text


def _clean(text: str) -> str:
    """What PostgreSQL and JSON can hold: no NUL, no control characters, no half surrogates."""
    if not text.isprintable():
        text = _UNPRINTABLE.sub("", text.replace("\t", " "))
    return text.strip()[:MAX_TEXT]


def _addresses(text: str) -> list[Address]:
    if not text:
        return []
    if len(text) <= _SIMPLE and (match := _ONE_ADDRESS.fullmatch(text.strip())):  # nine of ten fields hold just one
        return [{"name": _clean(decoded((match[1] or "").strip())), "email": _clean(match[2] or match[3])}]
    if len(text) > MAX_ADDRESS_FIELD:  # up to a comma: half an address may be somebody else's
        text = text[:MAX_ADDRESS_FIELD].rpartition(",")[0]
    pairs = islice(read_addresses(text), MAX_ADDRESSES)
    return [{"name": _clean(decoded(name)), "email": _clean(email)} for name, email in pairs]


def _identifier(text: str) -> str | None:
    match = _IDENTIFIER.search(text)
    return _cut(match[1] if match else text.strip()) or None


def _cut(identifier: str) -> str:
    """Printable, and no longer than its index allows."""
    return _UNPRINTABLE.sub("", identifier[:MAX_IDENTIFIER]).encode()[:MAX_IDENTIFIER].decode("utf-8", "ignore")
