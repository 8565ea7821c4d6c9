"""A supervised child that keeps storage: the schema brought up to date once, and the gate watched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog
import trio

from .database import Database
from .migrate import migrate

log = structlog.get_logger(__name__)

LATE: Final = 2.0
"""Seconds after which a person is told that the database does not answer yet: an embedded server takes less."""


class Upkeep:
    """Keeps one database."""

    def __init__(self, database: Database, conninfo: str, *, stopping: Callable[[], bool]) -> None:
        self._database = database
        self._conninfo = conninfo
        self._stopping = stopping
        self.migrated = trio.Event()
        """Set once the schema is up to date."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Bring the schema up to date as soon as the server answers, then keep the gate.

        Stopped with the daemon, it closes the connections before the embedded server would cut them.

        Raises:
            SchemaError: the schema is not one that this version can bring up to date.
        """
        try:
            await self._keep(task_status)
        finally:
            if self._stopping():
                with trio.CancelScope(shield=True):  # closing sockets: nothing is waited for
                    await self._database.aclose()

    async def _keep(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self._database.watch)
            task_status.started()
            if not self.migrated.is_set():
                with trio.move_on_after(LATE):
                    await self._database.wait_ready()
                if not self._database.ready:
                    log.warning("storage.waiting", reason="the database does not answer yet")
                await self._database.wait_ready()
                applied = await migrate(self._conninfo)
                log.info("storage.ready", migrations=applied)
                self.migrated.set()
