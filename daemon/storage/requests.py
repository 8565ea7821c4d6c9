"""The database as a request of the API uses it: for a bounded time, and away when that is over.

A person waits behind a request, so it does not wait for a database as an account's actor does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import psycopg
import trio

from .connection import Conn
from .database import Database
from .faults import DatabaseAway, is_conflict, is_slow

T = TypeVar("T")

PATIENCE: Final = 5.0
"""Seconds that a request waits for the database: longer than its restart takes, shorter than a person waits."""

READ_AGAIN: Final = 0.1
"""Seconds until a statement is tried again whose connection was lost, for the next one may be alive; doubled each time
for one that a time limit ended or that gave way to another."""


class Requests:
    """Runs what requests ask of one database."""

    def __init__(self, database: Database, *, migrated: Callable[[], bool]) -> None:
        self._database = database
        self._migrated = migrated

    async def run(self, work: Callable[[Conn], Awaitable[T]]) -> T:
        """One transaction; DatabaseAway when the database is away for longer than a request waits."""
        return await self._run(work, None)

    async def settle(self, work: Callable[[Conn, bool], Awaitable[T]]) -> T:
        """`run` for work whose answer depends on what it finds: told whether it may find its own result.

        That is so after a COMMIT whose answer was lost, and only then: after a try that was rolled back whatever is
        found was there before, or is somebody else's.
        """
        doubt = False

        def doubted() -> None:
            nonlocal doubt
            doubt = True

        async def told(conn: Conn) -> T:
            return await work(conn, doubt)

        return await self._run(told, doubted)

    async def _run(self, work: Callable[[Conn], Awaitable[T]], in_doubt: Callable[[], None] | None) -> T:
        if not self._migrated():
            raise DatabaseAway("the schema has not been brought up to date yet")
        with trio.move_on_after(PATIENCE):  # a server that has fallen silent under way is away as well
            return await self._database.run(work, patience=PATIENCE, in_doubt=in_doubt)
        raise DatabaseAway("the database did not answer in the time of a request")

    async def read(self, work: Callable[[Conn], Awaitable[T]]) -> T:
        """One statement outside any transaction; DatabaseAway when it is away for longer than a request waits."""
        if not self._migrated():
            raise DatabaseAway("the schema has not been brought up to date yet")
        pause = READ_AGAIN
        with trio.move_on_after(PATIENCE):  # cancels it on the server as well
            while True:
                await self._database.wait_ready()
                try:
                    async with self._database.connection() as conn:
                        return await work(conn)
                except DatabaseAway:
                    await trio.sleep(READ_AGAIN)
                except psycopg.Error as exc:
                    if not is_slow(exc) and not is_conflict(exc):
                        raise
                    await trio.sleep(pause)
                    pause *= 2
        raise DatabaseAway("the database did not answer in the time of a request")
