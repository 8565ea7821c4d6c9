"""`http`: malformed requests on raw sockets against a real daemon, while good clients go on being served.

    strangers (http_cases, http_framing, http_targets) ──► API and operator's listener ◄── good clients, all the time

What must hold: every answer is a whole response that an API may give (http_answers), no 5xx among them; every
connection ends; the good clients are answered, each within its time; the process is the same at the end, has given back
what it took, and its log knows of no error.  Each half ends in floods of connections that say nothing.
"""

from __future__ import annotations

import random
import time
from functools import partial
from typing import Final

import httpx
import trio

from .campaign import Options, Report, Say
from .daemon_process import DaemonProcess
from .http_cases import MUTATIONS, Case, End, Make, Material
from .http_daemon import COOKIE, complaints, give_secret, listening, ready, token
from .http_framing import FRAMING, SLOW
from .http_run import Run, attempt
from .http_targets import TARGETS
from .life import ended
from .samples import Sample

AT_ONCE: Final = 96
"""Cases at once: below the requests that may be under way, so that none is refused for what it is not."""

GOOD_WITHIN: Final = 10.0
"""Seconds that a good client waits for an answer."""

GOOD_PAUSE: Final = 0.02
SETTLE: Final = 20.0
"""Seconds for connections to be gone and memory to be given back after the last case."""

FLOOD: Final = 700
"""Connections that say nothing: more than the listener holds."""

MAX_GROWTH: Final = 48.0
"""MiB that the process may have grown in the second half of the cases: what its allocator keeps, and no leak.  In the
first half, floods included, it grows by as much again until all has been used once."""

_SPARE: Final = 4
"""Descriptors, threads and tasks that come and go by themselves."""


def cases(material: Material, count: int, *, quick: bool) -> list[Case]:
    """What is sent, by the seed.  Slow ones take turns with the others, one in forty; none when it must be quick."""
    rng, made = material.rng, []
    classes = list({**FRAMING, **TARGETS, **MUTATIONS}.items())
    slow = list(SLOW.items())
    for number in range(count):
        kind, make = classes[number % len(classes)]
        if not quick and number % 40 == 0:
            kind, make = slow[number // 40 % len(slow)]
        made.append(_case(kind, make, material, patient=not quick and rng.random() < 0.06))
    return made


def _case(kind: str, make: Make, material: Material, *, patient: bool) -> Case:
    made, rng = make(material), material.rng
    operations = rng.random() < 0.15
    if isinstance(made, Case):
        return Case(made.kind, made.chunks, made.end, made.pause, operations)
    end = End.PATIENT if patient else End.ABORT if rng.random() < 0.1 else End.HALF
    if rng.random() < 0.2:  # in two pieces, so that a head or a body arrives in parts
        at = rng.randrange(len(made) + 1)
        return Case(kind, (made[:at], made[at:]), end, 0.001, operations)
    return Case(kind, (made,), end, 0.0, operations)


# -- good clients --------------------------------------------------------------------------------------------------


async def _good(run: Run, port: int, path: str, *, kept: bool) -> None:
    """Ask again and again, over one connection or a new one each time; whatever is not served is a problem."""
    limits = httpx.Limits(max_keepalive_connections=1 if kept else 0)
    cookies = {COOKIE: token("good")}
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", cookies=cookies, timeout=GOOD_WITHIN, limits=limits, trust_env=False
    ) as client:
        while True:
            began = trio.current_time()
            try:
                answer = await client.get(path)
                if answer.status_code != httpx.codes.OK:
                    run.report.problem(f"a good client was answered {answer.status_code}: {answer.text[:300]}")
            except httpx.HTTPError as exc:
                run.report.problem(f"a good client was not served: {exc!r}")
            run.served += 1
            run.longest = max(run.longest, trio.current_time() - began)
            await trio.sleep(GOOD_PAUSE)


