"""One transaction: begun with its time limits in one message, ended under a shield.

The limits are `SET LOCAL`, sent with BEGIN and the fence in one simple query, so they cost no round trip and hold
behind any pooler: PgBouncer in transaction mode refuses unknown start-up parameters (`options`), and a plain SET would
stay on a server connection that the next client gets.

COMMIT is sent even if the scope was cancelled meanwhile: the work is done, and its end is decided in GRACE seconds.
A connection lost during COMMIT leaves it unknown whether the transaction is stored (`commit_unknown`).
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psycopg
import trio
from psycopg import pq

from .connection import GRACE, ServerSilent
from .fence import ClaimLost, fencing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .connection import Conn
    from .fence import Claim

ANSWER_MARGIN: Final = 10.0
"""Seconds beyond the statement's limit until a server that should have ended it by itself counts as silent."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that the server itself keeps in each transaction, in seconds; 0 is no bound."""

    statement: float = 30.0
    """One statement; nothing in the daemon's own work comes near."""
    lock: float = 10.0
    """One wait for a lock: longer than any transaction here, shorter than a caller's patience."""
    idle: float = 60.0
    """A transaction in which the daemon sends nothing: a stuck task must not hold rows from the other nodes."""

    def begin(self) -> str:
        """The statements that open a transaction with these limits."""
        settings = {
            "statement_timeout": self.statement,
            "lock_timeout": self.lock,
            "idle_in_transaction_session_timeout": self.idle,
        }
        local = [f"SET LOCAL {name} = {round(seconds * 1000)}" for name, seconds in settings.items()]  # milliseconds
        return "; ".join(["BEGIN", *local])

    @property
    def answer(self) -> float | None:
        """Seconds after which one request of the transaction counts as unanswered."""
        return self.statement + ANSWER_MARGIN if self.statement else None


class Progress:
    """Where a transaction is; what a lost connection means depends on it."""

    __slots__ = ("committing",)

    def __init__(self) -> None:
        self.committing = False


@asynccontextmanager
async def begin(conn: Conn, limits: Limits, progress: Progress, claim: Claim | None = None) -> AsyncIterator[Conn]:
    """Run the block in one transaction of an autocommit connection: COMMIT at its end, ROLLBACK if it raises.

    `conn.transaction()` inside is a savepoint.  With a claim it is fenced, in the same trip to the server.

    Raises:
        ClaimLost: the account is another node's.
        psycopg.errors.InFailedSqlTransaction: the block swallowed a database error without a savepoint around it; a
            plain COMMIT would silently have rolled everything back.
        psycopg.OperationalError: the connection was lost.
    """
    conn.answer_within = limits.answer
    try:
        try:
            await _open(conn, limits, claim)
            yield conn
        except BaseException:
            await _rollback(conn)
            raise
        if conn.pgconn.transaction_status == pq.TransactionStatus.INERROR:
            await _rollback(conn)
            raise psycopg.errors.InFailedSqlTransaction("an error was ignored inside the transaction")
        progress.committing = True
        await _commit(conn)
    finally:
        conn.answer_within = None


async def _open(conn: Conn, limits: Limits, claim: Claim | None) -> None:
    statements = limits.begin() if claim is None else f"{limits.begin()}; {fencing(claim)}"
    cursor = await conn.execute(statements.encode(), prepare=False)
    conn.begun_at = trio.current_time()
    if claim is not None:
        while cursor.nextset():
            pass
        if await cursor.fetchone() is None:
            raise ClaimLost(claim)


async def _commit(conn: Conn) -> None:
    with trio.move_on_after(GRACE + ANSWER_MARGIN, shield=True):
        await conn.commit()
        return
    await conn.close()
    raise ServerSilent("the server did not answer COMMIT in time: connection closed")


async def _rollback(conn: Conn) -> None:
    """Roll back if the connection still can; the failure that led here is the one to be told."""
    if conn.closed:
        return
    with trio.move_on_after(GRACE, shield=True):
        try:
            await conn.rollback()
        except psycopg.Error:
            await conn.close()
        return
    await conn.close()
