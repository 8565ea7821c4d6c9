"""What a measurement says: a value, the yardstick it stands beside, and the goal it is held against.  Pure."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

Goal = tuple[Literal["<=", ">="], float]


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure."""

    bench: str
    name: str
    value: float
    unit: str
    yardstick: float | None = None
    """The yardstick's value in the same unit, or None where nothing comparable exists."""
    beside: str = ""
    """What the yardstick is."""
    goal: Goal | None = None
    goal_on: Literal["value", "ratio"] = "value"
    """Whether the goal is about the value or about its ratio to the yardstick."""

    @property
    def ratio(self) -> float | None:
        """Value to yardstick."""
        return self.value / self.yardstick if self.yardstick else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        judged = self.value if self.goal_on == "value" else self.ratio
        if self.goal is None or judged is None:
            return None
        sign, bound = self.goal
        return judged <= bound if sign == "<=" else judged >= bound

    def as_json(self) -> dict[str, Any]:
        """The row as it is written."""
        return {
            "bench": self.bench,
            "name": self.name,
            "value": rounded(self.value),
            "unit": self.unit,
            "yardstick": rounded(self.yardstick),
            "beside": self.beside,
            "ratio": rounded(self.ratio),
            "goal": self.goal_text or None,
            "met": self.met,
        }

    @property
    def goal_text(self) -> str:
        """The goal as a person reads it."""
        if self.goal is None:
            return ""
        sign, bound = self.goal
        return f"{sign} {bound:g}{'x' if self.goal_on == 'ratio' else f' {self.unit}'}"


Say = Callable[[str], None]
"""Told what is going on, for whoever waits."""


def rounded(value: float | None) -> float | None:
    """Three significant digits at least: more would be noise on a shared machine."""
    if value is None:
        return None
    return round(value) if abs(value) >= 1000 else float(f"{value:.3g}")


def median(values: list[float]) -> float:
    """The middle one, the lower of two."""
    return sorted(values)[(len(values) - 1) // 2]


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def machine() -> dict[str, Any]:
    """What the figures were seen on."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "cpu": model[1] if model else platform.machine(),
        "memory_gib": round(memory / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("accountsd", "trio", "psycopg", "imapclient", "quart-trio")},
    }
