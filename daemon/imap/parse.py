"""Text of a response into Python values: those of imapclient, three to five times faster.

`values` is the tokenizer: one compiled expression, no recursion, linear in its input whatever a server sends (an
expression that backtracks would let one hostile line stop every account of the process).  What the values of a FETCH
mean is `fetched`.  Pure.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, cast

from daemon.errors import Fault, FaultKind

from .uidset import MAX_UID

if TYPE_CHECKING:
    from collections.abc import Sequence

Part: TypeAlias = bytes | tuple[bytes, bytes]
"""A piece of a response: its text, or text that ends in `{n}` with the literal of n bytes that follows it."""

Value: TypeAlias = "int | bytes | tuple[Value, ...] | None"

MAX_MODSEQ: Final = (1 << 63) - 1
"""RFC 7162 section 3.1: a positive 63-bit value; 0 means that there is none."""
_MAX_DEPTH: Final = 100  # of parentheses: a multipart nests two a level, and nobody's mail has fifty levels
_MAX_DIGITS: Final = 19  # of 2**63 - 1
_MAX_VALUES: Final = 20_000  # in a piece of text: what we ask for has a few dozen, and each holds up all other sessions

# Linear by construction: an unterminated quote swallows the rest into the last group, a section `[...]` ends at the
# next bracket of either kind, and the caller strips trailing spaces (which would be tried from each position).
_TOKENS: Final = re.compile(
    rb' *+(?:([()])|"((?:[^"\\]++|\\.)*+)"|((?:[^ ()"\[]++|\[[^\]\[]*+\]|\[)++)|(".*+|.))', re.DOTALL
).findall
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)
_CODE: Final = re.compile(rb"\[([A-Z0-9][A-Z0-9.+/-]{0,63}+)(?: ([^\]]*+))?\]", re.IGNORECASE)
_DATE: Final = re.compile(
    rb" ?(\d{1,2})-([A-Za-z]{3})-(\d{4}) (\d{2}):(\d{2}):(\d{2})(?: ([+-])(\d{2})(\d{2}))?\Z", re.ASCII
)
_MONTHS: Final = {
    name: number for number, name in enumerate(b"jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)
}


class Malformed(Fault):
    """A response that is no IMAP, though its framing (lines, literals) was sound: the next one may be read.

    `detail` holds the remote text, bounded, for a debug log only; `uid` the message, when that much could be seen.
    """

    def __init__(self, detail: str, uid: int | None = None) -> None:
        super().__init__(FaultKind.PROTOCOL, "The mail server sent an answer that cannot be read.")
        self.detail = detail
        self.uid = uid


def values(parts: Sequence[Part]) -> list[Value]:
    """A response's parts as ints, bytes, None (NIL) and tuples; raises Malformed."""
    current: list[Value] = []
    top = current
    outer: list[list[Value]] = []
    for part in parts:
        text = part[0] if type(part) is tuple else cast(bytes, part)
        if text.count(b" ") + text.count(b"(") + text.count(b")") > _MAX_VALUES:
            raise Malformed("too many values")
        for paren, quoted, atom, bad in _TOKENS(text.rstrip(b" ")):
            if atom:
                current.append(_atom(atom) if atom.isdigit() else None if atom == b"NIL" else atom)
            elif paren == b"(":
                outer.append(current)
                if len(outer) > _MAX_DEPTH:
                    raise Malformed("nested too deeply")
                current = []
            elif paren:
                if not outer:
                    raise Malformed("a closing parenthesis too many")
                inner = tuple(current)
                current = outer.pop()
                current.append(inner)
            elif bad:
                raise Malformed(f"cannot read {bad[:80]!r}")
            else:
                current.append(_ESCAPED.sub(rb"\1", quoted) if b"\\" in quoted else quoted)
        if type(part) is tuple:
            _put_literal(current, part[1])
    if outer:
        raise Malformed("a closing parenthesis is missing")
    return top


def _atom(digits: bytes) -> int | bytes:
    # 0123 is no number (a keyword, a part of a name), and Python refuses to convert very long ones
    return int(digits) if (digits[0] != 48 or len(digits) == 1) and len(digits) <= _MAX_DIGITS else digits


def _put_literal(current: list[Value], literal: bytes) -> None:
    """Its `{n}` was read as the last atom."""
    if not current or type(last := current[-1]) is not bytes or not last.endswith(b"}"):
        raise Malformed("a literal out of place")
    current[-1] = literal


class ResponseCode(NamedTuple):
    """The bracketed word of a status response (RFC 9051 section 7.1): `[HIGHESTMODSEQ 7]`."""

    name: bytes
    """Upper case."""
    argument: bytes
    """As sent; empty when there is none."""


def response_code(text: bytes) -> ResponseCode | None:
    """The response code that *text* begins with, or None."""
    if not text.startswith(b"["):
        return None
    match = _CODE.match(text)
    return ResponseCode(match[1].upper(), match[2] or b"") if match else None


def number(text: bytes, most: int = MAX_UID) -> int | None:
    """*text* as an integer from 0 to *most*, or None: servers do say nonsense here."""
    if not text.isdigit() or len(text) > _MAX_DIGITS:
        return None
    value = int(text)
    return value if value <= most else None


def modseq_of(value: Value) -> int | None:
    """A mod-sequence; None for 0 and for what is none (negative numbers are no IMAP numbers at all)."""
    return value if type(value) is int and 0 < value <= MAX_MODSEQ else None


_zone = lru_cache(64)(lambda minutes: timezone(timedelta(minutes=minutes)))


def internal_date(value: bytes) -> datetime:
    """`b"17-Jul-1996 02:44:25 -0700"` (RFC 9051, date-time) with its offset; raises ValueError."""
    match = _DATE.match(value)
    if match is None:
        raise ValueError("not an IMAP date-time")
    day, month, year, hour, minute, second, sign, off_hours, off_minutes = match.groups()
    offset = int(off_hours or 0) * 60 + int(off_minutes or 0)
    return datetime(
        int(year), _MONTHS[month.lower()], int(day), int(hour), int(minute), min(int(second), 59),  # leap seconds
        tzinfo=_zone(-offset if sign == b"-" else offset),
    )  # fmt: skip
