"""The answers to UID SEARCH, gathered and bounded: SEARCH lists single UIDs, ESEARCH (RFC 4731) ranges of them."""

from __future__ import annotations

from array import array
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from daemon.errors import Fault, FaultKind

from .parse import Malformed, values
from .uidset import parse_ranges

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .responses import Response

MAX_UIDS: Final = 5_000_000
"""UIDs that one listing of a folder may have (20 MB as an array); a folder beyond is refused, not half read."""


class Found:
    """Takes the responses of one search, or single UIDs."""

    __slots__ = ("_uids",)

    def __init__(self) -> None:
        self._uids = array("I")

    def take(self, response: Response) -> bool:
        """Take a response, as a command's sink; raises Fault(PROTOCOL)."""
        if response.kind not in (b"SEARCH", b"ESEARCH"):
            return False
        try:
            for span in _listed(response):
                self._room_for(len(span))
                self._uids.extend(span)
        except ValueError:
            raise Malformed("an unreadable answer to SEARCH") from None
        return True

    def put(self, uid: int) -> None:
        """Take one UID; raises Fault(PROTOCOL)."""
        self._room_for(1)
        self._uids.append(uid)

    def ascending(self) -> array[int]:
        """Each UID once, in order."""
        if all(low < high for low, high in pairwise(self._uids)):
            return self._uids
        return array("I", sorted(set(self._uids)))

    def _room_for(self, count: int) -> None:
        # Before anything is expanded: `1:4294967295` is a short line.
        if count > MAX_UIDS - len(self._uids):
            raise Fault(FaultKind.PROTOCOL, f"The folder has more than {MAX_UIDS} messages.")


def _listed(response: Response) -> Iterable[range]:
    if response.kind == b"SEARCH":
        words = response.text.partition(b"(")[0].split()  # what may follow is (MODSEQ n), RFC 7162 section 3.1.5
        return [span for word in words for span in parse_ranges(word)]
    for name, value in pairwise(values(response.parts)):
        if type(name) is bytes and name.upper() == b"ALL":
            return parse_ranges(b"%d" % value if type(value) is int else value if type(value) is bytes else b"")
    return ()
