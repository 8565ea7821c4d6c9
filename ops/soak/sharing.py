"""`sharing`: users invite, accept, leave, take back, disconnect, several at once; the daemon is held against a model.

    chance ──actions──► Users ──HTTP──► daemon, real mail servers behind ◄── killed, and its database, in the midst
    the answers must be those of some order of the model's, and after each step everybody is shown what the model says

Requests under way when something is killed may have been carried out or not; what they did must be the whole of it, the
audit's entry included, and once.  What comes next is chosen by a seed; which of two requests is first is not.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from daemon.settings import RateSettings
from ops.testservers.dovecot import Dovecot
from ops.testservers.smtp import SmtpServer

from . import database_faults, sharing_store
from .campaign import Options, Report, Say
from .daemon_process import DaemonProcess
from .http_daemon import COOKIE, READY_WITHIN, give_secret, listening, ready, token
from .life import burying, ended, expect_running
from .sharing_client import Person, Users, Wrong
from .sharing_model import Action, Disconnect
from .sharing_play import OWNERS, PEOPLE, Differs, Play, choose, what_next

STEPS: Final = 150
"""Steps of one play; the next one has users and accounts of its own."""

FAULT_EVERY: Final = 25
QUICK_FAULT_EVERY: Final = 5
"""Steps from one fault to the next."""

LEAST: Final = 11
"""Steps that are made however slow the machine is: two faults, and one more."""

STRIKES_WITHIN: Final = 0.08
"""Seconds after a step began in which a fault comes: requests last milliseconds, to connect takes fifty."""

MOST_WRONG: Final = 5
"""Plays that may go wrong: more of them tell the same."""


@dataclass
class Run:
    """A campaign under way."""

    options: Options
    say: Say
    dovecot: Dovecot
    smtp: SmtpServer
    daemon: DaemonProcess
    rng: random.Random
    report: Report = field(default_factory=Report)
    url: str = ""
    operations: int = 0
    plays: int = 0
    steps: int = 0
    requests: int = 0
    most_worlds: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    counted: Counter[str] = field(default_factory=Counter)


async def campaign(options: Options, say: Say) -> Report:
    """Run it."""
    with Dovecot() as dovecot, SmtpServer(authority=dovecot.authority) as smtp:
        settings: dict[str, object] = {f"rates.{name}": 1_000_000 for name in RateSettings.model_fields}
        settings["network.ports"] = f"{dovecot.imaps_port},{smtp.starttls_port}"
        async with DaemonProcess(port=dovecot.imaps_port, ca=dovecot.ca_pem, settings=settings) as daemon:
            give_secret(daemon)
            rng = random.Random(f"{options.seed} sharing")  # noqa: S311  # repeatable, not secret
            run = Run(options, say, dovecot, smtp, daemon, rng)
            async with burying(daemon, dovecot):
                await _start(run)
                await trio.to_thread.run_sync(sharing_store.slow_down, daemon.conninfo)
                await _plays(run)
            await ended(daemon, run.report)
    run.report.figures = _figures(run)
    return run.report


async def _start(run: Run) -> None:
    began = run.daemon.log_size
    await trio.to_thread.run_sync(run.daemon.start)
    with trio.fail_after(READY_WITHIN):
        while "accountsd " not in run.daemon.said(began):  # noqa: ASYNC110  # another process
            await trio.sleep(0.02)
    api, run.operations = await listening(run.daemon)
    run.url = f"http://127.0.0.1:{api}"
    await ready(run.operations)


async def _plays(run: Run) -> None:
    end = time.monotonic() + 60 * run.options.minutes
    wrong = 0
    while not _over(run, end) and wrong < MOST_WRONG:
        run.plays += 1
        async with AsyncExitStack() as stack:
            play = await _made(run, stack)
            try:
                await play.begin()
                await _steps(run, play, end)
            except (Wrong, Differs) as exc:
                wrong += 1
                run.report.problem(f"play {run.plays}, step {run.steps}: {exc}")
                run.say(f"{exc}")
            run.requests += play.users.requests
            run.counted += play.counted
            await _ended(run, play)


def _over(run: Run, end: float) -> bool:
    return run.steps >= LEAST and time.monotonic() >= end


async def _made(run: Run, stack: AsyncExitStack) -> Play:
    """Users and accounts that nobody has had before."""
    mark = f"{run.options.seed:x}-{run.plays}"
    people = {}
    for who in PEOPLE:
        user, email = f"{who}-{mark}", f"{who}.{mark}@Example.test"
        people[who] = Person(user, email, f"{COOKIE}={token(user, email=email)}")
    owners = {f"{who}{number}.{mark}@example.test": who for who, count in OWNERS.items() for number in range(count)}

    async def expire(invitation: str) -> None:
        await trio.to_thread.run_sync(sharing_store.expire, run.daemon.conninfo, invitation)

    users = Users(run.url, people, {account: _mailbox(run, account) for account in owners}, expire)
    return Play(await stack.enter_async_context(users), owners)


def _mailbox(run: Run, user: str) -> Mapping[str, object]:
    """The body that connects a user's mailbox."""
    return {
        "email": user, "username": user, "password": run.dovecot.password,
        "imap_host": run.dovecot.host, "imap_port": run.dovecot.imaps_port, "imap_security": "tls",
        "smtp_host": run.smtp.host, "smtp_port": run.smtp.starttls_port, "smtp_security": "starttls",
    }  # fmt: skip


