"""The answer to SELECT and EXAMINE (RFC 9051 section 6.3.2, RFC 7162 for QRESYNC), gathered and bounded.

Nothing here is believed beyond its type: a UIDVALIDITY of 0, a UIDNEXT of 2**40 or a mod-sequence of 0 is "not told".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from .fetched import fetched
from .news import FlagNews
from .parse import MAX_MODSEQ, Malformed, number, response_code, values
from .uidset import MAX_UID, parse_ranges

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .responses import Response

MAX_CHANGED: Final = 65_536
"""Messages whose changed flags one SELECT may tell (about 20 MB); beyond it `overflowed`: fetch CHANGEDSINCE instead,
which streams."""
MAX_VANISHED: Final = 131_072
"""Ranges of vanished UIDs, likewise."""
_MAX_ID: Final = 255  # characters of a MAILBOXID (RFC 8474 section 4)


@dataclass(frozen=True, slots=True)
class Known:
    """What the store holds of a folder, for QRESYNC."""

    uidvalidity: int
    modseq: int


@dataclass(frozen=True, slots=True)
class SelectedFolder:
    """A folder as the server described it when it was selected."""

    name: str
    exists: int
    """Messages."""
    uidvalidity: int
    """0 when the server gave none that is one: such a folder cannot be synced."""
    uidnext: int | None
    highestmodseq: int | None
    """None where the folder keeps none (NOMODSEQ, no CONDSTORE, or a 0)."""
    read_only: bool
    mailbox_id: str | None
    """OBJECTID (RFC 8474): survives a rename."""
    permanent_flags: tuple[bytes, ...]
    changed: Mapping[int, FlagNews] = field(default_factory=lambda: MappingProxyType({}))
    """By UID: flags that changed since `Known.modseq`."""
    vanished: tuple[range, ...] = ()
    """UIDs gone since then; ranges may cover UIDs that never were."""
    overflowed: bool = False
    """`changed` and `vanished` are not all: beyond our bounds, unreadable, or without a UID."""


@dataclass(slots=True)
class Selecting:
    """Takes the untagged responses of one SELECT."""

    name: str
    exists: int = 0
    numbers: dict[bytes, int] = field(default_factory=dict)
    mailbox_id: str | None = None
    permanent_flags: tuple[bytes, ...] = ()
    changed: dict[int, FlagNews] = field(default_factory=dict)
    vanished: list[range] = field(default_factory=list)
    overflowed: bool = False

    def take(self, response: Response) -> bool:
        """Take a response, as a command's sink."""
        kind = response.kind
        if kind == b"FETCH":
            self._take_fetch(response)
        elif kind == b"EXISTS":
            if response.number is not None and response.number <= MAX_UID:
                self.exists = response.number
        elif kind == b"VANISHED":
            self._take_vanished(response.text)
        elif kind == b"OK":
            return self._take_code(response)
        elif kind == b"EXPUNGE":  # cannot be said here; the folder is not what the answer describes
            self.overflowed = True
        return kind in (b"FETCH", b"EXISTS", b"VANISHED", b"EXPUNGE", b"FLAGS", b"RECENT")

    def done(self, tagged: Response, *, read_only: bool) -> SelectedFolder:
        """The folder, once the tagged OK is here."""
        said = self.numbers.get
        code = response_code(tagged.text)
        return SelectedFolder(
            name=self.name,
            exists=self.exists,
            uidvalidity=said(b"UIDVALIDITY", 0),
            uidnext=said(b"UIDNEXT") or None,
            highestmodseq=said(b"HIGHESTMODSEQ") or None,
            read_only=read_only or (code is not None and code.name == b"READ-ONLY"),
            mailbox_id=self.mailbox_id,
            permanent_flags=self.permanent_flags,
            changed=self.changed,
            vanished=tuple(self.vanished),
            overflowed=self.overflowed,
        )

    def _take_code(self, response: Response) -> bool:
        code = response_code(response.text)
        if code is None:
            return False
        if code.name in (b"UIDVALIDITY", b"UIDNEXT", b"HIGHESTMODSEQ"):
            most = {b"UIDVALIDITY": MAX_UID, b"UIDNEXT": MAX_UID + 1, b"HIGHESTMODSEQ": MAX_MODSEQ}[code.name]
            if (value := number(code.argument, most)) is not None:
                self.numbers[code.name] = value
        elif code.name == b"NOMODSEQ":
            self.numbers.pop(b"HIGHESTMODSEQ", None)
        elif code.name == b"CLOSED":  # RFC 7162 section 3.2.11: all before this was about the folder selected before
            self.__init__(self.name)  # type: ignore[misc]  # begin again
        elif code.name == b"MAILBOXID":
            name = code.argument.strip(b"() ").decode("ascii", "replace")
            self.mailbox_id = name if 0 < len(name) <= _MAX_ID else None
        elif code.name == b"PERMANENTFLAGS":
            self._take_flags(code.argument)
        else:
            return False
        return True

    def _take_flags(self, text: bytes) -> None:
        try:
            (flags,) = values([text])
        except (Malformed, ValueError):
            return
        if type(flags) is tuple:
            self.permanent_flags = tuple(flag for flag in flags if type(flag) is bytes)[:256]

    def _take_fetch(self, response: Response) -> None:
        if len(self.changed) >= MAX_CHANGED:
            self.overflowed = True  # all is asked for again: what else is told is not worth our time
            return
        try:
            data = fetched(response.number or 0, response.parts)
        except Malformed:
            data = None
        if data is None:
            self.overflowed = True
        else:
            self.changed[data.uid] = FlagNews(data.flags, data.modseq)

    def _take_vanished(self, text: bytes) -> None:
        if len(self.vanished) >= MAX_VANISHED:
            self.overflowed = True
            return
        try:
            ranges = parse_ranges(text.rpartition(b" ")[2])
        except ValueError:
            self.overflowed = True
            return
        room = MAX_VANISHED - len(self.vanished)
        self.overflowed |= len(ranges) > room
        self.vanished += ranges[:room]


class SelectQuestion:
    """Another SELECT of the folder that is selected: whether it is still as the store has it (`watch.Question`)."""

    __slots__ = ("_equal", "_selecting", "command", "take")

    def __init__(self, command: bytes, selecting: Selecting, equal: Callable[[SelectedFolder], bool]) -> None:
        self.command = command
        self._selecting = selecting
        self._equal = equal
        self.take = selecting.take

    def answered(self, tagged: Response) -> bool:
        """Whether nothing is new."""
        return self._equal(self._selecting.done(tagged, read_only=True))
