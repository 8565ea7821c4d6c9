"""`http`: malformed requests on raw sockets against a real daemon, while good clients go on being served.

    strangers (http_cases, http_framing, http_targets) ──► API and operator's listener ◄── good clients, all the time

What must hold: every answer is a whole response that an API may give (http_answers), no 5xx among them; every
connection ends; the good clients are answered, each within its time; the process is the same at the end, has given back
what it took, and its log knows of no error.  A last phase floods the listener with connections that say nothing.
"""

from __future__ import annotations

import random
import socket
import struct
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import httpx
import trio

from .campaign import Options, Report, Say
from .daemon_process import DaemonProcess
from .http_answers import NotHttp, answers, wrong
from .http_cases import MUTATIONS, Case, End, Make, Material
from .http_daemon import COOKIE, complaints, give_secret, listening, ready, token
from .http_framing import FRAMING, SLOW
from .http_targets import TARGETS
from .samples import Sample

AT_ONCE: Final = 96
"""Cases at once: below the requests that may be under way, so that none is refused for what it is not."""

ENDS_WITHIN: Final = 30.0
"""Seconds in which a connection must be answered or closed: 10 for a head, 10 for a body, 2 of lingering, and a
machine that others use too."""

QUIET: Final = 0.3
"""Seconds of silence after whole answers, after which a patient client is content and leaves."""

GOOD_WITHIN: Final = 10.0
"""Seconds that a good client waits for an answer."""

GOOD_PAUSE: Final = 0.02
SETTLE: Final = 20.0
"""Seconds for connections to be gone and memory to be given back after the last case."""

MAX_ANSWER: Final = 8 << 20
"""Bytes read of one connection's answers."""

FLOOD: Final = 700
"""Connections that say nothing: more than the listener holds."""

MAX_GROWTH: Final = 48.0
"""MiB that the process may have grown since the first tenth of the cases: what its allocator keeps, and no leak."""

_SPARE: Final = 4
"""Descriptors, threads and tasks that come and go by themselves."""


@dataclass
class Run:
    """A campaign under way."""

    report: Report
    daemon: DaemonProcess
    api: int
    operations: int
    done: int = 0
    """Cases."""
    served: int = 0
    """Good requests answered."""
    longest: float = 0.0
    """Seconds that the slowest took."""
    classes: dict[str, Counter[str]] = field(default_factory=dict)
    """By class: how many cases, and how each was answered."""

    def count(self, kind: str, outcome: str) -> None:
        """One more of a class ended so."""
        self.classes.setdefault(kind, Counter())[outcome] += 1


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


# -- one case ------------------------------------------------------------------------------------------------------


async def _attempt(run: Run, number: int, case: Case) -> None:
    """Send one case; judge what comes back and that it ends."""
    outcome = "nothing, in time"
    received = bytearray()
    stream = await trio.open_tcp_stream("127.0.0.1", run.operations if case.operations else run.api)
    try:
        with trio.move_on_after(ENDS_WITHIN + case.pause * len(case.chunks)) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_send, stream, case)
                if case.end is not End.ABORT:
                    await _receive(stream, received, patient=case.end is End.PATIENT)
                    nursery.cancel_scope.cancel()
        if scope.cancelled_caught:
            outcome = "never ended"
            run.report.problem(f"case {number} ({case.kind}): not ended in time, after {bytes(received[-300:])!r}")
    finally:
        await trio.aclose_forcefully(stream)
    if case.end is End.ABORT:
        run.count(case.kind, "left")
    else:
        _judge(run, number, case, bytes(received), outcome)


async def _send(stream: trio.SocketStream, case: Case) -> None:
    try:
        for position, chunk in enumerate(case.chunks):
            if position and case.pause:
                await trio.sleep(case.pause)
            await stream.send_all(chunk)
        if case.end is End.HALF:
            await stream.send_eof()
        elif case.end is End.ABORT:
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
        return  # the server has heard enough: its right


async def _receive(stream: trio.SocketStream, into: bytearray, *, patient: bool) -> None:
    """Read until the server closes; a patient client leaves after whole answers and some silence."""
    while len(into) < MAX_ANSWER:
        try:
            with trio.move_on_after(QUIET if patient and _whole(into) else ENDS_WITHIN) as quiet:
                data = await stream.receive_some(1 << 16)
        except trio.BrokenResourceError:
            return
        if quiet.cancelled_caught or not data:
            return
        into += data


