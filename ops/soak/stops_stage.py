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

from daemon.storage.connection import Conn
from ops.testservers.dovecot import Dovecot
from ops.testservers.mail import messages

from . import life, peek
from .campaign import Options, Report, Say
from .daemon_process import DaemonProcess
from .settle import Mailbox, settle
from .stops_watch import Systemd, repairs, shut_down_in_order

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
    loads: int = 0

    def problem(self, text: str) -> None:
        """Tell, and go on."""
        self.say(f"problem: {text}")
        self.report.problem(text)


# -- looking and waiting -------------------------------------------------------------------------------------------


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
    async with life.opened(stage.conninfo) as database:
        await life.ready(database)
        ids = await life.connect(database, stage.daemon, stage.dovecot, users, owner=owner)
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
    took = await life.ended(stage.daemon, stage.report, during=name)
    stage.figures[name] = round(took, 2)
    stage.say(f"{name}: stopped {count} accounts in {took:.2f} s")
    if took > STOP_WITHIN:
        stage.problem(f"{name}: stopping {count} accounts took {took:.1f} s")
    log = stage.daemon.said()
    if f'"accounts": {count}, "event": "fleet.left"' not in log:
        stage.problem(f"{name}: the claims of {count} accounts were not given back: {log[-500:]}")
    if stage.daemon.data.exists() and not await trio.to_thread.run_sync(shut_down_in_order, stage.daemon.data):
        stage.problem(f"{name}: the database was not shut down in order")


def expect_no_repairs(stage: Stage, name: str) -> None:
    """Nothing had to be mended in this life."""
    for line in repairs(stage.daemon.said()):
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
        seed, users = rng.getrandbits(32), rng.sample(stage.users, few)
        await trio.to_thread.run_sync(deliver, stage.dovecot, users, seed)
        await trio.sleep(DELIVER_EVERY)


def deliver(dovecot: Dovecot, users: Sequence[str], seed: int) -> None:
    """A message to each of them, all by one LMTP session.  Blocks."""
    with smtplib.LMTP("127.0.0.1", dovecot.ports.lmtp, local_hostname="localhost", timeout=60) as lmtp:
        for number, user in enumerate(users):
            [content] = messages(1, seed=seed + number)
            lmtp.sendmail("sender@example.test", [user], content, mail_options=["BODY=8BITMIME"])


async def equals(stage: Stage, name: str) -> None:
    """All accounts watch, and equal the server."""
    began = time.monotonic()
    took = await until_watching(stage, len(stage.mailboxes))
    async with life.opened(stage.conninfo) as database:
        await settle(database, stage.dovecot, stage.mailboxes, stage.report, within=SETTLE_WITHIN, say=stage.say)
    stage.figures[name] = {"all_watch_after": round(took, 1), "compared_after": round(time.monotonic() - began, 1)}
