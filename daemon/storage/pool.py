"""A pool of Trio connections: at most `size`, the most recently used first, no background task.

A connection goes back only when it is IDLE and out of any pipeline; else it is closed, and closing is the rollback.
`drain` makes every connection of this moment unfit for reuse: after the server went away they are all dead, and finding
that out one caller at a time would fail `size` callers.

A task that holds a connection must not wait for a second one: with `size` such tasks nobody would ever go on.
"""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import psycopg
import trio

from .connection import TrioConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from types import TracebackType

    from psycopg.rows import TupleRow

    from .connection import Conn

CONNECT_WITHIN: Final = 15.0
"""Seconds for a new connection in all: the name, every address of it, TLS and log-in."""

CHECK_WITHIN: Final = 5.0
"""Seconds in which an idle connection must prove itself alive."""


class PoolClosed(Exception):
    """The pool was used after it was closed: a bug of the caller."""


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """How full the pool is."""

    size: int
    """Connections allowed."""
    open: int
    """Connections that exist, in use or idle."""
    idle: int
    """Connections that nobody uses now."""
    waiting: int
    """Tasks that wait for a connection."""
    opened: int
    """Connections made since the start: a high rate means that they are lost as fast."""


@dataclass(slots=True)
class _Slot:
    conn: Conn
    generation: int
    born: float
    idle_since: float = 0.0


class Pool:
    """Connections for short use by many tasks.

    Args:
        conninfo: libpq's connection string.
        size: most connections at a time.
        prepare_threshold: executions after which a statement is prepared; None for never, which is what poolers in
            transaction mode need.
        max_lifetime: seconds after which a connection is replaced, so that servers and poolers can be changed.
        max_idle: seconds of idleness after which it is closed.
        check_after: seconds of idleness after which it is tried before use.
        configure: run once on each new connection, outside any transaction.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        size: int = 8,
        prepare_threshold: int | None = None,
        max_lifetime: float = 3600.0,
        max_idle: float = 300.0,
        check_after: float = 5.0,
        configure: Callable[[Conn], Awaitable[None]] | None = None,
    ) -> None:
        if size < 1:
            raise ValueError("a pool holds at least one connection")
        self.size = size
        self._conninfo = conninfo
        self._prepare_threshold = prepare_threshold
        self._limit = trio.Semaphore(size, max_value=size)
        self._free: deque[_Slot] = deque()
        self._max_lifetime = max_lifetime
        self._max_idle = max_idle
        self._check_after = check_after
        self._configure = configure
        self._closed = False
        self._open = 0
        self._opened = 0
        self._generation = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close what is idle now, and every other connection when it is given back."""
        self._closed = True
        await self.drain()

    async def drain(self) -> None:
        """Close what is idle, and let none of the connections in use come back."""
        self._generation += 1
        while self._free:
            await self._discard(self._free.pop())

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Conn]:
        """A connection in autocommit mode, for the length of the block; waits while all are in use.

        Raises:
            PoolClosed: too late.
            psycopg.OperationalError: no connection could be made.
        """
        if self._closed:
            raise PoolClosed
        async with self._limit:
            slot = await self._take()
            try:
                yield slot.conn
            finally:
                await self._give_back(slot)

    async def open_connection(self) -> Conn:
        """A connection of the pool's kind that the pool does not count; the caller closes it.

        Raises:
            psycopg.OperationalError: no server answered in CONNECT_WITHIN seconds.
        """
        try:
            with trio.fail_after(CONNECT_WITHIN):
                conn = await TrioConnection.connect(
                    self._conninfo, autocommit=True, prepare_threshold=self._prepare_threshold
                )
                try:
                    if self._configure is not None:
                        await self._configure(conn)
                except BaseException:
                    await conn.close()
                    raise
        except trio.TooSlowError:
            raise psycopg.errors.ConnectionTimeout(f"no connection within {CONNECT_WITHIN:g} s") from None
        return conn

    def statistics(self) -> PoolStatistics:
        """How full the pool is now."""
        waiting = self._limit.statistics().tasks_waiting
        return PoolStatistics(self.size, self._open, len(self._free), waiting, self._opened)

    async def _take(self) -> _Slot:
        while self._free:
            slot = self._free.pop()
            if await self._fit(slot):
                return slot
        conn = await self.open_connection()
        self._open += 1
        self._opened += 1
        return _Slot(conn, self._generation, trio.current_time())

    async def _fit(self, slot: _Slot) -> bool:
        """Whether an idle connection may be used again; closed if not."""
        now = trio.current_time()
        alive = now - slot.born <= self._max_lifetime and now - slot.idle_since <= self._max_idle
        try:
            if alive and now - slot.idle_since > self._check_after:
                await check(slot.conn)
        except psycopg.Error:
            alive = False
        except BaseException:
            await self._discard(slot)
            raise
        if not alive:
            await self._discard(slot)
        return alive

    async def _give_back(self, slot: _Slot) -> None:
        now = trio.current_time()
        if slot.conn.reusable and slot.generation == self._generation:
            slot.idle_since = now
            self._free.append(slot)
        else:
            await self._discard(slot)
        # The least recently used are at the left, and nobody else would ever look at them.
        while self._free and now - self._free[0].idle_since > self._max_idle:
            await self._discard(self._free.popleft())

    async def _discard(self, slot: _Slot) -> None:
        self._open -= 1
        await slot.conn.close()


async def check(conn: Conn, query: bytes = b"") -> TupleRow | None:
    """Have the server answer a cheap query, in CHECK_WITHIN seconds; its first row, if it has any.

    Raises:
        psycopg.Error: it did not; a connection that stayed silent is closed.
    """
    before = conn.answer_within
    conn.answer_within = CHECK_WITHIN
    try:
        cursor = await conn.execute(query)
        return await cursor.fetchone() if cursor.description else None
    finally:
        conn.answer_within = before
