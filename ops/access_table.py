"""The table of who may do what, made from the operations' declarations and the rules of sharing.

A row is an operation, or one of its cases; a column is a kind of caller, or several of them that are answered alike
everywhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final, cast

from control_api.access import KINDS, Kind, cases, status
from control_api.docs import PUBLIC
from control_api.operation import Operation
from control_api.resources import operations
from control_api.services import AccountsService


class _Nobody:
    """Stands where a declaration keeps the daemon's services, which no declaration asks anything."""

    def __getattr__(self, name: str) -> _Nobody:
        return self

    def __call__(self, *_: object) -> _Nobody:
        return self


DECLARED: Final[tuple[Operation, ...]] = tuple(operations(cast(AccountsService, _Nobody())))
"""All operations of the API, to be read and not to be run."""


def table() -> str:
    """Who may do what, as a Markdown table."""
    shown = list(rows())
    columns: dict[tuple[int, ...], list[Kind]] = defaultdict(list)
    for number, kind in enumerate(KINDS):
        columns[tuple(statuses[number] for _, statuses in shown)].append(kind)
    heads = [", ".join(kinds) for kinds in columns.values()]
    lines = [f"| | {' | '.join(heads)} |", "| --- |" + " --- |" * len(heads)]
    for number, (name, _) in enumerate(shown):
        lines.append(f"| {name} | " + " | ".join(str(column[number]) for column in columns) + " |")
    return "\n".join(lines) + "\n"


def rows() -> Iterator[tuple[str, list[int]]]:
    """What is asked, and the status that each kind of caller is answered when all else is right."""
    for operation in DECLARED:
        for case, wanted in cases(operation):
            name = f"`{operation.method} {operation.path}`" + (f", {case}" if case else "")
            yield name, [status(wanted, kind) for kind in KINDS]
    yield f"`GET` {', '.join(f'`{path}`' for path in PUBLIC)}", [200 for _ in KINDS]
