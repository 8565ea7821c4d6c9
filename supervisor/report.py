"""What a supervisor tells its observers, and how it survives them.

Supervision writes no log. Whoever wants one is an observer: a callable that takes a `Report`, does not wait, and is
called in the middle of supervision, after the state it tells of was reached. It may call the supervisor's synchronous
methods. One that raises is reported to the *other* observers and counted; it never costs a child its restart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from .exits import Crash, Exit, Verdict


class Context(StrEnum):
    """What the supervisor was doing when it had something to report."""

    CHILD_TERMINATED = "child_terminated"
    """A child ended by itself after it was ready."""

    START_FAILED = "start_failed"
    """A child ended by itself before it was ready."""

    STOPPED = "stopped"
    """A child ended because it was asked to."""

    SHUTDOWN_FAILED = "shutdown_failed"
    """A child that was asked to end raised instead."""

    SHUTDOWN_OVERRUN = "shutdown_overrun"
    """A child did not end in its time and was abandoned (`Crash(ShutdownOverrun)`)."""

    ABANDONED_ENDED = "abandoned_ended"
    """A child that had been abandoned ended after all."""

    BUDGET_SPENT = "budget_spent"
    """One restart too many: the supervisor stops its children and raises `RestartBudgetSpent`."""

    STOP_FAILED = "stop_failed"
    """A spec's `stop` raised; the child is cancelled without waiting."""

    JUDGE_FAILED = "judge_failed"
    """A spec's `judge` raised; the crash counts as `Verdict.CRASH`."""

    OBSERVER_FAILED = "observer_failed"
    """Another observer raised on a report of this child."""


@dataclass(frozen=True, slots=True)
class Report:
    """One thing that happened to one child."""

    supervisor: str
    child_id: str
    context: Context
    exit: Exit
    at: float
    """Trio's time, seconds."""

    uptime: float
    """Seconds since the child was ready, 0 when it was not."""

    streak: int
    """Failures in a row, this one included."""

    restarts_in_period: int
    """What the supervisor's budget has counted, this restart included."""

    verdict: Verdict | None
    """How a crash that is followed by a restart, or might have been, was judged."""

    next_delay: float | None
    """Seconds until the child is started again; None when it is not."""


Observer = Callable[[Report], None]


class Observers:
    """Hands every report to every observer."""

    __slots__ = ("_all", "failures")

    def __init__(self, observers: tuple[Observer, ...]) -> None:
        self._all = observers
        self.failures = 0
        """How many times an observer raised."""

    def __call__(self, report: Report) -> None:
        """Tell everybody; whoever raises is told of to the others, once."""
        for observer in self._all:
            try:
                observer(report)
            except Exception as exc:  # noqa: BLE001 - reported to the others; it must not cost a child its restart
                self.failures += 1
                self._tell_others(observer, report, exc)

    def _tell_others(self, culprit: Observer, report: Report, exc: Exception) -> None:
        fault = Report(
            supervisor=report.supervisor,
            child_id=report.child_id,
            context=Context.OBSERVER_FAILED,
            exit=Crash(exc),
            at=report.at,
            uptime=report.uptime,
            streak=report.streak,
            restarts_in_period=report.restarts_in_period,
            verdict=report.verdict,
            next_delay=report.next_delay,
        )
        for observer in self._all:
            if observer is not culprit:
                try:
                    observer(fault)
                except Exception:  # noqa: BLE001 - counted; reporting it in turn could go on for ever
                    self.failures += 1
