"""The sync child: one IMAP session that brings the inbox up to date and then watches it.

    wait for a turn ──► connect, log in ──► synchronise ──► watch ──► news: store them ──┐
                                                 ▲            ▲──────────────────────────┘
                                                 └────────────┴── "sync now", something is different: compare again

It never retries: whatever ends the session ends the child, and its supervisor judges and paces.  Proof of life: IDLE is
renewed before NAT devices forget the connection, and nothing rests on a push having come: each renewal compares the
folder with the cursor, or every third where the server has no mod-sequences.  Ten thousand accounts that are quiet are
to cost next to nothing, so the node's lookout renews them, and this task wakes up where something is different.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

import trio

from daemon.imap.folder_changes import FolderSyncConfig
from daemon.imap.folder_record import FolderRecord, Store, Tally
from daemon.imap.folder_sync import FolderSync
from daemon.imap.news import News
from daemon.imap.open import open_session
from daemon.imap.session import Session
from daemon.imap.watch import NOOP, Question
from daemon.network import Dialer, Endpoint, Lookout
from daemon.telemetry import metrics
from daemon.vault.secret import Secret

from . import accounts_store
from .behind import BehindStore
from .commands import Attempting, CaughtUp, Command, LoggedIn
from .pacing import Pacing
from .rounds import Rounds
from .turns import Turn, Turns, kept_alive

INBOX: Final = "INBOX"

PROOF_MARGIN: Final = 90.0
"""Seconds by which a proof outlives the renewal that is to replace it: the renewal itself takes a while, most of all
when the folder is large or the machine is busy."""

RENEWAL_JITTER: Final = 0.1
"""Share by which renewals are shortened at random."""

FIRST_JITTER: Final = 0.8
"""Likewise for the first renewal of a session: ten thousand accounts started together must not renew together.  With
the usual tenth they would all come within a minute, and so again and again for an hour."""


LIGHT: Final = 2
"""Renewals in a row without a run, where only a run compares (no mod-sequences): so what neither IDLE nor NOOP tells is
found within half an hour, as a client finds it that renews as seldom as RFC 2177 allows."""

TOGETHER: Final = 1.0
"""Seconds of Trio's clock at whose multiples IDLE is renewed: twenty accounts that renew together take half the time of
the processor that they take one by one, and more of them would hold up somebody's news."""

TOGETHER_FROM: Final = 20.0
"""Seconds of a period from which that is so: of a shorter one it would be too large a part."""


@dataclass(frozen=True, slots=True)
class SyncConfig:
    """What the operator set."""

    folder: FolderSyncConfig
    idle_renewal: float
    poll: float


@dataclass(frozen=True, slots=True)
class Mailbox:
    """The IMAP side of an account."""

    endpoint: Endpoint
    username: str
    password: Secret
    owner: str
    """Whose account it is."""
    newcomer: bool
    """Whether it was never synchronised."""
    number: int
    """Which of the account's mailboxes it is, one after the other."""
    credentials_version: int
    """Of the login."""


