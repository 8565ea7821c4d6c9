"""The one gate before the database: open while the server answers, shut from the first sign that it does not.

Whoever finds the server away shuts the gate with a reason; whoever proves that it answers opens it.  Waiting is on the
gate, never on a timer of one's own, so that all go on at the same moment and nobody polls.
"""

from __future__ import annotations

from typing import Final

import structlog
import trio

log = structlog.get_logger(__name__)

NOT_ASKED: Final = "not asked yet"
"""Why a gate is shut at first."""


class Gate:
    """Shut at first: nobody has asked the server yet."""

    def __init__(self) -> None:
        self._opened = trio.Event()
        self._shut = trio.Event()
        self._shut.set()
        self.reason = NOT_ASKED
        """Why it is shut; stale while it is open."""
        self.since = trio.current_time()
        """When it last opened or shut, on Trio's clock."""
        self.times_shut = 0
        """How often it went from open to shut."""

    @property
    def ready(self) -> bool:
        """Whether the server answered when last heard of."""
        return self._opened.is_set()

    def open(self) -> None:
        """The server answers; let everyone through."""
        if not self.ready:
            log.info("database.ready", away_for=round(trio.current_time() - self.since, 3))
            self.since = trio.current_time()
            self._shut = trio.Event()
            self._opened.set()

    def shut(self, reason: str) -> None:
        """The server is away; hold everyone."""
        if self.ready:
            self.times_shut += 1
            log.warning("database.away", reason=reason)
            self.since = trio.current_time()
            self._opened = trio.Event()
            self._shut.set()
        self.reason = reason

    async def wait_open(self) -> None:
        """Wait until the gate is open."""
        await self._opened.wait()

    async def wait_shut(self) -> None:
        """Wait until the gate is shut."""
        await self._shut.wait()
