"""How a child ended, and what is to follow: pure values and OTP's truth table.

| restart     | Normal  | Crash   | Shutdown |
|-------------|---------|---------|----------|
| `PERMANENT` | again   | again   | stays    |
| `TRANSIENT` | stays   | again   | stays    |
| `TEMPORARY` | stays   | stays   | stays    |

(Erlang/OTP `supervisor`, "Restart strategies".) A `Shutdown` is the supervisor's own doing, so the supervisor decides.
Beyond OTP, a spec's *judge* looks at the exception of a crash that is to be followed by a restart and gives a
`Ruling`: does it count against the restart intensity, is it excused, or is there no use in another attempt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from .errors import InvalidRuling


@dataclass(frozen=True, slots=True)
class Normal:
    """The child returned."""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """The supervisor asked the child to end, and it did."""

    reason: str
    """Who asked, in a few words: "stop_child", "restart of actor", "supervisor stopped"."""


@dataclass(frozen=True, slots=True)
class Crash:
    """The child raised, or was ended for not getting ready in time."""

    exc: Exception


Exit = Normal | Shutdown | Crash


class Restart(StrEnum):
    """When a child that ended is started again."""

    PERMANENT = "permanent"
    """Always."""

    TRANSIENT = "transient"
    """After a crash."""

    TEMPORARY = "temporary"
    """Never, not even when a neighbour's restart took it along."""

    def wants(self, ended: Exit) -> bool:
        """Whether a child of this kind is started again after that exit."""
        match ended:
            case Normal():
                return self is Restart.PERMANENT
            case Crash():
                return self is not Restart.TEMPORARY
            case Shutdown():
                return False


class Verdict(StrEnum):
    """What a crash means for the restarts to come."""

    CRASH = "crash"
    """A bug: restarted, and spends the supervisor's intensity."""

    EXCUSED = "excused"
    """The world's doing: restarted, paced, for ever; spends nothing."""

    FINAL = "final"
    """No use in trying again: stays down until `restart_child`; its siblings go on."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """A verdict, and how long to wait at least (seconds) before the restart.

    `not_before` carries a delay that somebody else named (a server's own back-off); the judge bounds it.

    Raises:
        InvalidRuling: `not_before` is negative or not finite.
    """

    verdict: Verdict
    not_before: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.not_before < math.inf:
            raise InvalidRuling(f"not_before is {self.not_before!r}")


CRASHED = Ruling(Verdict.CRASH)
"""The ruling on every crash of a child without a judge."""
