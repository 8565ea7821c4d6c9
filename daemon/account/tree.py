"""The supervision tree of one account.

    account (rest_for_one, 5 in 300 s)
    ├─ actor: state and mailbox; in the tree's own task
    └─ (sync, ...): a group, one_for_one within: a broken IMAP session cuts nothing else

Two tasks while idle, no thread.  What the sync child ended in is judged by its disposition: faults of the world are
retried for ever and spend nothing, refused credentials keep it down, and bugs spend the intensity.  Spent, the account
is parked as `internal_error` and the fleet goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import UUID

import structlog
import trio

from daemon.errors import Disposition, Fault, FaultKind
from daemon.imap.folder_record import Store
from daemon.network import Dialer, Lookout
from daemon.storage.database import Database
from daemon.storage.fence import Claim, ClaimLost
from daemon.vault import Tampered, UnknownKey, Vault
from supervisor import (
    Backoff,
    ChildSpec,
    Context,
    Crash,
    Report,
    Restart,
    RestartBudgetSpent,
    Ruling,
    Strategy,
    Supervisor,
)

from . import accounts_store
from .accounts_store import AccountRow, Trouble
from .actor import AccountActor
from .commands import Attempting, Command, RowChanged, SyncEnded, SyncNow
from .judging import INTERNAL_ERROR, Judge, fault_in, lost_claim
from .pacing import Pacing
from .proofs import Proofs
from .states import State
from .sync import Mailbox, SyncChild, SyncConfig

log = structlog.get_logger(__name__)

INTENSITY: Final = 5
PERIOD: Final = 300.0
"""Bugs of ours that one account may spend, in so many seconds, before it is parked."""

STABLE_UPTIME: Final = 300.0
"""Seconds a session must last before its pauses start from the beginning: a server that accepts a login and then drops
it would otherwise be logged into many times a second."""

REFUSED_BEFORE: Final = "The mail server refused these credentials before; enter new ones."
"""What an owner is told who resumes an account without new credentials."""

SHUTDOWN: Final = 10.0
"""Seconds for the tree to end: LOGOUT is bounded by 5, a rollback by 5."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What all accounts of a node share."""

    database: Database
    proofs: Proofs
    dialer: Dialer
    lookout: Lookout
    vault: Vault
    pacing: Pacing
    sync: SyncConfig
    retry_first: float
    retry_longest: float
    faults: Callable[[str], None]
    """Told the kind of every fault, for the metrics."""


