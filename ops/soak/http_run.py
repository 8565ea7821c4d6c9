"""A run of `http`: what is under way, and one case sent, read and judged."""

from __future__ import annotations

import socket
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import trio

from .campaign import Report
from .daemon_process import DaemonProcess
from .http_answers import NotHttp, answers, wrong
from .http_cases import Case, End

ENDS_WITHIN: Final = 30.0
"""Seconds in which a connection must be answered or closed: 10 for a head, 10 for a body, 2 of lingering, and a
machine that others use too."""

QUIET: Final = 0.3
"""Seconds of silence after whole answers, after which a patient client is content and leaves."""

MAX_ANSWER: Final = 8 << 20
"""Bytes read of one connection's answers."""


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


async def attempt(run: Run, number: int, case: Case) -> None:
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
    to_head = b"HEAD" in sent
    try:
        given = list(answers(received, to_head=to_head))
    except NotHttp as exc:
        run.count(case.kind, "no HTTP")
        run.report.problem(f"case {number} ({case.kind}): {exc}, to {sent[:200]!r}")
        return
    for answer in given:
        run.count(case.kind, str(answer.status))
        if (problem := wrong(answer, to_head=to_head)) is not None:
            run.report.problem(f"case {number} ({case.kind}): {problem}, to {sent[:200]!r}")
    if not given:
        run.count(case.kind, outcome if outcome == "never ended" else "closed")
