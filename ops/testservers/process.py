"""A server program as a child: its own process group, no privileges, and dead when we are.

Three ways to leave nothing behind:

- `stop()` kills the whole group at once. Test servers keep nothing worth a graceful end (Dovecot's takes 6 s).
- If we die without a word (kill -9 of the test run), a shell in the group that waits for the end of a pipe only we
  hold open kills the group and removes the server's directory. PR_SET_PDEATHSIG would not do: it fires when the
  *thread* that forked ends.
- That shell keeps the group from being empty, so its number cannot pass to a stranger before we signal it.

Started by root, the program gives up root and runs as `nobody`, so that one configuration serves both.
"""

import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_WATCHED = """
exec 3<&0 </dev/null
directory=$1; shift
{ read -r _ <&3; kill -KILL $$; rm -rf "$directory"; kill -KILL 0; } &
exec "$@" 3<&-
"""
"""Runs the command as the group's leader beside the watching shell. Standard input is the pipe; $$ is the leader."""

_RANDOM = random.SystemRandom()

_STOP_PATIENCE = 10.0
"""Seconds a killed process may take to disappear: only the kernel is asked."""


class ServerFailed(Exception):
    """A server program ended, or never came to answer. The message ends with the last lines of its log."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom a server runs as."""

    uid: int
    gid: int
    user: str

    @classmethod
    def unprivileged(cls) -> Self:
        """Ourselves; `nobody` when we are root."""
        return cls._of(pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid()))

    @classmethod
    def ourselves(cls) -> Self:
        """Ourselves, root or not."""
        return cls._of(pwd.getpwuid(os.getuid()))

    @classmethod
    def _of(cls, entry: pwd.struct_passwd) -> Self:
        return cls(entry.pw_uid, entry.pw_gid, entry.pw_name)

    def own(self, *paths: Path) -> None:
        """Give the paths to this user; without effect where they are ours already."""
        if self.uid != os.getuid():
            for path in paths:
                os.chown(path, self.uid, self.gid)

    def drop(self, command: Sequence[str]) -> list[str]:
        """The command line that runs `command` as this user."""
        if self.uid == os.getuid():
            return list(command)
        return ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups", "--", *command]


def find_program(name: str, package: str) -> str:
    """The path of a server program, looked for in the sbin directories too, which an ordinary PATH leaves out.

    Raises `ServerFailed` naming the Debian package that has it.
    """
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/lib/dovecot")
    if path is None:
        raise ServerFailed(f"{name} is not installed (Debian package {package})")
    return path


def short_directory(prefix: str, owner: Owner) -> Path:
    """A new directory directly below /tmp that its owner may write and everybody may pass through.

    Short, since a Unix socket's path has at most 107 bytes (unix(7)) and servers put sockets deep below.
    """
    path = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))  # the shortest there is; mkdtemp is safe
    path.chmod(0o711)
    owner.own(path)
    return path


def free_ports(count: int) -> list[int]:
    """Loopback ports nobody listens on, below the range the kernel takes for outgoing connections (32768 and up).

    So a server that is stopped and started again finds its port free. Between here and the server's bind another
    may still take one: whoever starts a server tries again with others.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = _RANDOM.randrange(20000, 32000)
        if port in ports:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
    return ports


class ServerProcess:
    """One running server program. Its output goes to `log`; `directory`, where it works, is removed if we die."""

    def __init__(self, command: Sequence[str], *, log: Path, owner: Owner, directory: Path, name: str) -> None:
        self.name = name
        self._log = log
        watched, self._lifeline = os.pipe()
        try:
            with log.open("ab") as output:
                self._popen = subprocess.Popen(
                    ["/bin/sh", "-c", _WATCHED, "sh", str(directory), *owner.drop(command)],
                    stdin=watched, stdout=output, stderr=subprocess.STDOUT, cwd=directory, start_new_session=True,
                )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(watched)

    @property
    def pid(self) -> int:
        """The program's process id, which is its group's too."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether the program itself (not merely one of its children) still runs."""
        return self._popen.poll() is None

    def wait_until(self, ready: Callable[[], bool], *, patience: float = 20.0) -> None:
        """Return when `ready()` holds.

        Raises `ServerFailed` when the program ends first, or after `patience` seconds (it takes 0.2 s; a machine
        with all its cores busy may take many times that).
        """
        deadline = time.monotonic() + patience
        while not ready():
            if not self.running:
                raise ServerFailed(f"{self.name} ended with status {self._popen.returncode}:\n{self.last_words()}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} did not answer in {patience:g} s:\n{self.last_words()}")
            time.sleep(0.01)

    def last_words(self, limit: int = 4000) -> str:
        """The end of the log, at most `limit` bytes."""
        data = self._log.read_bytes() if self._log.exists() else b""
        return data[-limit:].decode(errors="replace")

    def stop(self) -> None:
        """Kill the whole group, and return when all of it is gone. Harmless when repeated.

        Raises `ServerFailed` when the kernel takes more than `_STOP_PATIENCE` seconds for it.
        """
        if self._lifeline < 0:
            return
        group, deadline = self._popen.pid, time.monotonic() + _STOP_PATIENCE
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        self._popen.wait(_STOP_PATIENCE)
        os.close(self._lifeline)
        self._lifeline = -1
        while _group_exists(group):
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} was killed and does not end")
            time.sleep(0.002)


class Server(ABC):
    """A server that lives in a directory of its own, for the length of a `with` block or until `close()`."""

    base: Path
    """Where it works; gone with it."""

    def __init__(self) -> None:
        self._process: ServerProcess | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def start(self) -> None:
        """Start it, and return when it answers; blocks.  Raises `ServerFailed` with the end of its log."""

    def stop(self) -> None:
        """Kill it: clients see their connections reset. What it stored stays."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def restart(self) -> None:
        """`stop()` and `start()`: the same ports, what it stored is there."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Kill it and remove all it wrote."""
        self.stop()
        shutil.rmtree(self.base, ignore_errors=True)

    @property
    def running(self) -> bool:
        """Whether the server runs."""
        return self._process is not None and self._process.running

    @property
    def pid(self) -> int:
        """The process id, which is the process group's too. Raises `ServerFailed` when it does not run."""
        if self._process is None:
            raise ServerFailed("the server does not run")
        return self._process.pid


def on_free_ports(
    count: int, known: Sequence[int] | None, launch: Callable[[tuple[int, ...]], None]
) -> tuple[int, ...]:
    """Launch a server on ports that are free, or on those it is known by; which they are.  Raises `ServerFailed`."""
    for attempt in range(5):
        ports = tuple(known or free_ports(count))
        try:
            launch(ports)
        except ServerFailed as failure:
            # Another process was faster with one of the ports: take others, unless clients know ours already.
            if known or attempt == 4 or "in use" not in str(failure):
                raise
        else:
            return ports
    raise AssertionError("the last attempt returns or raises")


def _group_exists(group: int) -> bool:
    # Its orphans are init's to bury, or ours where we have asked the kernel for them (a subreaper).
    with contextlib.suppress(ChildProcessError):
        os.waitpid(-group, os.WNOHANG)
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def answers(port: int, greeting: bytes) -> bool:
    """Whether a loopback server says a first line that begins with `greeting`."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2.0) as connection:
            return connection.recv(1024).startswith(greeting)
    except OSError:
        return False
