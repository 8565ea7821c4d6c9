"""Sets of UIDs as IMAP writes them (`1:3,7,9:*`, RFC 9051 section 9, sequence-set): read, write, ask.

Pure.  A set that a server sends is never expanded here: `1:4294967295` stays one range.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_UID: Final = (1 << 32) - 1
"""RFC 9051 section 2.3.1.1: UIDs are unsigned 32-bit values, never 0."""

MAX_SET: Final = 7_000
"""Bytes of one set in a command: RFC 7162 section 4 asks servers to take command lines of 8192 octets."""

_MAX_DIGITS: Final = 10  # of 4294967295
_SINGLES: Final = re.compile(rb"[0-9]{1,10}(?:,[0-9]{1,10})*").fullmatch


def parse_ranges(text: bytes) -> list[range]:
    """`b"1:3,7"` -> `[range(1, 4), range(7, 8)]`; raises ValueError for anything that is no set of UIDs."""
    if _SINGLES(text):  # a VANISHED of scattered UIDs: 80,000 in a line hold up every session while they are read
        uids = list(map(int, text.split(b",")))
        if min(uids) < 1 or max(uids) > MAX_UID:
            raise ValueError("not a UID")
        return [range(uid, uid + 1) for uid in uids]
    out = []
    for piece in text.split(b","):
        low_text, colon, high_text = piece.partition(b":")
        low = _uid(low_text)
        high = _uid(high_text) if colon else low
        if low > high:  # RFC 9051: either order means the same
            low, high = high, low
        out.append(range(low, high + 1))
    return out


def _uid(text: bytes) -> int:
    if not text.isdigit() or len(text) > _MAX_DIGITS or not 1 <= (uid := int(text)) <= MAX_UID:
        raise ValueError("not a UID")
    return uid


def format_uids(uids: Iterable[int]) -> bytes:
    """The shortest set for ascending *uids*; empty for none."""
    return b",".join(_pieces(uids))


def uid_batches(uids: Iterable[int], most: int = 500) -> Iterator[bytes]:
    """Sets of at most *most* of the ascending *uids*, each short enough for one command line."""
    source = iter(uids)
    while batch := list(islice(source, most)):
        pieces: list[bytes] = []
        size = 0
        for piece in _pieces(batch):
            if size + len(piece) >= MAX_SET:
                yield b",".join(pieces)
                pieces, size = [], 0
            pieces.append(piece)
            size += len(piece) + 1
        yield b",".join(pieces)


def _pieces(uids: Iterable[int]) -> Iterator[bytes]:
    low = high = 0
    for uid in uids:
        if uid == high + 1 and low:
            high = uid
            continue
        if uid <= high or uid > MAX_UID:
            raise ValueError("UIDs are 1 to 4294967295, ascending")
        if low:
            yield b"%d" % low if low == high else b"%d:%d" % (low, high)
        low = high = uid
    if low:
        yield b"%d" % low if low == high else b"%d:%d" % (low, high)


class UidSet:
    """What a command asked for, to tell its answers from news about other messages."""

    __slots__ = ("_highs", "_lows", "open_ended")

    def __init__(self, text: bytes) -> None:
        """Read a set that we wrote ourselves; `*` stands for the highest UID there is.  Raises ValueError."""
        self.open_ended = b"*" in text
        spans = sorted((span[0], span[-1]) for span in parse_ranges(text.replace(b"*", b"%d" % MAX_UID)))
        self._lows: list[int] = []
        self._highs: list[int] = []
        for low, high in spans:
            if self._highs and low <= self._highs[-1]:
                self._highs[-1] = max(self._highs[-1], high)
            else:
                self._lows.append(low)
                self._highs.append(high)

    def __contains__(self, uid: int) -> bool:
        at = bisect_right(self._lows, uid) - 1
        return at >= 0 and uid <= self._highs[at]

    def __len__(self) -> int:
        return sum(high - low + 1 for low, high in zip(self._lows, self._highs, strict=True))
