"""The answers to UID SEARCH, gathered and bounded: SEARCH lists single UIDs, ESEARCH (RFC 4731) ranges of them.

What is told is held as spans and expanded to an ascending array in slices, with a turn for others between them.
"""

from __future__ import annotations

from array import array
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import trio

from daemon.errors import Fault, FaultKind

from .parse import Malformed, values
from .uidarray import Gathering
from .uidset import parse_ranges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .responses import Response

MAX_UIDS: Final = 5_000_000
"""UIDs that one listing of a folder may have (20 MB as an array); a folder beyond is refused, not half read."""

STRAYS: Final = 1000
"""UIDs that a listing may have beyond the folder's EXISTS, for servers that count loosely.  Of mail that comes
meanwhile EXISTS tells first (RFC 9051 section 7.4.1).  A message told with a body that was not asked for takes 150 us:
servers that answer every command with such ones without an end took a third of a core, with a hundred times as many."""


class Found:
    """Takes the responses of one search, or single UIDs.

    Args:
        exists: what the server says the folder holds.
        now: what it says by now; asked when there is more than that.
    """

    __slots__ = ("_gathering", "_most", "_now")

    def __init__(self, exists: int, now: Callable[[], int] = int) -> None:
        self._gathering = Gathering()
        self._most = min(MAX_UIDS, exists + STRAYS)
        self._now = now

    def take(self, response: Response) -> bool:
        """Take a response, as a command's sink; raises Fault(PROTOCOL)."""
        if response.kind not in (b"SEARCH", b"ESEARCH"):
            return False
        try:
            for span in _listed(response):
                self._put(span[0], span[-1])
        except ValueError:
            raise Malformed("an unreadable answer to SEARCH") from None
        return True

    def put(self, uid: int) -> None:
        """Take one UID; raises Fault(PROTOCOL)."""
        self._put(uid, uid)

    async def ascending(self) -> array[int]:
        """Each UID once, in order."""
        found = array("I")
        for piece in self._gathering.expanded():
            found.extend(piece)
            await trio.lowlevel.checkpoint()
        return found

    def _put(self, low: int, high: int) -> None:
        # Before anything is expanded: `1:4294967295` is a short line.
        added = high - low + 1
        if self._gathering.count + added > self._most:
            self._most = max(self._most, min(MAX_UIDS, self._now() + STRAYS))
        if self._gathering.count + added > self._most:
            raise Fault(FaultKind.PROTOCOL, f"The mail server lists more than {self._most} messages in the folder.")
        self._gathering.put(low, high)


def _listed(response: Response) -> Iterable[range]:
    if response.kind == b"SEARCH":
        words = response.text.partition(b"(")[0].split()  # what may follow is (MODSEQ n), RFC 7162 section 3.1.5
        return parse_ranges(b",".join(words)) if words else ()
    for name, value in pairwise(values(response.parts)):
        if type(name) is bytes and name.upper() == b"ALL":
            return parse_ranges(b"%d" % value if type(value) is int else value if type(value) is bytes else b"")
    return ()
