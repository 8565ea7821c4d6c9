"""The heart of supervision: one task runs a child, judges how it ended, pauses, and runs it again.

Both supervisors are a `Tending`; each child's task does its own tending. Nothing here waits without a bound but the
children's own code, and readiness without a `start_timeout`.

A child is *retired* (no task any more) before its end is reported, so that an observer finds the state that it is told
of and may start the child anew at once.
"""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from typing import Any

import trio

from .child import Child, ChildInfo, ChildState, SupervisorStatistics
from .errors import NoSuchChild, RestartBudgetSpent, ShutdownOverrun, StartTimeout
from .exits import Crash, Exit, Normal, Verdict
from .house import House
from .judging import Court, Decision
from .life import Life, Rung, descend
from .report import Context, Observer, Observers, Report

_NORMAL = Normal()
_STAYS_DOWN = Decision()
_SHARED_CHANCE = random.Random()  # noqa: S311 - spreads restarts in time; one for all, as a generator holds 2.5 KiB


class _Status:
    """The `task_status` of one run of a child."""

    __slots__ = ("_child", "_heard", "_life", "_tending")

    def __init__(self, tending: Tending, child: Child, life: Life) -> None:
        self._tending = tending
        self._child = child
        self._life = life
        self._heard = False

    def started(self, value: Any = None) -> None:  # noqa: ANN401 - as wide as trio.TaskStatus
        if self._heard:
            raise RuntimeError("called 'started' twice in one run of a child")
        self._heard = True
        if self._child.life is self._life and self._life.running:
            self._tending.ready(self._child, self._life, value)