class SyncChild:
    """Runs one account's session; `request` makes it compare again now."""

    __slots__ = (
        "_config", "_dialer", "_failed", "_lookout", "_mailbox", "_pacing", "_probation", "_renew", "_requested",
        "_rounds", "_session", "_store", "_synced", "_tell", "_version", "_wake",
    )  # fmt: skip

    def __init__(
        self,
        *,
        mailbox: Callable[[], Mailbox],
        store: Store,
        dialer: Dialer,
        lookout: Lookout,
        pacing: Pacing,
        config: SyncConfig,
        tell: Callable[[Command], None],
        renew: Callable[[float, int], None],
    ) -> None:
        self._mailbox = mailbox
        self._store = store
        self._dialer = dialer
        self._lookout = lookout
        self._pacing = pacing
        self._config = config
        self._tell = tell
        self._renew = renew
        """Told, without waiting, that a proof is renewed, for how many seconds it holds, and of which credentials."""
        self._session: Session | None = None
        self._requested = False
        self._failed = False
        """Whether the last attempt ended before it had caught up: then the next is work that others go before."""
        self._synced: int | None = None
        """The mailbox that it has caught up with once."""
        self._wake: trio.Event | None = None

    def request(self) -> None:
        """Compare the folder with the server soon; in the middle of a comparison, once more after it."""
        self._requested = True
        if self._wake is not None:
            self._wake.set()
        if self._session is not None:
            self._session.interrupt()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Connect, synchronise, watch; returns never.  Ready once it has caught up.

        Raises:
            Fault: what the world did.
            ClaimLost: another node runs the account.
        """
        self._tell(Attempting())
        mailbox = self._mailbox()
        again, self._failed = self._failed, True  # until it has caught up
        newcomer = mailbox.newcomer and self._synced != mailbox.number
        then = self._pacing.background if again else self._pacing.beginnings if newcomer else None
        async with AsyncExitStack() as self._probation, self._opened(mailbox, then) as session:
            self._tell(LoggedIn())
            if again:  # only now: a host that does not answer would have the turn and have no use for it
                turn = kept_alive(self._pacing.background, session.noop)
                await self._probation.enter_async_context(turn)
            self._session = session
            try:
                await self._work(session, mailbox, task_status)
            finally:
                self._session = None

    def _opened(self, mailbox: Mailbox, then: Turns | None = None) -> AbstractAsyncContextManager[Session]:
        return self._pacing.paced(
            (mailbox.endpoint.host, mailbox.endpoint.port),  # who holds up another port holds up nobody here
            open_session(self._dialer, mailbox.endpoint, mailbox.username, mailbox.password),
            account=self._store.claim.account_id,
            owner=mailbox.owner,
            then=then,
        )

    async def _work(self, session: Session, mailbox: Mailbox, task_status: trio.TaskStatus[None]) -> None:
        await session.enable(b"QRESYNC", b"CONDSTORE")
        gate: AbstractAsyncContextManager[object] = self._pacing.behind
        store = BehindStore(self._store.database, self._store.claim, lambda: gate)
        record = await FolderRecord.open(store, INBOX, mailbox.number)
        sync = FolderSync(
            session,
            record,
            self._config.folder,
            verify=lambda: self._opened(mailbox),
            large_bodies=Turn(self._pacing.large_bodies),
            turns=partial(kept_alive, self._pacing.first_syncs, session.noop),
            beginnings=partial(kept_alive, self._pacing.beginnings, session.noop),
        )
        self._rounds = Rounds()
        self._version = mailbox.credentials_version
        jitter, ready = FIRST_JITTER, False
        while True:
            requested, self._requested = self._requested, False
            began = None
            try:
                if requested:
                    began = await self._store.read(accounts_store.clock, None)
                with metrics.sync_seconds.time():
                    tally = await sync.run()
            except BaseException:
                self._requested = self._requested or requested  # not served: the next attempt is to
                raise
            period = self._config.idle_renewal if session.can_idle else self._config.poll
            if ready:
                self._proved(tally.new, period + PROOF_MARGIN, began)
            else:  # always told: the actor may have the end of the last session still before it
                self._tell(CaughtUp(tally.new, period + PROOF_MARGIN, began, self._version))
                ready, self._failed, self._synced, gate = True, False, mailbox.number, nullcontext()
                await self._probation.aclose()
                task_status.started()
            await self._watch(session, sync, jitter)
            jitter = RENEWAL_JITTER

    async def _watch(self, session: Session, sync: FolderSync, jitter: float) -> None:
        """Wait for news and store them, until another run is due or was asked for."""
        if not session.can_idle:
            await self._poll(session, sync, jitter)
            return
        renewals = _Renewals(sync, self._config.idle_renewal, jitter, self._renewed)
        while not (self._requested or renewals.over):
            news = await session.watch(renewals, self._lookout)
            if news:
                tally = await self._take(sync, news)
                metrics.push_seconds.observe(trio.current_time() - session.news_at)
                self._heard(tally, renewals.due_at)

    async def _poll(self, session: Session, sync: FolderSync, jitter: float) -> None:
        """Likewise, of a server that has no IDLE: ask once in a period."""
        due_at = _next(self._config.poll, jitter)
        while not self._requested and (left := due_at - trio.current_time()) > 0:
            await self._sleep(left)
            await session.noop()
            if news := session.take_news():
                self._heard(await self._take(sync, news), due_at)

    async def _take(self, sync: FolderSync, news: News) -> Tally:
        tally = Tally()
        if (pause := self._rounds.due_in()) > 0:
            await self._sleep(pause)
            async with self._pacing.background():
                await sync.take(news, tally)
        else:
            await sync.take(news, tally)
        self._rounds.done(tally)
        return tally

    def _heard(self, tally: Tally, due_at: float) -> None:
        """News are stored: a proof that lasts as long as the one of the renewal that is due next."""
        self._proved(tally.new, max(0.0, due_at - trio.current_time()) + PROOF_MARGIN, None)

    def _proved(self, new: int, seconds: float, began: datetime | None) -> None:
        """The folder equals the server's; where that tells the actor nothing, it has no step of it."""
        if new or began is not None:
            self._tell(CaughtUp(new, seconds, began, self._version))
        else:
            self._renewed(seconds)

    def _renewed(self, seconds: float) -> None:
        self._renew(seconds, self._version)

    async def _sleep(self, seconds: float) -> None:
        """Sleep that `request` ends: a session without IDLE has nothing that could be interrupted."""
        self._wake = trio.Event()
        with trio.move_on_after(seconds):
            await self._wake.wait()
        self._wake = None


class _Renewals:
    """Those of one watch (`daemon.imap.watch.Renewals`)."""

    __slots__ = ("_light", "_period", "_renew", "_sync", "due_at")

    def __init__(self, sync: FolderSync, period: float, jitter: float, renew: Callable[[float], None]) -> None:
        self._sync = sync
        self._period = period
        self._renew = renew
        self._light = LIGHT
        self.due_at = _next(period, jitter)

    @property
    def over(self) -> bool:
        """Whether a run is due: the time has come, and no renewal has shown yet that there is nothing to do."""
        return trio.current_time() >= self.due_at

    def question(self) -> Question | None:
        """What is to be asked now."""
        question = self._sync.question()
        if question is NOOP:
            self._light -= 1
            return question if self._light >= 0 else None
        return question

    def renewed(self) -> None:
        """Nothing is new."""
        metrics.renewals.inc()
        self.due_at = _next(self._period, RENEWAL_JITTER)
        self._renew(self._period + PROOF_MARGIN)


def _next(period: float, jitter: float) -> float:
    """When a renewal is due whose predecessor is just over."""
    # Pacing, not cryptography.
    due_at = trio.current_time() + period * random.uniform(1 - jitter, 1.0)  # noqa: S311
    return due_at - due_at % TOGETHER if period >= TOGETHER_FROM else due_at
