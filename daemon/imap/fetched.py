"""What one FETCH response tells of one message.

One value that cannot be read (a date of the 35th of Foo) never loses the message: the value is None and its raw text
is kept in `unreadable`.  Only what has no structure at all, or a UID that is none, is `Malformed`; what names no UID is
None, for nobody knows which message it means.  Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, cast

# The one private name of imapclient used here; tests/daemon/imap/test_contract.py holds it.
from imapclient.response_parser import _convert_ENVELOPE
from imapclient.response_types import BodyData, Envelope

from .parse import Malformed, internal_date, modseq_of, values
from .uidset import MAX_UID

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from .parse import Part, Value

MAX_FLAGS: Final = 64
"""Flags kept of one message; Dovecot stops at about 50 keywords a folder.  A bound for memory, not a rule of IMAP."""
MAX_FLAG: Final = 64
"""Bytes of one flag, likewise (Dovecot: mail_max_keyword_length = 50)."""
MAX_SIZE: Final = 1 << 40
"""Bytes that RFC822.SIZE may claim: a terabyte is no message, and sums of it must stay numbers."""
_MAX_RAW: Final = 200  # bytes kept of a value that cannot be read
_UID_HINT: Final = re.compile(rb"\bUID (\d{1,10})\b", re.IGNORECASE)
_NOTHING: Final[Mapping[bytes, bytes]] = MappingProxyType({})  # one for all: most messages have none of a kind

_BAD_VALUE: Final = (AttributeError, ValueError, KeyError, TypeError, IndexError, OverflowError)


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one FETCH response tells of one message."""

    uid: int
    sequence: int
    """The message's number in the folder at that moment; it means nothing later."""
    flags: tuple[bytes, ...] | None = None
    modseq: int | None = None
    internal_date: datetime | None = None
    size: int | None = None
    """RFC822.SIZE, bytes."""
    envelope: Envelope | None = None
    structure: BodyData | None = None
    sections: Mapping[bytes, bytes | None] = field(default_factory=lambda: _NOTHING)
    """By name in upper case as the server says it: `BODY[HEADER]`, `BODY[]<0>`.  None is the server's NIL."""
    extra: Mapping[bytes, Value] = field(default_factory=lambda: _NOTHING)
    """Items that this class does not know, such as EMAILID or X-GM-MSGID."""
    unreadable: Mapping[bytes, bytes] = field(default_factory=lambda: _NOTHING)
    """Items whose value is no valid one, with (the beginning of) its raw text."""

    @property
    def only_flags(self) -> bool:
        """Whether it tells nothing but flags and mod-sequence, as unsolicited responses do."""
        return (
            self.size is None
            and self.internal_date is None
            and not self.sections
            and self.envelope is None
            and self.structure is None
            and not self.extra
            and not self.unreadable
        )

    def section(self, name: bytes) -> bytes | None:
        """Section *name* (`b"BODY[]"`), whole or the partial that begins at its first byte; None without one."""
        found = self.sections.get(name)
        return found if found is not None else self.sections.get(name + b"<0>")


def _flags(value: Value) -> tuple[bytes, ...]:
    if type(value) is not tuple:
        raise ValueError("flags are no list")
    kept = []
    for item in value:
        flag = b"%d" % item if type(item) is int else item  # a keyword of digits only
        if type(flag) is bytes and 0 < len(flag) <= MAX_FLAG:
            kept.append(flag)
    return tuple(kept[:MAX_FLAGS])


def _modseq(value: Value) -> int | None:
    if type(value) is not tuple or len(value) != 1 or type(value[0]) is not int:
        raise ValueError("no mod-sequence")
    return modseq_of(value[0])


def _size(value: Value) -> int:
    if type(value) is not int or value > MAX_SIZE:
        raise ValueError("no size")
    return value


def _date(value: Value) -> datetime | None:
    return None if value is None else internal_date(cast(bytes, value))


def _envelope(value: Value) -> Envelope:
    if type(value) is not tuple or len(value) != 10:
        raise ValueError("an envelope has ten fields")
    return _convert_ENVELOPE(value, normalise_times=False)


def _structure(value: Value) -> BodyData:
    if type(value) is not tuple:
        raise ValueError("a structure is a list")
    return BodyData.create(value)


_KNOWN: Final[Mapping[bytes, tuple[str, Callable[[Value], object]]]] = {
    b"FLAGS": ("flags", _flags),
    b"MODSEQ": ("modseq", _modseq),
    b"INTERNALDATE": ("internal_date", _date),
    b"RFC822.SIZE": ("size", _size),
    b"ENVELOPE": ("envelope", _envelope),
    b"BODYSTRUCTURE": ("structure", _structure),
    b"BODY": ("structure", _structure),
}
_SECTIONS: Final = (b"BODY[", b"BINARY[", b"RFC822")


