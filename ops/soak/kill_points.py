"""What `kills` kills, and when: pure, and the same for the same seed.

Half of the danger is in the middle of work, the other half in beginning again: so a point is either counted from a
start (imports, the database's recovery, migrations, claims, logins), or from the moment when work was seen to go on.
The first points are all of the former kind, upon a state directory that is still empty.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Victim(StrEnum):
    """What is killed."""

    DAEMON = "daemon"
    BOTH = "daemon and database"
    DATABASE = "database"
    BACKEND = "a backend of the database"
    """The server ends all sessions then, and replays its log."""
    STALL = "database stalled"
    """Nobody is killed: all its processes stand still for a while."""


class Moment(StrEnum):
    """What the delay is counted from."""

    START = "start"
    """Of the daemon, or of the database's recovery where the daemon lives on."""
    WORK = "work"
    """Seen to go on: something was stored since the start."""


DAEMON: Final = frozenset({Victim.DAEMON, Victim.BOTH})
"""Victims after which the daemon is started again."""

BIRTHS: Final = 0.08
"""Share of the points that come before anything was ever stored."""

EARLY: Final = 0.3
"""Share of the others that come soon after a start."""

FIRST_START: Final = 4.0
LATEST: Final = {Moment.START: 2.5, Moment.WORK: 1.5}
"""Seconds: a first start takes two to three on a busy machine, initdb included; a later one 1.5 until all is stored
again; a first synchronisation five to ten."""


@dataclass(frozen=True, slots=True)
class Point:
    """One kill."""

    victim: Victim
    moment: Moment
    delay: float
    """Seconds after the moment."""
    lasting: float
    """Seconds: of a stall, or between a death and the next start."""
    choice: int
    """Seeds whatever else has to be chosen."""


def points(seed: int, count: int) -> list[Point]:
    """So many kills of the daemon, a fifth as many of the database, and a few of its other ailments."""
    rng = random.Random(f"{seed} kills")  # noqa: S311  # repeatable, not secret
    births = round(count * BIRTHS)
    fifth = max(1, count // 5)
    victims = [Victim.BOTH] * (count // 6) + [Victim.DATABASE] * fifth
    victims += [Victim.BACKEND] * (count // 20) + [Victim.STALL] * (count // 25)
    victims += [Victim.DAEMON] * (count - count // 6 - births)
    rng.shuffle(victims)
    born = [_point(rng, Victim.DAEMON, Moment.START, FIRST_START) for _ in range(births)]
    return born + [_drawn(rng, victim) for victim in victims]


def _drawn(rng: random.Random, victim: Victim) -> Point:
    moment = Moment.START if rng.random() < EARLY else Moment.WORK
    return _point(rng, victim, moment, LATEST[moment])


def _point(rng: random.Random, victim: Victim, moment: Moment, latest: float) -> Point:
    lasting = rng.uniform(0.5, 3.0) if victim is Victim.STALL else rng.choice((0.0, 0.0, rng.uniform(0.0, 0.5)))
    return Point(victim, moment, rng.uniform(0.05, latest), lasting, rng.getrandbits(32))
