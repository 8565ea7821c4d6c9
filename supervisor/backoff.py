"""How long a child pauses before it is started again: pure, time and chance come in as arguments.

OTP restarts at once; this is a documented departure. It is pacing and not a circuit breaker: a pause grows from `base`
by `factor` with each failure in a row up to `cap`, and the row (the *streak*) is forgotten only once a child was up for
`stable_uptime` seconds. A server that accepts a whole login and then drops the connection would otherwise be logged in
to many times a second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from .errors import InvalidBackoff


class Chance(Protocol):
    """Where jitter comes from; `random.Random` is one."""

    def random(self) -> float:
        """A number in [0, 1)."""
        ...


@dataclass(frozen=True, slots=True)
class Backoff:
    """The pauses of one kind of child.

    `base`: the first pause, seconds. `cap`: no pause is longer, seconds. `factor`: growth with each failure in a row.
    `jitter`: the share of a pause that is left to chance. It only shortens, so that `cap` holds and children capped
    alike still spread. `stable_uptime`: seconds ready after which the streak is forgotten.

    Raises:
        InvalidBackoff: a number out of range.
    """

    base: float = 1.0
    cap: float = 60.0
    factor: float = 2.0
    jitter: float = 0.2
    stable_uptime: float = 60.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.base <= self.cap < math.inf:
            raise InvalidBackoff(f"0 <= base <= cap must hold: base is {self.base!r}, cap is {self.cap!r}")
        if not 1.0 <= self.factor < math.inf:
            raise InvalidBackoff(f"factor must be 1 or more: {self.factor!r}")
        if not 0.0 <= self.jitter <= 1.0:
            raise InvalidBackoff(f"jitter must be a share between 0 and 1: {self.jitter!r}")
        if not 0.0 <= self.stable_uptime < math.inf:
            raise InvalidBackoff(f"stable_uptime must be 0 seconds or more: {self.stable_uptime!r}")

    def next_streak(self, streak: int, uptime: float) -> int:
        """The number of failures in a row, counting the one after `uptime` seconds of being ready."""
        return 1 if uptime >= self.stable_uptime else streak + 1

    def delay(self, streak: int, rng: Chance) -> float:
        """Seconds to pause after the `streak`-th failure in a row (from 1), never more than `cap`."""
        return self._full(streak) * (1.0 - self.jitter * rng.random())

    def _full(self, streak: int) -> float:
        try:
            return min(self.cap, self.base * self.factor ** (streak - 1))
        except OverflowError:  # a child that failed for weeks
            return self.cap
