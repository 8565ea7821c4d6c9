"""`throttling`: many accounts of one provider that lets few in at a time must be paced, and all get in.

    daemon ──TLS──► gate: so many logins a second, the others are turned away ──► Dovecot

Said by the gate: how often it was asked in each second, and how many it turned away.  The provider allows a sixtieth
of the accounts a second, so that the best there can be is a minute; with the daemon's default settings.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Final

import trio

from ops.testservers.dovecot import Dovecot
from ops.testservers.hostile import Hostile

from .bulkheads_states import Watched
from .campaign import Options, Report, Say
from .daemon_process import DaemonProcess
from .life import connect, ended, serving

SPAN: Final = 60
QUICK_SPAN: Final = 3
"""Seconds that the provider's rate needs for all accounts."""

LONGER: Final = 2.0
SPARE: Final = 25.0
"""Times that span, and seconds more, in which all must be up to date: three quarters of the rate are used by a client
that feels its way (`host_pace`), and whoever was turned away waits for its own pause as well."""

MOST_TURNED_AWAY: Final = 0.15
SPARE_TURNED_AWAY: Final = 25
"""Share of the attempts that may be turned away, and attempts besides: those of the first second, when nothing is known
of the provider yet, and ten are under way at once."""

OFTENER: Final = 1.5
"""Times the provider's rate that it may be asked in any second after the first ten."""

FIRST: Final = 10
"""Seconds after which the daemon must have learnt."""


async def campaign(options: Options, say: Say) -> Report:
    """Run it."""
    span = QUICK_SPAN if options.quick else SPAN
    rate = max(2.0, options.accounts / span)
    in_thread = trio.to_thread.run_sync
    report = Report()
    with (
        Dovecot() as dovecot,
        Hostile([], authority=dovecot.authority, gate={"backend": dovecot.imap_port, "rate": rate}) as hostile,
    ):
        settings = {
            "sync.idle_renewal": 540, "sync.retry_first": 2, "sync.retry_longest": 600, "fleet.starting_per_host": 10,
        }  # fmt: skip
        async with DaemonProcess(port=hostile.gate_port, ca=dovecot.ca_pem, settings=settings) as daemon:
            async with serving(daemon) as database:
                users = [f"throttled{number}@example.test" for number in range(options.accounts)]
                watched = Watched(database)
                watched.expect_healthy(await connect(database, daemon, dovecot, users))
                took = await _until_synced(watched, LONGER * span + SPARE, say)
            seen = (await in_thread(hostile.seen))["gate"]
            metrics = await in_thread(partial(daemon.metrics, labelled=True))
            _judge(report, options, rate, took, seen)
            report.figures |= {name: value for name, value in metrics.items() if "connection_attempts_total" in name}
            await ended(daemon, report)
    return report


async def _until_synced(watched: Watched, within: float, say: Say) -> float | None:
    """Seconds until all accounts are up to date; None when they are not in time."""
    began = time.monotonic()
    with trio.move_on_after(within):
        while left := await watched.unhealthy():
            say(f"{left} accounts are not up to date yet")
            await trio.sleep(1.0)
        return time.monotonic() - began
    return None


def _judge(report: Report, options: Options, rate: float, took: float | None, seen: dict[str, Any]) -> None:
    by_second, ended = seen["attempts_by_second"], seen["ended"]
    attempts = sum(by_second)
    turned_away = attempts - ended.get("let in", 0)
    report.figures = {
        "accounts": options.accounts,
        "provider_allows_a_second": rate,
        "all_synced_in": round(took, 1) if took is not None else None,
        "attempts": attempts,
        "turned_away": turned_away,
        "ended": ended,
        "most_a_second_after_the_first": max(by_second[FIRST:], default=0),
        "attempts_by_second": by_second,
    }
    if took is None:
        report.problem("not all accounts were up to date in time")
    if turned_away > MOST_TURNED_AWAY * attempts + SPARE_TURNED_AWAY:
        report.problem(f"{turned_away} of {attempts} attempts were turned away")
    most = max(by_second[FIRST:], default=0)
    if most > OFTENER * rate + 2:
        report.problem(f"{most} attempts in one second, where the provider allows {rate:g}")
