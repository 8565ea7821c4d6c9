"""The proofs of a node's accounts that only renew the last one: stored for all together.

A renewal of IDLE that shows nothing new changes three columns of a row, nineteen times a second with ten thousand
accounts.  None of them is worth a step of its account's actor, nor a transaction: one task stores what has come, in one
statement.  A proof outlives its renewal by 90 s (`sync.PROOF_MARGIN`), so it can wait for the next.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from daemon.storage.fence import fence_all
from daemon.storage.together import Locked

from . import accounts_store
from .accounts_store import Renewed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.storage.connection import Conn
    from daemon.storage.database import Database
    from daemon.storage.fence import Claim

EVERY: Final = 2.0
"""Seconds between two transactions: the renewals of forty accounts."""

MOST: Final = 500
"""Proofs of one transaction, for they hold their rows until it ends: more come only after the database was away."""


_Said = tuple[float, float]
"""When a proof was given, and when it is over, Trio's time."""


class Proofs:
    """Those of one node that are to be stored."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._said: dict[Claim, _Said] = {}
        """The last one counts."""
        self._some = trio.Event()

    def renew(self, claim: Claim, seconds: float) -> None:
        """The account that is claimed so is as its row says, and that holds for so many seconds from now."""
        now = trio.current_time()
        self._said[claim] = (now, now + seconds)
        self._some.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Store them until cancelled; waits while the database is away."""
        task_status.started()
        while True:
            if not self._said:
                self._some = trio.Event()
                await self._some.wait()
            await trio.sleep_until((trio.current_time() // EVERY + 1) * EVERY)
            await self.store()

    async def store(self) -> None:
        """Store what has come and holds still.

        What is left out is kept for the next time, until it is over: somebody holds its row, has taken its account, or
        its owner has stopped it.
        """
        now = trio.current_time()
        self._said = {claim: said for claim, said in self._said.items() if said[1] > now}
        come = list(self._said)
        for at in range(0, len(come), MOST):
            proofs = [(claim, self._said[claim]) for claim in come[at : at + MOST]]
            stored = await self._database.run(partial(_store, proofs=proofs))
            for claim, said in proofs:
                if claim in stored and self._said[claim] == said:  # else it was renewed meanwhile
                    del self._said[claim]


async def _store(conn: Conn, proofs: Sequence[tuple[Claim, _Said]]) -> set[Claim]:
    """Store those of accounts that are still ours; gives those that are stored."""
    now = conn.begun_at
    held = await fence_all(conn, [claim for claim, _ in proofs])
    renewed = [
        Renewed(claim.account_id, now - said_at, until - now)
        for claim, (said_at, until) in proofs
        if claim in held
    ]
    written = await accounts_store.set_renewed(conn, renewed, Locked.SKIP) if renewed else ()
    return {claim for claim in held if claim.account_id in written}
