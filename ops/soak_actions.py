"""The actions of a soak: what `soak_plan` says, done to real servers and processes."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import trio

from .soak_daemon import DaemonProcess, Sample
from .soak_plan import Action, Kind
from .soak_proxy import Proxy
from .testservers.dovecot import Dovecot
from .testservers.mail import messages

BURST: Final = 20
MOST: Final = 10
"""Messages delivered at once, and flagged or expunged at once."""

FLAGS: Final = ("\\Seen", "\\Flagged", "\\Answered", "\\Deleted", "$Important", "Work")


@dataclass
class Campaign:
    """What is under way."""

    seed: int
    seconds: float
    dovecot: Dovecot
    daemon: DaemonProcess
    proxy: Proxy
    users: list[str]
    began: float = field(default_factory=time.monotonic)
    ids: list[UUID] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    delivered: int = 0

    def say(self, text: str) -> None:
        """Print a line with the time of the campaign."""
        print(f"[{time.monotonic() - self.began:7.2f}] {text}", flush=True)


def _mail(campaign: Campaign, action: Action) -> None:
    """Another client's work, or a delivery; blocks."""
    dovecot, user = campaign.dovecot, campaign.users[action.account]
    rng = random.Random(action.choice)  # noqa: S311  # repeatable, not secret
    if action.kind in {Kind.DELIVER, Kind.BURST}:
        count = BURST if action.kind is Kind.BURST else 1 + int(action.share * 3)
        for content in messages(count, seed=action.choice):
            dovecot.deliver(user, content)
        campaign.delivered += count
        return
    uids = dovecot.uids(user)
    chosen = rng.sample(uids, min(len(uids), 1 + int(action.share * MOST)))
    if not chosen:
        return
    if action.kind is Kind.EXPUNGE:
        dovecot.expunge(user, chosen)
    else:
        dovecot.flag(user, chosen, rng.choice(FLAGS), remove=action.kind is Kind.UNFLAG)


async def _deaf(campaign: Campaign, action: Action, rng: random.Random) -> None:
    links = campaign.proxy.deafen(action.share, rng)
    await trio.sleep(action.lasting)
    campaign.proxy.hear(links)


async def act(campaign: Campaign, action: Action, nursery: trio.Nursery) -> None:
    """Do one thing; what lasts goes on in the nursery."""
    rng = random.Random(action.choice)  # noqa: S311  # repeatable, not secret
    daemon = campaign.daemon
    match action.kind:
        case Kind.CUT | Kind.HANG_UP:
            campaign.proxy.cut(action.share, rng, reset=action.kind is Kind.CUT)
        case Kind.DEAF:
            nursery.start_soon(_deaf, campaign, action, rng)
        case Kind.KILL_DAEMON:
            await trio.to_thread.run_sync(daemon.kill)
            await trio.sleep(rng.uniform(0.0, 1.0))
            await trio.to_thread.run_sync(daemon.start)
        case Kind.KILL_DATABASE:
            await trio.to_thread.run_sync(daemon.kill_database)
        case Kind.RESTART_SERVER:
            await trio.to_thread.run_sync(campaign.dovecot.restart)
        case _:
            await trio.to_thread.run_sync(_mail, campaign, action)
    campaign.done[action.kind.value] += 1
