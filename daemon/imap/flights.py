"""Which FETCH commands are under way, and which of them are done, in the order they were sent.  Pure.

A server may answer pipelined commands in its own order (RFC 9051 section 5.5).  Whoever moves a cursor needs them in
ours: a set counts as complete when it and all sets before it were answered with OK.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .uidset import UidSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_STRAYS: Final = 10_000  # responses beyond what was asked for: flags that somebody changes meanwhile
_EACH: Final = 2  # responses a message may have: its own, and flags that changed meanwhile


class Flights:
    """The commands of one `fetch`."""

    __slots__ = ("_asked", "_done", "_order", "_sets", "room")

    def __init__(self, sets: Iterable[bytes]) -> None:
        self._sets: Iterator[bytes] = iter(sets)
        self._asked: dict[bytes, UidSet] = {}  # not answered yet
        self._order: list[bytes] = []  # sent, and not complete in order
        self._done: set[bytes] = set()  # answered with OK before their turn
        self.room = _STRAYS
        """Responses that may still come."""

    def __len__(self) -> int:
        """Commands not answered yet."""
        return len(self._asked)

    def __contains__(self, uid: int) -> bool:
        """Whether a message is asked for now."""
        return any(uid in uidset for uidset in self._asked.values())

    def next_set(self) -> bytes | None:
        """The next set to ask for, or None; raises ValueError when it is none."""
        return next(self._sets, None)

    def launched(self, tag: bytes, uids: bytes, messages: int) -> None:
        """Note a command before it is sent; the folder has so many *messages*, whatever `1:*` could mean."""
        self._asked[tag] = asked = UidSet(uids)
        self._order.append(tag)
        self.room += _EACH * min(len(asked), messages)

    def answered(self, tag: bytes) -> bool:
        """Note that a command was answered; whether it was one of ours."""
        return self._asked.pop(tag, None) is not None

    def completed(self, tag: bytes) -> int:
        """Note that it was answered with OK; the number of sets that are complete in order by that."""
        self._done.add(tag)
        count = 0
        while self._order and self._order[0] in self._done:
            self._done.remove(self._order.pop(0))
            count += 1
        return count
