"""Bringing one folder up to date: follow the plan, store what the server says, move the cursor.

    select ──► plan (pure) ──► steps in order ──► compare counts ──► synced
                 ▲                                     │ they differ
                 └────────── watch: renewal, news ◄────┘ compare UIDs, and take the folder a rung down

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

from daemon.errors import Disposition, Fault, FaultKind
from daemon.messages.incoming import FlagChange

from .fetching import Batch, Fetcher, Limiter, ascending_windows, changes_of, descending_windows
from .folder_record import FolderRecord, Tally
from .news import News
from .plan import Cursor, Method, Plan, Step, best_method, needs_brake, plan_sync, rung_below
from .selected import Known, SelectedFolder
from .session import Session
from .uidarray import between, ranges_of, without
from .uidset import MAX_UID

log = structlog.get_logger(__name__)

MAX_RESYNCS: Final = 5
"""UIDVALIDITY changes in a row before the account is parked: a server that makes one up at each login never ends."""

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


class FolderSync:
    """One folder of one account, over the life of one session."""

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

    # -- one whole run -------------------------------------------------------------------------------------------------

    async def run(self) -> Tally:
        """Select the folder and bring the store up to what the server says.

        Raises:
            Fault: of the session; PROTOCOL where the folder cannot be synced at all.
            ClaimLost: another node runs the account.
        """
        folder = self.record.folder
        cursor = folder.cursor
        method = best_method(self.session.enabled, self.session.capabilities, folder.demoted)
        known = None
        if method is Method.QRESYNC and cursor is not None and cursor.highestmodseq is not None:
            known = Known(cursor.uidvalidity, cursor.highestmodseq)
        selected = await self.session.select(folder.name, known)
        if not selected.uidvalidity:
            raise Fault(FaultKind.PROTOCOL, f"The mail server gives the folder {folder.name} no UIDVALIDITY.")
        stored = await self.record.count()
        plan = plan_sync(cursor, selected, method, stored, asked_qresync=known is not None)
        if plan.distrust is not None:
            await self.record.demote(Method.UID_DIFF, plan.distrust)
        modseq = plan.method is not Method.UID_DIFF
        self._fetcher = Fetcher(
            self.session, self.record.account_id, modseq=modseq, max_body=self._config.max_body,
            large_bodies=self._large_bodies,
        )  # fmt: skip
        tally = Tally()
        await self._follow(plan, selected, tally)
        await self._check_count(plan, tally)
        settled = cursor is not None and cursor.uidvalidity == selected.uidvalidity
        if settled and self.record.cursor.complete:
            await self._forget_former()
        await self.record.finish(plan.method, settled=settled)
        return tally

    async def _forget_former(self) -> None:
        """The folder kept its new numbers: what was not found under them is gone, but many are looked for once more."""
        left = await self.record.former_count()
        if not left:
            return
        if needs_brake(left, left + await self.record.count()):
            async with self._verify() as fresh:
                selected = await fresh.select(self.record.name)
            same = selected.uidvalidity == self.record.cursor.uidvalidity
            if not same or selected.exists != self.session.newsbox.messages:
                return  # the next comparison decides
        await self.record.forget_former()

    async def _follow(self, plan: Plan, selected: SelectedFolder, tally: Tally) -> None:
        for step in plan.steps:
            match step:
                case Step.START_FIRST:
                    await self._begin(selected, plan.method, resync=False)
                case Step.RESYNC:
                    await self._resync(selected, plan.method)
                case Step.APPLY_SELECTED:
                    await self._apply(changes_of(selected.changed.items()), tally)
                    await self._vanish(selected.vanished, tally)
                case Step.FETCH_CHANGED:
                    await self._fetch_changed(tally)
                case Step.COMPARE_FLAGS:
                    await self._compare(tally, flags=True)
                case Step.COMPARE_UIDS:
                    await self._compare(tally, flags=False)
                case Step.FETCH_NEW:
                    await self._settle_modseq(selected)
                    await self._fetch_new(tally)
                    # Everything below the server's UIDNEXT is stored or gone.
                    uidnext = max(self.record.cursor.uidnext, selected.uidnext or 1)
                    await self.record.move(replace(self.record.cursor, uidnext=uidnext))
                case Step.BACKFILL:
                    await self._settle_modseq(selected)
                    await self._backfill(tally)
        await self._settle_modseq(selected)

    async def _settle_modseq(self, selected: SelectedFolder) -> None:
        """All changes up to SELECT's mod-sequence are stored: say so.  What came later is newer, and told again."""
        await self.record.move(replace(self.record.cursor, highestmodseq=selected.highestmodseq))

    async def _check_count(self, plan: Plan, tally: Tally) -> None:
        """The server's count against ours: the cheap proof that nothing was missed on the way here."""
        if not self.record.cursor.complete or self.session.newsbox.any:
            return  # the watch will look at the news, and the next renewal counts again
        if await self.record.count() == self.session.newsbox.messages:
            return
        before = (tally.new, tally.vanished)
        repaired = await self._compare(tally, flags=False)
        if (repaired or before != (tally.new, tally.vanished)) and plan.method is not Method.UID_DIFF:
            reason = f"{plan.method.value} left the folder different from the server"
            await self.record.demote(rung_below(plan.method), reason)

    # -- beginning -----------------------------------------------------------------------------------------------------

    async def _begin(self, selected: SelectedFolder, method: Method, *, resync: bool) -> None:
        uidnext = selected.uidnext
        if uidnext is None:
            uids = await self.session.uids() if selected.exists else ()
            uidnext = uids[-1] + 1 if uids else 1
        cursor = Cursor(selected.uidvalidity, uidnext, selected.highestmodseq, uidnext)

        await self.record.begin(cursor, selected.exists, method, resync=resync)

    async def _resync(self, selected: SelectedFolder, method: Method) -> None:
        if self.record.folder.resyncs >= MAX_RESYNCS:
            raise Fault(
                FaultKind.PROTOCOL,
                f"The mail server renumbered the folder {self.record.name} {MAX_RESYNCS} times in a row.",
                disposition=Disposition.PARK,
            )
        log.warning("folder.renumbered", folder=self.record.name, uidvalidity=selected.uidvalidity)
        await self._begin(selected, method, resync=True)

    async def _backfill(self, tally: Tally) -> None:
        """Fetch downwards from the cursor, newest first, until nothing is left below."""
        below = self.record.cursor.backfill_below
        uids = await self.session.uid_search(b"UID 1:%d" % (below - 1)) if below > 1 else array("I")
        uids = between(uids, 1, below)
        # The newest window by itself: most have a turn for that soon, and many an inbox is complete with it.
        group, turns = self._config.window, self._beginnings
        while uids:
            windows = descending_windows(uids[-group:], self._config.window)
            del uids[-group:]
            async with turns():
                await self._fetcher.windows(windows, partial(self._store_backfill, last=not uids))
            group, turns = GROUP * self._config.window, self._turns
            if uids and self.session.newsbox.any:
                await self.take(self.session.take_news(), tally)
        if not self.record.cursor.complete:
            await self.record.move(replace(self.record.cursor, backfill_below=1))

    async def _store_backfill(self, batch: Batch, *, last: bool) -> None:
        cursor = self.record.cursor
        if batch.done is not None:
            cursor = replace(cursor, backfill_below=min(cursor.backfill_below, batch.done.low))
            if last and batch.done.low == 1:
                cursor = replace(cursor, backfill_below=1)
        await self.record.store_batch(batch, cursor, arrived=False)

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
