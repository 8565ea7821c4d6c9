"""Deliveries at a steady rate, and how long each takes until its row can be read: measured outside of the daemon."""

from __future__ import annotations

import smtplib
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

import trio

from daemon.storage.connection import Conn
from daemon.storage.database import Database
from ops.bench.result import percentile
from ops.testservers.dovecot import Dovecot
from ops.testservers.mail import message

HELD: Final = 0.5
"""Seconds that Dovecot holds news of IDLE back, always: taken off what is measured."""

LOOK_EVERY: Final = 0.005
"""Seconds between looks into the database, so the error of one measurement."""

LATE: Final = 15.0
"""Seconds after which a delivery that was not seen counts as lost."""

_LAP: Final = 500
"""Events looked at again each time: transactions do not commit in the order of their numbers."""


class Pushes:
    """Delivers and watches; `between` gives what was measured in a span of time."""

    def __init__(self, dovecot: Dovecot, users: Sequence[str], rate: float) -> None:
        self._dovecot = dovecot
        self._users = users
        self._every = 1.0 / rate
        self._taken: dict[str, float] = {}  # by subject: when the server had taken it
        self._seen: dict[str, float] = {}
        self._stop = threading.Event()

    async def run(self, database: Database, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Deliver and watch until cancelled."""
        self._last = await database.run(_newest)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, database)
            task_status.started()
            try:
                await trio.to_thread.run_sync(self._deliver, abandon_on_cancel=True)
            finally:
                self._stop.set()

    def _deliver(self) -> None:
        with smtplib.LMTP("127.0.0.1", self._dovecot.ports.lmtp, local_hostname="localhost", timeout=60) as lmtp:
            number, due = 0, time.monotonic()
            while not self._stop.wait(max(0.0, due - time.monotonic())):
                subject = f"push {number}"
                lmtp.sendmail("sender@example.test", [self._users[number % len(self._users)]], message(subject))
                self._taken[subject] = time.monotonic()
                number += 1
                due = max(due + self._every, time.monotonic() - 1.0)

    async def _watch(self, database: Database) -> None:
        while True:
            rows = await database.run(partial(_after, since=self._last - _LAP))
            now = time.monotonic()
            for number, subject in rows:
                self._last = max(self._last, number)
                self._seen.setdefault(subject, now)
            await trio.sleep(LOOK_EVERY)

    async def settled(self) -> None:
        """Until all that was delivered so far is seen, or too late."""
        wanted = set(self._taken)
        with trio.move_on_after(LATE):
            while wanted - self._seen.keys():  # noqa: ASYNC110  # what is waited for is another process
                await trio.sleep(0.05)

    def between(self, since: float, until: float) -> dict[str, float]:
        """What was delivered in a span of `time.monotonic()`: milliseconds beyond Dovecot's own half second."""
        delivered = [subject for subject, at in list(self._taken.items()) if since <= at < until]
        times = [
            1000 * max(0.0, self._seen[subject] - self._taken[subject] - HELD)
            for subject in delivered
            if subject in self._seen
        ]
        if not times:
            return {"delivered": len(delivered), "lost": len(delivered)}
        return {
            "delivered": len(delivered),
            "lost": len(delivered) - len(times),
            "p50": round(percentile(times, 0.5), 1),
            "p95": round(percentile(times, 0.95), 1),
            "longest": round(max(times), 1),
        }


async def _newest(conn: Conn) -> int:
    cursor = await conn.execute("SELECT coalesce(max(id), 0) FROM events")
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def _after(conn: Conn, since: int) -> list[tuple[int, str]]:
    cursor = await conn.execute(
        "SELECT id, data->>'subject' FROM events WHERE id > %s AND type = 'email.received'"
        " AND data->>'subject' LIKE 'push %%'",
        (since,),
    )
    return [(int(row[0]), str(row[1])) for row in await cursor.fetchall()]
