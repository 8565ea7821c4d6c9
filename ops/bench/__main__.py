"""`python -P -m ops.bench`: run benchmarks, print the table, write JSON.  Exit code 1 when one of them failed."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Final

import trio

from daemon.telemetry import logs
from ops.demo_servers import adopt_orphans

from .report import show, write
from .result import Row, Say, machine

Measure = Callable[[], Awaitable[list[Row]]]

BENCHES: Final = {
    "first_sync": ("first_sync", ()),
    "idle_memory": ("fleet", ("idle_memory",)),
    "start": ("fleet", ("start",)),
    "push": ("fleet", ("push",)),
    "api": ("api", ()),
    "resident": ("resident", ()),
    "actors": ("idle_actors", ()),
}
"""Where each is measured; neighbours of one module are measured together."""


def chosen(names: list[str]) -> dict[str, tuple[str, ...]]:
    """The modules to run and what each shall measure, in the order of BENCHES."""
    modules: dict[str, tuple[str, ...]] = {}
    for name, (module, parts) in BENCHES.items():
        if not names or name in names:
            modules[module] = (*modules.get(module, ()), *parts)
    return modules


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="ops.bench", description="Speed and memory, beside what others do.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(BENCHES)} (all)")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it works, not how fast")
    parser.add_argument("--accounts", type=int, default=None, help="accounts of idle_memory, start and push (1000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - BENCHES.keys():
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    adopt_orphans()
    logs.set_up("error", "text")
    facts = machine()
    rows: list[Row] = []
    failed: dict[str, str] = {}
    for module, parts in chosen(arguments.names).items():
        measure = partial(import_module(f"ops.bench.{module}").measure, quick=arguments.quick, say=_say(module))
        if parts:
            measure = partial(measure, parts=parts, accounts=arguments.accounts)
        try:
            rows += trio.run(measure)
        except Exception as exc:  # noqa: BLE001  # one that fails is reported, and the others still run
            traceback.print_exc()
            failed[module] = repr(exc)[:500]
    show(rows, facts)
    if arguments.json is not None:
        write(arguments.json, rows, facts, failed)
    for module, problem in failed.items():
        print(f"{module} failed: {problem}", file=sys.stderr)
    return 1 if failed else 0


def _say(module: str) -> Say:
    return lambda text: print(f"{module}: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
