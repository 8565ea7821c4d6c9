"""The restart intensity of a supervisor: pure, the time comes in as an argument.

OTP's rule: more than `intensity` restarts within `period` seconds, and the supervisor gives up. A window and not a
lifetime counter, which would punish a long-lived servant for failing rarely. All children of a supervisor share one
budget, and the restarts before the root of a tree gives up are the *product* of the intensities on the path; so keep
the numbers small and retry nowhere else.
"""

from __future__ import annotations

import math

from .errors import InvalidBudget


class RestartBudget:
    """Counts restarts in a sliding window; holds at most `intensity + 1` times.

    Raises:
        InvalidBudget: `intensity` below 0 or `period` not a positive, finite number of seconds.
    """

    __slots__ = ("_times", "intensity", "period")

    def __init__(self, intensity: int, period: float) -> None:
        if intensity < 0:
            raise InvalidBudget(f"intensity must be a whole number, 0 or more: {intensity!r}")
        if not 0.0 < period < math.inf:
            raise InvalidBudget(f"period must be a positive number of seconds: {period!r}")
        self.intensity = intensity
        self.period = period
        # A tuple: empty it costs nothing, and ten thousand supervisors mostly have no restart to remember.
        self._times: tuple[float, ...] = ()

    def spend(self, now: float) -> bool:
        """Count a restart at `now` (seconds, never going back); False when it is one too many."""
        self._times = (*self._within(now), now)[-(self.intensity + 1) :]
        return len(self._times) <= self.intensity

    def spent(self, now: float) -> int:
        """How many restarts the window that ends at `now` holds."""
        return len(self._within(now))

    def _within(self, now: float) -> tuple[float, ...]:
        # A restart exactly `period` seconds old still counts, as in OTP's add_restart/3.
        oldest = now - self.period
        return tuple(time for time in self._times if time >= oldest)
