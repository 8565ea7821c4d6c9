"""`python -P -m ops.soak [campaign]`: run one, print and write its report.  Exit code 1 when it found a problem."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Final

import trio

from daemon.telemetry import logs
from ops.bench.result import machine
from ops.demo_servers import adopt_orphans

from .campaign import Options, Say


@dataclass(frozen=True, slots=True)
class Size:
    """What a campaign does when nothing else is said."""

    minutes: float = 0.0
    accounts: int = 0
    points: int = 0


CAMPAIGNS: Final = {
    "faults": (Size(minutes=2.0, accounts=50), Size(minutes=0.15, accounts=4)),
    "kills": (Size(accounts=5, points=100), Size(accounts=2, points=3)),
    "stops": (Size(accounts=1000), Size(accounts=6)),
    "http": (Size(points=5000), Size(points=200)),
    "parsers": (Size(points=100_000), Size(points=2000)),
    "sharing": (Size(minutes=5.0), Size(minutes=0.1)),
    "schema": (Size(minutes=5.0), Size(minutes=0.12)),
    "bulkheads": (Size(minutes=8.0, accounts=200, points=300), Size(minutes=0.06, accounts=4, points=18)),
    "throttling": (Size(accounts=1000), Size(accounts=30)),
}
"""Each campaign's size, and its size with --quick."""


def main() -> int:
    """Run a campaign and report."""
    parser = argparse.ArgumentParser(prog="ops.soak", description="Attack a real daemon; what must hold is checked.")
    parser.add_argument("campaign", nargs="?", default="faults", choices=list(CAMPAIGNS))
    parser.add_argument("--minutes", type=float, help="how long, for campaigns that last")
    parser.add_argument("--accounts", type=int, help="how many accounts")
    parser.add_argument("--points", type=int, help="how many faults or cases, for campaigns that count")
    parser.add_argument("--seed", type=int, default=None, help="replays a campaign; printed where none is given")
    parser.add_argument("--quick", action="store_true", help="a few seconds: shows that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")
    arguments = parser.parse_args()
    options = _options(arguments)
    adopt_orphans()
    logs.set_up("error", "text")
    print(f"{arguments.campaign}: {_words(arguments.campaign, options)}", flush=True)
    campaign = import_module(f"ops.soak.{arguments.campaign}").campaign
    began = time.monotonic()
    found = trio.run(partial(campaign, options, _say(began)))
    report = {
        "campaign": arguments.campaign,
        "machine": machine(),
        "seed": options.seed,
        "took": round(time.monotonic() - began, 1),
        **found.as_json(),
    }
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    problems = report["problems"]
    print(f"{len(problems)} problems" if problems else "no problem", flush=True)
    return 1 if problems else 0


def _options(arguments: argparse.Namespace) -> Options:
    size = CAMPAIGNS[arguments.campaign][arguments.quick]

    def chosen(name: str) -> float:
        value = getattr(arguments, name)
        return float(getattr(size, name) if value is None else value)

    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().getrandbits(32)
    return Options(
        seed, chosen("minutes"), int(chosen("accounts")), int(chosen("points")), quick=bool(arguments.quick)
    )


def _words(campaign: str, options: Options) -> str:
    """The size in words, as far as the campaign knows it."""
    size = CAMPAIGNS[campaign][0]
    words = [f"seed {options.seed}"]
    words += [f"{getattr(options, name):g} {name}" for name in ("minutes", "accounts", "points") if getattr(size, name)]
    return ", ".join(words)


def _say(began: float) -> Say:
    return lambda text: print(f"[{time.monotonic() - began:7.2f}] {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