class AccountTree:
    """One account, as long as this node has its claim."""

    __slots__ = (
        "_actor",
        "_early",
        "_judge",
        "_not_before",
        "_row",
        "_runtime",
        "_store",
        "_supervisor",
        "_sync",
        "_tried",
        "claim",
        "ended",
        "parked",
    )

    def __init__(self, runtime: Runtime, claim: Claim) -> None:
        self._runtime = runtime
        self.claim = claim
        self._store = Store(runtime.database, claim)
        self._judge = Judge()
        self._actor: AccountActor | None = None
        self._early: dict[type, Command] = {}
        """What the owner asked while no actor took commands: its row may have been read before."""

        self._row: AccountRow | None = None
        self._supervisor: Supervisor | None = None
        self._tried: int | None = None
        """The version of the credentials that the last attempt was made with."""

        self._not_before = 0.0
        """Until when the server asked us to stay away, Trio's time: nobody's wish shortens that."""

        self.parked = False
        """Whether restart intensity was spent, and that is stored: down until the owner changes something."""

        self.ended = False
        """Whether the tree has run and ended."""

        self._sync = SyncChild(
            mailbox=self._mailbox,
            store=self._store,
            dialer=runtime.dialer,
            lookout=runtime.lookout,
            pacing=runtime.pacing,
            config=runtime.sync,
            tell=self._tell,
            renew=self._renew,
        )

    def spec(self) -> ChildSpec:
        """The account as a child of the fleet: temporary, for it restarts its own children and parks itself."""
        return ChildSpec(
            id=str(self.claim.account_id),
            start=self.run,
            restart=Restart.TEMPORARY,
            stop=self.request_stop,
            shutdown=SHUTDOWN,
        )

    @property
    def account_id(self) -> UUID:
        """Whose tree it is."""
        return self.claim.account_id

    @property
    def state(self) -> State | None:
        """The account's state, None before its row was read."""
        return self._actor.state if self._actor is not None else None

    @property
    def heard_at(self) -> float | None:
        """When a watched account last proved to be up to date, Unix time; None while it is not watched."""
        actor = self._actor
        return actor.heard_at if actor is not None and actor.state is State.WATCHING else None

    def request_stop(self) -> None:
        """Ask the tree to end; does not wait."""
        if self._supervisor is not None:
            self._supervisor.request_stop()

    def sync_now(self) -> None:
        """The owner asked for a synchronisation."""
        self._tell(SyncNow())

    def changed(self) -> None:
        """The account's row changed."""
        self._tell(RowChanged())

    # What the actor may do to the sync child

    def request(self) -> None:
        """Compare again soon, or stop pausing before the next attempt, unless the server named the pause."""
        self._sync.request()
        if self._supervisor is not None and trio.current_time() >= self._not_before:
            self._supervisor.wake("sync")

    def restart(self) -> None:
        """Begin anew, with the row as it is now."""
        self._judge.forgive()
        if self._supervisor is not None:
            self._supervisor.restart_child("sync")

    # The children

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the account until asked to stop, its claim is lost, or its intensity is spent (then it is parked)."""
        task_status.started()
        self._supervisor = Supervisor(
            f"account {self.account_id}",
            (
                ChildSpec(id="actor", start=self._run_actor, judge=self._judge_actor, shutdown=1.0),
                (
                    ChildSpec(
                        id="sync",
                        start=self._run_sync,
                        judge=self._judge,
                        shutdown=SHUTDOWN / 2,
                        backoff=Backoff(
                            base=self._runtime.retry_first,
                            cap=self._runtime.retry_longest,
                            stable_uptime=STABLE_UPTIME,
                        ),
                    ),
                ),
            ),
            strategy=Strategy.REST_FOR_ONE,
            intensity=INTENSITY,
            period=PERIOD,
            observers=(self._observe,),
        )
        try:
            await self._supervisor.run()
        except RestartBudgetSpent:
            await self._park()
        finally:
            self.ended = True

    async def _run_actor(self, *, task_status: trio.TaskStatus[None]) -> None:
        row = await self._store.read(accounts_store.load, self.account_id)
        if row is None or row.desired != "running":
            self.request_stop()
            return
        self._row = row
        await self._rewrap(row)
        actor = AccountActor(self._store, self._runtime.proofs, row, control=self, logged_in=self._judge.forgive)
        self._actor = actor
        early, self._early = self._early, {}
        for command in early.values():
            actor.tell(command)
        try:
            await actor.run(task_status=task_status)
        finally:
            actor.mailbox.close()

    async def _run_sync(self, *, task_status: trio.TaskStatus[None]) -> None:
        """The sync child; with credentials that were refused it waits for new ones, whoever starts the tree."""
        actor = self._actor
        if actor is not None and actor.row.refused_version == actor.row.credentials_version:
            task_status.started()
            if actor.state is not State.PARKED:  # it was paused meanwhile, which says nothing of why it is down
                fault = Fault(FaultKind.AUTH_FAILED, REFUSED_BEFORE, disposition=Disposition.PARK)
                self._tell(Attempting())
                self._tell(SyncEnded(fault, None, actor.row.refused_version))
            await trio.sleep_forever()  # until `restart`
        await self._sync.run(task_status=task_status)

    async def _rewrap(self, row: AccountRow) -> None:
        """Put the account's data key under the ring's current key: rotation happens as accounts start."""
        if row.data_key is None:
            return
        try:
            fresh = self._runtime.vault.rewrap(row.id, row.data_key)
        except (UnknownKey, Tampered):
            return  # told when the password is to be opened
        if fresh is not None:
            work = partial(accounts_store.rewrap, account_id=row.id, former=row.data_key, data_key=fresh)
            await self._store.run(work)
            log.info("account.rewrapped", account=str(row.id))

    def _mailbox(self) -> Mailbox:
        """Where to log in, with the password opened for just this attempt."""
        row = self._actor.row if self._actor is not None else self._row
        assert row is not None, "the actor starts first, and reads the row"
        self._tried = row.credentials_version
        assert row.data_key is not None, "the schema keeps credentials with every account that runs"
        assert row.password_sealed is not None, "likewise"
        try:
            password = self._runtime.vault.open(row.id, "password", row.data_key, row.password_sealed)
        except (UnknownKey, Tampered) as exc:
            log.warning("account.unreadable", account=str(row.id), reason=str(exc))
            reason = "The stored credentials cannot be read; enter them again, or restore the server's key file."
            raise Fault(FaultKind.UNREADABLE, reason, disposition=Disposition.PARK) from None
        return Mailbox(
            row.imap, row.username, password, row.owner_id,
            newcomer=row.first_synced_at is None, number=row.mailbox, credentials_version=row.credentials_version,
        )  # fmt: skip

    def _tell(self, command: Command) -> None:
        if self._actor is not None and not self._actor.mailbox.statistics().closed:
            self._actor.tell(command)
        elif isinstance(command, (SyncNow, RowChanged)):
            self._early[type(command)] = command

    def _renew(self, seconds: float, credentials_version: int) -> None:
        if self._actor is not None and not self._actor.mailbox.statistics().closed:
            self._actor.renew(seconds, credentials_version)

    def _judge_actor(self, exc: Exception) -> Ruling:
        if lost_claim(exc):
            self.request_stop()
        return Judge()(exc)

    def _observe(self, report: Report) -> None:
        """Hear what became of a child: the actor stores it, the metrics count it, a bug leaves its traceback."""
        if report.context not in (Context.CHILD_TERMINATED, Context.START_FAILED, Context.BUDGET_SPENT):
            if report.context is not Context.STOPPED:
                log.error("account.supervision", context=report.context.value, child=report.child_id)
            return
        if not isinstance(report.exit, Crash):
            return
        exc = report.exit.exc
        if lost_claim(exc):
            log.info("account.claim_lost", account=str(self.account_id))
            self.request_stop()
            return
        fault = fault_in(exc)
        self._runtime.faults(fault.kind.value if fault is not None else INTERNAL_ERROR)
        if fault is not None and fault.retry_after:
            self._not_before = trio.current_time() + fault.retry_after
        if fault is None:
            log.error("account.bug", account=str(self.account_id), child=report.child_id, exc_info=exc)
        if report.child_id == "sync" and report.context is not Context.BUDGET_SPENT:  # that one, `_park` tells
            self._tell(SyncEnded(fault, report.next_delay, self._tried))

    async def _park(self) -> None:
        """Restart intensity is spent: stay down, and say so."""
        log.error("account.internal_error", account=str(self.account_id))
        reason = "An internal error keeps this account from being synchronised."
        version = self._actor.row.credentials_version if self._actor is not None else None
        parked = Trouble(self.account_id, State.PARKED, INTERNAL_ERROR, reason, None, version)
        try:
            # Not written, it has got new credentials or was stopped: the fleet starts another tree, if it is to run.
            self.parked = await self._store.write(accounts_store.set_trouble, parked)
        except ClaimLost:
            log.info("account.claim_lost", account=str(self.account_id))
