"""Deliveries at a steady rate, and how long each takes until its row can be read: measured outside of the daemon.

`pushes_child` does both, in a process that does nothing else.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from typing import Final

import trio

from ops.bench.child import command, environment
from ops.bench.result import percentile
from ops.testservers.dovecot import Dovecot

HELD: Final = 0.5
"""Seconds that Dovecot holds news of IDLE back, always: taken off what is measured."""

LATE: Final = 15.0
"""Seconds after which a delivery that was not seen counts as lost."""

_LONGEST: Final = 1 << 16
"""Bytes of what the child tells that are read at once."""


class Pushes:
    """Delivers and watches; `between` gives what was measured in a span of time."""

    def __init__(self, dovecot: Dovecot, users: Sequence[str], rate: float) -> None:
        self._dovecot = dovecot
        self._users = users
        self._rate = rate
        self._taken: dict[str, float] = {}  # by subject: when the server had taken it
        self._seen: dict[str, float] = {}

    async def run(self, conninfo: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Deliver and watch until cancelled."""
        wanted = {
            "conninfo": conninfo, "lmtp": self._dovecot.ports.lmtp, "users": list(self._users), "rate": self._rate
        }  # fmt: skip
        process = await trio.lowlevel.open_process(
            command("ops.soak.pushes_child"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
        )
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdin.send_all(json.dumps(wanted).encode() + b"\n")
            task_status.started()
            buffer = b""
            while data := await process.stdout.receive_some(_LONGEST):
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    what, subject, at = json.loads(line)
                    (self._taken if what == "taken" else self._seen).setdefault(subject, at)
            raise RuntimeError("the deliveries ended by themselves")
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()

    async def settled(self) -> None:
        """Until all that was delivered so far is seen, or too late."""
        called = time.monotonic()
        with trio.move_on_after(LATE):
            # A later delivery must be told of first: then all before it have been.
            while max(self._taken.values(), default=0.0) < called:  # noqa: ASYNC110  # another process tells
                await trio.sleep(0.05)
            wanted = set(self._taken)
            while wanted - self._seen.keys():  # noqa: ASYNC110  # likewise
                await trio.sleep(0.05)

    def between(self, since: float, until: float) -> dict[str, float]:
        """What was delivered in a span of `time.monotonic()`: milliseconds beyond Dovecot's own half second."""
        delivered = [subject for subject, at in list(self._taken.items()) if since <= at < until]
        times = [
            1000 * max(0.0, self._seen[subject] - self._taken[subject] - HELD)
            for subject in delivered
            if subject in self._seen
        ]
        if not times:
            return {"delivered": len(delivered), "lost": len(delivered)}
        return {
            "delivered": len(delivered),
            "lost": len(delivered) - len(times),
            "p50": round(percentile(times, 0.5), 1),
            "p95": round(percentile(times, 0.95), 1),
            "longest": round(max(times), 1),
        }
