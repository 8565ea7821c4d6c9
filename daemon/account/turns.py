"""Turns: so many at once, first come, first served, and nobody holds one for long.

A turn bounds what our processor, memory and disk do at once.  Whoever is slow waits for its server and not for us: so a
turn counts for a limited time only, after which its holder goes on without one, and the next in the queue begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from types import TracebackType

import trio


class Turns:
    """At most `limit` turns of less than `lent` seconds at once, and at most `most` inside."""

    def __init__(self, limit: int, lent: float, most: float = inf) -> None:
        self._limit = limit
        self._lent = lent
        self._most = most
        self._queue = trio.Lock()  # first come, first served; only the first looks at the turns
        self._begun: deque[float] = deque()
        self._ended = trio.Event()
        self.taken = 0
        """How many are inside, with a turn or after it."""

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it until the block ends or its time is over."""
        if self._queue.locked() or self._full:
            async with self._queue:
                while self._full:
                    lent_until = self._begun[0] + self._lent if len(self._begun) >= self._limit else inf
                    with trio.move_on_at(lent_until):
                        await self._ended.wait()
                    self._ended = trio.Event()
                    while self._begun and self._begun[0] + self._lent <= trio.current_time():
                        self._begun.popleft()
                begun = self._take()
        else:  # nobody waits: a queue hands over once a round of the loop, which is slow where there is room for many
            begun = self._take()
        try:
            yield
        finally:
            self.taken -= 1
            if begun in self._begun:
                self._begun.remove(begun)
            self._ended.set()

    @property
    def _full(self) -> bool:
        return len(self._begun) >= self._limit or self.taken >= self._most

    def _take(self) -> float:
        begun = trio.current_time()
        self._begun.append(begun)
        self.taken += 1
        return begun


class Turn:
    """Turns for one task that takes them again and again: each `async with` is one."""

    __slots__ = ("_turn", "_turns")

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    async def __aenter__(self) -> None:
        self._turn = self._turns()
        await self._turn.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._turn.__aexit__(kind, exc, trace)
