"""The one way to PostgreSQL: a pool behind a gate.

Theory of operation.  A lost or refused connection is nobody's fault: it becomes `DatabaseAway`, shuts the gate and
empties the pool.  While the gate is shut, callers with work that can be run again (`run`) wait at it, all others fail
at once; `watch`, a supervised child, probes and opens it.  A child that waits here keeps its place and goes on where it
was, so a restart of the server restarts nothing else.

`run` repeats whole transactions: its work must be repeatable, for two reasons.  A transaction may be rolled back and
run again; and a connection lost during COMMIT leaves it unknown whether it is stored, after which the work runs once
more *upon its own result*.  So choose ids before the work, insert with ON CONFLICT DO NOTHING, set instead of adding,
and do nothing in it that a ROLLBACK does not undo.

Sessions.  TimeZone is UTC, set once per session (a parameter that PgBouncer follows from client to server connection).
Time limits are set in each transaction, see `transaction`.  Statements are never prepared unless `prepare_threshold`
says so, for poolers older than PgBouncer 1.21 break them.
"""

from __future__ import annotations

import math
import random
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, TypeVar

import psycopg
import structlog
import trio

from .conninfo import complete
from .faults import DatabaseAway, away_in, is_conflict, is_slow
from .gate import NOT_ASKED, Gate
from .pool import Pool, PoolStatistics, check
from .together import Together
from .transaction import Limits, Progress, begin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from .connection import Conn
    from .fence import Claim

log = structlog.get_logger(__name__)
T = TypeVar("T")

PROBE_EVERY: Final = 10.0
"""Seconds between probes of an open gate: a silent server is noticed even while nobody asks it anything."""

FIRST_PAUSE: Final = 0.1
"""Seconds after the first failed probe; doubled for each further one up to LONGEST_PAUSE."""

LONGEST_PAUSE: Final = 5.0
"""Seconds at most between probes of a shut gate: what a recovery may cost beyond the server's own time."""

MOST_CONFLICTS: Final = 5
"""Deadlocks and serialization failures of one piece of work before it is told to its caller: a design that conflicts
more often than that needs another design, not patience."""
@dataclass(frozen=True, slots=True)
class DatabaseStatistics:
    """How the gate and the pool are."""

    ready: bool
    reason: str | None
    """Why the gate is shut, or None."""
    since: float
    """Seconds for which the gate has been as it is."""
    times_shut: int
    transactions: int
    """Committed."""
    conflicts: int
    """Transactions run again because the server chose them to give way."""
    pool: PoolStatistics


