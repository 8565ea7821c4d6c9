"""Great numbers of UIDs: ascending arrays of 4 bytes each, compared slice by slice.

A folder may have millions of messages.  Two Python sets of two million UIDs are 250 MB, and to make and compare them
would hold up every other account for 0.3 s (measured); here nothing but a slice is ever a set, and whoever iterates
gives others their turn between slices.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from heapq import merge
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SLICE: Final = 1000
"""UIDs, or spans of them, worked on without a pause: 3 ms at the most of a million, and 5 of the five million that
there may be, told in no order at all (measured)."""

DENSE: Final = 32
"""Of theirs for one of ours up to which a slice is compared as sets; beyond it each of ours is looked for.  Either
takes 1.2 ms at the most (measured)."""

SORTED: Final = 4096
"""Spans sorted at once, less than 3 ms where they come in no order at all (measured); to sort a million took 1.8 s."""


def difference(ours: array[int], theirs: array[int]) -> Iterator[array[int]]:
    """What is in the ascending *ours* and not in the ascending *theirs*, ascending; an array (often empty) a slice."""
    for at in range(0, len(ours), SLICE):
        piece = ours[at : at + SLICE]
        begin = bisect_left(theirs, piece[0])
        end = bisect_right(theirs, piece[-1], begin)
        if end - begin <= DENSE * SLICE:
            other = theirs[begin:end]
            yield array("I") if piece == other else array("I", sorted(set(piece).difference(other)))
        else:  # few of ours among very many of theirs
            places = ((uid, bisect_left(theirs, uid, begin, end)) for uid in piece)
            yield array("I", [uid for uid, place in places if place == end or theirs[place] != uid])


async def without(ours: array[int], theirs: array[int]) -> array[int]:
    """The whole difference, with a turn for others between slices."""
    found = array("I")
    for piece in difference(ours, theirs):
        found.extend(piece)
        await trio.lowlevel.checkpoint()
    return found


async def ranges_of(uids: array[int]) -> list[range]:
    """The ascending *uids* as ranges, likewise."""
    found: list[range] = []
    for at in range(0, len(uids), SLICE):
        found.extend(runs(uids[at : at + SLICE]))
        await trio.lowlevel.checkpoint()
    return found


def runs(uids: Iterable[int]) -> Iterator[range]:
    """The ascending *uids* as the fewest ranges."""
    low = high = 0
    for uid in uids:
        if uid == high + 1 and low:
            high = uid
            continue
        if low:
            yield range(low, high + 1)
        low = high = uid
    if low:
        yield range(low, high + 1)


def between(uids: array[int], low: int, high: int) -> array[int]:
    """Those of the ascending *uids* with low <= UID < high."""
    return uids[bisect_left(uids, low) : bisect_left(uids, high)]


class Gathering:
    """UIDs as they are told, in any order and more than once, as spans: `1:2000000` is one of them.

    `expanded` gives them slice by slice; until then 8 bytes a span are held.
    """

    __slots__ = ("_ascending", "_highs", "_lows", "count")

    def __init__(self) -> None:
        self._lows = array("I")
        self._highs = array("I")
        self._ascending = True
        self.count = 0
        """UIDs told, repeated ones included."""

    def put(self, low: int, high: int) -> None:
        """Take low to high, both included."""
        if self._highs:
            last = self._highs[-1]
            if low == last + 1:
                self._highs[-1] = high
                self.count += high - low + 1
                return
            self._ascending &= low > last
        self._lows.append(low)
        self._highs.append(high)
        self.count += high - low + 1

    def expanded(self) -> Iterator[array[int]]:
        """Each UID once, ascending, in arrays of at most SLICE; empty ones are pauses.  Changes nothing."""
        room, out = SLICE, array("I")
        for span in self._spans():
            if span is None:
                yield array("I")
                continue
            at, last = span
            while at <= last:
                end = min(last + 1, at + room)
                out.extend(range(at, end))
                room -= end - at
                at = end
                if not room:
                    yield out
                    room, out = SLICE, array("I")
        if out:
            yield out

    def _spans(self) -> Iterator[tuple[int, int] | None]:
        """The spans, ascending and apart; None is a pause."""
        if self._ascending:
            yield from zip(self._lows, self._highs, strict=True)
            return
        runs: list[array[int]] = []  # each in order, and of 8 bytes a span
        for at in range(0, len(self._lows), SORTED):
            some = zip(self._lows[at : at + SORTED], self._highs[at : at + SORTED], strict=True)
            runs.append(array("Q", sorted(low << 32 | high for low, high in some)))
            yield None
        yield from _merged(merge(*runs))


def _merged(spans: Iterator[int]) -> Iterator[tuple[int, int] | None]:
    """Spans that overlap or touch as one; a pause after SLICE of them, for a million equal ones are one."""
    low, high = divmod(next(spans), 1 << 32)
    for number, span in enumerate(spans, 1):
        if number % SLICE == 0:
            yield None
        next_low, next_high = divmod(span, 1 << 32)
        if next_low <= high + 1:
            high = max(high, next_high)
        else:
            yield low, high
            low, high = next_low, next_high
    yield low, high
