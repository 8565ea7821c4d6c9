"""`faults`: mail comes and goes while everything fails, and at the end store equals server.

    daemon (a process, embedded database) ──► proxy (cuts, goes deaf) ──► Dovecot (is restarted)
      ▲ kill -9 of it, kill -9 of its database                              ▲ deliveries, flags, expunges

Everything random comes from the seed, and every action is printed before it is done, so a run can be replayed as far
as time allows.  At the end faults stop, and all accounts must come to equal a plain IMAP dump by themselves.
"""

from __future__ import annotations

import contextlib
import time
from functools import partial
from typing import Final

import psycopg
import trio

from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.storage.faults import DatabaseAway
from ops.testservers.dovecot import Dovecot

from .actions import Run, act
from .campaign import Options, Report, Say
from .daemon_process import RENEWAL, DaemonProcess
from .life import burying, connect, ended, expect_running, fill, serving
from .plan import plan
from .proxy import Proxy
from .samples import Sample, grown, growth
from .settle import Mailbox, settle

SETTLE_WITHIN: Final = 3 * RENEWAL + 60.0
"""Seconds from the last fault until all accounts equal the server: a deaf connection is found by the second renewal
at the latest, the pause before the next attempt is bounded by 3 s."""

QUIET_WITHIN: Final = 10.0
"""Seconds more until it holds no more than it needs: connections that it has left are closed, tasks have ended."""

SAMPLE_EVERY: Final = 2.0
"""Seconds."""

SEEDED: Final = 40
LARGE: Final = 3000
QUICK_LARGE: Final = 300
"""Messages in each mailbox at the start, and in the first, whose first synchronisation shall be interrupted."""

SPARE_DESCRIPTORS: Final = 64
"""Descriptors beyond one for each account: database, listeners, logs.  More of them leak."""

TASKS_OF_ONE: Final = 2
SPARE_TASKS: Final = 64
"""Tasks of an idle account, and of everything else."""


# -- the campaign --------------------------------------------------------------------------------------------------


async def _attack(run: Run, database: Database) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch, run, database)
        for action in plan(run.options.seed, 60 * run.options.minutes, len(run.users)):
            await trio.sleep(max(0.0, run.began + action.at - time.monotonic()))
            run.say(str(action))
            await act(run, action, nursery)
        nursery.cancel_scope.cancel()
    run.proxy.hear()


async def _watch(run: Run, database: Database) -> None:
    """Sample the process again and again."""
    while True:
        await _sample(run, database)
        await trio.sleep(SAMPLE_EVERY)


async def _sample(run: Run, database: Database) -> Sample | None:
    sessions = 0
    with trio.move_on_after(SAMPLE_EVERY), contextlib.suppress(psycopg.Error, DatabaseAway):
        sessions = await database.run(_sessions)
    look_at = partial(run.daemon.sample, run.began, tasks=True, database_sessions=sessions)
    sample = await trio.to_thread.run_sync(look_at)
    if sample is not None:
        run.samples.append(sample)
    return sample


async def _sessions(conn: Conn) -> int:
    """The daemon's connections to PostgreSQL: all that are not ours."""
    cursor = await conn.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> 'soak'"
    )
    return int((await cursor.fetchone() or (0,))[0])


async def _settle(run: Run, database: Database) -> float:
    """Wait until all accounts equal the server; the seconds it took."""
    if not expect_running(run.daemon, run.report):
        await trio.to_thread.run_sync(run.daemon.start)  # it must come to equal the server all the same
    mailboxes = [Mailbox(account_id, user) for account_id, user in zip(run.ids, run.users, strict=True)]
    return await settle(database, run.dovecot, mailboxes, run.report, within=SETTLE_WITHIN, say=run.say)


async def _leaks(run: Run, database: Database) -> None:
    """What a quiet daemon may hold, as soon as what the faults began is over."""
    found = ["never looked at"]
    with trio.move_on_after(QUIET_WITHIN):
        while True:
            found = held(await _sample(run, database), run.proxy.open, len(run.users))
            if not found:
                return
            await trio.sleep(SAMPLE_EVERY / 2)
    for sentence in found:
        run.report.problem(sentence)


def held(sample: Sample | None, open_connections: int, count: int) -> list[str]:
    """What is too much, in sentences, for a quiet daemon with so many accounts; or that nobody can tell."""
    if sample is None or not sample.tasks:
        return ["the daemon could not be looked at"]
    found = []
    if sample.descriptors > count + SPARE_DESCRIPTORS:
        found.append(f"{sample.descriptors} descriptors are open for {count} accounts")
    if sample.tasks > TASKS_OF_ONE * count + SPARE_TASKS:
        found.append(f"{sample.tasks} tasks live for {count} accounts")
    if open_connections != count:
        found.append(f"{open_connections} IMAP connections are open for {count} accounts")
    return found


async def campaign(options: Options, say: Say) -> Report:
    """Run it."""
    users = [f"soak{number}@example.test" for number in range(options.accounts)]
    large = QUICK_LARGE if options.quick else LARGE
    with Dovecot() as dovecot:
        await fill(dovecot, {user: SEEDED if number else large for number, user in enumerate(users)}, options.seed, say)
        async with trio.open_nursery() as nursery:
            proxy = Proxy(dovecot.imaps_port)
            port = await nursery.start(proxy.run)
            async with DaemonProcess(port=port, ca=dovecot.ca_pem) as daemon:
                run = Run(options, say, dovecot, daemon, proxy, users)
                await _campaign(run)
            nursery.cancel_scope.cancel()
    return run.report


async def _campaign(run: Run) -> None:
    daemon = run.daemon
    async with burying(daemon, run.dovecot), serving(daemon) as database:
        run.ids = await connect(database, daemon, run.dovecot, run.users)
        run.began = time.monotonic()
        await _attack(run, database)
        run.say("quiet: waiting until the store equals the server")
        settled = await _settle(run, database)
        await _leaks(run, database)
    await ended(daemon, run.report)
    drift, problems = grown(run.samples)
    for sentence in problems:
        run.report.problem(sentence)
    run.report.figures = {
        "minutes": run.options.minutes,
        "accounts": len(run.users),
        "done": dict(run.done),
        "delivered": run.delivered,
        "daemon_starts": daemon.starts,
        "imap_connections": run.proxy.accepted,
        "settled_in": round(settled, 1),
        "lives": growth(run.samples),
        "last_life_first_and_last_third": drift,
        "last_sample": run.samples[-1].as_json() if run.samples else None,
    }
