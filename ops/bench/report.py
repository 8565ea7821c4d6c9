"""Printing results as a table and writing them as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .result import Row, rounded


def show(rows: Sequence[Row], machine: Mapping[str, Any]) -> None:
    """Print the table."""
    console = Console(width=None if Console().is_terminal else 150)
    console.print(
        f"{machine['cores']} cores, {machine['cpu']}, {machine['memory_gib']} GiB, Python {machine['python']},"
        f" trio {machine['trio']}, {machine['date']}, load before {machine['load_before']}",
        highlight=False,
    )
    table = Table()
    for name, justify in (
        ("name", "left"), ("value", "right"), ("unit", "left"), ("yardstick", "right"),
        ("beside", "left"), ("ratio", "right"), ("goal", "left"), ("met", "left"),
    ):  # fmt: skip
        table.add_column(name, justify="right" if justify == "right" else "left", overflow="fold")
    for row in rows:
        met = {True: "yes", False: "[bold red]no[/]", None: ""}[row.met]
        ratio = f"{row.ratio:.2f}x" if row.ratio is not None else ""
        table.add_row(
            row.name, _figure(row.value), row.unit, _figure(row.yardstick), row.beside, ratio, row.goal_text, met
        )
    console.print(table)


def write(path: Path, rows: Sequence[Row], machine: Mapping[str, Any], failed: Mapping[str, str]) -> None:
    """Write machine facts and rows."""
    document = {"machine": machine, "rows": [row.as_json() for row in rows], "failed": failed}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _figure(value: float | None) -> str:
    short = rounded(value)
    if short is None:
        return ""
    return f"{short:,.0f}" if abs(short) >= 1000 else f"{short:g}"
