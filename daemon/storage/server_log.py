"""The embedded server's own log, line by line into ours; bounded in length and in rate, and always read.

Always read, because a server whose log pipe is full stops.  Its lines are terse (no DETAIL, no statement), so that they
hold no row's values.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, Final

import structlog
import trio

if TYPE_CHECKING:
    from trio.abc import ReceiveStream

log = structlog.get_logger(__name__)

LONGEST_LINE: Final = 1000
"""Characters of a line that are kept."""

LINES: Final = 50
"""Lines told in one PERIOD; a server in trouble repeats itself."""

PERIOD: Final = 10.0
"""Seconds."""

REMEMBERED: Final = 5
"""Last lines that are kept to explain a server that does not start."""

_LINE: Final = re.compile(r"(DEBUG\d?|INFO|NOTICE|WARNING|ERROR|LOG|FATAL|PANIC):\s+(.*)")
_ASKED: Final = re.compile(r"terminating connection due to administrator command|the database system is shutting down")
"""Said as FATAL of each session when the server is asked to end: by us, in order."""

_LEVELS: Final = {"WARNING": "warning", "ERROR": "warning", "FATAL": "error", "PANIC": "critical"}


class LineBudget:
    """How many lines may still be told; pure, so time is passed in."""

    def __init__(self) -> None:
        self._began = 0.0
        self._told = 0
        self.dropped = 0
        """Lines not told since the last one that was."""

    def allows(self, now: float) -> bool:
        """Whether one more line may be told at `now` (seconds on any clock)."""
        if now - self._began >= PERIOD:
            self._began, self._told = now, 0
        self._told += 1
        if self._told > LINES:
            self.dropped += 1
            return False
        return True


class ServerLog:
    """Reads one server's standard error."""

    def __init__(self) -> None:
        self._budget = LineBudget()
        self._last: deque[str] = deque(maxlen=REMEMBERED)

    @property
    def last(self) -> str:
        """The last lines, in one."""
        return " / ".join(self._last)

    async def follow(self, stream: ReceiveStream) -> None:
        """Tell every line until the server and all its processes have closed the stream."""
        pending, skipping = b"", False
        async for chunk in stream:
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                if not skipping:
                    self._tell(line)
                skipping = False
            if len(pending) > LONGEST_LINE:
                if not skipping:
                    self._tell(pending)
                # The rest of this line is let go as it comes.
                pending, skipping = b"", True

    def _tell(self, raw: bytes) -> None:
        text = raw.decode("utf-8", "replace").strip()[:LONGEST_LINE]
        if not text:
            return
        match = _LINE.fullmatch(text)
        severity, text = (match[1], match[2]) if match else ("LOG", text)
        self._last.append(text)
        if not self._budget.allows(trio.current_time()):
            return
        if self._budget.dropped:
            log.warning("postgres.log_dropped", lines=self._budget.dropped)
            self._budget.dropped = 0
        level = "info" if _ASKED.match(text) else _LEVELS.get(severity, "info")
        getattr(log, level)("postgres.log", severity=severity, text=text)