def _whole(data: bytearray) -> bool:
    try:
        return any(answer.status >= 200 for answer in answers(bytes(data), to_head=True))
    except NotHttp:
        return False


def _judge(run: Run, number: int, case: Case, received: bytes, outcome: str) -> None:
    sent = b"".join(case.chunks[:4])
    try:
        given = list(answers(received, to_head=b"HEAD" in sent))
    except NotHttp as exc:
        run.count(case.kind, "no HTTP")
        run.report.problem(f"case {number} ({case.kind}): {exc}, to {sent[:200]!r}")
        return
    for answer in given:
        run.count(case.kind, str(answer.status))
        if (problem := wrong(answer)) is not None:
            run.report.problem(f"case {number} ({case.kind}): {problem}, to {sent[:200]!r}")
    if not given:
        run.count(case.kind, outcome if outcome == "never ended" else "closed")


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
    report, in_thread = Report(), trio.to_thread.run_sync
    daemon = DaemonProcess(port=993, ca=None)
    try:
        give_secret(daemon)
        await in_thread(daemon.start)
        api, operations = await listening(daemon)
        await ready(operations)
        run = Run(report, daemon, api, operations)
        await _campaign(run, options, say)
        for line in await in_thread(complaints, daemon):
            report.problem(f"log: {line}")
        if (code := await in_thread(daemon.stop)) != 0:
            report.problem(f"the daemon ended with {code} after SIGTERM")
        report.figures |= {
            "good_requests": run.served,
            "good_slowest_s": round(run.longest, 2),
            "classes": {kind: dict(sorted(run.classes[kind].items())) for kind in sorted(run.classes)},
        }
    finally:
        with trio.CancelScope(shield=True):
            await in_thread(daemon.close)
    return report


async def _campaign(run: Run, options: Options, say: Say) -> None:
    rng = random.Random(options.seed)  # noqa: S311  # repeatable, not secret
    every = cases(Material(rng, token("attacker")), options.points, quick=options.quick)
    warm = len(every) // 10
    began, pid = time.monotonic(), run.daemon.pid
    async with trio.open_nursery() as nursery:
        for port, path, kept in (
            (run.api, "/mail/accounts", True), (run.api, "/mail/accounts", False),
                (run.operations, "/health/live", False),
            (run.operations, "/metrics", True),
        ):  # fmt: skip
            nursery.start_soon(partial(_good, run, port, path, kept=kept))
        await _send_all(run, every[:warm], 0, say)
        await trio.sleep(1.0)
        before = await _sample(run, began)
        await _send_all(run, every[warm:], warm, say)
        say(f"all cases; now {FLOOD} connections that say nothing, on each listener")
        for port in (run.api, run.operations):
            await _flood(run, port)
        after = await _settled(run, began, before)
        nursery.cancel_scope.cancel()
    if run.daemon.pid != pid or not run.daemon.running:
        run.report.problem("the daemon is not the process it was")
    run.report.figures = {
        "cases": len(every),
        "before": before.as_json() if before else None,
        "after": after.as_json() if after else None,
    }


async def _send_all(run: Run, every: list[Case], first: int, say: Say) -> None:
    limiter = trio.CapacityLimiter(AT_ONCE)

    async def one(number: int, case: Case) -> None:
        async with limiter:
            await _attempt(run, number, case)
        run.done += 1
        if run.done % 1000 == 0:
            say(f"{run.done} cases")

    async with trio.open_nursery() as nursery:
        for number, case in enumerate(every, first):
            nursery.start_soon(one, number, case)


async def _sample(run: Run, began: float) -> Sample | None:
    return await trio.to_thread.run_sync(partial(run.daemon.sample, began, tasks=True))


async def _settled(run: Run, began: float, before: Sample | None) -> Sample | None:
    """Wait until the process holds no more than it did; what it holds on to is a problem."""
    if before is None:
        run.report.problem("the daemon could not be looked at")
        return None
    left: list[str] = ["never looked at"]
    last: Sample | None = None
    with trio.move_on_after(SETTLE):
        while left:
            await trio.sleep(0.5)
            last = await _sample(run, began)
            left = _growth(before, last) if last is not None else ["the daemon could not be looked at"]
    for sentence in left:
        run.report.problem(sentence)
    return last


def _growth(before: Sample, after: Sample) -> list[str]:
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
