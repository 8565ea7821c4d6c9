"""What a server says without being asked: a bounded set of facts, kept until the session's owner takes them.

A server may send EXISTS, EXPUNGE, VANISHED, FETCH or STATUS within the answer to any command (RFC 9051 section 7), so
they are filed in one place whatever was going on.  Facts beyond a bound are counted, not kept: then only comparing the
whole folder helps, and `must_reconcile` says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from imapclient import imap_utf7

from .fetched import fetched
from .parse import MAX_MODSEQ, Malformed, number, response_code, values
from .uidset import MAX_UID, parse_ranges

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .parse import Value
    from .responses import Response

MAX_FLAG_NEWS: Final = 4096
"""Messages whose changed flags are kept between two takings; more (all marked as read) is cheaper to ask for."""
MAX_VANISHED: Final = 16_384
"""Ranges of vanished UIDs kept, likewise."""
MAX_STATUSES: Final = 512
"""Other folders with news (NOTIFY), likewise."""
MAX_ALERTS: Final = 4
"""Alerts kept; RFC 9051 section 7.1 wants them shown, not collected."""
_MAX_ALERT: Final = 400  # characters of one


@dataclass(frozen=True, slots=True)
class FlagNews:
    """The flags of one message as they are now."""

    flags: tuple[bytes, ...] | None
    modseq: int | None


@dataclass(frozen=True, slots=True)
class FolderStatus:
    """What STATUS tells of a folder; None where the server said nothing (usable)."""

    messages: int | None = None
    uidnext: int | None = None
    uidvalidity: int | None = None
    unseen: int | None = None
    highestmodseq: int | None = None


@dataclass(frozen=True, slots=True)
class News:
    """What was said since the last taking; false when there is nothing to act on."""

    exists: int | None = None
    """Messages in the selected folder now, when their number was spoken of at all."""
    removed: int = 0
    """EXPUNGE responses: so many messages went, and which is known by comparing only."""
    vanished: tuple[range, ...] = ()
    """UIDs that went (QRESYNC); ranges may cover UIDs that never were."""
    flags: Mapping[int, FlagNews] = field(default_factory=lambda: MappingProxyType({}))
    """By UID."""
    unplaced: int = 0
    """FETCH responses without a UID, or unreadable: something changed in some message."""
    dropped: int = 0
    """Facts beyond a bound."""
    highestmodseq: int | None = None
    """Of the selected folder, as an untagged or tagged OK told; a hint, never a cursor."""
    statuses: Mapping[str, FolderStatus] = field(default_factory=lambda: MappingProxyType({}))
    """Of other folders, by name (NOTIFY)."""
    alerts: tuple[str, ...] = ()
    """The server's own words for the owner ([ALERT]), printable and cut; remote text, so never a fault's reason."""

    @property
    def must_reconcile(self) -> bool:
        """Whether only comparing the folder with the store tells what happened."""
        return bool(self.removed or self.unplaced or self.dropped)

    def __bool__(self) -> bool:
        return self.exists is not None or bool(self.vanished or self.flags or self.statuses) or self.must_reconcile


@dataclass(slots=True)
class NewsBox:
    """Files facts; one a session."""

    messages: int = 0
    """Messages in the selected folder, kept up to date."""
    overflowed: int = 0
    """Facts ever dropped, for statistics."""
    _told: bool = False
    _removed: int = 0
    _unplaced: int = 0
    _dropped: int = 0
    _highestmodseq: int | None = None
    # Made when needed: most of ten thousand sessions have no news.
    _vanished: list[range] | None = None
    _flags: dict[int, FlagNews] | None = None
    _statuses: dict[str, FolderStatus] | None = None
    _alerts: list[str] = field(default_factory=list)

    @property
    def any(self) -> bool:
        """Whether `take` would give news to act on."""
        facts = self._removed or self._unplaced or self._dropped or self._vanished or self._flags or self._statuses
        return self._told or bool(facts)

    def take(self) -> News:
        """All facts, which are then forgotten here."""
        news = News(
            exists=self.messages if self._told else None,
            removed=self._removed,
            vanished=tuple(self._vanished or ()),
            flags=self._flags or MappingProxyType({}),
            unplaced=self._unplaced,
            dropped=self._dropped,
            highestmodseq=self._highestmodseq,
            statuses=self._statuses or MappingProxyType({}),
            alerts=tuple(self._alerts),
        )
        self.forget_folder()
        self._statuses = None
        self._alerts.clear()
        return news

    def forget_folder(self) -> None:
        """Another folder is selected: what was said of the last one is void."""
        self._told = False
        self._removed = self._unplaced = self._dropped = 0
        self._highestmodseq = None
        self._vanished = None
        self._flags = None

    def file(self, response: Response) -> None:
        """Keep what an untagged response tells; what tells nothing of the folder is passed over."""
        kind = response.kind
        if kind == b"EXISTS":
            if response.number is not None and response.number <= MAX_UID:
                self.messages = response.number
                self._told = True
        elif kind == b"EXPUNGE":
            self._removed += 1
            self._fewer(1)
        elif kind == b"FETCH":
            self._file_fetch(response)
        elif kind == b"VANISHED":
            self._file_vanished(response.text)
        elif kind == b"STATUS":
            self._file_status(response)
        elif kind in (b"OK", b"NO", b"BAD"):
            self.file_code(response.text)

    def file_code(self, text: bytes) -> None:
        """Keep what the response code of a status response, tagged or not, tells."""
        code = response_code(text)
        if code is None:
            return
        if code.name == b"HIGHESTMODSEQ":
            self._highestmodseq = number(code.argument, MAX_MODSEQ) or None
        elif code.name == b"NOTIFICATIONOVERFLOW":  # RFC 5465 section 5.8: the server has stopped telling
            self._drop(1)
        elif code.name == b"ALERT" and len(self._alerts) < MAX_ALERTS:
            words = text.partition(b"]")[2].decode("utf-8", "replace")
            self._alerts.append("".join(c if c.isprintable() else " " for c in words[:_MAX_ALERT]).strip())

    def file_flags(self, uid: int, flags: tuple[bytes, ...] | None, modseq: int | None) -> None:
        """Keep the flags of a message that nobody asked about."""
        if self._flags is None:
            self._flags = {}
        if uid in self._flags or len(self._flags) < MAX_FLAG_NEWS:
            self._flags[uid] = FlagNews(flags, modseq)
        else:
            self._drop(1)

    def file_unplaced(self) -> None:
        """Count a FETCH that cannot be read or names no UID."""
        self._unplaced += 1

    def _file_fetch(self, response: Response) -> None:
        try:
            data = fetched(response.number or 0, response.parts)
        except Malformed:
            data = None
        if data is None:
            self._unplaced += 1
        else:
            self.file_flags(data.uid, data.flags, data.modseq)

    def _file_vanished(self, text: bytes) -> None:
        earlier, _, uids = text.rpartition(b" ")
        try:
            ranges = parse_ranges(uids)
        except ValueError:
            self._unplaced += 1
            return
        if not earlier:  # VANISHED (EARLIER) tells of messages that EXISTS does not count any more
            self._fewer(sum(map(len, ranges)))
        if self._vanished is None:
            self._vanished = []
        room = MAX_VANISHED - len(self._vanished)
        self._vanished += ranges[:room]
        self._drop(len(ranges) - min(room, len(ranges)))

    def _file_status(self, response: Response) -> None:
        try:
            folder, status = read_status(values(response.parts))
        except (Malformed, ValueError):
            self._drop(1)
            return
        if self._statuses is None:
            self._statuses = {}
        if folder in self._statuses or len(self._statuses) < MAX_STATUSES:
            self._statuses[folder] = status
        else:
            self._drop(1)

    def _fewer(self, count: int) -> None:
        self.messages = max(0, self.messages - count)
        self._told = True

    def _drop(self, count: int) -> None:
        self._dropped += count
        self.overflowed += count


def read_status(said: list[Value]) -> tuple[str, FolderStatus]:
    """Folder and facts of a STATUS response; raises ValueError."""
    if len(said) != 2 or type(items := said[1]) is not tuple:
        raise ValueError("not a STATUS response")
    facts: dict[bytes, int] = {}
    for name, value in zip(items[::2], items[1::2], strict=False):
        if type(name) is bytes and type(value) is int:
            facts[name.upper()] = value

    def fact(name: bytes, least: int, most: int) -> int | None:
        value = facts.get(name)
        return value if value is not None and least <= value <= most else None

    return folder_name(said[0]), FolderStatus(
        messages=fact(b"MESSAGES", 0, MAX_UID),
        uidnext=fact(b"UIDNEXT", 1, MAX_UID + 1),
        uidvalidity=fact(b"UIDVALIDITY", 1, MAX_UID),
        unseen=fact(b"UNSEEN", 0, MAX_UID),
        highestmodseq=fact(b"HIGHESTMODSEQ", 1, MAX_MODSEQ),
    )


def folder_name(value: Value) -> str:
    """A folder's name from modified UTF-7 (RFC 9051 appendix A.1); raises ValueError when it is none.

    Only names that can be written back just as they came are names: any other could not be selected.
    """
    raw = b"%d" % value if type(value) is int else b"NIL" if value is None else value
    if type(raw) is not bytes or not raw or len(raw) > 1024:
        raise ValueError("not a folder name")
    name: str = imap_utf7.decode(raw)
    if imap_utf7.encode(name) != raw:
        raise ValueError("not a folder name in modified UTF-7")
    if any(c in name for c in "\r\n\0"):
        raise ValueError("a control character in a folder name")
    return "INBOX" if name.upper() == "INBOX" else name
