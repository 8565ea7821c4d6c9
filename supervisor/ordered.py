"""`Supervisor`: an order of children, started left to right and stopped right to left.

An *element* is a child, or a tuple of children: a group whose members do not depend on each other. A group is a nested
one_for_one supervisor laid flat, sharing the budget of the supervisor it lies in:

- start: an element waits until everything left of it is ready (or down). A member waits for the member before it only
  until that was ready or ended once, so that one member in trouble does not keep its group from starting.
- ONE_FOR_ONE: a child that ends is restarted alone. Order matters at the start only.
- REST_FOR_ONE: with a child go the *elements* right of it: they are taken down, right to left, and started again once
  it is ready. In `[actor, (sync, submission)]` the actor's crash restarts all three, sync's restarts sync alone. What
  was down stays down, and a TEMPORARY child that is taken along is not started again.

Under REST_FOR_ONE the first child runs in the task that called `run()`: its crash takes the rest along anyway. A
supervised pair costs two tasks. The price: this task is the only one that hears a cancellation of `run()`, so that a
cancellation reaches the first child at once and the others when it has ended. `request_stop()` keeps the order.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Self

import trio

from .child import Child, ChildState
from .errors import ChildExists, NoGroup, SpecError
from .exits import Restart
from .house import STOPPED
from .life import Life, descend
from .report import Observer
from .spec import ChildSpec, Element, Strategy, check_elements
from .tending import Tending


class Supervisor(Tending):
    """Keeps `children` running as long as its restart budget lasts.

    `intensity` restarts within `period` seconds are borne, one more and `run` raises. `rng` is where the jitter of
    pauses comes from.

    Raises:
        SpecError: one of its named kinds, for a tree that cannot be right.
    """

    def __init__(
        self,
        name: str,
        children: Iterable[Element] = (),
        *,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: int = 3,
        period: float = 60.0,
        observers: Iterable[Observer] = (),
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(name, intensity=intensity, period=period, observers=tuple(observers), rng=rng)
        if not isinstance(strategy, Strategy):
            raise SpecError(f"{name}: strategy is {strategy!r}")
        self.strategy = strategy
        elements = tuple(children)
        self._specs = check_elements(elements)
        self._last_is_group = bool(elements) and isinstance(elements[-1], tuple)
        self._groups = 0
        self._order: list[Child] = []
        self._resident: Life | None = None
        self._home = False

    async def run(self, *, task_status: trio.TaskStatus[Self] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the children until `request_stop()`; returns when they have ended.

        Ready when every child is, or is down. Each `run` begins anew, with the children given at first. Cancelled, it
        takes its children down the ladder before it lets go; cancelled after `request_stop()`, it skips the asking.

        Raises:
            RestartBudgetSpent: more than `intensity` restarts within `period` seconds; all children have ended.
            AlreadyRunning: it runs already.
        """
        await self._run(task_status)

    def request_stop(self) -> None:
        """Ask the supervisor to end its children, right to left, and return from `run()`; does not wait.

        Fit for a `ChildSpec.stop`. Asked before `run()`, it makes the next `run()` return at once.
        """
        first_time = not self._stop_asked
        super().request_stop()
        if first_time and self._nursery is not None and not self._home:
            # This supervisor's own task runs the first child, whose turn comes last.
            self._nursery.start_soon(self._walk_down, name=f"{self.name}.stop")

    def start_child(self, spec: ChildSpec) -> None:
        """Add a child at the end: under ONE_FOR_ONE as an element, under REST_FOR_ONE into the group that is last.

        It starts now, or when what it waits for is ready. One that is down under the same id gives way to it.

        Raises:
            ChildExists: a child of that id is not down.
            NoGroup: rest_for_one without a group at its end.
            NotRunning: the supervisor does not run.
        """
        self._open_nursery()
        check_elements((spec,))
        known = self._children.get(spec.id)
        if known is not None:
            if known.state is not ChildState.DOWN:
                raise ChildExists(f"{self.name} has a child {spec.id!r}")
            known.spec = spec  # in its old place
            self.restart_child(spec.id)
            return
        if self.strategy is Strategy.ONE_FOR_ONE:
            self._groups += 1
        elif not self._last_is_group:
            raise NoGroup(f"{self.name} has no group at its end")
        self._add(spec, self._groups - 1)
        self._advance()

    async def stop_child(self, child_id: str) -> None:
        """Take one child down the ladder and keep it down until `restart_child`; its neighbours stay.

        Returns when it has ended or was abandoned. A caller that is cancelled does not stop the ladder.

        Raises:
            NoSuchChild: no child bears that id.
        """
        child = self._find(child_id)
        child.wanted = False
        if child.state is ChildState.WAITING:
            self.move(child, ChildState.DOWN)
            self._advance()
        await self._stop(child, "stop_child")

    def restart_child(self, child_id: str) -> None:
        """Start a child anew, whatever its state, and with it what depends on it; does not wait, spends no budget.

        Brings back a child that is down. Its streak is forgotten: whoever asks has a reason to hope.

        Raises:
            NoSuchChild: no child bears that id.
            NotRunning: the supervisor does not run.
        """
        child = self._find(child_id)
        child.wanted = True
        child.streak = 0
        nursery = self._open_nursery()
        if child.life is None and not any(other.life for other in self._right_of(child)):
            self._bring_back(child)
        else:
            nursery.start_soon(self._bounce, child, name=f"{self.name}.{child_id}.restart")

    # -- order ---------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        super()._open()
        self._order.clear()
        self._groups = len(self._specs)
        self._resident = None
        self._home = True
        for group, specs in enumerate(self._specs):
            for spec in specs:
                self._add(spec, group)
        self._advance()

    def _add(self, spec: ChildSpec, group: int) -> None:
        child = Child(spec, group, trio.current_time())
        self._enrol(child)
        self._order.append(child)

    def _moved_on(self, child: Child) -> None:  # noqa: ARG002 - the order is looked at as a whole
        self._advance()

    def _advance(self) -> None:
        """Begin every child whose turn it is; tell the parent when all had theirs."""
        if self._closing:
            return
        holding: int | None = None  # the first group that holds up what is right of it
        for child in self._order:
            if holding is not None and child.group != holding:
                return
            if child.state is ChildState.WAITING:
                self._begin(child)
            if not child.tried and child.state is not ChildState.DOWN:
                return
            if holding is None and self._holds_up(child):
                holding = child.group
        if holding is None:
            self._say_ready()

    def _holds_up(self, child: Child) -> bool:
        """Whether the elements right of it have to wait."""
        if child.bounces:
            return True
        if child.state in (ChildState.RUNNING, ChildState.DOWN):
            return False
        return self.strategy is Strategy.REST_FOR_ONE or not child.was_ready

    def _begin(self, child: Child) -> None:
        life = self._launch(child)
        if self._home and self.strategy is Strategy.REST_FOR_ONE and child is self._order[0]:
            self._home = False
            self._resident = life
            self._ring()
        else:
            self._spawn(child, life)

    async def _reside(self) -> None:
        while True:
            life, self._resident = self._resident, None
            if life is not None:
                await self._tend(life.child, life, shield=False)
                self._home = True
            elif self._stop_asked:
                return
            else:
                await self._wait_bell()

    # -- taking down ---------------------------------------------------------------------------------------------

    def _right_of(self, child: Child) -> Sequence[Child]:
        if self.strategy is Strategy.ONE_FOR_ONE:
            return ()
        return [other for other in self._order if other.group > child.group]

    async def _make_way(self, child: Child) -> None:
        await self._clear(self._right_of(child), f"restart of {child.spec.id}")

    async def _clear(self, children: Sequence[Child], reason: str) -> None:
        """Take children down, right to left; those that ran wait for their turn to start again."""
        for child in reversed(children):
            if child.life is not None:
                child.life.ask(reason, returns=child.spec.restart is not Restart.TEMPORARY)
                await descend((child.life,))

    async def _bounce(self, child: Child) -> None:
        child.bounces += 1
        with trio.CancelScope(shield=True):  # bounded: it is a ladder
            await self._clear(self._right_of(child), f"restart of {child.spec.id}")
            if child.life is not None:
                child.life.ask("restart_child")
                await descend((child.life,))
        child.bounces -= 1
        self._bring_back(child)

    def _bring_back(self, child: Child) -> None:
        if child.wanted and child.state is ChildState.DOWN:
            child.tried = child.was_ready = False
            self.move(child, ChildState.WAITING)
        self._advance()

    async def _walk_down(self) -> None:
        with trio.CancelScope(shield=True):
            await self._end_children(hurry=False)

    async def _end_children(self, *, hurry: bool) -> None:
        if hurry:
            lives = [child.life for child in reversed(self._order) if child.life is not None]
            for life in lives:
                life.ask(STOPPED)
                life.cut()
            await descend(lives)
        else:
            for child in reversed(self._order):
                if child.life is not None:
                    child.life.ask(STOPPED)
                    await descend((child.life,))
