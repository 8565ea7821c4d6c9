"""`bulkheads`: hundreds of bad hosts beside healthy ones, whose new mail must come as quickly as without them.

    healthy accounts ──TLS──► Dovecot ◄── deliveries at a steady rate
    daemon ──────────────────► dead, deaf, flooding, lying hosts: an address and a process of their own

Four phases: alone, together, alone, together.  Together is held against the worse of the two phases alone, which also
shows what the machine's noise is: at most SLOWER times that, and SPARE more.  In each together-phase the bad accounts
begin anew, so the storm of their first attempts is part of it.  Memory, descriptors, the processor's share and the
loop's delay are looked at in each phase, and what each bad account says of itself at all times.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import psutil
import trio

from daemon.network import Endpoint, Security
from daemon.storage.database import Database
from ops.bench import accounts
from ops.testservers.dovecot import Dovecot
from ops.testservers.hostile import Hostile

from .bulkheads_expected import mixture
from .bulkheads_states import Watched
from .campaign import Options, Report, Say
from .daemon_process import DaemonProcess
from .life import connect, ended, fill, serving
from .pushes import Pushes

SLOWER: Final = 1.5
SPARE: Final = 15.0
"""By how much the 95th percentile together may exceed the larger one alone: a factor, and milliseconds.  One turn of
the loop that parses for a bad account is 2 ms, and a push takes some ten turns; phases alone differ by a third on a
machine that does other things too."""

RATE: Final = 20.0
QUICK_RATE: Final = 10.0
"""Deliveries a second over all healthy accounts."""

MOST_RSS_GROWTH: Final = 160.0
"""MiB that three hundred bad accounts may add: half of one each for their sessions and rows in flight, as healthy ones,
and one large message that a handful has in flight."""

STILL: Final = 24.0
"""MiB that the second together-phase may be above the first: whatever grows with time is seen by then."""

SPARE_DESCRIPTORS: Final = 64
"""Descriptors beyond one for each account."""

SYNCED_WITHIN: Final = 120.0
"""Seconds for the healthy accounts to be up to date."""

SHOWN_WITHIN: Final = 100.0
"""Seconds of a phase in which every kind of bad host has been found out: silence in a session counts after 60."""

SETTINGS: Final[dict[str, object]] = {
    "fleet.starting_per_host": 40,
    "sync.retry_first": 2,
    "sync.retry_longest": 600,
    "sync.idle_renewal": 60,
}
"""The daemon's defaults for pauses between attempts, which are what keeps hosts that fail from being a load: each phase
sees the storm of their first attempts and the quieter time behind it.  The healthy accounts, all at one host, start as
fast as the machine can, and renew often enough for renewals to be among what is measured."""


@dataclass
class Run:
    """What is under way."""

    options: Options
    say: Say
    daemon: DaemonProcess
    hostile: Hostile
    database: Database
    pushes: Pushes
    watched: Watched
    report: Report = field(default_factory=Report)
    phases: list[dict[str, Any]] = field(default_factory=list)


async def campaign(options: Options, say: Say) -> Report:
    """Run it."""
    users = [f"healthy{number}@example.test" for number in range(options.accounts)]
    with Dovecot() as dovecot, Hostile(mixture(options.points), authority=dovecot.authority) as hostile:
        await fill(dovecot, dict.fromkeys(users, 3), options.seed, say)
        settings = {**SETTINGS, "network.ports": ",".join(map(str, [dovecot.imaps_port, *hostile.ports]))}
        async with DaemonProcess(port=dovecot.imaps_port, ca=dovecot.ca_pem, settings=settings) as daemon:
            async with serving(daemon) as database:
                pushes = Pushes(dovecot, users, QUICK_RATE if options.quick else RATE)
                run = Run(options, say, daemon, hostile, database, pushes, Watched(database))
                await _campaign(run, dovecot, users)
            connections = (await trio.to_thread.run_sync(hostile.seen))["connections"]
            run.report.figures["connections_of_the_bad"] = dict(sorted(connections.items()))
            await ended(daemon, run.report)
    return run.report


async def _campaign(run: Run, dovecot: Dovecot, users: list[str]) -> None:
    database = run.database
    healthy = await connect(database, run.daemon, dovecot, users)
    run.watched.expect_healthy(healthy)
    run.say("until the healthy ones are up to date")
    with trio.fail_after(SYNCED_WITHIN):
        while await run.watched.unhealthy():  # noqa: ASYNC110  # what is waited for is another process
            await trio.sleep(0.2)
    seconds = 60 * run.options.minutes / 4
    async with trio.open_nursery() as nursery:
        await nursery.start(run.pushes.run, run.daemon.conninfo)
        nursery.start_soon(run.watched.run)
        for number in range(4):
            if number == 1:
                await _connect_bad(run)
            elif number:
                await run.watched.set_desired(database, "running" if number % 2 else "paused")
            if number == 2:
                await trio.sleep(min(3.0, seconds / 2))
            await _phase(run, "together" if number % 2 else "alone", seconds)
        await run.pushes.settled()
        nursery.cancel_scope.cancel()
    for sentence in await run.watched.judge(hurried=seconds < SHOWN_WITHIN):
        run.report.problem(sentence)
    _judge(run)


async def _connect_bad(run: Run) -> None:
    """One account for each bad host, in one go."""
    for number, (behaviour, host, port) in enumerate(run.hostile.hosts):
        endpoint = Endpoint(host, port, Security.TLS)
        name = f"bad{number}@example.test"
        [account_id] = await accounts.connect(
            run.database, run.daemon.vault, [name], endpoint, "password", owner="attacker"
        )
        run.watched.expect_bad(account_id, behaviour)


async def _phase(run: Run, name: str, seconds: float) -> None:
    """Measure for so long."""
    run.say(f"{name}, {seconds:g} s")
    in_thread = trio.to_thread.run_sync
    before = await in_thread(partial(run.daemon.metrics, labelled=True))
    process, hostile = psutil.Process(run.daemon.pid), psutil.Process(run.hostile.pid)
    cpu, theirs, began = _cpu(process), _cpu(hostile), time.monotonic()
    most = {"rss_mib": 0.0, "descriptors": 0}
    while time.monotonic() < began + seconds:
        sample = await in_thread(partial(run.daemon.sample, began))
        if sample is not None:
            most = {
                "rss_mib": max(most["rss_mib"], round(sample.rss_mib, 1)),
                "descriptors": max(most["descriptors"], sample.descriptors),
            }
        await trio.sleep(min(1.0, seconds / 4))
    ended = time.monotonic()
    spent, spent_by_them = _cpu(process) - cpu, _cpu(hostile) - theirs
    await run.pushes.settled()
    after = await in_thread(partial(run.daemon.metrics, labelled=True))
    run.phases.append({
        "phase": name,
        "push_ms": run.pushes.between(began, ended),
        "push_of_its_own_s": _quantiles(before, after, "accountsd_push_seconds_bucket"),
        "loop_late_s": _quantiles(before, after, "accountsd_loop_lag_seconds_bucket"),
        "cpu": round(spent / (ended - began), 3),
        "cpu_of_the_bad_hosts": round(spent_by_them / (ended - began), 3),
        "most": most,
    })  # fmt: skip
    run.say(str(run.phases[-1]))


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _quantiles(before: dict[str, float], after: dict[str, float], name: str) -> dict[str, float]:
    """Upper bounds of the buckets that hold half of, 95 % of, and all that a histogram counted between two scrapes."""
    buckets = {key: float(key.split('le="')[1].split('"')[0]) for key in after if key.startswith(name)}
    counts = {bound: after[key] - before.get(key, 0.0) for key, bound in buckets.items()}
    total = counts.get(float("inf"), 0.0)
    return {
        label: min((bound for bound, count in counts.items() if count >= share * total), default=0.0)
        for label, share in (("p50", 0.5), ("p95", 0.95), ("longest", 1.0))
    }


def _judge(run: Run) -> None:
    """Together against alone."""
    report = run.report
    alone = [phase for phase in run.phases if phase["phase"] == "alone"]
    together = [phase for phase in run.phases if phase["phase"] == "together"]
    lost = sum(phase["push_ms"]["lost"] for phase in run.phases)
    if not all(phase["push_ms"]["delivered"] for phase in run.phases):
        report.problem("nothing was delivered to healthy accounts for a whole phase: there is nothing to compare")
    if lost:
        report.problem(f"{lost} deliveries to healthy accounts were not stored in time")
    bounds = {
        share: SLOWER * max(phase["push_ms"].get(share, 0.0) for phase in alone) + SPARE for share in ("p50", "p95")
    }
    if not run.options.quick:
        for phase in together:
            for share, bound in bounds.items():
                if phase["push_ms"].get(share, float("inf")) > bound:
                    report.problem(f"{share} of pushes together is {phase['push_ms']} ms, the bound {bound:.1f}")
    rss_alone = max(phase["most"]["rss_mib"] for phase in alone)
    first, second = (phase["most"]["rss_mib"] for phase in together)
    if max(first, second) > rss_alone + MOST_RSS_GROWTH:
        report.problem(f"memory grew from {rss_alone} to {max(first, second)} MiB")
    if second > first + STILL and not run.options.quick:
        report.problem(f"memory grows with time: {first} MiB in the first phase together, {second} in the second")
    count = run.options.accounts + len(run.hostile.hosts)
    descriptors = max(phase["most"]["descriptors"] for phase in run.phases)
    if descriptors > count + SPARE_DESCRIPTORS:
        report.problem(f"{descriptors} descriptors for {count} accounts")
    report.figures = {
        "healthy": run.options.accounts,
        "bad": len(run.hostile.hosts),
        "bounds_ms": {share: round(bound, 1) for share, bound in bounds.items()},
        "phases": run.phases,
        "states": run.watched.as_json(),
    }
