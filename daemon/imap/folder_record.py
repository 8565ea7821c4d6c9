"""A folder as the store holds it, and every write to it: each one fenced transaction that keeps the cursor's invariant.

The decisions are `folder_sync`'s; this is what they do to the store.  The record in memory follows the row: it moves
only after the commit.

An account may be moved to another mailbox while a session of the former one still runs, and that one may store what it
likes: account and folder carry the number of a mailbox, a record is opened for the one that its session is logged in
to, and a cursor with another number is `moved`.  So it needs no mark that somebody could miss, or take away too early.
"""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar
from uuid import UUID

import psycopg
import structlog

from daemon import events
from daemon.messages import messages_store, placements_store
from daemon.messages.incoming import FlagChange
from daemon.messages.messages_store import Prepared
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.storage.fence import Claim
from daemon.storage.together import Read, Write
from daemon.telemetry import metrics

from . import folders_store
from .fetching import Batch, Window
from .folders_store import Contents, StoredFolder, Synced
from .plan import Cursor, Method

log = structlog.get_logger(__name__)
T = TypeVar("T")
V = TypeVar("V")

UNSTORABLE: Final = (
    psycopg.DataError,
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.CheckViolation,
    UnicodeError,
    OverflowError,  # of a number beyond its column, before the database has seen it
)
"""What the database (or its driver) says of a value that it cannot hold: some message's doing, and no other's."""


@dataclass(slots=True)
class Tally:
    """What one run stored."""

    new: int = 0
    """Messages that arrived since the folder was first synced."""
    changed: int = 0
    vanished: int = 0


@dataclass(frozen=True, slots=True)
class Store:
    """Where an account is stored, and by what right."""

    database: Database
    claim: Claim

    async def run(self, work: Callable[[Conn], Awaitable[T]]) -> T:
        """One fenced transaction; waits while the database is away.

        Raises:
            ClaimLost: another node runs the account.
        """
        return await self.database.run(work, claim=self.claim)

    async def write(self, work: Write[V, T], value: V) -> T:
        """This account's part of what is written for many at once; committed on return.

        Raises:
            ClaimLost: another node runs the account.
        """
        return await self.database.together.write(work, value, self.claim)

    async def read(self, work: Read[V, T], value: V) -> T:
        """This account's part of what is read for many at once: not fenced, for it changes nothing."""
        return await self.database.together.read(work, value)


