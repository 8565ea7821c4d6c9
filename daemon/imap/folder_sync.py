"""Bringing one folder up to date: follow the plan, store what the server says, move the cursor.

    select ──► plan (pure) ──► steps in order ──► compare counts ──► synced
                 ▲                                     │ they differ
                 └────────── watch: renewal, news ◄────┘ compare UIDs, and take the folder a rung down

The steps themselves are in `folder_changes`.
"""

from __future__ import annotations

from array import array
from dataclasses import replace
from functools import partial
from typing import Final

import structlog

from daemon.errors import Disposition, Fault, FaultKind

from .fetching import Batch, Fetcher, changes_of, descending_windows
from .folder_changes import GROUP, FolderChanges
from .folder_record import Tally
from .plan import Cursor, Method, Plan, Step, best_method, needs_brake, plan_sync, rung_below
from .selected import Known, SelectedFolder
from .uidarray import between
from .watch import NOOP, Question

log = structlog.get_logger(__name__)

MAX_RESYNCS: Final = 5
"""UIDVALIDITY changes in a row before the account is parked: a server that makes one up at each login never ends."""


class FolderSync(FolderChanges):
    """One folder of one account, over the life of one session."""

    __slots__ = ()

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
        known = self._known(method)
        selected = await self.session.select(folder.name, known)
        if not selected.uidvalidity:
            raise Fault(FaultKind.PROTOCOL, f"The mail server gives the folder {folder.name} no UIDVALIDITY.")
        stored = await self.record.count()
        plan = plan_sync(
            cursor, selected, method, stored, asked_qresync=known is not None, moved=self.record.moved
        )
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

    # -- renewals ------------------------------------------------------------------------------------------------------

    def question(self) -> Question | None:
        """What to ask, when IDLE is renewed, to know that nothing is new; None when only another run tells.

        Where mod-sequences tell all changes, it is what a run begins with, and its answer is to say what the last run
        has left: then another run would do nothing.  Elsewhere it is NOOP, which does not prove that much: who asks
        takes care that a run comes from time to time.
        """
        session, record = self.session, self.record
        cursor, folder = record.cursor, record.folder
        if not cursor.complete or session.newsbox.any or record.settled != session.newsbox.messages:
            return None
        method = best_method(session.enabled, session.capabilities, folder.demoted)
        if method is Method.UID_DIFF or cursor.highestmodseq is None:
            return NOOP
        return session.look_again(folder.name, self._known(method), self._is_settled)

    def _known(self, method: Method) -> Known | None:
        """What SELECT is to tell the differences from, where it can; a former mailbox's numbers are not asked about."""
        cursor = self.record.folder.cursor
        if method is not Method.QRESYNC or cursor is None or cursor.highestmodseq is None or self.record.moved:
            return None
        return Known(cursor.uidvalidity, cursor.highestmodseq)

    def _is_settled(self, selected: SelectedFolder) -> bool:
        """Whether SELECT describes the folder as the store has it, to the last number."""
        cursor = self.record.cursor
        there = (selected.uidvalidity, selected.highestmodseq, selected.exists)
        return (
            there == (cursor.uidvalidity, cursor.highestmodseq, self.record.settled)
            and selected.uidnext in (None, cursor.uidnext)
            and not (selected.changed or selected.vanished or selected.overflowed)
        )

    # -- beginning -----------------------------------------------------------------------------------------------------

    async def _begin(self, selected: SelectedFolder, method: Method, *, resync: bool) -> None:
        uidnext = selected.uidnext
        if uidnext is None:
            uids = await self.session.uids() if selected.exists else ()
            uidnext = uids[-1] + 1 if uids else 1
        cursor = Cursor(selected.uidvalidity, uidnext, selected.highestmodseq, uidnext)

        await self.record.begin(cursor, selected.exists, method, resync=resync)

    async def _resync(self, selected: SelectedFolder, method: Method) -> None:
        if self.record.moved:
            log.info("folder.moved", folder=self.record.name, uidvalidity=selected.uidvalidity)
            await self._begin(selected, method, resync=True)
            return
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
