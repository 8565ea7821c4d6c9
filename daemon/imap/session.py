"""An authenticated IMAP session as one task drives it: select, streamed FETCH, search, IDLE.

The hot paths of sync; every rarer command goes through `bridge` on the same connection.  A session is for one task at
a time; the one exception is `interrupt`, which another task may call to end an `idle`.

FETCH is streamed: each message is given out when its response is complete, so a batch costs the memory of one message,
and the next commands are sent ahead (`depth`), so that a batch costs no round trip.  RFC 9051 section 5.5 allows that
for UID FETCH: it never renumbers anything it uses.

Waiting for news is in `idling`.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from imapclient import imap_utf7

from daemon.errors import Fault, FaultKind

from .conversation import Argument, Sink, checked, quoted
from .faults import Refused
from .fetched import Fetched, fetched
from .flights import Flights
from .idling import Idling
from .lanes import LONG_ANSWER
from .news import FolderStatus, read_status
from .parse import MAX_MODSEQ, Malformed, values
from .search import STRAYS, Found
from .selected import Known, SelectedFolder, Selecting, SelectQuestion
from .uidset import MAX_UID

if TYPE_CHECKING:
    from array import array
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

    from .responses import Response
    from .wire import Wire


class Session(Idling):
    """An IMAP session; made by `open_session`."""

    __slots__ = ("enabled", "selected")

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire)
        self.enabled: frozenset[bytes] = frozenset()
        """Extensions that the server has ENABLEd."""
        self.selected: str | None = None
        """The folder that is selected."""

    # Extensions and identity

    async def enable(self, *names: bytes) -> frozenset[bytes]:
        """ENABLE (RFC 5161) those of *names* that the server offers; what is enabled now.

        Refused as a whole, they are tried without QRESYNC, so that CONDSTORE is not lost with it.
        """
        wanted = [name for name in names if name in self.capabilities and name not in self.enabled]
        if not wanted or not self.capabilities & {b"ENABLE", b"IMAP4REV2"}:
            return self.enabled
        done: set[bytes] = set()

        def sink(response: Response) -> bool:
            if response.kind != b"ENABLED":
                return False
            done.update(response.text[:1024].upper().split())
            return True

        try:
            await self.command(b"ENABLE", *wanted, sink=sink)
        except Refused:
            if b"QRESYNC" not in wanted:
                raise
            rest = [name for name in wanted if name != b"QRESYNC"]
            if b"CONDSTORE" in self.capabilities and b"CONDSTORE" not in rest:
                rest.append(b"CONDSTORE")
            return await self.enable(*rest)
        if b"QRESYNC" in done:  # RFC 7162 section 3.2.3: enables CONDSTORE too
            done.add(b"CONDSTORE")
        self.enabled |= done & {*wanted, b"CONDSTORE"}
        return self.enabled

    async def identify(self, **fields: str) -> None:
        """Say who we are (ID, RFC 2971) where that is offered: Yahoo and 163.com serve strangers worse."""
        if b"ID" not in self.capabilities:
            return
        words = [quoted(word) for pair in fields.items() for word in pair]
        try:
            await self.command(b"ID", b"(" + b" ".join(w for w in words if isinstance(w, bytes)) + b")", within=60)
        except Refused:
            return  # nothing depends on it

    # Folders

    async def select(self, folder: str, known: Known | None = None, *, read_only: bool = True) -> SelectedFolder:
        """Select *folder*; with *known* (and QRESYNC enabled) the answer tells what changed since.

        Read-only (EXAMINE) by default: then looking changes nothing, not even \\Recent.  News of a folder selected
        before is void, so take it first.  Raises Refused when there is no such folder.
        """
        selecting = Selecting(folder)
        arguments, units = self._select_arguments(folder, known)
        self.newsbox.forget_folder()
        self.newsbox.messages = 0
        self.selected = None  # RFC 9051 section 6.3.2: a failed SELECT leaves none
        name = b"EXAMINE" if read_only else b"SELECT"
        tagged = await self._long(units, name, *arguments, sink=selecting.take)
        self.selected = folder
        selected = selecting.done(tagged, read_only=read_only)
        self.newsbox.messages = selected.exists
        return selected

    def look_again(
        self, folder: str, known: Known | None, equal: Callable[[SelectedFolder], bool]
    ) -> SelectQuestion:
        """The question whether *folder*, which is selected, is as it was: another SELECT, judged by *equal*.

        Raises ValueError as `select` does.
        """
        arguments, _ = self._select_arguments(folder, known)
        words = [word for word in arguments if isinstance(word, bytes)]
        assert len(words) == len(arguments), "modified UTF-7 is ASCII, so no name needs a literal"
        return SelectQuestion(b" ".join((b"EXAMINE", *words)), Selecting(folder), equal)

    def _select_arguments(self, folder: str, known: Known | None) -> tuple[list[Argument], float]:
        """Those of SELECT, and how many units its answer may have."""
        if known is not None and b"QRESYNC" in self.enabled:
            if not (0 < known.uidvalidity <= MAX_UID and 0 < known.modseq <= MAX_MODSEQ):
                raise ValueError("no values for QRESYNC")
            # The flags of all that changed; any other answer has a few lines.
            return [encoded(folder), b"(QRESYNC (%d %d))" % (known.uidvalidity, known.modseq)], LONG_ANSWER
        if b"CONDSTORE" in self.capabilities and b"CONDSTORE" not in self.enabled:
            return [encoded(folder), b"(CONDSTORE)"], 0.0
        return [encoded(folder)], 0.0

    async def status(self, folder: str) -> FolderStatus:
        """STATUS of a folder that is not selected: counts and the numbers of a cursor."""
        items = b"(MESSAGES UIDNEXT UIDVALIDITY UNSEEN"
        items += b" HIGHESTMODSEQ)" if b"CONDSTORE" in self.capabilities else b")"
        found = FolderStatus()

        def sink(response: Response) -> bool:
            nonlocal found
            if response.kind != b"STATUS":
                return False
            try:
                name, status = read_status(values(response.parts))
            except (Malformed, ValueError):
                return True  # its numbers stay unknown
            if name != ("INBOX" if folder.upper() == "INBOX" else folder):
                return False
            found = status
            return True

        await self.command(b"STATUS", encoded(folder), items, sink=sink)
        return found

    async def noop(self) -> None:
        """NOOP: gives the server the occasion to tell news, and us a proof of life."""
        await self.command(b"NOOP", within=self.wire.patience)

    # Messages

    async def fetch(
        self,
        sets: Iterable[bytes],
        items: Sequence[bytes],
        *,
        changed_since: int | None = None,
        vanished: bool = False,
        depth: int = 2,
        on_malformed: Callable[[Malformed], None] | None = None,
        on_complete: Callable[[], None] | None = None,
    ) -> AsyncGenerator[Fetched, None]:
        """UID FETCH each of *sets*, and yield the messages as they come in; *depth* commands are in flight.

        *vanished* (with *changed_since* and QRESYNC) makes the server tell what went: taken with `take_news`.
        One response that cannot be read does not spoil the others: *on_malformed* is told (without one, it is raised).
        A message that was asked for and has gone is simply not given.  What tells of other messages, or only of flags
        where more was asked for, is news.

        *on_complete* is told once for each set, in the order of *sets*, when it and all before it were answered with OK
        and their messages were given: what it covers is whole.  After a refused set no later one counts.

        Raises Refused after the last answer when a command was refused.  Whoever stops early must close the session
        (it is dirty then); use `contextlib.aclosing`.
        """
        tail = b" (" + b" ".join(map(checked, items)) + b")"
        if changed_since is not None:
            if not 0 < changed_since <= MAX_MODSEQ:
                raise ValueError("no mod-sequence")
            tail += b" (CHANGEDSINCE %d%b)" % (changed_since, b" VANISHED" if vanished else b"")
        more_than_flags = any(item.upper() not in (b"UID", b"FLAGS", b"MODSEQ") for item in items)
        flights = Flights(sets)
        refused: Refused | None = None
        with self.exclusive():
            while True:
                while refused is None and len(flights) < depth and (uids := flights.next_set()) is not None:
                    flights.launched(tag := self.next_tag(), uids, self.newsbox.messages)
                    await self.wire.send(tag + b" UID FETCH " + uids + tail + b"\r\n")
                if not flights:
                    break
                response = await self.read()
                if response.tag == b"*":
                    message = self._asked_for(response, flights, more_than_flags, on_malformed)
                    if message is not None:
                        yield message
                    continue
                try:
                    complete = self._landed(response, flights)
                except Refused as exc:
                    refused = refused or exc
                    continue
                if on_complete is not None:
                    for _ in range(complete):
                        on_complete()
            if refused is not None:
                raise refused

    def _landed(self, response: Response, flights: Flights) -> int:
        """Note a tagged response; how many sets are complete by it, in order."""
        if not flights.answered(response.tag):
            raise Fault(FaultKind.PROTOCOL, "The mail server answered a command that was not sent.")
        self.check(b"FETCH", response)
        return flights.completed(response.tag)

    def _asked_for(
        self,
        response: Response,
        asked: Flights,
        more_than_flags: bool,
        on_malformed: Callable[[Malformed], None] | None,
    ) -> Fetched | None:
        """The message of a FETCH response if it was asked for; all else is filed as news."""
        asked.room -= 1
        if asked.room < 0:
            raise Fault(FaultKind.PROTOCOL, "The mail server floods us with what nobody asked for.")
        if response.kind != b"FETCH":
            self.newsbox.file(response)
            return None
        try:
            data = fetched(response.number or 0, response.parts)
        except Malformed as exc:
            self.malformed += 1
            if on_malformed is None:
                raise
            on_malformed(exc)
            return None
        if data is None:
            self.newsbox.file_unplaced()
        elif (more_than_flags and data.only_flags) or data.uid not in asked:
            self.newsbox.file_flags(data.uid, data.flags, data.modseq)
        else:
            self.meter.wanted()
            return data
        return None

    def listing(self) -> Found:
        """To take the UIDs of the folder's messages, as many as the server says there are."""
        return Found(self.newsbox.messages, lambda: self.newsbox.messages)

    async def uids(self) -> array[int]:
        """All UIDs of the selected folder, ascending; raises Fault(PROTOCOL) beyond the bounds of `Found`."""
        if self.capabilities & {b"ESEARCH", b"IMAP4REV2"}:
            return await self.uid_search(b"ALL")
        found = self.listing()
        async with aclosing(self.fetch([b"1:*"], [b"UID"])) as messages:
            async for message in messages:
                found.put(message.uid)
        return await found.ascending()

    async def uid_search(self, criteria: bytes) -> array[int]:
        """UIDs of the messages in the selected folder that match *criteria* (ASCII, as RFC 9051 writes them)."""
        found = self.listing()
        # ESEARCH answers in ranges: `1:250000` where SEARCH has a line of 1.7 MB.
        options = (b"RETURN", b"(ALL)") if self.capabilities & {b"ESEARCH", b"IMAP4REV2"} else ()
        # A UID and its space have 11 bytes at most, less than a unit.
        units = min(LONG_ANSWER, self.newsbox.messages + STRAYS)
        await self._long(units, b"UID SEARCH", *options, criteria, sink=found.take)
        return await found.ascending()

    async def _long(self, units: float, name: bytes, *arguments: Argument, sink: Sink) -> Response:
        """A command whose answer may have so many units (`Meter`), and is no flood for that."""
        self.meter.expect(units)
        try:
            return await self.command(name, *arguments, sink=sink)
        finally:
            self.meter.expect(0.0)


def encoded(folder: str) -> Argument:
    """A folder's name as an argument: modified UTF-7 (RFC 9051 appendix A.1), quoted; ValueError for line breaks."""
    if any(c in folder for c in "\r\n\0"):
        raise ValueError("no line breaks or NUL in a folder name")
    return quoted(imap_utf7.encode(folder))
