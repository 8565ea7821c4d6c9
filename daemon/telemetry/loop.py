"""How the event loop does: how many tasks live in it, and how late it wakes who is due; and what it does by the way.

All accounts of a node share one loop, so whoever holds it holds all of them up.  A probe that sleeps for a known time
and looks how much later it woke sees that without costing the tasks themselves anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import trio

from . import metrics
from .lean import tidy

EVERY: Final = 0.25
"""Seconds between looks: four wake-ups a second cost 0.15 % of a core (measured where others use its caches as well),
and whatever holds the loop for longer is seen."""


async def watch_lag(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """A child that measures, until cancelled, how late the loop wakes it; and sets aside what is old (`lean.tidy`)."""
    task_status.started()
    while True:
        due = trio.current_time() + EVERY
        await trio.sleep_until(due)
        metrics.loop_lag_seconds.observe(max(0.0, trio.current_time() - due))
        tidy()


def gauges() -> Iterator[metrics.Gauge]:
    """What the loop holds, asked inside it."""
    yield metrics.Gauge("accountsd_tasks", "Tasks in the event loop.", trio.lowlevel.current_statistics().tasks_living)
