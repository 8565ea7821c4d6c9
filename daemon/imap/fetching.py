"""Fetching messages by windows of UIDs and storing them while the next window is read.

A window is up to `window` UIDs, one FETCH, and one transaction that stores its messages and moves the cursor.  Reader
and storer are two tasks with a hand-over of one batch between them: while the database works on one batch the next is
read and made ready (header fields, rows of COPY), so that both have work; memory stays bounded by two batches.  A batch
ends with its window or at BATCH_BYTES; in the latter case it is stored without moving the cursor, and after a crash it
is fetched again and recognised.

Bodies come whole up to PIECE bytes.  A larger one is fetched afterwards in pieces, one message at a time in the whole
process (`large_bodies`), and the cursor waits for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from uuid import UUID

import trio

from daemon.errors import Fault, FaultKind
from daemon.messages.incoming import PART, FlagChange, IncomingMessage, flag_names
from daemon.messages.messages_store import Prepared

from .fetched import Fetched
from .news import FlagNews
from .parse import Malformed
from .session import Session
from .uidset import format_uids, uid_batches

PIECE: Final = PART
"""Bytes of a body fetched at first, and of each piece of a larger one."""

BATCH_BYTES: Final = 8 << 20
"""Bytes of bodies after which a batch is stored although its window goes on: two batches are held at most."""

PIECE_WITHIN: Final = 376.0
"""Seconds for one piece of a large body, as for any response of its size (4 KB a second, and 120 seconds).  It ends the
session, and the next would come no further: so it is for servers that drip, and not for a slow line.  Whoever holds a
place that others need must leave it before (`large_bodies`)."""

BODY_WITHIN: Final = 300.0
"""Seconds after which no more of a large body is asked for: it is kept without, as a too large one is."""

DEPTH: Final = 3
"""FETCH commands in flight: with 50 ms of round trip, 2 give twice and 4 three times the speed of one."""


@dataclass(frozen=True, slots=True)
class Window:
    """UIDs fetched by one command."""

    uids: tuple[int, ...]

    @property
    def low(self) -> int:
        """The lowest of them."""
        return self.uids[0]

    @property
    def high(self) -> int:
        """The highest of them."""
        return self.uids[-1]


@dataclass(frozen=True, slots=True)
class Batch:
    """What is stored in one transaction."""

    messages: Sequence[IncomingMessage]
    skipped: Sequence[tuple[int, str]]
    """UIDs that cannot be read, each with the reason."""
    done: Window | None
    """The window that is complete with this batch, if one is and nothing of it is missing."""
    prepared: Prepared | None = None
    """The messages made ready to be stored, by the reader."""


Store = Callable[[Batch], Awaitable[None]]


Limiter = AbstractAsyncContextManager[object]
"""What bounds large bodies over the whole process, such as a semaphore."""


@dataclass(slots=True)
class _Reading:
    """The reader's state between two responses."""

    windows: list[Window]
    messages: list[IncomingMessage] = field(default_factory=list)
    size: int = 0
    skipped: list[tuple[int, str]] = field(default_factory=list)
    large: list[Fetched] = field(default_factory=list)
    ready: list[Batch] = field(default_factory=list)
    held: list[Window] = field(default_factory=list)
    """Windows complete but for a large body."""

    def take(self, message: IncomingMessage) -> None:
        self.messages.append(message)
        self.size += sum(map(len, message.pieces))
        if self.size >= BATCH_BYTES:
            self.flush(None)

    def flush(self, done: Window | None) -> None:
        self.ready.append(Batch(tuple(self.messages), tuple(self.skipped), done))
        self.messages.clear()
        self.skipped.clear()
        self.size = 0

    def complete(self) -> None:
        """The oldest window in flight has been answered in full."""
        window = self.windows.pop(0)
        if self.large or self.held:
            self.held.append(window)
            self.flush(None)
        else:
            self.flush(window)


def descending_windows(uids: Sequence[int], size: int) -> list[Window]:
    """Windows of the ascending *uids*, the highest first."""
    return [Window(tuple(uids[max(0, end - size) : end])) for end in range(len(uids), 0, -size)]


