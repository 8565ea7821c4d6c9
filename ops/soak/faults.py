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
from uuid import UUID

import psycopg
import trio

from daemon.account.states import State
from daemon.network import Endpoint, Security
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from ops.bench import accounts
from ops.testservers.dovecot import Dovecot
from ops.testservers.mail import seeds
from ops.testservers.process import ServerFailed

from .actions import Run, act
from .campaign import Options, Report, Say
from .daemon_process import RENEWAL, DaemonProcess, bury
from .plan import plan
from .proxy import Proxy
from .samples import grown, growth
from .verify import OnServer, differences, look

SETTLE_WITHIN: Final = 3 * RENEWAL + 60.0
"""Seconds from the last fault until all accounts equal the server: a deaf connection is found by the second renewal
at the latest, the pause before the next attempt is bounded by 3 s."""

START_WITHIN: Final = 60.0
"""Seconds until the daemon has made its database."""

SAMPLE_EVERY: Final = 2.0
BURY_EVERY: Final = 0.2
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
    """Sample the process; notice when it ends though nobody killed it."""
    while True:
        await _sample(run, database)
        await trio.sleep(SAMPLE_EVERY)


async def _sample(run: Run, database: Database) -> None:
    sessions = 0
    with trio.move_on_after(SAMPLE_EVERY), contextlib.suppress(psycopg.Error):
        sessions = await database.run(_sessions)
    look_at = partial(run.daemon.sample, run.began, tasks=True, database_sessions=sessions)
    sample = await trio.to_thread.run_sync(look_at)
    if sample is not None:
        run.samples.append(sample)


async def _sessions(conn: Conn) -> int:
    """The daemon's connections to PostgreSQL: all that are not ours."""
    cursor = await conn.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> 'soak'"
    )
    return int((await cursor.fetchone() or (0,))[0])


async def _bury(run: Run) -> None:
    """Be the parent of what killed daemons leave behind: a dead database that nobody buries looks like a living one."""
    while True:
        with contextlib.suppress(ServerFailed):  # Dovecot is just being restarted
            bury({run.daemon.pid, run.dovecot.pid})
        await trio.sleep(BURY_EVERY)


async def _settle(run: Run, database: Database) -> float:
    """Wait until all accounts equal the server; the seconds it took.  What differs in the end is a problem."""
    in_thread = trio.to_thread.run_sync
    if not run.daemon.running:
        run.report.problem("the daemon ended by itself")
        await in_thread(run.daemon.start)
    began = time.monotonic()
    servers = [await in_thread(look, run.dovecot, user) for user in run.users]
    left: dict[int, list[str]] = {number: ["never compared"] for number in range(len(servers))}
    with trio.move_on_after(SETTLE_WITHIN):
        while left:
            left = await _compare(run, database, servers, left)
            if left:
                await trio.sleep(1.0)
    for found in left.values():
        for sentence in found:
            run.report.problem(sentence)
    return time.monotonic() - began


async def _compare(
    run: Run, database: Database, servers: list[OnServer], left: dict[int, list[str]]
) -> dict[int, list[str]]:
    still: dict[int, list[str]] = {}
    for number in left:
        account_id, user = run.ids[number], run.users[number]
        found = await differences(database, account_id, user, servers[number])
        state = await database.run(partial(_state, account_id=account_id))
        if state != State.WATCHING.value:
            found.append(f"{user}: the account is {state}")
        if found:
            still[number] = found
    return still


async def _state(conn: Conn, account_id: UUID) -> str:
    cursor = await conn.execute("SELECT state FROM accounts WHERE id = %s", (account_id,))
    row = await cursor.fetchone()
    return str(row[0]) if row else "gone"


async def ready(database: Database) -> None:
    """Until the daemon has made the schema."""

    async def work(conn: Conn) -> None:
        await conn.execute("SELECT FROM claims LIMIT 1")

    with trio.fail_after(START_WITHIN):
        await database.wait_ready()
        while True:
            try:
                await database.run(work)
            except psycopg.errors.UndefinedTable:
                await trio.sleep(0.1)
            else:
                return


async def _leaks(run: Run, database: Database) -> None:
    """What a quiet daemon may hold."""
    await _sample(run, database)
    count, last = len(run.users), run.samples[-1] if run.samples else None
    if last is None:
        run.report.problem("the daemon could not be looked at")
    elif last.descriptors > count + SPARE_DESCRIPTORS:
        run.report.problem(f"{last.descriptors} descriptors are open for {count} accounts")
    if last is not None and last.tasks > TASKS_OF_ONE * count + SPARE_TASKS:
        run.report.problem(f"{last.tasks} tasks live for {count} accounts")
    if run.proxy.open != count:
        run.report.problem(f"{run.proxy.open} IMAP connections are open for {count} accounts")


async def campaign(options: Options, say: Say) -> Report:
    """Run it."""
    in_thread = trio.to_thread.run_sync
    users = [f"soak{number}@example.test" for number in range(options.accounts)]
    large = QUICK_LARGE if options.quick else LARGE
    with Dovecot() as dovecot:
        say(f"filling {len(users)} mailboxes")
        for number, user in enumerate(users):
            await in_thread(dovecot.seed, user, seeds(SEEDED if number else large, seed=options.seed + number))
        async with trio.open_nursery() as nursery:
            proxy = Proxy(dovecot.imaps_port)
            port = await nursery.start(proxy.run)
            daemon = DaemonProcess(port=port, ca=dovecot.ca_pem)
            try:
                run = Run(options, say, dovecot, daemon, proxy, users)
                await _campaign(run, Endpoint(dovecot.host, port, Security.TLS))
            finally:
                with trio.CancelScope(shield=True):
                    await in_thread(daemon.close)
            nursery.cancel_scope.cancel()
    return run.report


async def _campaign(run: Run, imap: Endpoint) -> None:
    daemon, in_thread = run.daemon, trio.to_thread.run_sync
    await in_thread(daemon.start)
    async with Database(daemon.conninfo, size=2, application_name="soak") as database, trio.open_nursery() as nursery:
        await nursery.start(database.watch)
        nursery.start_soon(_bury, run)
        await ready(database)
        password = run.dovecot.password
        run.ids = await accounts.connect(database, daemon.vault, run.users, imap, password, owner="soak")
        run.began = time.monotonic()
        await _attack(run, database)
        run.say("quiet: waiting until the store equals the server")
        settled = await _settle(run, database)
        await _leaks(run, database)
        nursery.cancel_scope.cancel()
    code = await in_thread(daemon.stop)
    if code != 0:
        run.report.problem(f"the daemon ended with {code} after SIGTERM")
    if remains := await in_thread(daemon.remains):
        run.report.problem(f"processes remain: {remains}")
    for line in await in_thread(daemon.bugs):
        run.report.problem(f"bug: {line}", cause=True)
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