# The items that a sync asks for, in the form that nearly every server gives them, in any order.  A literal is the
# body's and the last.  Linear: a group is left at its first character that does not belong to it.
_PLAIN: Final = re.compile(
    rb"\((?:(?:UID ([1-9]\d{0,9})|FLAGS \(([^()\"\[\]]{0,200}+)\)|INTERNALDATE \"([^\"\\]{20,30}+)\""
    rb"|RFC822\.SIZE ([1-9]\d{0,11}|0)|MODSEQ \(([1-9]\d{0,17})\)|(BODY\[\](?:<0>)?) \{\d+\+?\}(?=\Z))"
    rb"(?: (?=[A-Z])|(?=\)?\Z)))+"
)

_MAX_PLAIN: Final = 1000  # bytes: what we ask for has some 150, with many keywords 300


def fetched(sequence: int, parts: Sequence[Part]) -> Fetched | None:
    """What `* <sequence> FETCH (...)` tells; None when it names no UID: then nobody knows which message it means.

    Raises Malformed, with the UID where it can be seen.
    """
    plain = _plain(sequence, parts)
    return plain if plain is not None else by_tokens(sequence, parts)


def _plain(sequence: int, parts: Sequence[Part]) -> Fetched | None:
    """As `by_tokens`, at a third of its cost; None where it takes that."""
    first = parts[0]
    if type(first) is tuple:
        if len(parts) != 2 or parts[1] != b")":
            return None
        head, body = first
    else:
        text = cast(bytes, first)
        if len(parts) != 1 or not text.endswith(b")"):
            return None
        head, body = text[:-1], None
    match = _PLAIN.fullmatch(head) if len(head) <= _MAX_PLAIN else None
    if match is None:
        return None
    uid, flags, date, size, modseq, section = match.groups()
    if uid is None or (number := int(uid)) > MAX_UID or (section is None) != (body is None):
        return None
    if head.count(b"UID ") > 1 or head.count(b"INTERNALDATE") > 1:  # of others said twice the last counts there too
        return None
    kept = None
    if flags is not None and (kept := _plain_flags(flags)) is None:
        return None
    try:
        moment = None if date is None else internal_date(date)
    except _BAD_VALUE:
        return None
    return Fetched(
        number, sequence, kept, None if modseq is None else int(modseq), moment, None if size is None else int(size),
        sections=_NOTHING if section is None else {section: body},
    )  # fmt: skip


@lru_cache(256)  # of some hundred bytes each: a mailbox knows a few dozen combinations
def _plain_flags(text: bytes) -> tuple[bytes, ...] | None:
    words = text.split(b" ")
    if b"NIL" in words:
        return None
    return tuple([flag for flag in words if 0 < len(flag) <= MAX_FLAG][:MAX_FLAGS])


def by_tokens(sequence: int, parts: Sequence[Part]) -> Fetched | None:
    """What any FETCH response tells; it decides.  Raises Malformed, with the UID where it can be seen."""
    try:
        top = values(parts)
        if len(top) != 1 or type(items := top[0]) is not tuple or len(items) % 2:
            raise Malformed("not a list of pairs")
        return _fetched(sequence, items)
    except Malformed as exc:
        exc.uid = _uid_hint(parts)
        raise


def _fetched(sequence: int, items: tuple[Value, ...]) -> Fetched | None:
    uid: int | None = None
    fields: dict[str, object] = {}
    pairs = iter(items)
    for name, value in zip(pairs, pairs, strict=True):
        if type(name) is not bytes:
            raise Malformed(f"an item's name is {name!r}"[:_MAX_RAW])
        key = name.upper()
        if key == b"UID":
            if type(value) is not int or not 1 <= value <= MAX_UID:
                raise Malformed("not a UID")
            uid = value
        elif (known := _KNOWN.get(key)) is not None:
            name_of_field, convert = known
            try:
                fields[name_of_field] = convert(value)
            except _BAD_VALUE:
                _put(fields, "unreadable", key, _raw(value))
        elif not key.startswith(_SECTIONS):
            _put(fields, "extra", key, value)
        elif value is None or type(value) is bytes:
            _put(fields, "sections", key, value)
        else:
            _put(fields, "unreadable", key, _raw(value))
    if uid is None:
        return None
    return Fetched(uid, sequence, **fields)  # type: ignore[arg-type]  # each field was made by its own converter


def _put(fields: dict[str, object], name: str, key: bytes, value: Value) -> None:
    cast("dict[bytes, Value]", fields.setdefault(name, {}))[key] = value


def _raw(value: Value) -> bytes:
    return value[:_MAX_RAW] if type(value) is bytes else repr(value)[:_MAX_RAW].encode()


def _uid_hint(parts: Sequence[Part]) -> int | None:
    first = parts[0]
    text = first[0] if type(first) is tuple else cast(bytes, first)
    match = _UID_HINT.search(text[:4096])
    return int(match[1]) if match and 1 <= int(match[1]) <= MAX_UID else None
