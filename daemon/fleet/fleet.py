"""Reconciling what the database says this node should run with what runs here.

Every ROUND, or as soon as somebody nudges:

    requests for our accounts ──► claim what is free, up to our share ──► give back a surplus
                                            └──► start what we have, stop what we have not

The database is the truth: an account started here is one whose claim names this node and this epoch; any other is
stopped.  A nudge is a hint from the API in this process; other nodes notice within a round.

While the database is away nobody can take an account over, so nothing is stopped: the rounds stand still at the storage
gate, and the first round after it finds out what is still ours.  Whatever an account writes meanwhile waits at the same
gate, and is fenced.
"""

from __future__ import annotations

import math
import os
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import UUID

import structlog
import trio

from daemon.account.tree import AccountTree, Runtime
from daemon.errors import Fault
from daemon.identity import rates_store
from daemon.sharing import audit_store
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.storage.fence import ClaimLost
from supervisor import ChildExists, DynamicSupervisor, NoSuchChild, Report, TooManyChildren

from . import claims_store
from .claims_store import Request
from .share import fair_share, surplus

log = structlog.get_logger(__name__)

ROUND: Final = 1.0
"""Seconds between rounds: how long a request to another node's account may lie, and a free account stay free."""

BEATS: Final = 3
"""Heartbeats in the life of a claim: two may be lost."""

CLAIM_AT_ONCE: Final = 250
"""Accounts claimed in one round; the pacing of logins is the accounts' own."""

TIDY_EVERY: Final = 600.0
"""Seconds between removals of rows that nobody needs."""

STUCK: Final = 120.0
"""Seconds without a round, while the database answers, after which this process is no use: stopping a hundred trees
that have to be abandoned takes 20."""

STOP_AT_ONCE: Final = 100
"""Trees stopped at the same time."""

RELEASE_AT_ONCE: Final = 3
"""Transactions of accounts that have stopped: hundreds are paused at once, and new mail of the others would queue
behind them for the connections of the database (eight, by default)."""


@dataclass(frozen=True, slots=True)
class FleetStatistics:
    """This node's accounts."""

    node: UUID
    running: int
    states: Mapping[str, int]
    rounds: int
    claimed: int
    """Claims won since the start."""
    lost: int
    """Accounts stopped because another node has them."""

    oldest_proof: float | None
    """When the watched account that was heard least recently was last heard, Unix time; None without any."""


