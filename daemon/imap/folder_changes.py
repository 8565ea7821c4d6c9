"""What came and what went: the parts that each synchronisation of a folder is made of.

Every write is one fenced transaction that moves the cursor together with what it covers, so a crash at any point loses
nothing and stores nothing twice.  Steps may be repeated: flags and disappearances are facts about now, and messages
already stored are recognised by UID.

A mass disappearance is not believed on one connection's word: it is looked at again on a fresh one, and only what is
gone there too is marked (`verify` is how to get one).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import structlog

from daemon.errors import Fault, FaultKind
from daemon.messages.incoming import FlagChange

from .fetching import Batch, Fetcher, Limiter, ascending_windows, changes_of
from .folder_record import FolderRecord, Tally
from .news import News
from .plan import Method, needs_brake
from .session import Session
from .uidarray import between, ranges_of, without
from .uidset import MAX_UID

log = structlog.get_logger(__name__)

GROUP: Final = 8
"""Windows fetched before looking whether new mail has come, and before other accounts have their turn: a first sync of
hours must hide no mail, and hold up nobody."""


@dataclass(frozen=True, slots=True)
class FolderSyncConfig:
    """What the operator set."""

    window: int
    max_body: int


Verify = Callable[[], AbstractAsyncContextManager[Session]]
"""Opens a fresh, authenticated session of the same account."""


Turns = Callable[[], AbstractAsyncContextManager[object]]
"""Waits for a turn to fetch in bulk, which other accounts want as well; the session may be used while waiting."""


class FolderChanges:
    """One folder of one account: what is done to it."""

    __slots__ = (
        "_beginnings", "_config", "_fetcher", "_highest", "_large_bodies", "_turns", "_verify", "record", "session",
    )  # fmt: skip

    def __init__(
        self,
        session: Session,
        record: FolderRecord,
        config: FolderSyncConfig,
        *,
        verify: Verify,
        large_bodies: Limiter,
        turns: Turns = nullcontext,
        beginnings: Turns = nullcontext,
    ) -> None:
        self.session = session
        self.record = record
        self._config = config
        self._verify = verify
        self._large_bodies = large_bodies
        self._turns = turns
        self._beginnings = beginnings

    _fetcher: Fetcher
    """Of the run that is under way."""

    # -- new messages --------------------------------------------------------------------------------------------------

    async def _fetch_new(self, tally: Tally) -> None:
        uidnext = self.record.cursor.uidnext
        uids = between(await self.session.uid_search(b"UID %d:*" % uidnext), uidnext, MAX_UID + 1)
        self._highest = 0
        store = partial(self._store_new, tally=tally, asked=True)
        group = GROUP * self._config.window
        for at in range(0, len(uids), group):
            async with self._turns() if len(uids) > self._config.window else nullcontext():
                await self._fetcher.windows(ascending_windows(uids[at : at + group], self._config.window), store)

    async def _store_new(self, batch: Batch, *, tally: Tally, asked: bool) -> None:
        """Store arrivals.  Large ones come before the window that they belong to, so the highest UID is remembered.

        Args:
            batch: of arrivals.
            tally: counts them.
            asked: whether the window's UIDs were known to exist; `n:*` names one that may not.
        """
        cursor = self.record.cursor
        self._highest = max([self._highest, *(message.uid for message in batch.messages)])
        if batch.done is not None:
            reached = max(self._highest, batch.done.high if asked else 0)
            cursor = replace(cursor, uidnext=max(cursor.uidnext, reached + 1))
        tally.new += await self.record.store_batch(batch, cursor, arrived=True)

    # -- what changed and what went ------------------------------------------------------------------------------------

    async def _fetch_changed(self, tally: Tally) -> None:
        cursor = self.record.cursor
        if cursor.uidnext <= cursor.backfill_below or not cursor.highestmodseq:
            return
        vanished = b"QRESYNC" in self.session.enabled
        stream = await self._fetcher.flags(
            [b"%d:%d" % (cursor.backfill_below, cursor.uidnext - 1)],
            changed_since=cursor.highestmodseq,
            vanished=vanished,
        )
        await stream.each(partial(self._apply, tally=tally))
        await self.take(self.session.take_news(), tally)

    async def _compare(self, tally: Tally, *, flags: bool) -> bool:
        """Compare all UIDs (and flags) with the store; whether messages had to be fetched that should have been there.

        What the store holds and the server does not has vanished; what the server has within the cursor and the store
        does not was missed, and is fetched now.
        """
        there = array("I")
        if flags and self.session.newsbox.messages:
            found = self.session.listing()

            async def take(changes: list[FlagChange]) -> None:
                for change in changes:
                    found.put(change.uid)
                await self._apply(changes, tally)

            stream = await self._fetcher.flags([b"1:*"], changed_since=None, vanished=False)
            await stream.each(take)
            there = await found.ascending()
        elif self.session.newsbox.messages:
            there = await self.session.uids()
        held, skipped = await self.record.live_uids(), await self.record.skipped_uids()
        await self._vanish(await ranges_of(await without(held, there)), tally)
        if forgotten := await without(skipped, there):
            await self.record.forget_skipped(await without(skipped, forgotten))
        low, high = self.record.cursor.backfill_below, self.record.cursor.uidnext
        missed = await without(await without(between(there, low, high), held), skipped)
        if missed:
            log.warning("folder.repaired", folder=self.record.name, messages=len(missed))
            windows = ascending_windows(missed, self._config.window)
            await self._fetcher.windows(windows, partial(self._store_missed, tally=tally))
        if there and there[-1] >= high:  # whatever the server says of its UIDNEXT
            await self._fetch_new(tally)
        return bool(missed)

    async def _store_missed(self, batch: Batch, *, tally: Tally) -> None:
        tally.new += await self.record.store_batch(batch, self.record.cursor, arrived=True)
        if batch.done is not None:
            await self.record.skip_ungiven(batch.done)

    async def _vanish(self, ranges: Sequence[range], tally: Tally) -> None:
        if not ranges:
            return
        going = await self.record.count_in(ranges)
        if going and needs_brake(going, await self.record.count()):
            ranges = await self._verified(going)
        if going:
            tally.vanished += await self.record.vanish(ranges)

    async def _verified(self, going: int) -> Sequence[range]:
        """What is gone on a fresh connection, after a mass disappearance on this one."""
        log.warning("folder.brake", folder=self.record.name, messages=going)
        async with self._verify() as fresh:
            selected = await fresh.select(self.record.name)
            if selected.uidvalidity != self.record.cursor.uidvalidity:
                raise Fault(FaultKind.PROTOCOL, f"The mail server is renumbering the folder {self.record.name}.")
            there = await fresh.uids() if selected.exists else array("I")
        gone = await without(await self.record.live_uids(), there)
        if len(gone) < going:
            await self.record.demote(Method.UID_DIFF, "the server took back the disappearance of messages")
        return await ranges_of(gone)

    async def _apply(self, changes: Sequence[FlagChange], tally: Tally) -> None:
        tally.changed += await self.record.apply_flags(changes)

    # -- news ----------------------------------------------------------------------------------------------------------

    async def take(self, news: News, tally: Tally) -> None:
        """Store what the server said by itself.  The cursor's mod-sequence stays: the next run is told again."""
        # Flags first: of a message that was flagged and then went, the last word is that it went.
        await self._apply(changes_of(news.flags.items()), tally)
        await self._vanish(news.vanished, tally)
        if news.exists is not None:
            self._highest = 0
            store = partial(self._store_new, tally=tally, asked=False)
            await self._fetcher.newest(self.record.cursor.uidnext, store)
        if news.must_reconcile:
            await self._compare(tally, flags=bool(news.unplaced or news.dropped))
