"""What every campaign is given and gives back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

Say = Callable[[str], None]
"""Tells of progress, a line at a time, with the time since the campaign began."""

MOST_PROBLEMS: Final = 200
"""Problems kept in a report: who has more reads the first ones anyway.  All are counted."""


@dataclass(frozen=True, slots=True)
class Options:
    """How large a campaign shall be; each reads what concerns it."""

    seed: int
    """Everything random comes from it: the same seed makes the same campaign, as far as time allows."""
    minutes: float
    """How long, for campaigns that last."""
    accounts: int
    """How many accounts."""
    points: int
    """How many faults or cases, for campaigns that count."""
    quick: bool
    """A few seconds: shows that it works."""


@dataclass
class Report:
    """What was done, and what was wrong; no problem is success."""

    figures: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)

    def problem(self, text: str, *, cause: bool = False) -> None:
        """Something is not as it must be; a cause is told before what it made."""
        self.counted["problems"] += 1
        if cause:
            self.problems.insert(0, text[:1000])
        elif len(self.problems) < MOST_PROBLEMS:
            self.problems.append(text[:1000])

    def as_json(self) -> dict[str, Any]:
        """As it is written."""
        dropped = self.counted["problems"] - len(self.problems)
        return {**self.figures, "problems": [*self.problems, *([f"and {dropped} more"] if dropped else [])]}
