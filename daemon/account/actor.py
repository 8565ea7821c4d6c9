"""The actor of one account: owns its state, and is the only one who writes it.

    API ──► command row ──► fleet ──cast──► mailbox ──► actor ──► accounts row, events
                                               ▲
                              sync child ──cast┘   (what happened)

The sync child tells what happened and its supervisor what follows; the actor turns both into the one stored state, by
the transition table.  It acts on the sync child only through the supervisor: wake it from a pause, start it again.

How an attempt ended is stored at once.  How far one has come is stored when that lasts: most attempts end within
seconds, and a thousand at a start would write thrice what is true for a moment.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final, Protocol
from uuid import UUID

import structlog
import trio

from daemon.errors import FaultKind
from daemon.imap.folder_record import Store
from supervisor import Mailbox, MailboxFull

from . import accounts_store
from .accounts_store import AccountRow, Proof, Step, Trouble
from .commands import Attempting, CaughtUp, Command, LoggedIn, RowChanged, SyncEnded, SyncNow
from .judging import INTERNAL_ERROR
from .proofs import Proofs
from .states import Event, State, next_state

log = structlog.get_logger(__name__)

CAPACITY: Final = 64
"""Commands that may wait: a session makes a handful, the owner's requests are coalesced in the database."""

TELL_AFTER: Final = 1.0
"""Seconds for which an attempt may go on before its owner reads how far it has come."""

TELL_PROVED_AFTER: Final = 10.0
"""Likewise while the row says that the account is up to date and its proof is fresh, which stays true when a node has
restarted and connects again; the status follows by itself when the proof is over."""


class SyncControl(Protocol):
    """What the actor may do to the sync child."""

    def request(self) -> None:
        """Compare again soon, or stop pausing before the next attempt."""

    def restart(self) -> None:
        """Begin anew, with the row as it is now."""


