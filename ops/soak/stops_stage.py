"""The stage of `stops`: a daemon, a Dovecot, many accounts; waiting for them, ending them, and mail for all."""

from __future__ import annotations

import random
import smtplib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import psutil
import trio

from daemon.network import Endpoint, Security
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from ops.bench import accounts
from ops.testservers.dovecot import Dovecot
from ops.testservers.mail import messages

from . import peek
from .campaign import Options, Report, Say
from .daemon_process import DaemonProcess
from .settle import Mailbox, settle
from .stops_watch import Systemd, repairs, shut_down_in_order

LARGE_USER: Final = "large@example.test"

STOP_WITHIN: Final = 5.0
"""Seconds from SIGTERM to the end, whatever runs: service managers and people are impatient."""

AT_ONCE: Final = 1.0
"""Seconds from a second signal to the end."""

WATCH_WITHIN: Final = 240.0
"""Seconds until all accounts watch, on a machine that has more to do; a thousand take twenty on two idle cores."""

SETTLE_WITHIN: Final = 240.0

DELIVER_EVERY: Final = 0.01
"""Seconds between deliveries under load."""

FEW: Final = 5
"""Users who get mail by one delivery."""

LOAD_BEFORE: Final = 1.0
LOAD_AFTER: Final = 3.0
QUICK_LOAD: Final = 0.3
"""Seconds of load before and after a fault; before and after it where all shall be quick."""


@dataclass
class Stage:
    """Where it plays: one daemon, one Dovecot, all accounts."""

    options: Options
    say: Say
    dovecot: Dovecot
    daemon: DaemonProcess
    conninfo: str
    users: list[str]
    report: Report
    part: str
    home: Path
    """The name of this part of the campaign, and the directory of what is its own."""
    systemd: Systemd
    figures: dict[str, Any] = field(default_factory=dict)
    mailboxes: list[Mailbox] = field(default_factory=list)
    log_from: int = 0
    loads: int = 0

    @property
    def data(self) -> Path:
        """Where the embedded database is."""
        return self.daemon.state / "postgresql/data"

    def log(self) -> str:
        """What this life of the daemon has written."""
        with self.daemon.log.open("rb") as log:
            log.seek(self.log_from)
            return log.read().decode(errors="replace")

    async def start(self) -> None:
        """Start the daemon; its log is read from here."""
        self.log_from = self.daemon.log.stat().st_size if self.daemon.log.exists() else 0
        await trio.to_thread.run_sync(self.daemon.start)

    def problem(self, text: str) -> None:
        """Tell, and go on."""
        self.say(f"problem: {text}")
        self.report.problem(text)


# -- looking and waiting -------------------------------------------------------------------------------------------


@asynccontextmanager
async def opened(stage: Stage) -> AsyncIterator[Database]:
    """The daemon's database, from outside."""
    async with Database(stage.conninfo, size=2, application_name="soak") as database, trio.open_nursery() as nursery:
        await nursery.start(database.watch)
        yield database
        nursery.cancel_scope.cancel()


async def _watching(conn: Conn) -> int:
    cursor = await conn.execute("SELECT count(*) FROM accounts WHERE state = 'watching' AND proof_until > now()")
    return int((await cursor.fetchone() or (0,))[0])


async def until_watching(stage: Stage, count: int, since: float | None = None) -> float:
    """Wait until so many accounts watch; the seconds since then."""
    since = time.monotonic() if since is None else since
    looker = peek.Peek(stage.conninfo)
    while (now := await looker.ask(_watching)) is None or now < count:
        if time.monotonic() - since > WATCH_WITHIN:
            stage.problem(f"{now} of {count} accounts watch after {WATCH_WITHIN:g} s")
            break
        await trio.sleep(0.1)
    await looker.aclose()
    return time.monotonic() - since


async def connect(stage: Stage, users: Sequence[str], owner: str) -> list[UUID]:
    """Let the daemon have these accounts, once it has made the schema."""
    looker = peek.Peek(stage.conninfo)
    with trio.fail_after(WATCH_WITHIN):
        while await looker.ask(peek.progress) is None:  # noqa: ASYNC110  # another process, which tells nobody
            await trio.sleep(0.1)
        await looker.aclose()
        imap = Endpoint(stage.dovecot.host, stage.dovecot.imaps_port, Security.TLS)
        async with opened(stage) as database:
            password = stage.dovecot.password
            ids = await accounts.connect(database, stage.daemon.vault, users, imap, password, owner=owner)
    stage.mailboxes += [Mailbox(account_id, user) for account_id, user in zip(ids, users, strict=True)]
    return ids


