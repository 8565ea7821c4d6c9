"""How often something may be done: a rate, and how one stands to it; pure.

The generic cell rate algorithm: of a subject that is not at rest one moment is kept, the one at which it will be.
Each deed moves it on by a share of the window; one that would move it beyond the window is one too many.  So a burst of
the whole limit is let through, then one deed for each share of the window; it is one row, and all nodes see the same.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """So many deeds in a window."""

    name: str
    limit: int
    window: float
    """Seconds."""

    @property
    def share(self) -> float:
        """Seconds of the window that one deed takes."""
        return self.window / self.limit


@dataclass(frozen=True, slots=True)
class Allowance:
    """How a subject stands to a rate after a deed, or after one that was too many."""

    rate: Rate
    remaining: int
    """Deeds that may follow at once."""
    reset_at: int
    """Unix time at which all of them may again."""
    retry_after: float | None = None
    """Seconds until the one may be done that was too many."""


Told = Callable[[Allowance], None]
"""Is told how a caller stands: before what was counted is done, for it may fail."""


def untold(_: Allowance) -> None:
    """For who does not want to know."""


class RateExceeded(Exception):
    """One too many."""

    def __init__(self, allowance: Allowance) -> None:
        super().__init__(f"{allowance.rate.name}: more than {allowance.rate.limit} in {allowance.rate.window:g} s")
        self.allowance = allowance


def subject(*parts: str) -> bytes:
    """What is counted, as the table keeps it: of bounded length, and no address that anybody could read there.

    Parts are taken as they are; those that may be written in several ways are folded by who knows that they may.
    """
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()


def stands(rate: Rate, rest_in: float, now: float, *, refused: bool) -> Allowance:
    """How a subject stands that will be at rest in so many seconds; *now* is Unix time."""
    free = rate.window - max(0.0, rest_in)
    remaining = 0 if refused else max(0, math.floor(free / rate.share + 1e-6))
    retry_after = max(0.0, rest_in + rate.share - rate.window) if refused else None
    return Allowance(rate, remaining, math.ceil(now + max(0.0, rest_in)), retry_after)