class Tending(House):
    """What the ordered and the dynamic supervisor share. Implements `life.Keeper`.

    Raises:
        SpecError: one of its named kinds.
    """

    def __init__(
        self,
        name: str,
        *,
        intensity: int,
        period: float,
        observers: tuple[Observer, ...],
        rng: random.Random | None,
    ) -> None:
        super().__init__(name)
        self._court = Court(intensity, period, rng or _SHARED_CHANCE)
        self._observers = Observers(observers)
        self._children: dict[str, Child] = {}
        self._states: dict[ChildState, int] = dict.fromkeys(ChildState, 0)
        self._abandoned = 0

    def wake(self, child_id: str) -> None:
        """Cut a restart pause short. Nothing happens to a child that does not pause.

        Raises:
            NoSuchChild: no child bears that id.
        """
        child = self._find(child_id)
        if child.state is ChildState.RESTARTING:
            child.next_at = trio.current_time()
            if child.life is not None and child.life.scope is not None:
                child.life.scope.cancel()

    def children(self) -> dict[str, ChildInfo]:
        """Every child, by id."""
        return {child_id: child.info() for child_id, child in self._children.items()}

    def child(self, child_id: str) -> ChildInfo | None:
        """One child, or None."""
        child = self._children.get(child_id)
        return None if child is None else child.info()

    def statistics(self) -> SupervisorStatistics:
        """Numbers for an operator; takes the same time for any number of children."""
        states = self._states
        return SupervisorStatistics(
            specs=len(self._children),
            active=states[ChildState.STARTING] + states[ChildState.RUNNING] + states[ChildState.STOPPING],
            restarting=states[ChildState.WAITING] + states[ChildState.RESTARTING],
            down=states[ChildState.DOWN],
            abandoned=self._abandoned,
            restarts_in_period=self._court.restarts(trio.current_time()),
            observer_failures=self._observers.failures,
        )

    @abstractmethod
    def _moved_on(self, child: Child) -> None:
        """A child is ready, is down, or no longer holds up others."""

    @abstractmethod
    async def _make_way(self, child: Child) -> None:
        """Before a restart: end what goes down with the child. Called shielded; bounded by the ladder."""

    def _open(self) -> None:
        self._court.renew()
        self._children.clear()
        self._states = dict.fromkeys(ChildState, 0)

    def _enrol(self, child: Child) -> None:
        self._children[child.spec.id] = child
        self._states[child.state] += 1

    def _launch(self, child: Child) -> Life:
        """A new life for a child, in a task still to be found."""
        life = child.life = Life(self, child)
        child.next_at = None
        self.move(child, ChildState.STARTING)
        return life

    def _spawn(self, child: Child, life: Life) -> None:
        self._open_nursery().start_soon(self._tend, child, life, name=f"{self.name}.{child.spec.id}")

    def _find(self, child_id: str) -> Child:
        try:
            return self._children[child_id]
        except KeyError:
            raise NoSuchChild(f"{self.name} has no child {child_id!r}") from None

    # -- one child's task ----------------------------------------------------------------------------------------

    async def _tend(self, child: Child, life: Life, shield: bool = True) -> None:
        try:
            while not life.asked and not self._closing:
                ended = await self._run_once(child, life, shield)
                again = self._conclude(child, life, ended)
                del ended  # holds a traceback, and a pause may be long
                if not again:
                    break
                await self._pause(child, life, shield)
        except BaseException:
            # Cancelled in the supervisor's own task, or something that is nobody's to judge (KeyboardInterrupt).
            self._closing = True
            raise
        finally:
            self._part(child, life)

    async def _run_once(self, child: Child, life: Life, shield: bool) -> Exit:
        spec = child.spec
        self.move(child, ChildState.STARTING)
        scope = trio.CancelScope(deadline=trio.current_time() + spec.start_timeout, shield=shield)
        life.scope, life.running = scope, True
        try:
            with scope:
                await spec.start(task_status=_Status(self, child, life))
        except Exception as exc:  # noqa: BLE001 - the boundary: judged and reported in _conclude
            return Crash(exc)
        finally:
            life.scope, life.running = None, False
        if life.asked:
            return life.reason
        if scope.cancelled_caught:
            return Crash(StartTimeout(spec.id, spec.start_timeout))
        return _NORMAL

    def ready(self, child: Child, life: Life, value: object) -> None:
        """A child called `started`."""
        child.value = value
        child.ready_at = trio.current_time()
        child.tried = child.was_ready = True
        if not life.asked:
            assert life.scope is not None
            life.scope.deadline = math.inf
            self.move(child, ChildState.RUNNING)
            self._moved_on(child)

    async def _pause(self, child: Child, life: Life, shield: bool) -> None:
        with trio.CancelScope(shield=True):  # bounded: it is a ladder
            await self._make_way(child)
        if life.asked:
            return
        assert child.next_at is not None
        with trio.CancelScope(deadline=child.next_at, shield=shield) as life.scope:
            await trio.sleep_forever()
        life.scope = None
        child.next_at = None

    def _part(self, child: Child, life: Life) -> None:
        """The task is at its end."""
        if life.rung is Rung.ABANDONED:
            self._abandoned -= 1
            self._report(child, Context.ABANDONED_ENDED, life.reason)
            return
        if child.life is life:
            self._retire(child, life)
        life.settle()
        self._moved_on(child)

    def _retire(self, child: Child, life: Life) -> None:
        """The child has no task any more."""
        child.life = None
        child.next_at = None
        child.tried = True
        if life.returns:
            child.tried = child.was_ready = False
            self.move(child, ChildState.WAITING)
        else:
            self.move(child, ChildState.DOWN)

    # -- how it ended --------------------------------------------------------------------------------------------

    def _conclude(self, child: Child, life: Life, ended: Exit) -> bool:
        """Judge an exit, report it, and say whether the child is to run again."""
        if life.rung is Rung.ABANDONED:
            return False
        now = trio.current_time()
        context = Context.START_FAILED if child.ready_at is None else Context.CHILD_TERMINATED
        uptime = self._note_end(child)
        decision = _STAYS_DOWN
        if life.asked:
            context = Context.SHUTDOWN_FAILED if isinstance(ended, Crash) else Context.STOPPED
        else:
            child.streak = child.spec.backoff.next_streak(child.streak, uptime)
            if not self._closing:
                decision = self._court.decide(child.spec, ended, child.streak, now)
        if decision.judge_fault is not None:
            self._report(child, Context.JUDGE_FAILED, Crash(decision.judge_fault))
        if decision.overspent:
            context = Context.BUDGET_SPENT
            self._overspent(child, ended)
        if decision.delay is None:
            self._retire(child, life)
        else:
            child.restarts += 1
            child.next_at = now + decision.delay
            self.move(child, ChildState.RESTARTING)
        self._report(child, context, ended, uptime=uptime, verdict=decision.verdict, next_delay=decision.delay)
        if decision.delay is not None:
            self._moved_on(child)
        return decision.delay is not None

    def _overspent(self, child: Child, ended: Exit) -> None:
        failure = RestartBudgetSpent(child.spec.id, self._court.counted)
        if isinstance(ended, Crash):
            failure.__cause__ = ended.exc
        self._give_up(failure)

    def _note_end(self, child: Child) -> float:
        """The run is over; returns for how many seconds it was ready."""
        uptime = 0.0 if child.ready_at is None else trio.current_time() - child.ready_at
        child.ready_at, child.value, child.tried = None, None, True
        return uptime

    # -- life.Keeper ---------------------------------------------------------------------------------------------

    def move(self, child: Child, state: ChildState) -> None:
        """Note a child's new state."""
        if child.state is not state:
            self._states[child.state] -= 1
            self._states[state] += 1
            child.state = state
            child.since = trio.current_time()

    def stop_failed(self, child: Child, exc: Exception) -> None:
        """A spec's `stop` raised."""
        self._report(child, Context.STOP_FAILED, Crash(exc))

    def abandon(self, child: Child, life: Life, seconds: float) -> None:
        """A child did not end in its time: go on without it."""
        uptime = self._note_end(child)
        self._abandoned += 1
        self._retire(child, life)
        self._report(child, Context.SHUTDOWN_OVERRUN, Crash(ShutdownOverrun(child.spec.id, seconds)), uptime=uptime)
        self._moved_on(child)

    def _report(
        self,
        child: Child,
        context: Context,
        ended: Exit,
        *,
        uptime: float = 0.0,
        verdict: Verdict | None = None,
        next_delay: float | None = None,
    ) -> None:
        now = trio.current_time()
        self._observers(
            Report(
                supervisor=self.name,
                child_id=child.spec.id,
                context=context,
                exit=ended,
                at=now,
                uptime=uptime,
                streak=child.streak,
                restarts_in_period=self._court.restarts(now),
                verdict=verdict,
                next_delay=next_delay,
            )
        )

    async def _stop(self, child: Child, reason: str) -> None:
        """Take one child down, in a task of its own: whoever asked may give up waiting, the ladder may not."""
        life = child.life
        if life is None:
            return
        life.ask(reason)
        life.returns = False
        if not self._closing:  # else the supervisor's own descent comes by
            self._open_nursery().start_soon(self._take_down, (life,), name=f"{self.name}.{child.spec.id}.stop")
        assert life.settled is not None
        await life.settled.wait()

    async def _take_down(self, lives: tuple[Life, ...]) -> None:
        with trio.CancelScope(shield=True):
            await descend(lives)
