"""The life of a daemon under attack, the same in all campaigns: mailboxes, start, accounts, orphans, end in order."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final
from uuid import UUID

import psutil
import psycopg
import trio

from daemon.network import Endpoint, Security
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from ops.bench import accounts
from ops.testservers.dovecot import Dovecot
from ops.testservers.mail import seeds
from ops.testservers.process import ServerFailed

from .campaign import Report, Say
from .daemon_process import DaemonProcess

START_WITHIN: Final = 60.0
"""Seconds until the daemon has made its database."""

BURY_EVERY: Final = 0.1
"""Seconds."""


async def fill(dovecot: Dovecot, sizes: Mapping[str, int], seed: int, say: Say) -> None:
    """Make mailboxes with so many messages each, before anybody looks at them."""
    say(f"filling {len(sizes)} mailboxes with {sum(sizes.values())} messages")
    for number, (user, size) in enumerate(sizes.items()):
        await trio.to_thread.run_sync(dovecot.seed, user, seeds(size, seed=seed + number))


@asynccontextmanager
async def opened(conninfo: str) -> AsyncIterator[Database]:
    """The daemon's database, from outside, whether it is there already or not."""
    async with Database(conninfo, size=3, application_name="soak") as database, trio.open_nursery() as nursery:
        await nursery.start(database.watch)
        yield database
        nursery.cancel_scope.cancel()


async def ready(database: Database) -> None:
    """Until the daemon has made the schema.

    Raises:
        trio.TooSlowError: it did not within START_WITHIN.
    """

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


@asynccontextmanager
async def serving(daemon: DaemonProcess) -> AsyncIterator[Database]:
    """Start it; its database, as soon as accounts can be put there."""
    await trio.to_thread.run_sync(daemon.start)
    async with opened(daemon.conninfo) as database:
        await ready(database)
        yield database


async def connect(
    database: Database, daemon: DaemonProcess, dovecot: Dovecot, users: Sequence[str], *, owner: str = "soak"
) -> list[UUID]:
    """Let the daemon have an account for each user, at Dovecot or what is put before it; their ids in that order."""
    imap = Endpoint(dovecot.host, daemon.port, Security.TLS)
    return await accounts.connect(database, daemon.vault, users, imap, dovecot.password, owner=owner)


@asynccontextmanager
async def burying(daemon: DaemonProcess, dovecot: Dovecot) -> AsyncIterator[None]:
    """Be the parent of what killed daemons leave behind: a dead database that nobody buries looks like a living one."""

    async def bury() -> None:
        while True:
            with suppress(ServerFailed):  # Dovecot is just being restarted
                _bury(daemon.pid, dovecot.pid)
            await trio.sleep(BURY_EVERY)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bury)
        yield
        nursery.cancel_scope.cancel()


def _bury(*known: int | None) -> None:
    """Collect the orphans that have ended and were given to us, but not those whose owner waits for them."""
    for child in psutil.Process().children():
        with suppress(psutil.Error, ChildProcessError):
            if child.pid not in known and child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)


def expect_running(daemon: DaemonProcess, report: Report) -> bool:
    """Whether it runs, as it must where nobody has killed it."""
    if not daemon.running:
        report.problem(f"the daemon ended by itself: {daemon.last_words()}")
    return daemon.running


async def ended(
    daemon: DaemonProcess,
    report: Report,
    *,
    during: str = "",
    told: Callable[[DaemonProcess], list[str]] = DaemonProcess.bugs,
) -> float:
    """SIGTERM: it must have run until then, end with 0 and leave nothing behind; the seconds it took.

    Args:
        daemon: is stopped.
        report: where the problems go, those of its log first: they are the causes of others.
        during: what the campaign calls this end, where there are several.
        told: the lines of its whole log that must not be there.
    """
    in_thread, which = trio.to_thread.run_sync, f"{during}: " if during else ""
    ran = expect_running(daemon, report)
    began = time.monotonic()
    code = await in_thread(daemon.stop)
    took = time.monotonic() - began
    if ran and code != 0:
        report.problem(f"{which}the daemon ended with {code} after SIGTERM")
    if remains := await in_thread(daemon.remains):
        report.problem(f"{which}processes remain: {remains}")
    for line in reversed(await in_thread(told, daemon)):
        report.problem(f"bug: {line}", cause=True)
    return took
