"""`kills`: SIGKILL at random points of first synchronisations and of a delivery storm; nothing lost, nothing twice.

    large mailbox ◄── account after account, each in its first synchronisation when most of the kills come
    small mailboxes ◄── a storm of deliveries, flags, moves and expunges, all the time
    daemon, its PostgreSQL, or both at once ◄── killed as `kill_points` says, also while they begin and recover
    the store ◄── looked into all the time (`peek`)

At every look cursors cover what is stored, nothing is there twice and nothing that was committed is lost; in the end
the store equals the server (`verify`).
"""

from __future__ import annotations

import hashlib
import random
import statistics
import time
from collections import Counter
from typing import Any, Final

import trio

from ops.testservers.dovecot import Dovecot

from . import database_faults, peek
from .campaign import Options, Report, Say
from .daemon_process import DaemonProcess
from .kill_points import DAEMON, Moment, Point, Victim, points
from .kills_run import Run, begin, phase
from .life import burying, connect, ended, expect_running, fill, opened
from .peek import Peek
from .settle import LARGE_USER, Mailbox, settle
from .storm import Storm

LARGE: Final = 20_000
QUICK_LARGE: Final = 800
"""Messages of the large mailbox at the start."""

SEEDED: Final = 40
"""Messages in each of the small mailboxes."""

STORM_EVERY: Final = 0.04
"""Seconds between two actions of the storm: twenty a second leave the daemon one of two cores."""

WATCHED: Final = 3
"""Kills at most that come while all accounts only watch the storm, before the next first synchronisation begins."""

WORKS_WITHIN: Final = 60.0
"""Seconds from a start until something is stored: it takes two; after them the campaign tells and goes on."""

LOOK_EVERY: Final = 0.2
POLL_EVERY: Final = 0.03
"""Seconds; a look takes at most a third of the time."""

SETTLE_WITHIN: Final = 180.0
"""Seconds from the last kill until all accounts equal the server."""


async def _start(run: Run) -> None:
    begin(run)
    await trio.to_thread.run_sync(run.daemon.start)


# -- where it is ---------------------------------------------------------------------------------------------------


async def _until_working(run: Run, progress: Peek) -> bool:
    """Wait until something was stored since this life began; begin another first synchronisation when it is time.

    Whether it was: if not, that is a problem, and there is no point in killing on.
    """
    while time.monotonic() < run.origin + WORKS_WITHIN:
        answer = await progress.ask(peek.progress)
        if answer is not None:
            done, run.incomplete = answer
            if run.stored is None:
                run.stored = done
                if not run.incomplete and await _watched_enough(run):
                    continue
            elif done > run.stored:
                if not run.working:
                    run.works_after.append(time.monotonic() - run.origin)
                run.working = True
                return True
        if not run.daemon.running:
            return True  # the caller tells
        await trio.sleep(POLL_EVERY)
    run.report.problem(f"nothing was stored within {WORKS_WITHIN:g} s of a start: {run.daemon.last_words()}")
    return False


async def _watched_enough(run: Run) -> bool:
    """Let one more account synchronise the large mailbox, unless a few kills shall come without."""
    rng = random.Random(f"{run.options.seed} {len(run.mailboxes)}")  # noqa: S311  # repeatable, not secret
    if run.mailboxes and run.watched < rng.randint(0, WATCHED):
        run.watched += 1
        return False
    run.watched = 0
    number = len(run.gapless)
    names = [_spelled(LARGE_USER, number)] if run.mailboxes else [_spelled(LARGE_USER, 0), *_small(run.options)]
    with trio.move_on_after(WORKS_WITHIN):
        async with opened(run.daemon.conninfo) as database:
            ids = await connect(database, run.daemon, run.dovecot, names, owner=f"soak{number}")
        run.gapless.add(names[0])
        run.mailboxes += [
            Mailbox(account_id, LARGE_USER if name == names[0] else name)
            for account_id, name in zip(ids, names, strict=True)
        ]
        return True
    run.report.problem("no account could be connected")
    return False


def _small(options: Options) -> list[str]:
    return [f"kills{number}@example.test" for number in range(options.accounts)]


def _spelled(user: str, number: int) -> str:
    """Another account of the same mailbox: the schema wants another user name, Dovecot folds their case."""
    flips = int(hashlib.sha256(str(number).encode()).hexdigest(), 16)
    local, _, domain = user.partition("@")
    return f"{local}@" + "".join(c.upper() if flips >> at & 1 else c for at, c in enumerate(domain))


# -- killing -------------------------------------------------------------------------------------------------------


async def _attack(run: Run, progress: Peek) -> None:
    planned = points(run.options.seed, run.options.points)
    await _start(run)
    for number, point in enumerate(planned, start=1):
        if point.moment is Moment.WORK:
            if not await _until_working(run, progress):
                break
            await trio.sleep(point.delay)
        else:
            await trio.sleep(max(0.0, run.origin + point.delay - time.monotonic()))
        if not expect_running(run.daemon, run.report):
            await _start(run)
            continue
        await _kill(run, number, len(planned), point, progress)