class Fleet:
    """The accounts of one node."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        node: UUID,
        capacity: int,
        ttl: float,
        version: str,
        migrated: trio.Event,
        keep_audit: timedelta = timedelta(days=400),
    ) -> None:
        self.node = node
        self._runtime = runtime
        self._database: Database = runtime.database
        self._capacity = capacity
        self._ttl = ttl
        self._version = version
        self._keep_audit = keep_audit
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._trees: dict[UUID, AccountTree] = {}
        self._stopping: set[UUID] = set()
        self._stops: trio.Nursery  # while rounds are made
        self._stop_limit = trio.CapacityLimiter(STOP_AT_ONCE)
        self._releases = trio.Semaphore(RELEASE_AT_ONCE)
        self._dynamic = DynamicSupervisor("fleet", max_children=capacity + STOP_AT_ONCE, observers=(self._observe,))
        self._nudged = trio.Event()
        self._migrated = migrated
        self._joined = trio.Event()
        self._next_tidy = 0.0
        self._rounds = self._claimed = self._lost = 0
        self._mark: claims_store.Mark | None = None  # of what was reconciled last; None when there is more to do
        self._round_at = math.inf  # none is due before the node has joined

    def nudge(self) -> None:
        """There is something new in the database: look now."""
        self._nudged.set()

    def statistics(self) -> FleetStatistics:
        """This node's accounts now."""
        states = Counter(tree.state for tree in self._trees.values())
        named = {state.value: count for state, count in states.items() if state is not None}
        oldest = min((at for tree in self._trees.values() if (at := tree.heard_at) is not None), default=None)
        return FleetStatistics(self.node, len(self._trees), named, self._rounds, self._claimed, self._lost, oldest)

    @property
    def turning(self) -> bool:
        """Whether rounds are made: the last one ended not longer ago than any round should take."""
        return trio.current_time() - self._round_at < STUCK

    # -- children of the root ------------------------------------------------------------------------------------------

    async def run_accounts(self, *, task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED) -> None:
        """The dynamic supervisor of the accounts."""
        self._trees.clear()
        self._mark = None
        await self._dynamic.run(task_status=task_status)

    def stop_accounts(self) -> None:
        """Ask all accounts to end; does not wait."""
        self._dynamic.request_stop()

    async def run_membership(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be a node: registered before any account runs, and gone after the last one has ended."""
        task_status.started()
        try:
            await self._migrated.wait()
            await self._database.run(self._beat)
            if not self._joined.is_set():
                # What a killed predecessor of this identity has under way must not pass the fence any more.
                await self._database.run(partial(claims_store.begin_epoch, node_id=self.node))
                self._joined.set()
            while True:
                await trio.sleep(self._ttl / BEATS)
                await self._database.run(self._beat)
        except trio.Cancelled:  # an orderly end; after a bug of ours the claims stay, and the restarted child goes on
            if self._joined.is_set():
                await self._leave()
            raise

    async def _leave(self) -> None:
        with trio.move_on_after(3.0, shield=True) as scope:  # or the claims expire by themselves
            try:
                given = await self._database.run(partial(claims_store.leave, node_id=self.node), patience=2.0)
                log.info("fleet.left", accounts=given)
            except Fault as fault:
                log.warning("fleet.not_left", reason=fault.reason)
        if scope.cancelled_caught:
            log.warning("fleet.not_left", reason="the database took too long")

    async def run_rounds(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Reconcile until cancelled."""
        task_status.started()
        await self._joined.wait()
        async with trio.open_nursery() as self._stops:
            while True:
                await self._round()
                self._rounds += 1
                self._round_at = trio.current_time()
                with trio.move_on_after(ROUND):
                    await self._nudged.wait()
                self._nudged = trio.Event()

    # -- one round -----------------------------------------------------------------------------------------------------

    async def _round(self) -> None:
        now = trio.current_time()
        if now >= self._next_tidy:
            self._next_tidy = now + TIDY_EVERY
            await self._database.run(claims_store.tidy)
            await self._database.run(rates_store.forget_rested)
            await self._database.run(partial(audit_store.forget_old, keep=self._keep_audit))
        requests, view, mark = await self._database.run(self._look)
        share = fair_share(view.accounts, view.capacities, self._capacity)
        room = min(share - self._staying, CLAIM_AT_ONCE)
        if room > 0:
            await self._claim(room)
        if mark != self._mark:
            await self._reconcile()
        self._deliver(requests)
        if requests:
            await self._database.run(partial(claims_store.forget, requests=[request.id for request in requests]))
        extra = surplus(self._staying, share)
        if extra:
            log.info("fleet.gives_back", accounts=extra)
            staying = [tree for tree in self._trees.values() if tree.account_id not in self._stopping]
            for tree in staying[-extra:]:
                self._begin_stop(tree, released=True)

    @property
    def _staying(self) -> int:
        """Trees that are not being stopped: one that is slow to end takes nobody else's place."""
        return len(self._trees) - len(self._stopping)

    async def _look(self, conn: Conn) -> tuple[list[Request], claims_store.FleetView, claims_store.Mark]:
        """What is asked, what there is, and whether what is ours has changed: all that a quiet round reads.

        The requests first: an account is to be read as its owner's request left it, or later.
        """
        requests = await claims_store.commands(conn, self.node)
        return requests, await claims_store.view(conn), await claims_store.mark(conn, self.node)

    async def _claim(self, room: int) -> None:
        # After an outage of the database every node looks dead until it has had time to say that it lives.
        steady = self._database.statistics().since > self._ttl
        claim = partial(claims_store.claim, node_id=self.node, limit=room, take_over=steady)
        won = await self._database.run(claim)
        self._claimed += len(won)
        if won:
            self._mark = None
            log.info("fleet.claimed", accounts=len(won))
        if len(won) == CLAIM_AT_ONCE:
            self.nudge()  # there may be more

    async def _beat(self, conn: Conn) -> None:
        await claims_store.beat(
            conn, self.node, name=self._name, version=self._version, capacity=self._capacity, ttl=self._ttl
        )

    async def _reconcile(self) -> None:
        """Start what we have, stop what we have not.  What cannot be done now leaves no mark: the next round tries."""
        found = await self._database.run(partial(claims_store.owned, node_id=self.node))
        self._mark = found.mark
        owned = {claim.account_id: claim for claim in found.claims}
        for tree in list(self._trees.values()):
            if owned.get(tree.account_id) != tree.claim:
                self._begin_stop(tree, released=tree.account_id not in owned)
        for account_id, claim in owned.items():
            if account_id not in self._trees:
                if self._staying < self._capacity:
                    self._start(AccountTree(self._runtime, claim))
                else:
                    self._mark = None

    def _start(self, tree: AccountTree) -> None:
        try:
            self._dynamic.start_child(tree.spec())
        except (ChildExists, TooManyChildren) as exc:
            log.warning("fleet.start_postponed", account=str(tree.account_id), reason=str(exc))
            self._mark = None  # the next round tries again
            return
        self._trees[tree.account_id] = tree

    def _begin_stop(self, tree: AccountTree, *, released: bool) -> None:
        """Stop a tree without keeping the round waiting; its account is not started again before it has ended."""
        if tree.account_id not in self._stopping:
            self._stopping.add(tree.account_id)
            self._stops.start_soon(self._stop, tree, released)

    async def _stop(self, tree: AccountTree, released: bool) -> None:
        """Stop first, then release, so that no account runs twice; what is another node's by now is left alone."""
        try:
            async with self._stop_limit:
                with suppress(NoSuchChild):  # it ended by itself
                    await self._dynamic.stop_child(str(tree.account_id))
            if released:
                await self._release(tree)
        finally:
            self._stopping.discard(tree.account_id)
            if self._trees.get(tree.account_id) is tree:
                del self._trees[tree.account_id]
            self._mark = None
        self.nudge()

    async def _release(self, tree: AccountTree) -> None:
        stopped = partial(claims_store.mark_stopped, account_id=tree.account_id)
        try:
            await self._database.run(stopped, claim=tree.claim, gate=lambda: self._releases)
        except ClaimLost:
            self._lost += 1
        else:
            # In a transaction of its own: the fence's shared lock and the update would be one node's deadlock.
            release = partial(claims_store.release, claims=[tree.claim])
            await self._database.run(release, gate=lambda: self._releases)

    def _deliver(self, requests: Sequence[Request]) -> None:
        for request in requests:
            tree = self._trees.get(request.account_id)
            if tree is None or request.account_id in self._stopping:
                continue  # it reads its row when it starts
            if tree.parked:
                # A bug parked it; the owner wants something of it, so it may try again.
                self._begin_stop(tree, released=False)
            elif request.kind == "sync":
                tree.sync_now()
            else:
                tree.changed()

    def _observe(self, report: Report) -> None:
        """A tree has ended by itself: forget it, unless it is parked, and look again."""
        account_id = UUID(report.child_id)
        tree = self._trees.get(account_id)
        if tree is not None and tree.ended and not tree.parked and account_id not in self._stopping:
            del self._trees[account_id]
            self._mark = None
            self.nudge()
