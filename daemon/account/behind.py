"""A store for who is behind: its transactions leave connections of the database to those that are up to date.

An account that catches up writes as fast as its server sends; hundreds of them, or those whose servers make them begin
anew again and again, would have every connection, and one new message of a healthy account would queue behind them all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeVar

from daemon.imap.folder_record import Store
from daemon.storage.connection import Conn

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BehindStore(Store):
    """An account's store whose transactions pass a gate."""

    gate: Callable[[], AbstractAsyncContextManager[object]]
    """Asked before each attempt at a transaction; what it gives is held while that runs, and not while it waits for a
    database that is away: else a few whose work fails again and again would hold up all who are behind."""

    async def run(self, work: Callable[[Conn], Awaitable[T]]) -> T:
        """One fenced transaction, when the gate lets it through.  Raises as `Store.run` does."""
        return await self.database.run(work, claim=self.claim, gate=self.gate)
