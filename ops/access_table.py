"""The table of who may do what, made from the operations' declarations and the rules of sharing.

A row is an operation, or one of its cases; a column is a kind of caller, or several of them that are answered alike
everywhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
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


NOBODY: Final = cast(AccountsService, _Nobody())
"""A daemon that does nothing."""

DECLARED: Final[tuple[Operation, ...]] = tuple(operations(NOBODY))
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


def row_name(operation: Operation, case: str) -> str:
    """What the row of an operation, in one of its cases, is called."""
    return f"`{operation.method} {operation.path}`" + (f", {case}" if case else "")


def read(shown: str) -> Mapping[str, Mapping[str, int]]:
    """A table as it is drawn, back into statuses by row and kind of caller."""
    heads, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown.splitlines()]
    return {
        name: {kind: int(cell) for kinds, cell in zip(heads[1:], cells, strict=True) for kind in kinds.split(", ")}
        for name, *cells in lines
    }


def rows() -> Iterator[tuple[str, list[int]]]:
    """What is asked, and the status that each kind of caller is answered when all else is right."""
    for operation in DECLARED:
        for case, wanted in cases(operation):
            yield row_name(operation, case), [status(wanted, kind) for kind in KINDS]
    yield f"`GET` {', '.join(f'`{path}`' for path in PUBLIC)}", [200 for _ in KINDS]
