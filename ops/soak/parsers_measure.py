"""One case put to one parser: what it raised, what it cost in time and memory, and whether its cost is linear.

Time is the processor's, never the wall's.  An alarm ends a case that hangs; regular expressions hear it too.
"""

from __future__ import annotations

import random
import signal
import time
import traceback
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Final

from .parsers_inputs import Corpus, pattern

Parser = Callable[[bytes, random.Random], None] | Callable[[bytes, random.Random], Awaitable[None]]
"""Reads one case; raises nothing for what the bytes are."""

HANGS: Final = 20.0
"""Seconds of processor time after which a case hangs; an ordinary one needs a thousandth of it."""

MEMORY: Final = 150
"""Bytes a parser may hold for each byte of input: a list of one-letter words, each an object of 34 bytes in a tuple of
five that a regular expression gives, has about 120."""

MEMORY_BASE: Final = 2 << 20
"""Bytes that any case may cost: caches, tables of a decoder, the buffer of 1 MiB that a settings file is read into."""

LARGER: Final = 4
"""By how much the second input of a growth is longer than the first."""

GROWTH: Final = 9.0
"""By how much longer it may take: linear work takes 4 times, work by the square 16."""

WORTH_A_LOOK: Final = 0.03
"""Seconds below which the clock and the allocator are what is measured."""

REPEATS: Final = 5


class Hung(BaseException):
    """The alarm of a case; no parser's own handler may take it for its own."""


@dataclass
class Told:
    """What a parser did so far."""

    cases: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    """Seconds."""
    memory: float = 0.0
    """The most bytes held for each byte of an input of 4 KiB or more."""
    growth: float = 0.0
    """The most that a LARGER times longer input took."""
    problems: dict[str, str] = field(default_factory=dict)
    """By what is alike in them: the first of each."""


@contextmanager
def alarmed() -> Iterator[None]:
    """Make the alarm of cases raise Hung."""

    def hung(_number: int, _frame: FrameType | None) -> None:
        raise Hung

    before = signal.signal(signal.SIGVTALRM, hung)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


async def put(parser: Parser, data: bytes, seed: int) -> tuple[float, str | None]:
    """Seconds of the processor's time, and what was wrong."""
    problem = None
    rng = random.Random(seed)  # noqa: S311  # repeatable, not secret
    began = time.thread_time()
    signal.setitimer(signal.ITIMER_VIRTUAL, HANGS)
    try:
        waiting = parser(data, rng)
        if waiting is not None:
            await waiting
    except Hung:
        problem = f"hung for {HANGS:g} s"
    except Exception as exc:  # noqa: BLE001  # whatever comes out is what is looked for
        where = traceback.extract_tb(exc.__traceback__)[-1]
        problem = f"{type(exc).__name__} at {where.name} ({where.filename.rpartition('/')[2]}): {exc!s:.200}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return time.thread_time() - began, problem


async def one(told: Told, parser: Parser, data: bytes, seed: int) -> None:
    """Put a case and book it."""
    seconds, problem = await put(parser, data, seed)
    told.cases += 1
    told.seconds += seconds
    told.slowest = max(told.slowest, seconds)
    if problem is not None:
        _note(told, problem, data, seed)


async def memory(told: Told, parser: Parser, data: bytes, seed: int) -> None:
    """Put a case and see what it holds at most."""
    tracemalloc.start()
    try:
        _, problem = await put(parser, data, seed)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    told.cases += 1
    if len(data) >= 4096:
        told.memory = max(told.memory, peak / len(data))
    if peak > MEMORY * len(data) + MEMORY_BASE:
        problem = problem or f"memory: {peak} bytes for {len(data)}"
    if problem is not None:
        _note(told, problem, data, seed)


async def growth(told: Told, parser: Parser, corpus: Corpus, rng: random.Random, size: int) -> None:
    """Put an input of repetitions and one that is LARGER times as long; suspicion is confirmed by the best of many."""
    begin, unit, end = pattern(rng, corpus)
    seed = rng.getrandbits(32)

    async def least(length: int, times: int) -> float:
        data = begin + unit * (length // len(unit)) + end
        seconds = []
        for _ in range(times):
            took, problem = await put(parser, data, seed)
            told.cases += 1
            told.seconds += took
            told.slowest = max(told.slowest, took)
            seconds.append(took)
            if problem is not None:
                _note(told, problem, data, seed)
        return min(seconds)

    long = await least(LARGER * size, 1)
    if long < WORTH_A_LOOK:
        return
    factor = long / max(await least(size, 1), 1e-6)
    if factor > GROWTH:
        factor = await least(LARGER * size, REPEATS) / max(await least(size, REPEATS), 1e-6)
    told.growth = max(told.growth, factor)
    if factor > GROWTH:
        _note(told, f"takes {factor:.1f} times as long for {LARGER} times {size} bytes of {unit!r}",
            begin + unit + end, seed)


def _note(told: Told, problem: str, data: bytes, seed: int) -> None:
    """Keep the first of a kind."""
    kind = problem.partition(":")[0]
    if len(told.problems) < 20:
        told.problems.setdefault(kind, f"{problem}; seed {seed}, {len(data)} bytes: {data[:400]!r}")
