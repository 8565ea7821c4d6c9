"""How much of something a server may give us: so much at once, so much a second.  Pure; time is an argument."""

from __future__ import annotations


class Allowance:
    """A bucket of units that fills up again."""

    __slots__ = ("_at", "_left", "_most", "_rate")

    def __init__(self, most: float, rate: float, now: float) -> None:
        self._most = most
        self._rate = rate
        self._left = most
        self._at = now

    def take(self, units: float, now: float) -> float:
        """Take so many, even where they are not there; the seconds until they would have been, 0 when they were."""
        if self._left < self._most:
            self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now
        self._left -= units
        return max(0.0, -self._left / self._rate)

    def extend(self, units: float) -> None:
        """Let at least so many be there, beyond the most if need be, until `end_extension`."""
        self._left = max(self._left, units)

    def end_extension(self) -> None:
        """Take back what is left of it."""
        self._left = min(self._left, self._most)