class Database:
    """The storage gate; one per process.

    Args:
        conninfo: libpq's connection string, of a server or a pooler.
        size: connections at most, beside one for the probe and those of `dedicated`.
        application_name: as shown in pg_stat_activity.
        limits: time limits of every transaction.
        prepare_threshold: see `Pool`.

    Use it as an async context manager, or call `aclose`.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        size: int = 8,
        application_name: str = "accountsd",
        limits: Limits | None = None,
        prepare_threshold: int | None = None,
    ) -> None:
        full = complete(conninfo, application_name=application_name)
        self._limits = limits or Limits()
        self._pool = Pool(full, size=size, prepare_threshold=prepare_threshold, configure=_configure)
        self._gate = Gate()
        self._probing = trio.Lock()
        self._probe_conn: Conn | None = None
        self._watchers = 0
        self._transactions = 0
        self._conflicts = 0
        self._random = random.SystemRandom()
        self.together = Together(self)
        """Small work of many accounts in one transaction."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection; those in use when they are given back."""
        if self._probe_conn is not None:
            await self._probe_conn.close()
        await self._pool.aclose()

    # -- use -----------------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the server answered when last heard of."""
        return self._gate.ready

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Conn]:
        """A pooled connection in autocommit mode, without time limits on the server: bound its use by a cancel scope.

        Raises:
            DatabaseAway: at once while the gate is shut, or when the connection fails.
        """
        await self._enter()
        async with self._translated(Progress()), self._pool.connection() as conn:
            yield conn

    @asynccontextmanager
    async def dedicated(self) -> AsyncIterator[Conn]:
        """A connection outside the pool, for LISTEN and other state that must not be handed on; closed afterwards.

        Raises:
            DatabaseAway: as `connection`.
        """
        await self._enter()
        async with self._translated(Progress()):
            conn = await self._pool.open_connection()
            try:
                yield conn
            finally:
                await conn.close()

    @asynccontextmanager
    async def transaction(self, claim: Claim | None = None) -> AsyncIterator[Conn]:
        """One transaction, with its limits, fenced when a claim is given; `conn.transaction()` inside is a savepoint.

        Raises:
            ClaimLost: the account is another node's.
            DatabaseAway: at once while the gate is shut, or when the connection fails; `commit_unknown` tells whether
                that was during COMMIT.
        """
        await self._enter()
        progress = Progress()
        async with (
            self._translated(progress),
            self._pool.connection() as conn,
            begin(conn, self._limits, progress, claim),
        ):
            yield conn
        self._transactions += 1

    async def run(
        self,
        work: Callable[[Conn], Awaitable[T]],
        *,
        claim: Claim | None = None,
        patience: float = math.inf,
        gate: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
        in_doubt: Callable[[], None] | None = None,
    ) -> T:
        """Run `work(conn)` in one transaction and give what it returns; fenced first when a claim is given.

        While the database is away this waits, and runs the work again from its beginning; see the module for what that
        asks of the work.  A task that holds a connection must not call it.

        Args:
            work: repeatable.
            claim: the account's claim, held until the transaction ends.
            patience: seconds to wait in all for a database that is away; it does not bound the work itself.
            gate: gives what is held during each attempt, from before it has a connection.
            in_doubt: called before the work runs again upon what may be its own result.

        Raises:
            DatabaseAway: still away when patience ended, or too slow for its time limits again and again.
            ClaimLost: the account is another node's.
            psycopg.Error: the work's own failure, or more than MOST_CONFLICTS conflicts.
        """
        deadline = trio.current_time() + patience
        losses = conflicts = 0
        while True:
            await self.wait_ready(deadline - trio.current_time())
            try:
                async with gate(), self.transaction(claim) as conn:
                    return await work(conn)
            except DatabaseAway as away:
                if trio.current_time() >= deadline:
                    raise
                if away.commit_unknown and in_doubt is not None:
                    in_doubt()
                # The probe may well succeed where this work does not (a full disk): pace it by itself as well.
                losses += 1
                await trio.sleep(min(self._pause(losses), max(deadline - trio.current_time(), 0.0)))
            except psycopg.Error as exc:
                if is_slow(exc):
                    losses += 1
                    log.warning("database.slow", sqlstate=exc.sqlstate, times=losses)
                    if losses > MOST_CONFLICTS or trio.current_time() >= deadline:
                        raise DatabaseAway("the server is too slow: a time limit ended the transaction") from exc
                    await trio.sleep(min(self._pause(losses + 3), max(deadline - trio.current_time(), 0.0)))
                    continue
                conflicts += 1
                if not is_conflict(exc) or conflicts > MOST_CONFLICTS:
                    raise
                self._conflicts += 1
                # A few milliseconds are enough for the other transaction, and part two that met again.
                await trio.sleep(self._random.uniform(0.0, 0.01 * 2**conflicts))

    def statistics(self) -> DatabaseStatistics:
        """How the gate and the pool are now."""
        return DatabaseStatistics(
            ready=self.ready,
            reason=None if self.ready else self._gate.reason,
            since=trio.current_time() - self._gate.since,
            times_shut=self._gate.times_shut,
            transactions=self._transactions,
            conflicts=self._conflicts,
            pool=self._pool.statistics(),
        )

    # -- the gate ------------------------------------------------------------------------------------------------------

    async def wait_ready(self, patience: float = math.inf) -> None:
        """Wait until the server answers; without a running `watch`, probe for it oneself.

        Raises:
            DatabaseAway: it did not within `patience` seconds.
        """
        if self.ready:
            return
        with trio.move_on_after(max(patience, 0.0)):
            if self._watchers:
                await self._gate.wait_open()
            else:
                await self._probe_until_open()
            return
        raise DatabaseAway(self._gate.reason)

    async def watch(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """A supervised child: open the gate whenever the server answers again, and look now and then while it is open.

        Reports itself started at once, whether or not the server answers: use `wait_ready` for that.
        """
        self._watchers += 1
        try:
            task_status.started()
            while True:
                await self._probe_until_open()
                with trio.move_on_after(PROBE_EVERY):
                    await self._gate.wait_shut()
                if self.ready:
                    await self._probe()
        finally:
            self._watchers -= 1

    async def _enter(self) -> None:
        """Fail at once while the server is known to be away."""
        if self.ready:
            return
        # Nobody may have looked yet, or nobody else is going to.
        if self._gate.reason == NOT_ASKED or not self._watchers:
            await self._probe()
        if not self.ready:
            raise DatabaseAway(self._gate.reason)

    async def _probe_until_open(self) -> None:
        failures = 0
        while not self.ready:
            await self._probe()
            if not self.ready:
                failures += 1
                with trio.move_on_after(self._pause(failures)):
                    await self._gate.wait_open()

    async def _probe(self) -> None:
        """Ask the server once, on a connection of the probe's own, and open or shut the gate by its answer."""
        async with self._probing:
            try:
                if self._probe_conn is None or self._probe_conn.closed:
                    self._probe_conn = await self._pool.open_connection()
                if await check(self._probe_conn, b"SELECT pg_is_in_recovery()") != (False,):
                    raise psycopg.OperationalError("the server is a standby, which takes no writes")
            except psycopg.Error as exc:
                if self._probe_conn is not None:
                    await self._probe_conn.close()
                await self._lost(DatabaseAway(str(exc)).detail)
            else:
                self._gate.open()

    def _pause(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row; jittered, for all nodes lose the same server at once."""
        pause: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures - 1, 16))
        return pause * self._random.uniform(0.6, 1.0)

    async def _lost(self, reason: str) -> None:
        self._gate.shut(reason)
        await self._pool.drain()

    @asynccontextmanager
    async def _translated(self, progress: Progress) -> AsyncIterator[None]:
        """Turn the loss of the server inside the block into DatabaseAway, and shut the gate."""
        try:
            yield
        except (psycopg.Error, BaseExceptionGroup) as exc:
            lost = away_in(exc)
            if lost is None:
                raise
            away = DatabaseAway(str(lost), commit_unknown=progress.committing)
            await self._lost(away.detail)
            raise away from exc


async def _configure(conn: Conn) -> None:
    await conn.execute("SET TimeZone TO 'UTC'")
