"""What a process held, over time: lives, and whether the last of them grew.

Growth is judged in the last life, once it is warm, by comparing the medians of its first and last third: a median does
not see the fault that was just under way, and a leak that matters within a day shows within twenty minutes of faults
every few seconds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

WARM_AFTER: Final = 120.0
"""Seconds of a life after which everything has been used once: pools, caches, the allocator's arenas."""

ENOUGH: Final = 300.0
"""Seconds that a life must last beyond that to be judged."""

MOST_GROWTH: Final = {
    "rss_mib": (1.08, 8.0),
    "threads": (1.0, 4.0),
    "tasks": (1.0, 24.0),
    "database_sessions": (1.0, 4.0),
}
"""By how much the last third may be above the first: a factor and a sum.  The allocator needs its share of memory.
Descriptors and connections are told, too, but swing with the faults between none and one for each account: whether they
leak is seen when all is quiet at the end, where they are what the accounts need."""

TOLD: Final = (*MOST_GROWTH, "descriptors", "connections")


@dataclass(frozen=True, slots=True)
class Sample:
    """What the process holds."""

    at: float
    pid: int
    rss_mib: float
    descriptors: int
    threads: int
    connections: int
    """Network connections: IMAP sessions, for nobody talks to its API."""
    tasks: int = 0
    """In its event loop; 0 where it did not tell."""
    database_sessions: int = 0
    """Its connections to PostgreSQL; 0 while that is away."""

    def as_json(self) -> dict[str, float]:
        """As it is written."""
        return {name: round(value, 2) for name, value in asdict(self).items()}


def growth(samples: Sequence[Sample]) -> list[dict[str, float]]:
    """For each life of the process that lasted at least two samples: how long, and first, most and last memory."""
    return [
        {
            "seconds": round(life[-1].at - life[0].at, 1),
            "rss_first": round(life[0].rss_mib, 1),
            "rss_most": round(max(s.rss_mib for s in life), 1),
            "rss_last": round(life[-1].rss_mib, 1),
            "descriptors_last": life[-1].descriptors,
            "threads_last": life[-1].threads,
            "tasks_last": life[-1].tasks,
        }
        for life in _lives(samples)
        if len(life) > 1
    ]


def _lives(samples: Sequence[Sample]) -> list[list[Sample]]:
    lives: dict[int, list[Sample]] = {}
    for sample in samples:
        lives.setdefault(sample.pid, []).append(sample)
    return list(lives.values())


def grown(samples: Sequence[Sample]) -> tuple[dict[str, Any], list[str]]:
    """The medians of the last life's first and last third, and in sentences what grew; empty for a life too short."""
    lives = _lives(samples)
    life = [s for s in lives[-1] if s.at >= lives[-1][0].at + WARM_AFTER] if lives else []
    if not life or life[-1].at - life[0].at < ENOUGH:
        return {}, []
    third = (life[-1].at - life[0].at) / 3
    first = [s for s in life if s.at <= life[0].at + third]
    last = [s for s in life if s.at >= life[-1].at - third]
    figures: dict[str, Any] = {"seconds": round(life[-1].at - life[0].at, 1)}
    problems = []
    for name in TOLD:
        before, after = _median(first, name), _median(last, name)
        figures[name] = [before, after]
        factor, more = MOST_GROWTH.get(name, (math.inf, 0.0))
        if after > before * factor + more:
            problems.append(f"{name} grew from {before} to {after} within {figures['seconds']} s of one life")
    return figures, problems


def _median(samples: Sequence[Sample], name: str) -> float:
    values = [value for sample in samples if (value := getattr(sample, name))]
    return round(statistics.median(values), 1) if values else 0.0
