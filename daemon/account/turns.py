"""Turns: so many at once, first come, first served, and nobody holds one for long.

A turn bounds what our processor, memory and disk do at once.  Whoever is slow waits for its server and not for us: so a
turn counts for a limited time only, after which its holder goes on without one, and the next in the queue begins.
Where those who go on without one hold memory, they are bounded, too: then whoever is the slowest must leave when others
have come to need its place.

Who has logged in before it waits must say something meanwhile, or its server hangs up on it (`kept_alive`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import inf
from types import TracebackType
from typing import Final

import trio

from daemon.errors import Fault, FaultKind

KEEP_ALIVE: Final = 120.0
"""Seconds after which who waits in a session says something.  A server may end a session that is silent for 30 minutes
(RFC 9051 section 5.4); the NAT tables between here and there often forget it after 5."""


class Turns:
    """At most `limit` turns of less than `lent` seconds at once, and at most `most` inside.

    When so many are inside, and others wait, whoever is inside for more than `patience` seconds is made to leave.
    """

    def __init__(self, limit: int, lent: float, most: float = inf, patience: float = inf) -> None:
        self._limit = limit
        self._lent = lent
        self._most = most
        self._patience = patience
        self._inside: dict[trio.CancelScope, float] = {}  # when each began
        self._cleared = -inf
        self._queue = trio.Lock()  # first come, first served; only the first looks at the turns
        self._begun: deque[float] = deque()
        self._ended = trio.Event()
        self._shorter = trio.Event()
        self._gate = trio.Lock()
        self.taken = 0
        """How many are inside, with a turn or after it."""
        self.waiting = 0
        """How many wait for a turn."""

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it until the block ends or its time is over.

        Raises:
            Fault: UNAVAILABLE, of a block that had to leave its place to others.
        """
        async with self.held(await self.take()):
            yield

    async def take(self) -> float:
        """Wait for a turn; when it began, for `held`."""
        if not self._queue.locked() and not self._full:
            return self._take()  # nobody waits: a queue hands over once a round of the loop, slow where there is room
        self.waiting += 1
        try:
            return await self._wait()
        finally:
            self.waiting -= 1
            self._shorter.set()

    @asynccontextmanager
    async def held(self, begun: float) -> AsyncIterator[None]:
        """The turn that began then, until the block ends.  Raises Fault, as above."""
        scope = trio.CancelScope()
        self._inside[scope] = begun
        try:
            with scope:
                yield
        finally:
            del self._inside[scope]
            self.give_back(begun)
        if scope.cancelled_caught:
            raise Fault(FaultKind.UNAVAILABLE, "The mail server is so slow that others had to have its turn.")

    def give_back(self, begun: float) -> None:
        """End a turn."""
        self.taken -= 1
        if begun in self._begun:
            self._begun.remove(begun)
        self._ended.set()

    async def few_waiting(self, most: int) -> None:
        """Wait until fewer than `most` wait for a turn; first come, first served."""
        if self.waiting < most and not self._gate.locked():
            return  # nobody waits: a queue lets one pass in a round of the loop
        async with self._gate:
            while self.waiting >= most:
                self._shorter = trio.Event()
                await self._shorter.wait()

    async def _wait(self) -> float:
        async with self._queue:
            while self._full:
                lent_until = self._begun[0] + self._lent if len(self._begun) >= self._limit else inf
                with trio.move_on_at(min(lent_until, self._overdue_at())):
                    await self._ended.wait()
                if self._overdue_at() <= trio.current_time():
                    self._cleared = trio.current_time()
                    min(self._inside, key=self._inside.__getitem__).cancel()
                self._ended = trio.Event()
                while self._begun and self._begun[0] + self._lent <= trio.current_time():
                    self._begun.popleft()
            return self._take()

    def _overdue_at(self) -> float:
        """When the first of those inside has to leave; never while there is room, or while one is leaving."""
        if self.taken < self._most or any(scope.cancel_called for scope in self._inside):
            return inf
        oldest = min(self._inside.values(), default=inf)
        return max(oldest + self._patience, self._cleared + self._lent)  # those who are quick share the place

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


@asynccontextmanager
async def kept_alive(turns: Turns, alive: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """A turn, as `turns()` gives; while waiting for it `alive` is called every KEEP_ALIVE seconds.

    What `alive` does is never cut short by the turn: that begins when it is done.  What it raises ends the waiting.
    """
    begun: float | None = None
    failure: Exception | None = None
    got = trio.Event()

    async def speak() -> None:
        nonlocal failure
        while not got.is_set():
            with trio.move_on_after(KEEP_ALIVE):
                await got.wait()
                return
            try:
                await alive()
            except Exception as exc:  # noqa: BLE001  # raised again below, out of the nursery
                failure = exc
                waiting.cancel()
                return

    try:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as waiting:
                nursery.start_soon(speak)
                begun = await turns.take()
            got.set()
        if failure is not None:
            raise failure
        assert begun is not None, "the waiting ends with a turn or a failure"
    except BaseException:
        if begun is not None:
            turns.give_back(begun)
        raise
    async with turns.held(begun):
        yield
