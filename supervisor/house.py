"""The life of a supervisor itself: open, reside, take the children down, let go.

A supervisor has no task of its own beyond the one that called `run()`. The children's tasks are shielded from a
cancellation of `run()`; the supervisor's task hears it and turns it into the ladder, so a tree ends in order also when
it is cancelled. The last wait, for the nursery, has no bound: it is for children that were abandoned.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import trio

from .errors import AlreadyRunning, NotRunning, RestartBudgetSpent, SpecError

STOPPED = "supervisor stopped"
"""The reason of the shutdown of every child when its supervisor ends."""


class House(ABC):
    """What every supervisor does with its own task and nursery.

    Raises:
        SpecError: no name.
    """

    def __init__(self, name: str) -> None:
        if not name:
            raise SpecError("a supervisor needs a name")
        self.name = name
        self._nursery: trio.Nursery | None = None
        self._bell: trio.Event | None = None
        self._announce: trio.TaskStatus[Any] | None = None
        self._stop_asked = False
        self._closing = False
        """Nothing is started any more."""

        self._failure: RestartBudgetSpent | None = None

    def request_stop(self) -> None:
        """Ask the supervisor to end its children and return from `run()`; does not wait.

        Fit for a `ChildSpec.stop`. Asked before `run()`, it makes the next `run()` return at once.
        """
        self._stop_asked = True
        self._closing = True
        self._ring()

    @abstractmethod
    def _open(self) -> None:
        """Start what there is to start; the nursery is open."""

    @abstractmethod
    async def _end_children(self, *, hurry: bool) -> None:
        """Take every child down the ladder. In a hurry: cancel at once. Bounded by the ladder."""

    async def _reside(self) -> None:
        """What the supervisor's own task does until it is asked to stop."""
        await self._wait_bell()

    async def _run(self, task_status: trio.TaskStatus[Any]) -> None:
        if self._nursery is not None:
            raise AlreadyRunning(f"{self.name} runs already")
        self._announce = task_status
        try:
            if not self._stop_asked:
                await self._keep_house()
            self._say_ready()
        finally:
            self._nursery = self._announce = self._bell = None
            self._stop_asked = self._closing = False
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def _keep_house(self) -> None:
        async with trio.open_nursery() as self._nursery:
            try:
                self._open()
                await self._reside()
                await self._end_children(hurry=False)
            finally:
                self._closing = True
                with trio.CancelScope(shield=True):
                    # Children are left only after a cancellation. If it came after the supervisor had been asked to
                    # stop, whoever asked is out of patience.
                    await self._end_children(hurry=self._stop_asked)

    def _say_ready(self) -> None:
        """Once; at the latest when it was asked to stop before everything was ready, for `nursery.start` expects it."""
        if self._announce is not None:
            announce, self._announce = self._announce, None
            announce.started(self)

    def _give_up(self, failure: RestartBudgetSpent) -> None:
        """End the children and raise `failure` out of `run()`."""
        if self._failure is None:
            self._failure = failure
            self.request_stop()

    def _open_nursery(self) -> trio.Nursery:
        """The nursery, while children may be started.

        Raises:
            NotRunning: the supervisor does not run, or is closing.
        """
        if self._nursery is None or self._closing:
            raise NotRunning(f"{self.name} does not run")
        return self._nursery

    def _ring(self) -> None:
        if self._bell is not None:
            self._bell.set()

    async def _wait_bell(self) -> None:
        """Wait until there is something for the supervisor's own task to do."""
        if not self._stop_asked:
            self._bell = trio.Event()
            await self._bell.wait()
            self._bell = None