def ascending_windows(uids: Sequence[int], size: int) -> list[Window]:
    """Windows of the ascending *uids*, the lowest first."""
    return [Window(tuple(uids[at : at + size])) for at in range(0, len(uids), size)]


class Fetcher:
    """Fetches for one folder on one session."""

    __slots__ = ("_account_id", "_large_bodies", "_max_body", "_modseq", "_session")

    def __init__(
        self, session: Session, account_id: UUID, *, modseq: bool, max_body: int, large_bodies: Limiter
    ) -> None:
        self._session = session
        self._account_id = account_id
        self._modseq = modseq
        self._max_body = max_body
        self._large_bodies = large_bodies

    @property
    def _items(self) -> list[bytes]:
        items = [b"UID", b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE", b"BODY.PEEK[]<0.%d>" % PIECE]
        return [*items, b"MODSEQ"] if self._modseq else items

    async def windows(self, windows: Sequence[Window], store: Store) -> None:
        """Fetch the windows in their order, and hand every batch to *store*, in order, one at a time.

        Raises:
            Fault, Refused: of the session.
        """
        await self._run([*windows], [_one_set(window) for window in windows], store, lowest=0)

    async def newest(self, uidnext: int, store: Store) -> None:
        """Fetch everything from *uidnext* upwards with one command: for the few messages of a push."""
        # `n:*` names the last message even where its UID is below n (RFC 9051 section 6.4.9).
        await self._run([Window((uidnext,))], [b"%d:*" % uidnext], store, lowest=uidnext)

    async def _run(self, windows: list[Window], sets: Sequence[bytes], store: Store, *, lowest: int) -> None:
        reading = _Reading(windows)
        send, receive = trio.open_memory_channel[Batch](0)  # a hand-over: one batch is stored, one is being read
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_store_all, receive, store)
            async with send:
                await self._read(reading, sets, send, lowest)
                for message in reading.large:
                    await self._hand_over(send, Batch(*await self._large(message), None))
                for window in reading.held:
                    await self._hand_over(send, Batch((), (), window))

    async def _hand_over(self, send: trio.MemorySendChannel[Batch], batch: Batch) -> None:
        """Hand a batch to the storer; one that failed says so itself, and its nursery ends the reader."""
        prepared = await Prepared.of(self._account_id, batch.messages)
        try:
            await send.send(replace(batch, prepared=prepared))
        except trio.BrokenResourceError:
            await trio.sleep_forever()

    async def _read(
        self, reading: _Reading, sets: Sequence[bytes], send: trio.MemorySendChannel[Batch], lowest: int
    ) -> None:
        def malformed(exc: Malformed) -> None:
            if exc.uid is not None:
                reading.skipped.append((exc.uid, "the server's description of the message cannot be read"))

        stream = self._session.fetch(
            sets, self._items, depth=DEPTH, on_malformed=malformed, on_complete=reading.complete
        )
        async with aclosing(stream):
            async for fetched in stream:
                if fetched.uid >= lowest:
                    self._sort(reading, fetched)
                while reading.ready:
                    await self._hand_over(send, reading.ready.pop(0))
        for batch in reading.ready:
            await self._hand_over(send, batch)

    def _sort(self, reading: _Reading, fetched: Fetched) -> None:
        body = fetched.section(b"BODY[]")
        if body is None:
            reading.take(_incoming(fetched, (), unreadable=True))
        elif len(body) < PIECE:
            reading.take(_incoming(fetched, (body,)))
        elif (fetched.size or 0) > self._max_body:
            reading.take(_incoming(fetched, (body,), too_large=True))
        else:
            reading.large.append(_without_body(fetched))

    async def _large(self, message: Fetched) -> tuple[Sequence[IncomingMessage], Sequence[tuple[int, str]]]:
        """Fetch one large body in pieces, until one comes short: RFC822.SIZE is wrong on some servers."""
        pieces: list[bytes] = []
        size = 0
        async with self._large_bodies:
            until = trio.current_time() + BODY_WITHIN
            while True:
                section = b"BODY.PEEK[]<%d.%d>" % (size, PIECE)
                piece = await self._piece(message.uid, section)
                if piece is None:  # expunged meanwhile: the next comparison would have removed it
                    return (), ((message.uid, "the server did not give the whole message"),) if size else ()
                pieces.append(piece)
                size += len(piece)
                if size > self._max_body or trio.current_time() > until:
                    return (_incoming(message, pieces[:1], too_large=True),), ()
                if len(piece) < PIECE:
                    return (_incoming(message, pieces),), ()

    async def _piece(self, uid: int, section: bytes) -> bytes | None:
        piece = None
        try:
            with trio.fail_after(PIECE_WITHIN):
                async with aclosing(self._session.fetch([b"%d" % uid], [b"UID", section])) as stream:
                    async for fetched in stream:
                        piece = next(iter(fetched.sections.values()), None)
        except trio.TooSlowError:
            raise Fault(FaultKind.LOST, "The mail server is too slow with a large message.") from None
        return piece

    async def flags(self, sets: Iterable[bytes], *, changed_since: int | None, vanished: bool) -> FlagStream:
        """Begin to ask for flags; see `FlagStream`."""
        return FlagStream(self._session, list(sets), changed_since, vanished, modseq=self._modseq)


