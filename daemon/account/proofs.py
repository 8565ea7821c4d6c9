"""The proofs of a node's accounts that only renew the last one: stored for all together.

A renewal of IDLE that shows nothing new changes three columns of a row, nineteen times a second with ten thousand
accounts.  None of them is worth a step of its account's actor, nor a transaction: one task stores what has come, in one
statement.  A proof outlives its renewal by 90 s (`sync.PROOF_MARGIN`), so it can wait for the next.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

import trio

from daemon.storage.fence import fence_all
from daemon.storage.together import Locked

from . import accounts_store
from .accounts_store import Renewed

if TYPE_CHECKING:
    from daemon.storage.connection import Conn
    from daemon.storage.database import Database
    from daemon.storage.fence import Claim

EVERY: Final = 2.0
"""Seconds between two transactions: the renewals of forty accounts."""

MOST: Final = 500
"""Proofs of one transaction, for they hold their rows until it ends: more come only after the database was away."""


class Proofs:
    """Those of one node that are to be stored."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._until: dict[Claim, float] = {}
        """Trio's time at which each is over; the last one counts."""
        self._some = trio.Event()

    def renew(self, claim: Claim, seconds: float) -> None:
        """The account that is claimed so is as its row says, and that holds for so many seconds from now."""
        self._until[claim] = trio.current_time() + seconds
        self._some.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Store them until cancelled; waits while the database is away."""
        task_status.started()
        while True:
            await self._some.wait()
            self._some = trio.Event()
            await trio.sleep_until(math.ceil(trio.current_time() / EVERY) * EVERY)
            while self._until:
                await self.store()

    async def store(self) -> None:
        """Store what has come, MOST of it at most."""
        batch = dict(islice(self._until.items(), MOST))
        if not batch:
            return
        await self._database.run(partial(_store, until=batch))
        for claim, until in batch.items():
            if self._until.get(claim) == until:  # else it was renewed meanwhile, or taken back
                del self._until[claim]


async def _store(conn: Conn, until: dict[Claim, float]) -> None:
    """Store those whose accounts are still ours, and whose row is not locked.

    Whoever holds a row writes a newer proof, or that there is trouble.
    """
    now = conn.begun_at
    held = await fence_all(conn, list(until))
    renewed = [Renewed(claim.account_id, until[claim] - now) for claim in held if until[claim] > now]
    if renewed:
        await accounts_store.set_renewed(conn, renewed, Locked.SKIP)
