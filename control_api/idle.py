"""When a connection has said nothing for too long: one task for its whole life, where Hypercorn has one a request."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import trio


class IdleTimer:
    """Made while the connection is idle; `stop` and `restart` tell of requests, `end` that nothing is left to time."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._idle = True
        self._ended = False
        self._scope = trio.CancelScope(deadline=trio.current_time() + limit)

    async def expired(self, terminated: Callable[[], Awaitable[object]]) -> bool:
        """Return whether the connection is to be closed: too long idle, or idle when the server terminates."""
        while True:
            with self._scope:
                await terminated()
                return self._idle  # a request under way closes at its end by itself
            if self._ended or self._idle:
                return not self._ended
            self._scope = trio.CancelScope()  # a request came in the moment in which time was up

    def restart(self) -> None:
        """A request has ended."""
        self._idle = True
        self._scope.deadline = trio.current_time() + self._limit

    def stop(self) -> None:
        """A request has begun."""
        self._idle = False
        self._scope.deadline = math.inf

    def end(self) -> None:
        """The connection has ended."""
        self._ended = True
        self._scope.cancel()
