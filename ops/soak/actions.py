"""The actions of a soak: what `plan` says, done to real servers and processes."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID

import trio

from ops.testservers.dovecot import Dovecot
from ops.testservers.mail import messages

from .campaign import Options, Report, Say
from .daemon_process import DaemonProcess
from .database_faults import kill_server
from .life import expect_running
from .plan import Action, Kind
from .proxy import Proxy
from .samples import Sample
from .storm import BURST, FLAGS, MOST


@dataclass
class Run:
    """What is under way."""

    options: Options
    say: Say
    dovecot: Dovecot
    daemon: DaemonProcess
    proxy: Proxy
    users: list[str]
    began: float = field(default_factory=time.monotonic)
    ids: list[UUID] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    report: Report = field(default_factory=Report)
    delivered: int = 0


def _mail(run: Run, action: Action) -> None:
    """Another client's work, or a delivery; blocks."""
    dovecot, user = run.dovecot, run.users[action.account]
    rng = random.Random(action.choice)  # noqa: S311  # repeatable, not secret
    if action.kind in {Kind.DELIVER, Kind.BURST}:
        count = BURST if action.kind is Kind.BURST else 1 + int(action.share * 3)
        for content in messages(count, seed=action.choice):
            dovecot.deliver(user, content)
        run.delivered += count
        return
    uids = dovecot.uids(user)
    chosen = rng.sample(uids, min(len(uids), 1 + int(action.share * MOST)))
    if not chosen:
        return
    if action.kind is Kind.EXPUNGE:
        dovecot.expunge(user, chosen)
    else:
        dovecot.flag(user, chosen, rng.choice(FLAGS), remove=action.kind is Kind.UNFLAG)


async def _deaf(run: Run, action: Action, rng: random.Random) -> None:
    links = run.proxy.deafen(action.share, rng)
    await trio.sleep(action.lasting)
    run.proxy.hear(links)


async def act(run: Run, action: Action, nursery: trio.Nursery) -> None:
    """Do one thing; what lasts goes on in the nursery."""
    rng = random.Random(action.choice)  # noqa: S311  # repeatable, not secret
    daemon = run.daemon
    match action.kind:
        case Kind.CUT | Kind.HANG_UP:
            run.proxy.cut(action.share, rng, reset=action.kind is Kind.CUT)
        case Kind.DEAF:
            nursery.start_soon(_deaf, run, action, rng)
        case Kind.KILL_DAEMON:
            expect_running(daemon, run.report)
            await trio.to_thread.run_sync(daemon.kill)
            await trio.sleep(rng.uniform(0.0, 1.0))
            await trio.to_thread.run_sync(daemon.start)
        case Kind.KILL_DATABASE:
            await trio.to_thread.run_sync(kill_server, daemon.data)
        case Kind.RESTART_SERVER:
            await trio.to_thread.run_sync(run.dovecot.restart)
        case _:
            await trio.to_thread.run_sync(_mail, run, action)
    run.done[action.kind.value] += 1
