"""What an idle supervised actor costs: `actors`, in the form of the other benchmarks."""

from __future__ import annotations

import trio

from . import actors
from .result import Row, Say


async def measure(*, quick: bool, say: Say) -> list[Row]:
    """KiB of each kind of actor; a quick run does the same, for it takes seconds."""
    del quick
    say(f"{actors.COUNT} idle actors of each kind")
    rows = await trio.to_thread.run_sync(actors.measure)
    return [
        Row("actors", row["name"], row["value"], row["unit"], row["yardstick"], actors.YARDSTICK, ("<=", row["goal"]))
        for row in rows
    ]
