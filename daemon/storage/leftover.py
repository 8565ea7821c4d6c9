"""A server that outlived its daemon: found, told from a stranger, and stopped.

A daemon killed outright leaves its server running, and nothing in the kernel ties the two (PR_SET_PDEATHSIG is bound to
the thread that forked, and Trio forks in a worker thread).  So the next start looks for processes that work in the data
directory: PostgreSQL's processes have it as their working directory, all of them.  A process number in postmaster.pid
proves nothing by itself, for numbers are used again; no process is signalled that does not hold the data, and its
number is pinned (pidfd) while that is checked.

Two daemons on one home would stop each other's server: `hold` lets only one in.
"""

from __future__ import annotations

import fcntl
import os
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
import trio

from .binaries import EmbeddedFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

log = structlog.get_logger(__name__)

LADDER: Final = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))
"""What a leftover server is sent, and the seconds it then has: fast shutdown (its clients are cut off, a checkpoint is
written), immediate shutdown (the log is replayed at the next start), and the end."""

PROC: Final = Path("/proc")

SMALL: Final = 4096
"""Bytes read of postmaster.pid and PG_VERSION; the server writes two paths and six numbers at most."""


@contextmanager
def hold(home: Path) -> Iterator[None]:
    """Be the only one to run a server in `home`; the kernel lets go even when the process is killed.

    Raises:
        EmbeddedFailed: another process holds it.
    """
    descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EmbeddedFailed(f"another daemon runs the server in {home}") from None
        yield
    finally:
        os.close(descriptor)


def holds(pid: int, data: Path, proc: Path = PROC) -> bool | None:
    """Whether a process works in the data directory; None if it looks like a server but does not let us see."""
    process = proc / str(pid)
    try:
        working = os.stat(process / "cwd")
    except PermissionError:
        return _by_command(process, data)
    except OSError:
        return False  # ended meanwhile, or a kernel thread, or its directory is gone
    return os.path.samestat(working, data.stat())


def _by_command(process: Path, data: Path) -> bool | None:
    """For a process of another user seen without CAP_SYS_PTRACE, as root in a container: its command line is public."""
    try:
        command = (process / "cmdline").read_bytes().split(b"\0")
        owner = process.stat().st_uid
    except OSError:
        return False
    if b"-D" in command and os.fsencode(data) in command:
        return True
    if owner == data.stat().st_uid and command[0].startswith(b"postgres"):
        return None
    return False


def holders(data: Path, proc: Path = PROC) -> tuple[list[int], bool]:
    """The processes that hold the data directory, and whether all could be seen."""
    found, certain = [], True
    for entry in proc.iterdir():
        if entry.name.isdecimal():
            answer = holds(int(entry.name), data, proc)
            certain = certain and answer is not None
            if answer:
                found.append(int(entry.name))
    return found, certain


def read_small(path: Path) -> list[str]:
    """The lines of a small file of the server's, none if it is not there.

    The directory belongs to a less privileged user: neither a link nor a pipe put there may lead us on.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        return os.read(descriptor, SMALL).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    finally:
        os.close(descriptor)


def postmaster_of(data: Path) -> int | None:
    """The process number in postmaster.pid, or None."""
    lines = read_small(data / "postmaster.pid")
    return int(lines[0]) if lines and lines[0].isdecimal() else None


async def stop_leftover(data: Path, sockets: Path) -> None:
    """See to it that no process holds the data directory, and that no lock file says so.

    Raises:
        EmbeddedFailed: one does even after SIGKILL.
    """
    running, certain = holders(data)
    if running:
        log.warning("embedded.leftover_found", processes=len(running))
        for number, seconds in LADDER:
            _send(running, data, number)
            with trio.move_on_after(seconds):
                while running:
                    await trio.sleep(0.05)
                    running, certain = holders(data)
            if not running:
                log.info("embedded.leftover_stopped", signal=signal.Signals(number).name)
                break
        else:
            raise EmbeddedFailed(f"processes {running} hold {data} and do not end")
    if certain:
        # Nobody is there.  The server itself only asks whether the number in a lock file is in use, and refuses when it
        # is: by a stranger, or by a dead server that nobody has reaped.
        for lock in (data / "postmaster.pid", sockets / ".s.PGSQL.5432.lock"):
            lock.unlink(missing_ok=True)


def _send(running: list[int], data: Path, number: signal.Signals) -> None:
    """Signal the postmaster, who ends its children; without one, every process."""
    postmaster = postmaster_of(data)
    for pid in [postmaster] if postmaster in running else running:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if holds(pid, data):
                signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            continue
        finally:
            os.close(descriptor)
