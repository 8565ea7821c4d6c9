"""The life of a child in one task, and the ladder by which it is ended.

One task tends a child: runs it, pauses, runs it again. `Life` is the handle that everybody else has on that task. The
ladder to end it has typed rungs, each with its own moment:

    FREE ─► ASKED (`stop()` was called) ─► CANCELLED (its scope) ─► ABANDONED (reported; nobody waits for it any more)

The moments are kept here and not in whoever descends, so that several may do so at once (a `stop_child` while a left
neighbour restarts): the first to come to a rung's moment takes the step, and asking again changes nothing. A child that
pauses runs no code of its own; it ends as soon as it is asked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import IntEnum
from typing import Protocol

import trio

from .child import Child, ChildState
from .exits import Shutdown

CANCEL_GRACE = 6.0
"""Seconds from the cancellation of a child to its abandonment. A clean-up that shields itself should bound itself by 5
s (a rollback on a silent server); one second more tells a slow end from none."""

_UNASKED = Shutdown("")


class Rung(IntEnum):
    """How far down the ladder a life is."""

    FREE = 0
    ASKED = 1
    CANCELLED = 2
    ABANDONED = 3


class Keeper(Protocol):
    """What a life needs of the supervisor it belongs to."""

    def stop_failed(self, child: Child, exc: Exception) -> None:
        """A spec's `stop` raised."""

    def abandon(self, child: Child, life: Life, seconds: float) -> None:
        """The life did not end `seconds` seconds after it was asked to."""

    def move(self, child: Child, state: ChildState) -> None:
        """Note a child's new state."""


class Life:
    """One task's tending of one child."""

    __slots__ = ("_asked_at", "child", "due", "keeper", "reason", "returns", "rung", "running", "scope", "settled")

    def __init__(self, keeper: Keeper, child: Child) -> None:
        self.keeper = keeper
        self.child = child
        self.rung = Rung.FREE
        self.due = math.inf
        """When the next rung is due, Trio's time."""

        self.scope: trio.CancelScope | None = None
        """What the task is in: a run of the child or a pause."""

        self.running = False
        """Whether the child's own code runs."""

        self.reason = _UNASKED
        self.returns = False
        """Whether the child is started again by and by (`WAITING`) after it was asked to end, or stays `DOWN`."""

        self.settled: trio.Event | None = None
        """Set when the task is done or abandoned; made when somebody asks, for most lives never end."""

        self._asked_at = 0.0

    @property
    def asked(self) -> bool:
        """Whether it is to end."""
        return self.rung is not Rung.FREE

    @property
    def is_settled(self) -> bool:
        """Whether nobody need wait for it any more."""
        return self.settled is not None and self.settled.is_set()

    def ask(self, reason: str, *, returns: bool = False) -> None:
        """First rung. Asking again is harmless; the first reason and intention stay."""
        if self.asked:
            return
        self.rung = Rung.ASKED
        self.reason = Shutdown(reason)
        self.returns = returns
        self.settled = trio.Event()
        self._asked_at = trio.current_time()
        self.keeper.move(self.child, ChildState.STOPPING)
        if not self.running:
            if self.scope is not None:
                self.scope.cancel()
            return
        spec = self.child.spec
        if spec.stop is None:
            self._cancel(max(spec.shutdown, CANCEL_GRACE))
            return
        self.due = self._asked_at + spec.shutdown
        try:
            spec.stop()
        except Exception as exc:  # noqa: BLE001 - reported by the keeper; the next rung follows at once
            self.cut()
            self.keeper.stop_failed(self.child, exc)

    def cut(self) -> None:
        """Second rung: cancel what the child is in."""
        if self.rung is Rung.ASKED and self.running:
            self._cancel(CANCEL_GRACE)

    def step(self) -> None:
        """Take the rung that is due."""
        if self.rung is Rung.ASKED:
            self.cut()
        elif self.rung is Rung.CANCELLED:
            self.rung = Rung.ABANDONED
            self.due = math.inf
            self.keeper.abandon(self.child, self, trio.current_time() - self._asked_at)
            self.settle()

    def settle(self) -> None:
        """Let go whoever waits."""
        if self.settled is not None:
            self.settled.set()

    def _cancel(self, grace: float) -> None:
        self.rung = Rung.CANCELLED
        self.due = trio.current_time() + grace
        assert self.scope is not None
        self.scope.cancel()


async def descend(lives: Iterable[Life]) -> None:
    """End lives that were asked to end, all at once, with one timer; return when none need be waited for.

    Bounded by the slowest `shutdown` + `CANCEL_GRACE`. Not to be cancelled half way: shield it.
    """
    standing = [life for life in lives if not life.is_settled]
    while standing:
        with trio.move_on_at(min(life.due for life in standing)):
            for life in standing:
                if life.settled is not None and not life.is_settled:
                    await life.settled.wait()
            return
        now = trio.current_time()
        for life in standing:
            if life.due <= now:
                life.step()
        standing = [life for life in standing if not life.is_settled]
