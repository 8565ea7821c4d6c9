"""Bounds on what all accounts of a node do at once: connecting, first syncs, large bodies.

A provider that hosts a thousand of our accounts must not meet a thousand logins in one second: so a place at the host
is taken first.  A node must not shake more hands than its cores can: so a turn of the node's is taken with it in hand.
And a host that does not answer must hold nothing that another host needs: so a turn counts for SLOW seconds only, after
which the attempt goes on without one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import trio

from .turns import Turns

T = TypeVar("T")

LARGE_BODIES: Final = 2
"""Large bodies in memory at once, over all accounts: each may have the `sync.max_body` bytes that are allowed."""

SLOW: Final = 2.0
"""Seconds after which an attempt waits for its server rather than for our processor: a login over TLS costs 3 ms of it
and a few round trips."""


BULK: Final = 60.0
"""Seconds that an account's turn to fetch in bulk counts: its server sends some thousand messages meanwhile, or it is
so slow that it costs us little."""


@dataclass(frozen=True, slots=True)
class PacingStatistics:
    """How many wait and work."""

    connecting: int
    waiting: int
    hosts: int
    first_syncs: int


class Pacing:
    """The limiters of one node.

    Args:
        starting: accounts that begin to connect within `SLOW` seconds and have not ended.
        starting_per_host: accounts that connect to one host at once.
        first_syncs: accounts that fetch in bulk at once; the others wait for their turn.
    """

    def __init__(self, *, starting: int, starting_per_host: int, first_syncs: int) -> None:
        self._starting = Turns(starting, SLOW)
        self._per_host = starting_per_host
        self._hosts: dict[str, tuple[trio.Semaphore, int]] = {}
        self.first_syncs = Turns(first_syncs, BULK)
        self.large_bodies = trio.Semaphore(LARGE_BODIES)

    @asynccontextmanager
    async def paced(self, host: str, opening: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
        """Enter `opening` when it is this account's turn; the turn ends when it is entered or has failed."""
        async with AsyncExitStack() as stack:
            async with self._place(host), self._starting():
                opened = await stack.enter_async_context(opening)
            yield opened

    @asynccontextmanager
    async def _place(self, host: str) -> AsyncIterator[None]:
        semaphore, users = self._hosts.get(host) or (trio.Semaphore(self._per_host), 0)
        self._hosts[host] = (semaphore, users + 1)
        try:
            async with semaphore:
                yield
        finally:
            semaphore, users = self._hosts[host]
            if users > 1:
                self._hosts[host] = (semaphore, users - 1)
            else:
                del self._hosts[host]

    def statistics(self) -> PacingStatistics:
        """How many wait and work now."""
        users = sum(count for _, count in self._hosts.values())
        return PacingStatistics(
            connecting=self._starting.taken,
            waiting=users - self._starting.taken,
            hosts=len(self._hosts),
            first_syncs=self.first_syncs.taken,
        )
