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
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import UUID

import structlog
import trio

from daemon.account.tree import AccountTree, Runtime
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.storage.fence import Claim, ClaimLost, fence
from supervisor import DynamicSupervisor, NoSuchChild, Report

from . import claims_store
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
        self, runtime: Runtime, *, node: UUID, capacity: int, ttl: float, version: str, migrated: trio.Event
    ) -> None:
        self.node = node
        self._runtime = runtime
        self._database: Database = runtime.database
        self._capacity = capacity
        self._ttl = ttl
        self._version = version
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._trees: dict[UUID, AccountTree] = {}
        self._dynamic = DynamicSupervisor("fleet", max_children=capacity + STOP_AT_ONCE, observers=(self._observe,))
        self._nudged = trio.Event()
        self._migrated = migrated
        self._joined = trio.Event()
        self._next_tidy = 0.0
        self._rounds = self._claimed = self._lost = 0
        self._round_at = math.inf  # none is due before the node has joined

    def nudge(self) -> None:
        """There is something new in the database: look now."""
        self._nudged.set()

    def statistics(self) -> FleetStatistics:
        """This node's accounts now."""
        states = Counter(tree.state.value for tree in self._trees.values() if tree.state is not None)
        proofs = [tree.heard_at for tree in self._trees.values() if tree.heard_at is not None]
        oldest = min(proofs, default=None)
        return FleetStatistics(self.node, len(self._trees), states, self._rounds, self._claimed, self._lost, oldest)

    @property
    def turning(self) -> bool:
        """Whether rounds are made: the last one ended not longer ago than any round should take."""
        return trio.current_time() - self._round_at < STUCK

    # -- children of the root ------------------------------------------------------------------------------------------

    async def run_accounts(self, *, task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED) -> None:
        """The dynamic supervisor of the accounts."""
        self._trees.clear()
        await self._dynamic.run(task_status=task_status)

    def stop_accounts(self) -> None:
        """Ask all accounts to end; does not wait."""
        self._dynamic.request_stop()

    async def run_membership(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be a node: registered before any account runs, and gone after the last one has ended."""
        task_status.started()
        await self._migrated.wait()
        await self._database.run(self._beat)
        self._joined.set()
        try:
            while True:
                await trio.sleep(self._ttl / BEATS)
                await self._database.run(self._beat)
        finally:
            with trio.move_on_after(3.0, shield=True) as scope:  # or the claims expire by themselves
                given = await self._database.run(partial(claims_store.leave, node_id=self.node), patience=2.0)
                log.info("fleet.left", accounts=given)
            if scope.cancelled_caught:
                log.warning("fleet.left_late")

    async def run_rounds(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Reconcile until cancelled."""
        task_status.started()
        await self._joined.wait()
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
        requests = await self._database.run(partial(claims_store.take_commands, node_id=self.node))
        view = await self._database.run(claims_store.view)
        share = fair_share(view.accounts, view.capacities, self._capacity)
        room = min(share - len(self._trees), CLAIM_AT_ONCE)
        if room > 0:
            won = await self._database.run(partial(claims_store.claim, node_id=self.node, limit=room))
            self._claimed += len(won)
            if won:
                log.info("fleet.claimed", accounts=len(won))
        owned = {c.account_id: c for c in await self._database.run(partial(claims_store.owned, node_id=self.node))}
        await self._reconcile(owned)
        self._deliver(requests)
        extra = surplus(len(self._trees), share)
        if extra:
            await self._give_back([tree.claim for tree in list(self._trees.values())[-extra:]])

    async def _beat(self, conn: Conn) -> None:
        await claims_store.beat(
            conn, self.node, name=self._name, version=self._version, capacity=self._capacity, ttl=self._ttl
        )

    async def _reconcile(self, owned: Mapping[UUID, Claim]) -> None:
        leaving = [tree for tree in self._trees.values() if owned.get(tree.account_id) != tree.claim]
        for start in range(0, len(leaving), STOP_AT_ONCE):
            async with trio.open_nursery() as nursery:
                for tree in leaving[start : start + STOP_AT_ONCE]:
                    nursery.start_soon(self._stop, tree, owned.get(tree.account_id))
        for account_id, claim in owned.items():
            if account_id not in self._trees:
                tree = AccountTree(self._runtime, claim)
                self._trees[account_id] = tree
                self._dynamic.start_child(tree.spec())

    async def _stop(self, tree: AccountTree, successor: Claim | None) -> None:
        """Stop an account that is not ours under this claim, or that its owner stopped."""
        await self._end(tree)
        if successor is not None:
            return  # ours again, in a later epoch

        async def settle(conn: Conn) -> None:
            await fence(conn, tree.claim)
            await claims_store.mark_stopped(conn, tree.account_id)

        try:
            await self._database.run(settle)
        except ClaimLost:
            self._lost += 1
            return
        await self._database.run(partial(claims_store.release, claims=[tree.claim]))

    async def _give_back(self, claims: list[Claim]) -> None:
        """Other nodes have less to do: stop first, then release, so that no account runs twice."""
        log.info("fleet.gives_back", accounts=len(claims))
        async with trio.open_nursery() as nursery:
            for claim in claims:
                nursery.start_soon(self._end, self._trees[claim.account_id])
        await self._database.run(partial(claims_store.release, claims=claims))

    async def _end(self, tree: AccountTree) -> None:
        with suppress(NoSuchChild):  # it ended by itself
            await self._dynamic.stop_child(str(tree.account_id))
        self._trees.pop(tree.account_id, None)

    def _deliver(self, requests: list[tuple[UUID, str]]) -> None:
        for account_id, kind in requests:
            tree = self._trees.get(account_id)
            if tree is None:
                continue  # stopped in this round, by the same request
            if tree.parked:
                # A bug parked it; the owner wants something of it, so it may try again.
                self._trees.pop(account_id)
                self.nudge()
            elif kind == "sync":
                tree.sync_now()
            else:
                tree.changed()

    def _observe(self, report: Report) -> None:
        """An account's tree has ended by itself: forget it, unless it is parked, and look again."""
        account_id = UUID(report.child_id)
        tree = self._trees.get(account_id)
        if tree is not None and not tree.parked:
            del self._trees[account_id]
            self.nudge()
