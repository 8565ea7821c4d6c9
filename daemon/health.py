"""The operator's view of one process: its metrics, whether it lives, and whether it can serve."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from daemon.account.states import State
from daemon.fleet.fleet import Fleet
from daemon.storage.database import Database
from daemon.telemetry import metrics

from .names import version


class Health:
    """What the operations listener answers with, and what feeds systemd's watchdog."""

    def __init__(
        self, database: Database, fleet: Fleet, *, migrated: Callable[[], bool], stopping: Callable[[], bool]
    ) -> None:
        self._database = database
        self._fleet = fleet
        self._migrated = migrated
        self._stopping = stopping

    def healthy(self) -> bool:
        """Whether the watchdog may be fed: the loop turns, and rounds are made or wait for the database."""
        return not self._database.ready or self._fleet.turning

    def words(self) -> str:
        """The same in one line for a person: what is waited for, or what runs."""
        database = self._database.statistics()
        if self._stopping():
            return "Stopping"
        if not database.ready:
            return f"Waiting for the database: {database.reason}"
        if not self._migrated():
            return "Bringing the schema up to date"
        fleet = self._fleet.statistics()
        return f"{fleet.running} accounts, {fleet.states.get(State.WATCHING.value, 0)} up to date and watched"

    def metrics(self) -> tuple[bytes, str]:
        """The metrics as text, and their content type."""
        return metrics.render()

    async def live(self) -> Mapping[str, object]:
        """What proves that the process turns."""
        await trio.lowlevel.checkpoint()
        return {"version": version()}

    async def ready(self) -> tuple[bool, Mapping[str, object]]:
        """Whether requests can be served, and what each part says."""
        await trio.lowlevel.checkpoint()
        up, migrated, stopping = self._database.ready, self._migrated(), self._stopping()
        parts: dict[str, object] = {
            "database": "up" if up else "away",
            "schema": "current" if migrated else "not yet",
            "stopping": stopping,
            "accounts": self._fleet.statistics().running,
        }
        return up and migrated and not stopping, parts
