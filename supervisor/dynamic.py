"""`DynamicSupervisor`: thousands of children that come and go, without an order among them.

It starts empty. A child that ends for good is forgotten, so that nothing grows with the number that ever ran. Starting
and stopping one child takes the same time for any number of others. All children together share one restart budget:
five flaky ones of five hundred could end the other 495. So let them be TEMPORARY and put what must be restarted under a
small supervisor each, whose spent budget ends that one child and is reported here.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Self

import trio

from .child import Child
from .errors import ChildExists, InvalidCapacity, TooManyChildren
from .house import STOPPED
from .life import Life, descend
from .report import Observer
from .spec import ChildSpec, check_elements
from .tending import Tending


class DynamicSupervisor(Tending):
    """Runs up to `max_children` children. Elixir's defaults for `intensity` and `period` (seconds) are 3 in 5 s.

    Raises:
        SpecError: one of its named kinds, for numbers that cannot be right.
    """

    def __init__(
        self,
        name: str,
        *,
        max_children: int,
        intensity: int = 3,
        period: float = 5.0,
        observers: Iterable[Observer] = (),
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(name, intensity=intensity, period=period, observers=tuple(observers), rng=rng)
        if max_children < 1:
            raise InvalidCapacity(f"{name}: max_children is {max_children!r}")
        self.max_children = max_children

    async def run(self, *, task_status: trio.TaskStatus[Self] = trio.TASK_STATUS_IGNORED) -> None:
        """Be there for `start_child` until `request_stop()`; returns when all children have ended.

        Children are asked all at once and share one timer. Cancelled, it takes them down the ladder before it lets go;
        cancelled after `request_stop()`, it skips the asking.

        Raises:
            RestartBudgetSpent: more than `intensity` restarts within `period` seconds; all children have ended.
            AlreadyRunning: it runs already.
        """
        await self._run(task_status)

    def start_child(self, spec: ChildSpec) -> None:
        """Start a child; does not wait for it.

        Raises:
            ChildExists: a child of that id is there.
            TooManyChildren: `max_children` are there, those counted that were abandoned and still run.
            NotRunning: the supervisor does not run.
        """
        self._open_nursery()
        check_elements((spec,))
        if spec.id in self._children:
            raise ChildExists(f"{self.name} has a child {spec.id!r}")
        if len(self._children) + self._abandoned >= self.max_children:
            raise TooManyChildren(f"{self.name} has {self.max_children} children")
        child = Child(spec, 0, trio.current_time())
        self._enrol(child)
        self._spawn(child, self._launch(child))

    async def stop_child(self, child_id: str) -> None:
        """Take one child down the ladder; returns when it has ended or was abandoned, and is forgotten.

        A caller that is cancelled does not stop the ladder.

        Raises:
            NoSuchChild: no child bears that id.
        """
        await self._stop(self._find(child_id), "stop_child")

    def _open(self) -> None:
        super()._open()
        self._say_ready()

    def _moved_on(self, child: Child) -> None:
        """Nobody here waits for anybody."""

    async def _make_way(self, child: Child) -> None:
        """Nobody goes down with it."""

    def _retire(self, child: Child, life: Life) -> None:
        super()._retire(child, life)
        self._states[child.state] -= 1
        del self._children[child.spec.id]

    async def _end_children(self, *, hurry: bool) -> None:
        lives = [child.life for child in self._children.values() if child.life is not None]
        for life in lives:
            life.ask(STOPPED)
            if hurry:
                life.cut()
        await descend(lives)
