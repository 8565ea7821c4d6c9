"""What `stops` looks at: the log of one life, the control file of the database, the readiness, what systemd is told."""

from __future__ import annotations

import json
import socket
import struct
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from .daemon_process import OPERATIONS

SHUT_DOWN: Final = 1
"""DB_SHUTDOWNED of PostgreSQL's DBState (src/include/catalog/pg_control.h): ended in order, nothing to recover."""

_STATE_AT: Final = 16
"""Bytes before the state in pg_control: a 64-bit system identifier and two 32-bit versions."""

REPAIRS: Final = ("embedded.leftover_found", "not properly shut down", "folder.repaired", "folder.demoted",
                  "was interrupted", "fleet.not_left", "root.child_failed")  # fmt: skip
"""Words in a log that tell of something that had to be mended."""

ANSWER_WITHIN: Final = 5.0
"""Seconds for an answer of the operations listener, while a thousand accounts start."""

MAX_ANSWER: Final = 1 << 16
"""Bytes: ours has a hundred."""


def shut_down_in_order(data: Path) -> bool:
    """Whether the embedded database was, by its control file."""
    found = struct.unpack_from("=I", (data / "global/pg_control").read_bytes(), _STATE_AT)
    return bool(found[0] == SHUT_DOWN)


def repairs(log: str) -> list[str]:
    """Lines of a log that tell of repairs, at most five."""
    return [line[:300] for line in log.splitlines() if any(words in line for words in REPAIRS)][:5]


def readiness(log: str) -> tuple[int, dict[str, Any]]:
    """What /health/ready of the daemon that writes this log answers; (0, {}) while nobody answers."""
    found = OPERATIONS.findall(log)
    if not found:
        return 0, {}
    try:
        with urllib.request.urlopen(f"{found[-1]}/health/ready", timeout=ANSWER_WITHIN) as answer:  # noqa: S310  # ours
            return answer.status, json.loads(answer.read(MAX_ANSWER))
    except urllib.error.HTTPError as refused:
        with refused, suppress(ValueError):
            return refused.code, json.loads(refused.read(MAX_ANSWER))
        return refused.code, {}
    except (OSError, ValueError):
        return 0, {}


class Systemd:
    """The receiving end of the notification socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))

    def read(self) -> list[str]:
        """All that was told until now, in lines."""
        with suppress(BlockingIOError):
            while True:
                self.told += self._socket.recv(4096).decode(errors="replace").splitlines()
        return self.told

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()
        self.path.unlink(missing_ok=True)
