"""Measuring in a fresh process: the parent sends one JSON document, the child answers with another.

The request goes by standard input, so that no secret in it shows up in the process list.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import trio

WITHIN: Final = 300.0
"""Seconds for one child, unless it says how long it may need."""


class ChildFailed(Exception):
    """The child ended without an answer; the message ends with its last words."""


def command(module: str) -> list[str]:
    """The command line of a module of ours."""
    return [sys.executable, "-P", "-m", module]


def environment() -> dict[str, str]:
    """Ours without settings of a daemon, importing this source tree."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ACCOUNTSD_")}
    return {**kept, "PYTHONPATH": str(Path(__file__).parents[2])}


async def ask(module: str, request: dict[str, Any], *, within: float = WITHIN) -> dict[str, Any]:
    """Run a module with a request; its answer.

    Raises:
        ChildFailed: it ended otherwise, or took longer than `within` seconds.
    """
    with trio.move_on_after(within):
        done = await trio.run_process(
            command(module),
            stdin=json.dumps(request).encode(),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment(),
        )
        if done.returncode or not done.stdout:
            words = done.stderr.decode(errors="replace")[-2000:]
            raise ChildFailed(f"{module} ended with status {done.returncode}: {words}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer
    raise ChildFailed(f"{module} took longer than {within:g} s")


async def until(condition: Callable[[], bool], every: float = 0.02) -> None:
    """Return when the condition holds; the caller bounds it."""
    while not condition():  # noqa: ASYNC110  # what is waited for is another process, or tells nobody
        await trio.sleep(every)


def request() -> dict[str, Any]:
    """What the parent wants; to be called by the child."""
    wanted: dict[str, Any] = json.load(sys.stdin)
    return wanted


def answer(document: dict[str, Any]) -> None:
    """Answer the parent."""
    print(json.dumps(document), flush=True)


def rss_kib(pid: int | str = "self") -> float:
    """The resident set of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024