class AccountActor:
    """One account's state and mailbox, for one life of its tree."""

    __slots__ = (
        "_control", "_logged_in", "_missed", "_new_messages", "_proofs", "_store", "_stored", "_tell_at", "account_id",
        "heard_at", "mailbox", "row", "state",
    )  # fmt: skip

    def __init__(
        self, store: Store, proofs: Proofs, row: AccountRow, *, control: SyncControl, logged_in: Callable[[], None]
    ) -> None:
        self._store = store
        self._proofs = proofs
        self._control = control
        self._logged_in = logged_in
        self.account_id: UUID = row.id
        self.row = row
        self.state = State(row.state)
        self._stored = self.state
        self._new_messages = row.new_messages  # nobody else counts them while the account is ours
        self._tell_at = math.inf
        """When the state is to be stored if it is not until then, Trio's time."""

        self.heard_at: float | None = None
        """When its server last proved it to be up to date, Unix time."""

        self.mailbox: Mailbox[Command] = Mailbox(CAPACITY)
        self._missed: set[type] = set()

    def tell(self, command: Command) -> None:
        """Put a command into the mailbox.

        It fills only while the database is away.  Then what is merely progress is left out first, so that there is room
        for how an attempt ended; and what the owner asked is kept beside the mailbox, once.
        """
        crowded = self.mailbox.statistics().queued >= CAPACITY // 2
        if crowded and isinstance(command, (Attempting, LoggedIn)):
            return
        try:
            self.mailbox.cast(command)
        except MailboxFull:
            log.warning("account.mailbox_full", command=type(command).__name__)
            self._missed.add(type(command))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take commands until cancelled.

        Raises:
            ClaimLost: another node runs the account.
        """
        structlog.contextvars.bind_contextvars(account=str(self.account_id))
        task_status.started()
        if self.row.sync_pending:
            self._control.request()
        while True:
            command = await self.mailbox.receive(self._tell_at)
            if command is not None:
                await self._handle(command)
            if self._tell_at <= trio.current_time():
                await self._store_progress()
            if self._missed:
                await self._catch_up_on_missed()

    async def _catch_up_on_missed(self) -> None:
        """What found no room: the owner's wishes are carried out once; a lost end of an attempt begins it anew."""
        missed, self._missed = self._missed, set()
        if RowChanged in missed:
            await self._reload()
        if SyncEnded in missed:
            self._control.restart()
        elif SyncNow in missed or CaughtUp in missed:
            self._control.request()

    async def _handle(self, command: Command) -> None:
        match command:
            case SyncNow():
                if self.state is not State.PARKED:
                    self._control.request()
            case RowChanged():
                await self._reload()
            case Attempting():
                await self._enter(Event.ATTEMPT)
            case LoggedIn():
                self._logged_in()
                await self._enter(Event.LOGGED_IN)
            case CaughtUp():
                await self._caught_up(command)
            case SyncEnded():
                await self._ended(command)

    async def _reload(self) -> None:
        """The row changed: new credentials or endpoints begin anew, whatever the state was."""
        row = await self._store.read(accounts_store.load, self.account_id)
        if row is None:
            return
        changed = row.credentials_version != self.row.credentials_version
        self.row = row
        if changed:
            self._stored = State(row.state)  # by whoever changed it
            self._control.restart()
            if row.sync_pending:  # the run that served it may have been of the former credentials
                self._control.request()

    async def _enter(self, event: Event) -> None:
        """A step of an attempt; what the last one failed of stays readable until this one has caught up."""
        self.state = next_state(self.state, event)
        if self.state is self._stored:
            self._tell_at = math.inf
        elif self._tell_at == math.inf:
            proved = self._stored is State.WATCHING and self.row.proved
            self._tell_at = trio.current_time() + (TELL_PROVED_AFTER if proved else TELL_AFTER)

    async def _store_progress(self) -> None:
        """Store how far the attempt has come."""
        await self._store.write(accounts_store.set_progress, Step(self.account_id, self.state))
        self._is_stored(self.state)

    def _is_stored(self, state: State) -> None:
        self.state = self._stored = state
        self._tell_at = math.inf

    def renew(self, seconds: float, credentials_version: int) -> None:
        """The session has proved again that nothing is new: no command, for ten thousand accounts say so all the time.

        Where the row says something else, or will, it is one.
        """
        if self.state is self._stored is State.WATCHING and self.heard_at is not None:
            self.heard_at = time.time()
            self._proofs.renew(self._store.claim, seconds)
        else:
            self.tell(CaughtUp(0, seconds, None, credentials_version))

    async def _caught_up(self, done: CaughtUp) -> None:
        """Store the proof; of credentials that have been replaced it says nothing, nor does it serve a request."""
        version = done.credentials_version
        if version != self.row.credentials_version:
            if done.began is not None:
                self._control.request()
            return
        state = next_state(self.state, Event.CAUGHT_UP)
        total = self._new_messages + done.new_messages
        proof = Proof(self.account_id, self.row.email, done.new_messages, total, done.proof, done.began, version)
        if await self._store.write(accounts_store.set_caught_up, proof):
            log.info("account.synced")
        self._new_messages = total
        self.heard_at = time.time()
        self._is_stored(state)

    async def _ended(self, ended: SyncEnded) -> None:
        fault = ended.fault
        code = fault.kind.value if fault is not None else INTERNAL_ERROR
        reason = fault.reason if fault is not None else "An internal error stopped the synchronisation."
        if ended.retry_in is None:
            event = Event.GIVEN_UP
        else:
            event = Event.FAULT if fault is not None else Event.BUG
        refused = fault is not None and fault.kind in (FaultKind.AUTH_FAILED, FaultKind.PASSWORD_UNSUPPORTED)
        refused = refused and event is Event.GIVEN_UP
        state = next_state(self.state, event)
        trouble = Trouble(
            self.account_id, state, code, reason, ended.retry_in, ended.credentials_version, refused=refused
        )
        if not await self._store.write(accounts_store.set_trouble, trouble):
            # Its owner has mended it meanwhile, or stopped it: the fleet says so, and that is carried out then.
            log.info("account.ended_late", code=code, reason=reason)
            self._tell_at = math.inf
            return
        if ended.retry_in is None:
            log.warning("account.parked", code=code, reason=reason)
        else:
            log.info("account.retrying", code=code, reason=reason, retry_in=round(ended.retry_in, 1))
        self._is_stored(state)
