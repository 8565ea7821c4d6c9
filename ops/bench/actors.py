"""What an idle supervised actor costs in memory, beside a bare Trio task.

Ten thousand of each kind wait for a command; the growth of the resident set, after the allocator gave back what it
could, is divided by their number. Each kind runs in a process of its own, for memory freed by one would serve the next.
The yardstick is a bare task that waits on a memory channel of its own. The actors wait with a deadline, as real ones
do.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio
import trio.testing

from supervisor import ChildSpec, DynamicSupervisor, Mailbox, Restart, Strategy, Supervisor

COUNT = 10_000
GOALS = {"actor": 12.0, "supervised": 12.0, "pair": 18.0}
"""KiB: 12 for a supervised actor, as much as the first prototype needed, and half of it more for a second task."""

TIMEOUT = 120.0
"""Seconds for one kind; it takes five on a small machine."""

CAPACITY = 64
"""Commands an actor's mailbox holds; nothing is cast here."""

YARDSTICK = "bare task on a memory channel"
KINDS = {
    "actor": "actor directly under the fleet",
    "supervised": "supervised actor",
    "pair": "supervised actor with a worker",
}


def measure() -> list[dict[str, Any]]:
    """KiB of resident memory for each kind of idle actor.

    Raises:
        subprocess.SubprocessError: a measurement failed or took too long.
    """
    yardstick = _in_a_process("bare")
    return [
        {
            "name": name,
            "value": (value := _in_a_process(kind)),
            "unit": "KiB",
            "yardstick": yardstick,
            "ratio": round(value / yardstick, 2),
            "goal": GOALS[kind],
        }
        for kind, name in KINDS.items()
    ]


def _in_a_process(kind: str) -> float:
    command = [sys.executable, "-P", "-m", "ops.bench.actors", kind]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command,
        check=True,
        capture_output=True,
        timeout=TIMEOUT,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    return float(json.loads(done.stdout))


# -- in the process ------------------------------------------------------------------------------------------------


def _resident_kib() -> float:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024


async def _grow(start: Callable[[int], object]) -> float:
    """KiB for each of COUNT started things, once all are idle."""
    before = _resident_kib()
    for number in range(COUNT):
        start(number)
    await trio.testing.wait_all_tasks_blocked()
    return round((_resident_kib() - before) / COUNT, 2)


async def _bare() -> float:
    async def wait(channel: trio.MemoryReceiveChannel[object]) -> None:
        async for _ in channel:
            pass

    senders = []
    async with trio.open_nursery() as nursery:

        def start(_number: int) -> None:
            sender, receiver = trio.open_memory_channel[object](CAPACITY)
            senders.append(sender)
            nursery.start_soon(wait, receiver)

        cost = await _grow(start)
        nursery.cancel_scope.cancel()
    return cost


class _Actor:
    """An actor as small as can be."""

    __slots__ = ("mailbox",)

    def __init__(self) -> None:
        self.mailbox: Mailbox[object] = Mailbox(CAPACITY)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while await self.mailbox.receive(trio.current_time() + 3600.0) is None:
            pass


def _spec_of(kind: str, number: int) -> ChildSpec:
    name = str(number)
    if kind == "actor":
        return ChildSpec(name, _Actor().run, restart=Restart.TEMPORARY)
    workers = (ChildSpec("worker", _Actor().run),) if kind == "pair" else ()
    tree = Supervisor(name, [ChildSpec("actor", _Actor().run), workers], strategy=Strategy.REST_FOR_ONE)
    return ChildSpec(name, tree.run, restart=Restart.TEMPORARY, stop=tree.request_stop)


async def _supervised(kind: str) -> float:
    fleet = DynamicSupervisor("fleet", max_children=COUNT)
    async with trio.open_nursery() as nursery:
        await nursery.start(fleet.run)
        cost = await _grow(lambda number: fleet.start_child(_spec_of(kind, number)))
        if fleet.statistics().active != COUNT:
            raise RuntimeError(f"only {fleet.statistics().active} of {COUNT} run")
        fleet.request_stop()
    return cost


def _one(kind: str) -> Awaitable[float]:
    return _bare() if kind == "bare" else _supervised(kind)


def main() -> None:
    """Print the table, or measure the one kind that is named."""
    if len(sys.argv) > 1:
        print(json.dumps(trio.run(_one, sys.argv[1])))
        return
    rows = measure()
    print(f"{COUNT} idle each; yardstick: {YARDSTICK}, {rows[0]['yardstick']:.2f} KiB")
    for row in rows:
        print(f"{row['name']:34} {row['value']:6.2f} {row['unit']}  {row['ratio']:.2f}x  goal {row['goal']:g}")


if __name__ == "__main__":
    main()