async def _kill(run: Run, number: int, of: int, point: Point, progress: Peek) -> None:
    during, looks = phase(run), run.looks
    in_thread = trio.to_thread.run_sync
    rng = random.Random(point.choice)  # noqa: S311  # repeatable, not secret
    hit = True
    if point.victim is Victim.DATABASE:
        hit = await in_thread(database_faults.kill_server, run.daemon.data)
    elif point.victim is Victim.BACKEND:
        hit = await in_thread(database_faults.kill_backend, run.daemon.data, rng)
    elif point.victim is Victim.STALL:
        stopped = await in_thread(database_faults.stop, run.daemon.data)
        await trio.sleep(point.lasting)
        await in_thread(database_faults.go_on, stopped)
        hit = bool(stopped)
    else:
        if point.victim is Victim.BOTH:
            hit = await in_thread(database_faults.kill_server, run.daemon.data)
        await in_thread(run.daemon.kill)
    stored = run.last.stored if run.last is not None else 0
    run.kills.append({"victim": point.victim.value, "phase": during, "hit": hit, "stored": stored})
    run.phases[f"{point.victim.value}: {during}"] += 1
    run.say(f"{number:3} of {of}: {point.victim.value:20} in {during:30} about {stored} stored")
    if point.victim in DAEMON:
        if point.lasting and point.victim is Victim.DAEMON:  # its database is still there, and at rest
            await _look_once(run, progress)
        await trio.sleep(point.lasting)
        run.unseen += run.looks == looks
        await _start(run)
    elif hit:
        begin(run)


# -- what must hold ------------------------------------------------------------------------------------------------


async def _look(run: Run) -> None:
    """Look into the store again and again: whatever was killed, what must hold holds."""
    looker = Peek(run.daemon.conninfo)
    try:
        while True:
            began = time.monotonic()
            await _look_once(run, looker)
            await trio.sleep(max(LOOK_EVERY, 2 * (time.monotonic() - began)))
    finally:
        with trio.CancelScope(shield=True):
            await looker.aclose()


async def _look_once(run: Run, looker: Peek) -> None:
    """Compare with the look before, one at a time."""
    async with run.looking:
        gapless = frozenset(run.gapless)  # before the look: nobody connected later is in it
        after = await looker.ask(peek.snapshot)
        if after is not None:
            for sentence in peek.compare(run.last, after, gapless):
                run.report.problem(f"after kill {len(run.kills)}: {sentence}")
            run.last = after
            run.looks += 1


async def campaign(options: Options, say: Say) -> Report:
    """Run it."""
    small, large = _small(options), QUICK_LARGE if options.quick else LARGE
    with Dovecot() as dovecot:
        await fill(dovecot, {LARGE_USER: large} | dict.fromkeys(small, SEEDED), options.seed, say)
        storm = Storm(dovecot, small, [LARGE_USER], seed=options.seed, every=STORM_EVERY)
        async with DaemonProcess(port=dovecot.imaps_port, ca=dovecot.ca_pem) as daemon:
            run = Run(options, say, dovecot, daemon, storm)
            await _campaign(run)
    return run.report


async def _campaign(run: Run) -> None:
    daemon = run.daemon
    async with burying(daemon, run.dovecot), trio.open_nursery() as nursery:
        nursery.start_soon(run.storm.run)
        progress = Peek(daemon.conninfo)
        async with trio.open_nursery() as lookers:
            lookers.start_soon(_look, run)
            await _attack(run, progress)
            await _until_working(run, progress)
            lookers.cancel_scope.cancel()
        await run.storm.end()
        run.say("quiet: waiting until the store equals the server")
        async with opened(daemon.conninfo) as database:
            settled = await settle(
                database, run.dovecot, run.mailboxes, run.report, within=SETTLE_WITHIN, say=run.say
            )
        looks = run.looks
        await _look_once(run, progress)
        await progress.aclose()
    if not looks or run.looks == looks:
        run.report.problem(f"the store was looked into {looks} times before the end, {run.looks - looks} times then")
    await ended(daemon, run.report)
    run.report.figures = _figures(run, settled)


def _figures(run: Run, settled: float) -> dict[str, Any]:
    inboxes = run.last.folders.values() if run.last is not None else ()
    return {
        "kills": dict(Counter(kill["victim"] for kill in run.kills)),
        "by_phase": dict(sorted(run.phases.items())),
        "nothing_to_kill": sum(not kill["hit"] for kill in run.kills),
        "looks": run.looks,
        "starts_without_a_look_since_the_kill": run.unseen,
        "large_accounts": len(run.gapless),
        "stored_at_the_end": sum(folder.placements for folder in inboxes),
        "storm": dict(run.storm.done),
        "delivered": run.storm.delivered,
        "daemon_starts": run.daemon.starts,
        "works_again_after": {
            "median": round(statistics.median(run.works_after), 2),
            "longest": round(max(run.works_after), 2),
        } if run.works_after else {},
        "settled_in": round(settled, 1),
        "each": [[kill["victim"], kill["phase"], kill["stored"]] for kill in run.kills],
    }  # fmt: skip
