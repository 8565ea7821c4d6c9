"""The sync child: one IMAP session that brings the inbox up to date and then watches it.

    wait for a turn ──► connect, log in ──► synchronise ──► watch ──► news: store them ──┐
                                                 ▲            ▲──────────────────────────┘
                                                 └────────────┴── some renewals, "sync now": compare again

It never retries: whatever ends the session ends the child, and its supervisor judges and paces.  Proof of life: IDLE is
renewed before NAT devices forget the connection, and nothing rests on a push having come.  Whenever something has
happened, and at every third renewal in any case, the folder is selected again and compared with the cursor.  Else it
is enough that the server ends IDLE in order, counts as many messages as are stored, and is asked (NOOP) for what it may
have failed to push: ten thousand accounts that are quiet are to cost next to nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from daemon.imap.folder_changes import FolderSyncConfig
from daemon.imap.folder_record import FolderRecord, Store, Tally
from daemon.imap.folder_sync import FolderSync
from daemon.imap.open import open_session
from daemon.imap.session import Session
from daemon.network import Dialer, Endpoint
from daemon.telemetry import metrics
from daemon.vault.secret import Secret

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
"""Renewals in a row without a comparison: so what neither IDLE nor NOOP tells is found within half an hour, as a client
finds it that renews as seldom as RFC 2177 allows."""

TOGETHER: Final = 1.0
"""Seconds of Trio's clock at whose multiples IDLE is renewed.  Twenty accounts that renew together take half the time
of the processor that they take one by one; more of them would hold up somebody's news."""

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


class SyncChild:
    """Runs one account's session; `request` makes it compare again now."""

    __slots__ = (
        "_config", "_dialer", "_failed", "_mailbox", "_pacing", "_probation", "_requested", "_rounds", "_session",
        "_store", "_synced", "_tell", "_wake",
    )  # fmt: skip

    def __init__(
        self,
        *,
        mailbox: Callable[[], Mailbox],
        store: Store,
        dialer: Dialer,
        pacing: Pacing,
        config: SyncConfig,
        tell: Callable[[Command], None],
    ) -> None:
        self._mailbox = mailbox
        self._store = store
        self._dialer = dialer
        self._pacing = pacing
        self._config = config
        self._tell = tell
        self._session: Session | None = None
        self._requested = False
        self._failed = False
        """Whether the last attempt ended before it had caught up: then the next is work that others go before."""
        self._synced = False
        """Whether it has caught up once."""
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
        newcomer = mailbox.newcomer and not self._synced
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
        record = await FolderRecord.open(store, INBOX)
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
        jitter, ready = FIRST_JITTER, False
        while True:
            requested, self._requested = self._requested, False
            began = trio.current_time()
            try:
                with metrics.sync_seconds.time():
                    tally = await sync.run()
            except BaseException:
                self._requested = self._requested or requested  # not served: the next attempt is to
                raise
            proof = self._period(session) + PROOF_MARGIN
            self._tell(CaughtUp(tally.new, proof, began if requested else None))
            if not ready:
                ready, self._failed, self._synced, gate = True, False, True, nullcontext()
                await self._probation.aclose()
                task_status.started()
            await self._watch(session, sync, proof, jitter)
            jitter = RENEWAL_JITTER

    def _period(self, session: Session) -> float:
        return self._config.idle_renewal if session.can_idle else self._config.poll

    async def _watch(self, session: Session, sync: FolderSync, proof: float, jitter: float) -> None:
        """Wait for news and store them, until a comparison is due or was asked for."""
        for renewal in range(LIGHT + 1):
            await self._listen(session, sync, proof, jitter, ask=renewal > 0)
            if renewal == LIGHT or self._requested or not session.can_idle or not sync.unchanged():
                return
            self._tell(CaughtUp(0, proof, None))
            jitter = RENEWAL_JITTER

    async def _listen(self, session: Session, sync: FolderSync, proof: float, jitter: float, *, ask: bool) -> None:
        """Likewise, until the renewal is due."""
        period = self._period(session)
        # Pacing, not cryptography.
        until = trio.current_time() + period * random.uniform(1 - jitter, 1.0)  # noqa: S311
        if period >= TOGETHER_FROM:
            until -= until % TOGETHER
        while not self._requested and (left := until - trio.current_time()) > 0:
            if session.can_idle:
                news, ask = await session.idle(left, ask=ask), False
            else:
                await self._sleep(left)
                await session.noop()
                news = session.take_news()
            if news:
                tally = Tally()
                if (pause := self._rounds.due_in()) > 0:
                    await self._sleep(pause)
                    async with self._pacing.background():
                        await sync.take(news, tally)
                else:
                    await sync.take(news, tally)
                self._rounds.done(tally)
                if session.can_idle:
                    metrics.push_seconds.observe(trio.current_time() - session.news_at)
                left = max(0.0, until - trio.current_time())
                self._tell(CaughtUp(tally.new, left + proof - period, None))

    async def _sleep(self, seconds: float) -> None:
        """Sleep that `request` ends: a session without IDLE has nothing that could be interrupted."""
        self._wake = trio.Event()
        with trio.move_on_after(seconds):
            await self._wake.wait()
        self._wake = None
