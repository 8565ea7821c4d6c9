"""What accounts say of themselves during a campaign, looked at once a second, and whether it was the truth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

import trio

from daemon.account.states import State
from daemon.account.status import PATIENCE, Facts, sync_status
from daemon.storage.connection import Conn
from daemon.storage.database import Database

from .bulkheads_expected import EXPECTED, Expected

LOOK_EVERY: Final = 0.5
"""Seconds."""

_Row = tuple[UUID, str, str | None, datetime | None, datetime | None, bool, datetime, str]


class Watched:
    """The accounts of a campaign."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._healthy: list[UUID] = []
        self._bad: dict[UUID, str] = {}
        self._codes: dict[str, set[str]] = defaultdict(set)
        self._states: dict[str, set[str]] = defaultdict(set)
        self._ill: set[str] = set()

    def expect_healthy(self, ids: Sequence[UUID]) -> None:
        """These must be up to date at all times from now on."""
        self._healthy += ids

    def expect_bad(self, account_id: UUID, behaviour: str) -> None:
        """This one is at a bad host."""
        self._bad[account_id] = behaviour

    async def set_desired(self, database: Database, desired: str) -> None:
        """Pause the bad ones, or let them run again."""

        async def work(conn: Conn) -> None:
            await conn.execute("UPDATE accounts SET desired = %s WHERE id = ANY(%s)", (desired, list(self._bad)))

        await database.run(work)

    async def unhealthy(self) -> int:
        """How many healthy accounts are not up to date."""
        rows = await self._database.run(partial(_rows, ids=self._healthy))
        return sum(1 for row in rows if _status(row) != "synced")

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            for row in await self._database.run(partial(_rows, ids=self._healthy)):
                if (status := _status(row)) != "synced":
                    self._ill.add(f"a healthy account was {status} ({row[1]}, {row[2]})")
            for row in await self._database.run(partial(_rows, ids=list(self._bad))):
                behaviour = self._bad[row[0]]
                self._states[behaviour].add(row[1])
                if row[2] is not None:
                    self._codes[behaviour].add(row[2])
            await trio.sleep(LOOK_EVERY)

    async def judge(self, *, hurried: bool) -> list[str]:
        """What was not as it must be, in sentences; in a hurry, what had no time to show does not count."""
        found = sorted(self._ill)
        for behaviour in sorted(set(self._bad.values())):
            found += _judged(behaviour, EXPECTED[behaviour], self._states[behaviour], self._codes[behaviour], hurried)
        for row in await self._database.run(partial(_rows, ids=list(self._bad))):
            later = _status(row, timedelta(seconds=1) + PATIENCE)
            if row[3] is not None and later != "error":
                found.append(f"{self._bad[row[0]]}: in trouble for more than five minutes it would still be {later}")
        return found

    def as_json(self) -> dict[str, Any]:
        """All that was seen of the bad ones."""
        return {
            behaviour: {"states": sorted(self._states[behaviour]), "codes": sorted(self._codes[behaviour])}
            for behaviour in sorted(set(self._bad.values()))
        }


def _judged(behaviour: str, expected: Expected, states: set[str], codes: set[str], hurried: bool) -> list[str]:
    found = []
    if codes - expected.codes:
        found.append(f"{behaviour}: {sorted(codes - expected.codes)} was said, {sorted(expected.codes)} is the truth")
    if not codes and not expected.silent and not hurried:
        found.append(f"{behaviour}: nothing was said, {sorted(expected.codes)} is the truth (states {sorted(states)})")
    if State.PARKED.value in states and not expected.parks:
        found.append(f"{behaviour}: given up ({sorted(codes)})")
    if State.WATCHING.value in states and not expected.watched:
        found.append(f"{behaviour}: counted as up to date")
    return found


def _status(row: _Row, later: timedelta = timedelta()) -> str:
    _, state, _, trouble_since, proof_until, first_synced, now, desired = row
    facts = Facts(desired, State(state), first_synced, trouble_since, proof_until)  # type: ignore[arg-type]  # SQL's text
    return sync_status(facts, now + later)


async def _rows(conn: Conn, ids: Sequence[UUID]) -> list[_Row]:
    cursor = await conn.execute(
        "SELECT id, state, state_code, trouble_since, proof_until, first_synced_at IS NOT NULL, now(), desired"
        " FROM accounts WHERE id = ANY(%s)",
        (list(ids),),
    )
    return list(await cursor.fetchall())
