"""What a supervisor remembers of a child, over all its restarts, and what it shows of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .life import Life
    from .spec import ChildSpec


class ChildState(StrEnum):
    """Where a child is.

    ::

        WAITING ──► STARTING ──► RUNNING ──► RESTARTING ──► STARTING ...
           ▲            └────────────┴───────────┴──► STOPPING ──► DOWN
           └── a left neighbour restarts ─────────────────┘         │
           └──────────────── restart_child ─────────────────────────┘
    """

    WAITING = "waiting"
    """Its turn to start has not come: something on its left is not ready."""

    STARTING = "starting"
    """It runs and has not said that it is ready."""

    RUNNING = "running"
    """It is ready."""

    RESTARTING = "restarting"
    """It ended and is to be started again at `next_at`."""

    STOPPING = "stopping"
    """It was asked to end."""

    DOWN = "down"
    """It does not run and will not by itself."""


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """A child at one moment."""

    id: str
    state: ChildState
    since: float
    """When it came into this state, Trio's time in seconds."""

    restarts: int
    """How often it was started again since its supervisor started."""

    streak: int
    """Failures in a row."""

    next_at: float | None
    """When it is started again (Trio's time in seconds), while it is `RESTARTING`."""

    value: object
    """What it passed to `task_status.started`, while it is `RUNNING`."""


@dataclass(frozen=True, slots=True)
class SupervisorStatistics:
    """A supervisor at one moment: `specs = active + restarting + down`."""

    specs: int
    active: int
    """Children that run: starting, running or stopping."""

    restarting: int
    """Children that wait to be started (again)."""

    down: int
    abandoned: int
    """Tasks that did not end when they had to, and still have not."""

    restarts_in_period: int
    observer_failures: int


class Child:
    """The changing record of one child."""

    __slots__ = (
        "bounces",
        "group",
        "life",
        "next_at",
        "ready_at",
        "restarts",
        "since",
        "spec",
        "state",
        "streak",
        "tried",
        "value",
        "wanted",
        "was_ready",
    )

    def __init__(self, spec: ChildSpec, group: int, now: float) -> None:
        self.spec = spec
        self.group = group
        """The element of the supervisor's order that it belongs to."""

        self.state = ChildState.WAITING
        self.since = now
        self.life: Life | None = None
        """The task that tends it; None while it is `WAITING` or `DOWN`."""

        self.wanted = True
        """Whether somebody wants it to run: the last word of `stop_child` and `restart_child`."""

        self.bounces = 0
        """How many `restart_child` are under way, which hold up what is right of it whatever its state."""

        self.tried = False
        """Whether it was ready, or ended, since it last was `WAITING`: it no longer holds up its group."""

        self.was_ready = False
        """Whether it was ready since it last was `WAITING`."""

        self.ready_at: float | None = None
        self.restarts = 0
        self.streak = 0
        self.next_at: float | None = None
        self.value: object = None

    def info(self) -> ChildInfo:
        """What may be seen of it."""
        return ChildInfo(
            id=self.spec.id,
            state=self.state,
            since=self.since,
            restarts=self.restarts,
            streak=self.streak,
            next_at=self.next_at,
            value=self.value,
        )