class FlagStream:
    """The flags of a set of messages, in chunks."""

    __slots__ = ("_changed_since", "_modseq", "_session", "_sets", "_vanished")

    def __init__(
        self, session: Session, sets: list[bytes], changed_since: int | None, vanished: bool, *, modseq: bool
    ) -> None:
        self._session = session
        self._sets = sets
        self._changed_since = changed_since
        self._vanished = vanished
        self._modseq = modseq

    async def each(self, take: Callable[[list[FlagChange]], Awaitable[None]], chunk: int = 2000) -> None:
        """Hand over the changes in chunks of at most *chunk*."""
        items = [b"UID", b"FLAGS", *((b"MODSEQ",) if self._modseq else ())]
        changes: list[FlagChange] = []
        stream = self._session.fetch(
            self._sets, items, changed_since=self._changed_since, vanished=self._vanished, on_malformed=_pass_over
        )
        async with aclosing(stream):
            async for fetched in stream:
                if fetched.flags is not None:
                    changes.append(FlagChange(fetched.uid, flag_names(fetched.flags), fetched.modseq))
                if len(changes) >= chunk:
                    await take(changes)
                    changes = []
        if changes:
            await take(changes)


def changes_of(news: Iterable[tuple[int, FlagNews]]) -> list[FlagChange]:
    """Flags that the server told by itself, as changes."""
    return [FlagChange(uid, flag_names(n.flags), n.modseq) for uid, n in news if n.flags is not None]


async def _store_all(receive: trio.MemoryReceiveChannel[Batch], store: Store) -> None:
    with receive:  # not `async with`: its checkpoint could put a Cancelled in the place of what `store` raised
        async for batch in receive:
            await store(batch)


def _pass_over(exc: Malformed) -> None:
    """A message whose flags cannot be read keeps those it has; the session counts it."""


def _one_set(window: Window) -> bytes:
    """A window as one set: contiguous enough for a line, or else its whole span (other UIDs in it are not ours)."""
    batches = list(uid_batches(window.uids, len(window.uids)))
    return batches[0] if len(batches) == 1 else format_uids(range(window.low, window.high + 1))


def _without_body(fetched: Fetched) -> Fetched:
    return Fetched(
        fetched.uid, fetched.sequence, fetched.flags, fetched.modseq, fetched.internal_date, fetched.size
    )


def _incoming(
    fetched: Fetched, pieces: Sequence[bytes], *, too_large: bool = False, unreadable: bool = False
) -> IncomingMessage:
    size = fetched.size if fetched.size is not None else sum(map(len, pieces))
    return IncomingMessage(
        uid=fetched.uid,
        flags=flag_names(fetched.flags or ()),
        modseq=fetched.modseq,
        received_at=_plausible(fetched.internal_date),
        size=size,
        pieces=pieces,
        body_state="too_large" if too_large else "unreadable" if unreadable else "stored",
    )


def _plausible(date: datetime | None) -> datetime | None:
    """A date that PostgreSQL and Python both can hold in every time zone."""
    return date if date is not None and 1970 <= date.year <= 9000 else None
