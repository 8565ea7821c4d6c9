"""What follows the end of a child: pure, with time and chance as arguments.

In this order: does its kind want a restart after such an exit; what does the spec's judge make of the crash; can the
supervisor's budget bear another restart; and how long a pause does the streak of failures ask for.
"""

from __future__ import annotations

from dataclasses import dataclass

from .backoff import Chance
from .budget import RestartBudget
from .exits import CRASHED, Crash, Exit, Ruling, Verdict
from .spec import ChildSpec


@dataclass(frozen=True, slots=True)
class Decision:
    """What a supervisor does about an exit."""

    delay: float | None = None
    """Seconds until the child is started again; None when it stays down."""

    verdict: Verdict | None = None
    """The verdict, where the child's kind wanted a restart."""

    overspent: bool = False
    """This restart was one too many."""

    judge_fault: Exception | None = None
    """What the spec's judge raised instead of ruling."""


class Court:
    """Decides for one supervisor, and holds its restart budget.

    Raises:
        InvalidBudget: the numbers make no budget.
    """

    __slots__ = ("_budget", "_chance", "_counted")

    def __init__(self, intensity: int, period: float, chance: Chance) -> None:
        self._budget = RestartBudget(intensity, period)
        self._counted: tuple[Exit, ...] = ()
        self._chance = chance

    @property
    def counted(self) -> tuple[Exit, ...]:
        """The exits whose restarts the budget remembers, oldest first."""
        return self._counted

    def restarts(self, now: float) -> int:
        """How many restarts the period that ends at `now` holds."""
        return self._budget.spent(now)

    def renew(self) -> None:
        """Forget every restart: the supervisor itself starts anew."""
        self._budget = RestartBudget(self._budget.intensity, self._budget.period)
        self._counted = ()

    def decide(self, spec: ChildSpec, ended: Exit, streak: int, now: float) -> Decision:
        """Decide on an exit, the `streak`-th failure in a row; spends from the budget."""
        if not spec.restart.wants(ended):
            return Decision()
        ruling, fault = _rule(spec, ended)
        verdict = ruling.verdict
        if verdict is Verdict.FINAL:
            return Decision(verdict=verdict, judge_fault=fault)
        if verdict is Verdict.CRASH and not self._spend(ended, now):
            return Decision(verdict=verdict, overspent=True, judge_fault=fault)
        delay = max(spec.backoff.delay(streak, self._chance), ruling.not_before)
        return Decision(delay=delay, verdict=verdict, judge_fault=fault)

    def _spend(self, ended: Exit, now: float) -> bool:
        affordable = self._budget.spend(now)
        # As many exits as remembered restarts: an exit that left the window lets go of its traceback.
        self._counted = (*self._counted, ended)[-self._budget.spent(now) :]
        return affordable


def _rule(spec: ChildSpec, ended: Exit) -> tuple[Ruling, Exception | None]:
    """The ruling on an exit; a judge that fails leaves the crash to count in full, and its exception."""
    if spec.judge is None or not isinstance(ended, Crash):
        return CRASHED, None
    try:
        ruling: object = spec.judge(ended.exc)
    except Exception as exc:  # noqa: BLE001 - the boundary to the spec's code: handed on to be reported
        return CRASHED, exc
    if isinstance(ruling, Ruling):
        return ruling, None
    return CRASHED, TypeError(f"the judge of {spec.id} returned {ruling!r}")