async def _flood(run: Run, port: int) -> None:
    """Open more connections than the listener holds, say nothing, and see whether others are served meanwhile."""
    silent: list[trio.SocketStream] = []

    async def one() -> None:
        silent.append(await trio.open_tcp_stream("127.0.0.1", port))

    before, served = run.report.counted["problems"], run.served
    try:
        for _ in range(FLOOD // 50):
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(one)
            await trio.sleep(0.05)
        await trio.sleep(1.0)
    finally:
        for stream in silent:
            await trio.aclose_forcefully(stream)
    run.count("silent connections", "all held")
    if run.served == served:
        run.report.problem("no good client was served during the flood")
    if run.report.counted["problems"] > before:
        run.report.problem("good clients suffered from connections that say nothing")


# -- the campaign --------------------------------------------------------------------------------------------------


async def campaign(options: Options, say: Say) -> Report:
    """Run it."""
    report = Report()
    async with DaemonProcess(port=993, ca=None) as daemon:
        give_secret(daemon)
        await trio.to_thread.run_sync(daemon.start)
        api, operations = await listening(daemon)
        await ready(operations)
        run = Run(report, daemon, api, operations)
        await _campaign(run, options, say)
        await ended(daemon, report, told=complaints)
        report.figures |= {
            "good_requests": run.served,
            "good_slowest_s": round(run.longest, 2),
            "classes": {kind: dict(sorted(run.classes[kind].items())) for kind in sorted(run.classes)},
        }
    return report


async def _campaign(run: Run, options: Options, say: Say) -> None:
    rng = random.Random(options.seed)  # noqa: S311  # repeatable, not secret
    every = cases(Material(rng, token("attacker")), options.points, quick=options.quick)
    half = len(every) // 2
    began = time.monotonic()
    async with trio.open_nursery() as nursery:
        for port, path, kept in (
            (run.api, "/mail/accounts", True), (run.api, "/mail/accounts", False),
                (run.operations, "/health/live", False),
            (run.operations, "/metrics", True),
        ):  # fmt: skip
            nursery.start_soon(partial(_good, run, port, path, kept=kept))
        await _round(run, every[:half], 0, say)  # until then what is held is that all was used once
        before = await _settled(run, began, None)
        await _round(run, every[half:], half, say)
        after = await _settled(run, began, before)
        nursery.cancel_scope.cancel()
    run.report.figures = {
        "cases": len(every),
        "before": before.as_json() if before else None,
        "after": after.as_json() if after else None,
    }


async def _round(run: Run, some: list[Case], first: int, say: Say) -> None:
    """These cases, and floods behind them."""
    await _send_all(run, some, first, say)
    say(f"{FLOOD} connections that say nothing, on each listener")
    for port in (run.api, run.operations):
        await _flood(run, port)


async def _send_all(run: Run, every: list[Case], first: int, say: Say) -> None:
    limiter = trio.CapacityLimiter(AT_ONCE)

    async def one(number: int, case: Case) -> None:
        async with limiter:
            await attempt(run, number, case)
        run.done += 1
        if run.done % 1000 == 0:
            say(f"{run.done} cases")

    async with trio.open_nursery() as nursery:
        for number, case in enumerate(every, first):
            nursery.start_soon(one, number, case)


async def _sample(run: Run, began: float) -> Sample | None:
    """What the process holds, or None where not all of it can be seen."""
    sample = await trio.to_thread.run_sync(partial(run.daemon.sample, began, tasks=True))
    return sample if sample is not None and sample.tasks else None


async def _settled(run: Run, began: float, before: Sample | None) -> Sample | None:
    """Wait until the process can be seen and holds no more than it did; what it holds on to is a problem."""
    left: list[str] = ["never looked at"]
    last: Sample | None = None
    with trio.move_on_after(SETTLE):
        while left:
            await trio.sleep(0.5)
            last = await _sample(run, began)
            left = growth(before, last)
    for sentence in left:
        run.report.problem(sentence)
    return last


def growth(before: Sample | None, after: Sample | None) -> list[str]:
    """What has grown, in sentences; nothing has where nothing was before."""
    if after is None:
        return ["the daemon could not be looked at"]
    if before is None:
        return []
    found = [
        f"{after_} {name} remain, where there were {before_}"
        for name, before_, after_ in (
            ("descriptors", before.descriptors, after.descriptors),
            ("threads", before.threads, after.threads),
            ("connections", before.connections, after.connections),
            ("tasks", before.tasks, after.tasks),
        )
        if after_ > before_ + _SPARE
    ]
    if after.rss_mib > before.rss_mib + MAX_GROWTH:
        found.append(f"{after.rss_mib:.0f} MiB of memory, where there were {before.rss_mib:.0f}")
    return found