class FolderRecord:
    """One folder's row, cursor and messages."""

    __slots__ = ("_contents", "_mailbox", "_said", "_store", "folder")

    def __init__(self, store: Store, folder: StoredFolder, contents: Contents, mailbox: int) -> None:
        self._store = store
        self._mailbox = mailbox
        self._said: Method | None = None
        """The rung by which the row was last said to be equal, until something changes: it is not said twice."""
        other = folder.mailbox != mailbox
        # How often another server renumbered the folder, and where it contradicted itself, says nothing of this one.
        self.folder = replace(folder, demoted=None, resyncs=0) if other else folder
        self._contents = contents
        """What the folder holds, as far as that is known: nobody else writes it while this account is ours."""

    @classmethod
    async def open(cls, store: Store, name: str, mailbox: int = 1) -> FolderRecord:
        """The record of a folder, for a session of the account's *mailbox*; its row is made where there is none."""
        place = (store.claim.account_id, name)
        opened = await store.read(folders_store.open_folders, place)
        if opened is None:
            await store.write(folders_store.make_folders, place)
            opened = await store.read(folders_store.open_folders, place)
            assert opened is not None, "it was made, and folders go with their account only"
        return cls(store, *opened, mailbox)

    @property
    def account_id(self) -> UUID:
        """Whose folder it is."""
        return self._store.claim.account_id

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def cursor(self) -> Cursor:
        """Up to where the store holds what the server said."""
        assert self.folder.cursor is not None, "the plan makes a cursor before anything needs one"
        return self.folder.cursor

    @property
    def moved(self) -> bool:
        """Whether the cursor is of another mailbox of the account than this session's."""
        return self.folder.cursor is not None and self.folder.mailbox != self._mailbox

    async def begin(self, cursor: Cursor, total: int, method: Method, *, resync: bool) -> None:
        """Start a first sync, or one that begins again because every UID is void."""
        former, moved = self.folder.cursor, self.moved
        resyncs = self.folder.resyncs + 1 if resync and not moved else 0

        async def work(conn: Conn) -> None:
            if resync and former is not None:
                await placements_store.supersede(conn, self.folder.id, former.uidvalidity, keep=moved)
                reason = "moved" if moved else "renumbered"
                reset = {"folder": self.name, "reason": reason, "from": former.uidvalidity, "to": cursor.uidvalidity}
                await events.append(conn, events.EventType.FOLDER_RESET, self._store.claim.account_id, reset)
            await folders_store.begin(conn, self.folder.id, self._mailbox, cursor, total, method, resyncs)

        await self._store.run(work)
        self.folder = replace(self.folder, cursor=cursor, resyncs=resyncs, mailbox=self._mailbox)
        self._changed(former=not moved and (resync or self._contents.former))

    async def store_batch(self, batch: Batch, cursor: Cursor, *, arrived: bool) -> int:
        """Store a batch and move the cursor in one transaction; how many messages were new.

        Args:
            batch: messages, and what could not be read.
            cursor: where the cursor is then.
            arrived: whether the messages are news, told as events, or the mail that was there before.
        """
        prepared = batch.prepared or await Prepared.of(self.account_id, batch.messages)
        self._changed()
        stored = await self._store_prepared(prepared, batch.skipped, cursor, arrived=arrived)
        metrics.messages_stored.labels("new" if arrived else "backfill").inc(stored)
        metrics.bytes_stored.inc(sum(len(piece) for message in batch.messages for piece in message.pieces))
        metrics.messages_skipped.inc(len(batch.skipped))
        return stored

    async def _store_prepared(
        self, prepared: Prepared, skipped: Sequence[tuple[int, str]], cursor: Cursor, *, arrived: bool
    ) -> int:
        """Store, and when the database does not take some message, halve until it is found, and skip just that one."""

        async def work(conn: Conn) -> int:
            found = await messages_store.look_up(conn, self.folder.id, prepared)
            async with conn.at_once() if prepared.few else nullcontext():
                await messages_store.store(conn, self.folder.id, prepared, found)
                await placements_store.record_skipped(conn, self.folder.id, cursor.uidvalidity, skipped)
                if arrived:
                    received = (messages_store.received_event(prepared, found, at, self.name) for at in found.fresh)
                    account_id = self._store.claim.account_id
                    await events.append_many(conn, events.EventType.EMAIL_RECEIVED, account_id, received)
                else:
                    size = sum(prepared.messages[at].size for at in found.fresh)
                    await folders_store.add_progress(conn, self.folder.id, len(found.fresh), size)
                await folders_store.save_cursor(conn, self.folder.id, cursor)
            return len(found.fresh)

        try:
            stored = await self._store.run(work)
        except UNSTORABLE as exc:
            if not prepared.messages:
                raise  # then it is no message's fault
            if len(prepared.messages) > 1:
                first = await self._store_prepared(prepared.half(second=False), (), self.cursor, arrived=arrived)
                return first + await self._store_prepared(
                    prepared.half(second=True), skipped, cursor, arrived=arrived
                )
            uid = prepared.messages[0].uid
            log.warning("message.unstorable", folder=self.name, uid=uid, sqlstate=getattr(exc, "sqlstate", None))
            metrics.messages_skipped.inc()
            reasons = (*skipped, (uid, "the database does not take the message"))
            return await self._store_prepared(Prepared(prepared.account_id), reasons, cursor, arrived=arrived)
        self.folder = replace(self.folder, cursor=cursor)
        return stored

    async def move(self, cursor: Cursor) -> None:
        """Move the cursor over what is stored already."""
        if cursor != self.folder.cursor:
            await self._store.run(partial(folders_store.save_cursor, folder_id=self.folder.id, cursor=cursor))
            self._said = None
            self.folder = replace(self.folder, cursor=cursor)

    async def apply_flags(self, changes: Sequence[FlagChange]) -> int:
        """Set flags; how many messages changed."""
        if not changes:
            return 0
        self._changed()  # what is spoken of is there, though it was thought gone
        return await self._store.run(
            partial(placements_store.apply_flags, folder_id=self.folder.id, changes=changes)
        )

    async def vanish(self, ranges: Sequence[range]) -> int:
        """Mark what lies in the ranges as gone; how many messages that were."""
        self._changed(vanished=True)
        return await self._store.run(partial(placements_store.vanish, folder_id=self.folder.id, ranges=ranges))

    async def count_in(self, ranges: Sequence[range]) -> int:
        """How many live messages lie in the ranges."""
        return await self._store.run(partial(placements_store.count_in, folder_id=self.folder.id, ranges=ranges))

    async def count(self) -> int:
        """How many messages of the server's the store accounts for: live ones and skipped ones."""
        held = self._contents.held
        if held is None:
            held = await self._store.database.run(partial(placements_store.held_count, folder_id=self.folder.id))
            self._contents = replace(self._contents, held=held)
        return held

    @property
    def settled(self) -> int | None:
        """How many messages the server has if nothing changed since the last comparison, which left nothing to be done.

        None when something did, or is to be.
        """
        known = self._contents
        if self._said is None or known.vanished or known.former or self.folder.resyncs:
            return None
        return known.held

    async def live_uids(self) -> array[int]:
        """The UIDs of live messages."""
        return await self._store.run(partial(placements_store.live_uids, folder_id=self.folder.id))

    async def skipped_uids(self) -> array[int]:
        """The UIDs of messages that could not be read."""
        return await self._store.run(partial(placements_store.skipped_uids, folder_id=self.folder.id))

    async def skip_ungiven(self, window: Window) -> None:
        """What is listed but was not given when asked for by its UID is skipped, or it would be asked for for ever."""
        reason = "the server lists the message but does not give it"

        async def work(conn: Conn) -> None:
            held = await placements_store.live_among(conn, self.folder.id, window.uids)
            ungiven = [(uid, reason) for uid in window.uids if uid not in held]
            await placements_store.record_skipped(conn, self.folder.id, self.cursor.uidvalidity, ungiven)

        self._changed()
        await self._store.run(work)

    async def forget_skipped(self, keep: Sequence[int]) -> None:
        """Forget skipped messages but those that the server still has."""
        self._changed()
        await self._store.run(partial(placements_store.forget_skipped, folder_id=self.folder.id, keep=keep))

    async def former_count(self) -> int:
        """How many messages from before a renumbering have not been recognised; those of a former mailbox stay."""
        if not self._contents.former:
            return 0
        left = await self._store.run(partial(placements_store.former_count, folder_id=self.folder.id))
        self._contents = replace(self._contents, former=left > 0)
        return left

    async def forget_former(self) -> None:
        """Remove them."""
        gone = await self._store.run(partial(placements_store.forget_former, folder_id=self.folder.id))
        self._contents = replace(self._contents, former=False)
        log.info("folder.former_forgotten", folder=self.name, messages=gone)

    async def demote(self, to: Method, reason: str) -> None:
        """Take the folder down the ladder for good."""
        log.warning("folder.demoted", folder=self.name, to=to.value, reason=reason)
        await self._store.run(partial(folders_store.demote, folder_id=self.folder.id, to=to, reason=reason))
        metrics.folders_demoted.labels(to.value).inc()
        self.folder = replace(self.folder, demoted=to)

    async def finish(self, method: Method, *, settled: bool) -> None:
        """The folder equals the server: say so, and remove what has had its grace."""
        rung = max(method, self.folder.demoted or method, key=list(Method).index)
        if rung is self._said and not self.folder.resyncs and not self._contents.vanished:
            return
        synced = Synced(self.folder.id, rung, settled)

        async def reap(conn: Conn) -> bool:
            await placements_store.reap(conn, self.folder.id)
            await folders_store.mark_synced(conn, [synced])
            return await placements_store.any_vanished(conn, self.folder.id)

        if self._contents.vanished:
            self._changed(vanished=await self._store.run(reap))
        else:
            await self._store.write(folders_store.mark_synced, synced)
        if settled:
            self.folder = replace(self.folder, resyncs=0)
        self._said = rung

    def _changed(self, *, vanished: bool | None = None, former: bool | None = None) -> None:
        """How many messages the folder holds is to be counted again; what else is known stays, unless it is given."""
        self._said = None
        known = self._contents
        self._contents = Contents(
            None, known.vanished if vanished is None else vanished, known.former if former is None else former
        )