async def _first_sync_of(conn: Conn, account_id: UUID) -> tuple[int, int]:
    cursor = await conn.execute(
        "SELECT messages_done, backfill_below FROM folders WHERE account_id = %s AND name = 'INBOX'", (account_id,)
    )
    row = await cursor.fetchone()
    return (row[0], row[1] or 0) if row is not None else (0, 0)


async def until_in_first_sync(stage: Stage, account_id: UUID, beyond: int = 0) -> tuple[int, int]:
    """Wait until more than that is stored of the large mailbox; how many messages are, and what is left below."""
    looker = peek.Peek(stage.conninfo)
    ask = partial(_first_sync_of, account_id=account_id)
    with trio.move_on_after(WATCH_WITHIN):
        while (now := await looker.ask(ask)) is None or now[0] <= beyond:  # noqa: ASYNC110  # as above
            await trio.sleep(0.02)
        await looker.aclose()
        return now
    stage.problem("the first synchronisation does not go on")
    return 0, 0


# -- ending --------------------------------------------------------------------------------------------------------


def signal_twice(stage: Stage) -> tuple[float, int | None]:
    """SIGTERM, and again; the seconds from the second one to the end, and the exit code.  Blocks."""
    pid = stage.daemon.pid
    if pid is None:
        return 0.0, None
    process = psutil.Process(pid)
    process.terminate()
    time.sleep(0.02)
    began = time.monotonic()
    process.terminate()
    try:
        code = process.wait(STOP_WITHIN)
    except psutil.TimeoutExpired:
        code = None
    took = time.monotonic() - began
    stage.daemon.kill()  # what is left of its group
    return took, code


async def stop(stage: Stage, name: str) -> None:
    """SIGTERM: in time, with 0, and nothing left."""
    count = len(stage.mailboxes)
    began = time.monotonic()
    code = await trio.to_thread.run_sync(stage.daemon.stop)
    took = time.monotonic() - began
    stage.figures[name] = round(took, 2)
    stage.say(f"{name}: stopped {count} accounts in {took:.2f} s with {code}")
    if code != 0:
        stage.problem(f"{name}: the daemon ended with {code} after SIGTERM")
    if took > STOP_WITHIN:
        stage.problem(f"{name}: stopping {count} accounts took {took:.1f} s")
    if remains := await trio.to_thread.run_sync(stage.daemon.remains):
        stage.problem(f"{name}: processes remain: {remains}")
    log = stage.log()
    if f'"accounts": {count}, "event": "fleet.left"' not in log:
        stage.problem(f"{name}: the claims of {count} accounts were not given back: {log[-500:]}")
    if stage.data.exists() and not await trio.to_thread.run_sync(shut_down_in_order, stage.data):
        stage.problem(f"{name}: the database was not shut down in order")


def expect_no_repairs(stage: Stage, name: str) -> None:
    """Nothing had to be mended in this life."""
    for line in repairs(stage.log()):
        stage.problem(f"{name}: {line}")


# -- under load ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def load(stage: Stage) -> AsyncIterator[None]:
    """Deliveries to everybody in turns, from a second before the block to a few after it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_deliver, stage)
        await trio.sleep(QUICK_LOAD if stage.options.quick else LOAD_BEFORE)
        yield
        await trio.sleep(QUICK_LOAD if stage.options.quick else LOAD_AFTER)
        nursery.cancel_scope.cancel()


async def _deliver(stage: Stage) -> None:
    stage.loads += 1  # no message comes twice
    rng = random.Random(f"{stage.options.seed} {stage.part} {stage.loads}")  # noqa: S311  # repeatable, not secret
    few = min(FEW, len(stage.users))
    while True:
        await trio.to_thread.run_sync(_deliver_some, stage, rng.getrandbits(32), rng.sample(stage.users, few))
        await trio.sleep(DELIVER_EVERY)


def _deliver_some(stage: Stage, seed: int, users: Sequence[str]) -> None:
    fill(stage.dovecot, users, 1, seed)


def fill(dovecot: Dovecot, users: Sequence[str], count: int, seed: int) -> None:
    """So many messages to each of them, by one LMTP session.  Blocks."""
    with smtplib.LMTP("127.0.0.1", dovecot.ports.lmtp, local_hostname="localhost", timeout=60) as lmtp:
        for number, user in enumerate(users):
            for content in messages(count, seed=seed + number):
                lmtp.sendmail("sender@example.test", [user], content, mail_options=["BODY=8BITMIME"])


async def equals(stage: Stage, name: str) -> None:
    """All accounts watch, and equal the server."""
    began = time.monotonic()
    took = await until_watching(stage, len(stage.mailboxes))
    async with opened(stage) as database:
        await settle(database, stage.dovecot, stage.mailboxes, stage.report, within=SETTLE_WITHIN, say=stage.say)
    stage.figures[name] = {"all_watch_after": round(took, 1), "compared_after": round(time.monotonic() - began, 1)}
