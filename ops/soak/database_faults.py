"""What can befall the embedded PostgreSQL from outside: SIGKILL of its first process or of a session, a standstill."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections.abc import Sequence
from pathlib import Path

import psutil


def processes(data: Path) -> list[psutil.Process]:
    """All processes of the server, the first one first; they have the data directory as their working directory."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.name() == "postgres" and Path(process.cwd()) == data and process.status() != "zombie":
                found.append(process)
        except (psutil.Error, OSError):
            continue
    first = _first(data)
    return sorted(found, key=lambda process: (process.pid != first, process.pid))


def _first(data: Path) -> int | None:
    try:
        return int((data / "postmaster.pid").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def kill_server(data: Path, number: signal.Signals = signal.SIGKILL) -> bool:
    """SIGKILL (or another signal) to the first process; whether there was one."""
    first = _first(data)
    return any(_send(process, number) for process in processes(data) if process.pid == first)


def kill_backend(data: Path, rng: random.Random) -> bool:
    """SIGKILL to the process of one session, on which the server ends all others; whether there was one."""
    sessions = []
    for process in processes(data):
        with contextlib.suppress(psutil.Error):
            if "accountsd accountsd" in " ".join(process.cmdline()):
                sessions.append(process)
    return bool(sessions) and _send(rng.choice(sessions), signal.SIGKILL)


def stop(data: Path) -> list[psutil.Process]:
    """Let all its processes stand still; which, for `go_on`."""
    return [process for process in processes(data) if _send(process, signal.SIGSTOP)]


def go_on(stopped: Sequence[psutil.Process]) -> None:
    """Take `stop` back."""
    for process in stopped:
        _send(process, signal.SIGCONT)


def _send(process: psutil.Process, number: signal.Signals) -> bool:
    try:
        os.kill(process.pid, number)
    except OSError:
        return False
    return True
