"""What a soak does, when and to whom: pure, and the same for the same seed.

Two streams are merged.  Mail comes and goes all the time, a few actions a second; faults come every few seconds, at
exponential gaps, so that they also meet.  Nothing here knows what happened: which messages are meant is said by shares
of what is there when the action is due.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What can be done."""

    DELIVER = "deliver"
    BURST = "burst"
    FLAG = "flag"
    UNFLAG = "unflag"
    EXPUNGE = "expunge"
    CUT = "cut"
    """Connections reset."""
    HANG_UP = "hang_up"
    """Connections ended in order."""
    DEAF = "deaf"
    """Connections on which nothing is heard any more, either way, and which stay open."""
    KILL_DAEMON = "kill_daemon"
    KILL_DATABASE = "kill_database"
    RESTART_SERVER = "restart_server"


MAIL: Final = {Kind.DELIVER: 40, Kind.FLAG: 20, Kind.UNFLAG: 10, Kind.EXPUNGE: 12, Kind.BURST: 3}
FAULTS: Final = {
    Kind.CUT: 30,
    Kind.HANG_UP: 15,
    Kind.DEAF: 15,
    Kind.KILL_DAEMON: 14,
    Kind.KILL_DATABASE: 14,
    Kind.RESTART_SERVER: 12,
}
"""How often each is chosen, relative to its fellows."""

MAIL_EVERY: Final = 0.15
FAULT_EVERY: Final = 3.0
"""Seconds between actions, on average."""

QUIET_BEFORE: Final = 1.0
"""Seconds at the beginning without faults, for the daemon to be in the middle of its first syncs."""


KILLS_UNTIL: Final = 480.0
"""Seconds after which the daemon is no longer killed, but cut off, deafened and left without database instead: a leak
shows only in a life that lasts."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do."""

    at: float
    """Seconds since the beginning."""
    kind: Kind
    account: int
    """Whose mailbox, for mail."""
    share: float
    """Of the messages that are there (flags, expunges: at most 10 of them), or of the connections (faults)."""
    choice: int
    """Seeds whatever else has to be chosen when the action is due."""
    lasting: float
    """Seconds for what lasts: deafness."""

    def __str__(self) -> str:
        return (
            f"{self.at:8.2f} {self.kind.value:14} account={self.account} share={self.share:.2f}"
            f" choice={self.choice} lasting={self.lasting:.1f}"
        )


def plan(seed: int, seconds: float, accounts: int) -> Iterator[Action]:
    """The actions of a campaign, in the order of their time."""
    return heapq.merge(
        _stream(random.Random(f"{seed} mail"), MAIL, MAIL_EVERY, 0.0, seconds, accounts),  # noqa: S311  # repeatable
        _stream(random.Random(f"{seed} faults"), FAULTS, FAULT_EVERY, QUIET_BEFORE, seconds, accounts),  # noqa: S311
        key=lambda action: action.at,
    )


def _stream(
    rng: random.Random, weights: dict[Kind, int], every: float, start: float, end: float, accounts: int
) -> Iterator[Action]:
    kinds, chances = list(weights), list(weights.values())
    at = start
    while (at := at + rng.expovariate(1 / every)) < end:
        kind = rng.choices(kinds, chances)[0]
        yield Action(
            at=at,
            kind=Kind.CUT if kind is Kind.KILL_DAEMON and at > KILLS_UNTIL else kind,
            account=rng.randrange(accounts),
            share=rng.random(),
            choice=rng.getrandbits(32),
            lasting=rng.uniform(0.5, 8.0),
        )
