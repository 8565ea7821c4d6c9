"""systemd's notification protocol (sd_notify(3)): datagrams to the socket it names.

The watchdog is fed from the same Trio loop that does the work, and only while a self-check agrees: a loop that hangs,
or a daemon that has lost its way, is restarted.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Mapping
from typing import Final

import structlog
import trio

STATUS_EVERY: Final = 1.0
"""Seconds between looks at what there is to tell; half of a watchdog's shorter time goes before."""

LONGEST_STATUS: Final = 300
"""Characters: a line of a terminal or two."""

log = structlog.get_logger(__name__)


class Notifier:
    """Tells systemd what the service does; does nothing when no systemd listens."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._path = environ.get("NOTIFY_SOCKET", "")
        pid = environ.get("WATCHDOG_PID")
        usec = environ.get("WATCHDOG_USEC", "")
        mine = not pid or pid == str(os.getpid())
        self.watchdog = int(usec) / 1e6 if mine and usec.isdigit() and int(usec) > 0 else None
        """Seconds within which the watchdog wants to hear us, or None."""

    def tell(self, **state: str | int) -> None:
        """Send one notification, such as READY=1 or STATUS=words; a socket that is gone is nobody's concern."""
        if not self._path:
            return
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        message = "\n".join(f"{name}={value}" for name, value in state.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
                s.setblocking(False)
                s.connect(address)
                s.send(message.encode())
        except OSError as exc:
            log.warning("systemd.notify_failed", reason=exc.strerror)

    async def run(
        self,
        healthy: Callable[[], bool],
        words: Callable[[], str],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """A child that feeds the watchdog at half its time while `healthy` agrees, and tells `words` when they change.

        What `words` gives is shown by `systemctl status`: one line for a person.  Idle where no systemd listens.
        """
        task_status.started()
        if not self._path:
            await trio.sleep_forever()
        feed = self.watchdog / 2 if self.watchdog is not None else math.inf
        told, feed_at = "", trio.current_time()
        while True:
            if trio.current_time() >= feed_at and feed < math.inf:
                feed_at = trio.current_time() + feed
                if healthy():
                    self.tell(WATCHDOG=1)
            if (now := " ".join(words().split())[:LONGEST_STATUS]) != told:
                told = now
                self.tell(STATUS=now)
            await trio.sleep(min(STATUS_EVERY, feed))
