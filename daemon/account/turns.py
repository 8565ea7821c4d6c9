"""Turns: so many at once, first come, first served, and nobody holds one for long.

A turn bounds what our processor, memory and disk do at once.  Whoever is slow waits for its server and not for us: so a
turn counts for a limited time only, after which its holder goes on without one, and the next in the queue begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class Turns:
    """At most `limit` turns of less than `lent` seconds at once."""

    def __init__(self, limit: int, lent: float) -> None:
        self._limit = limit
        self._lent = lent
        self._queue = trio.Lock()  # first come, first served; only the first looks at the turns
        self._begun: deque[float] = deque()
        self._ended = trio.Event()
        self.taken = 0
        """How many are inside, with a turn or after it."""

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it until the block ends or its time is over."""
        async with self._queue:
            while len(self._begun) >= self._limit:
                with trio.move_on_at(self._begun[0] + self._lent):
                    await self._ended.wait()
                self._ended = trio.Event()
                while self._begun and self._begun[0] + self._lent <= trio.current_time():
                    self._begun.popleft()
            begun = trio.current_time()
            self._begun.append(begun)
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
            if begun in self._begun:
                self._begun.remove(begun)
            self._ended.set()