async def _steps(run: Run, play: Play, end: float) -> None:
    every = QUICK_FAULT_EVERY if run.options.quick else FAULT_EVERY
    for _ in range(STEPS):
        if _over(run, end):
            return
        run.steps += 1
        actions = choose(what_next(play.now, run.rng.choice), play.now, play.known, run.rng.choice)
        if run.steps % every == 0:
            await _struck(run, play, actions)
        else:
            await play.step(actions)
        run.most_worlds = max(run.most_worlds, len(play.worlds))
        if not expect_running(run.daemon, run.report):
            await _start(run)
            play.users.url = run.url


async def _struck(run: Run, play: Play, actions: Sequence[Action]) -> None:
    """A step in the midst of which the daemon or its database is killed."""
    fault, delay = run.rng.choice(("daemon", "database", "session", "both")), run.rng.random() * STRIKES_WITHIN

    async def strike() -> None:
        await trio.sleep(delay)
        if fault == "session":
            await trio.to_thread.run_sync(database_faults.kill_backend, run.daemon.data, run.rng)
        if fault in ("database", "both"):
            await trio.to_thread.run_sync(database_faults.kill_server, run.daemon.data)
        if fault in ("daemon", "both"):
            await trio.to_thread.run_sync(run.daemon.kill)

    run.faults[fault] += 1
    play.users.lossy = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(strike)
        await play.ask(actions)
    if fault in ("daemon", "both"):
        await _start(run)
    else:
        await ready(run.operations)
    play.users.url = run.url
    await play.look()
    play.users.lossy = False
    run.say(f"step {run.steps}: {fault} killed {delay * 1000:.0f} ms after {', '.join(map(_word, actions))}")


def _word(action: Action) -> str:
    return type(action).__name__.lower()


async def _ended(run: Run, play: Play) -> None:
    """Disconnect what is connected still, so that the next play's daemon has nothing else to do."""
    for key, account in play.now.accounts.items():
        if account.connected and key in play.users.ids and run.daemon.running:
            try:
                await play.users.do(Disconnect(account.owner, key))
            except Wrong as exc:
                run.report.problem(f"play {run.plays}: {exc}")


def _figures(run: Run) -> dict[str, Any]:
    return {
        "minutes": run.options.minutes,
        "plays": run.plays,
        "steps": run.steps,
        "requests": run.requests,
        "asked": dict(sorted(run.counted.items())),
        "faults": dict(sorted(run.faults.items())),
        "most_worlds": run.most_worlds,
        "daemon_starts": run.daemon.starts,
    }
