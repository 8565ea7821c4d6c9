"""What a supervisor is told of a child; the spec lives beside the child that it describes."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import trio

from .backoff import Backoff
from .errors import (
    DuplicateChildId,
    InvalidBackoff,
    InvalidChildId,
    InvalidJudge,
    InvalidRestart,
    InvalidShutdown,
    InvalidStart,
    InvalidStartTimeout,
    InvalidStop,
    SpecError,
)
from .exits import Restart, Ruling

Judge = Callable[[Exception], Ruling]
"""Looks at a crash and rules on it; it must not wait. One that raises is reported, and the crash counts as `CRASH`."""


class Strategy(StrEnum):
    """Who goes down with a child that is restarted."""

    ONE_FOR_ONE = "one_for_one"
    """Nobody."""

    REST_FOR_ONE = "rest_for_one"
    """The elements right of it, which depend on it."""


DEFAULT_BACKOFF = Backoff()
"""1 s, doubling to a minute; forgotten after a minute up."""


class Start(Protocol):
    """A child: an async function that runs until it is done and says when it is ready, as for `nursery.start`."""

    def __call__(self, *, task_status: trio.TaskStatus[Any]) -> Awaitable[None]:
        """Run. `task_status.started(value)` must be called once: what is right of the child waits for it."""
        ...


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One child.

    `id`: unique within the supervisor. `start`: the child. `restart`: when it is started again.
    `shutdown`: seconds it has to end after it was asked, before it is cancelled (infinity only for a child whose own
    ladder is bounded, such as a supervisor). `stop`: asks it to end, without waiting; without one, cancelling is the
    asking. `backoff`: its pauses. `judge`: rules on its crashes, `Verdict.CRASH` without one.
    `start_timeout`: seconds it has to get ready, or it is cancelled and counts as crashed.

    Raises:
        SpecError: one of its named kinds, for the first field that cannot be right.
    """

    id: str
    start: Start
    restart: Restart = Restart.PERMANENT
    shutdown: float = 5.0
    stop: Callable[[], None] | None = None
    backoff: Backoff = DEFAULT_BACKOFF
    judge: Judge | None = None
    start_timeout: float = math.inf

    def __post_init__(self) -> None:
        _require(bool(self.id), InvalidChildId, f"id is {self.id!r}")
        _require(callable(self.start), InvalidStart, f"{self.id}: start is {self.start!r}")
        _require(isinstance(self.restart, Restart), InvalidRestart, f"{self.id}: restart is {self.restart!r}")
        _require(self.shutdown >= 0.0, InvalidShutdown, f"{self.id}: shutdown is {self.shutdown!r}")
        _require(self.stop is None or callable(self.stop), InvalidStop, f"{self.id}: stop is {self.stop!r}")
        _require(isinstance(self.backoff, Backoff), InvalidBackoff, f"{self.id}: backoff is {self.backoff!r}")
        _require(self.judge is None or callable(self.judge), InvalidJudge, f"{self.id}: judge is {self.judge!r}")
        _require(self.start_timeout > 0.0, InvalidStartTimeout, f"{self.id}: start_timeout is {self.start_timeout!r}")


Element = ChildSpec | tuple[ChildSpec, ...]
"""One place in a supervisor's order: a child, or a group of children that do not depend on each other."""


def check_elements(elements: tuple[Element, ...]) -> tuple[tuple[ChildSpec, ...], ...]:
    """Every element as a group.

    Raises:
        SpecError: something that is no spec.
        DuplicateChildId: an id borne twice.
    """
    groups = tuple(element if isinstance(element, tuple) else (element,) for element in elements)
    seen: set[str] = set()
    for group in groups:
        for spec in group:
            _require(isinstance(spec, ChildSpec), SpecError, f"{spec!r} is no ChildSpec")
            _require(spec.id not in seen, DuplicateChildId, f"{spec.id} is there twice")
            seen.add(spec.id)
    return groups


def _require(holds: bool, error: type[SpecError], message: str) -> None:
    if not holds:
        raise error(message)
