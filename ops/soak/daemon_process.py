"""The daemon of a soak: a real process in a directory of its own, started, killed, watched and ended."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import secrets
import shutil
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import psutil
import trio

from daemon.storage.embedded import embedded_conninfo
from daemon.vault import KeyRing, Vault
from ops.demo_servers import environment
from ops.testservers.process import Owner, ServerProcess, short_directory

from .database_faults import kill_server
from .samples import Sample

ROOT: Final = Path(__file__).parents[2]
"""The source tree."""

STOP_WITHIN: Final = 60.0
"""Seconds for an orderly end, the database's shutdown included."""

RENEWAL: Final = 20.0
"""Seconds between renewals of IDLE: a soak of minutes must see many, and deaf connections found by them."""

SETTINGS: Final[Mapping[str, object]] = {
    "api.bind": "127.0.0.1:0",
    "operations.bind": "127.0.0.1:0",
    "network.allow": "127.0.0.0/8,::1/128",
    "fleet.starting_per_host": 40,  # all accounts are at one host
    "rates.connects": 1_000_000,  # one user connects them
    "rates.connects_per_host": 1_000_000,
    "sync.window": 50,
    "sync.idle_renewal": RENEWAL,
    "sync.retry_first": 0.1,
    "sync.retry_longest": 3,
    "logs.format": "json",
}
"""What campaigns share."""

METRICS_WITHIN: Final = 2.0
"""Seconds that a scrape may take; a daemon that is just starting, or held up by a fault, is asked again later."""

MAX_METRICS: Final = 1 << 20
"""Bytes of a scrape: ours are 30 KB."""

OPERATIONS: Final = re.compile(r"operations +(http://\S+)/metrics")
"""Where its log says that the operator's listener is."""

_BUGS: Final = re.compile(r'"event": "(account\.bug|account\.internal_error|root\.child_failed)"')
_OF_THE_WORLD: Final = ("ServerDied", "EmbeddedFailed: the server does not start")
"""What may be in an error of the root without being a bug: we killed the database ourselves, be it while it started.
One that never starts again shows in all accounts at the end."""


class DaemonProcess:
    """`python -m daemon`; its state outlives its deaths."""

    def __init__(
        self,
        *,
        port: int,
        ca: Path | None,
        nameservers: Sequence[str] = (),
        settings: Mapping[str, object] | None = None,
        notify: Path | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            port: where its mail servers listen.
            ca: who must have signed their certificates; without it nobody is trusted beyond the system's authorities.
            nameservers: whom it asks for addresses; the system's where there are none.
            settings: stand above those that campaigns share, by names such as `sync.retry_longest`.
            notify: the socket on which it talks to systemd.
        """
        self.port = port
        self.directory = short_directory("soak-", Owner.ourselves())
        self.state = self.directory / "state"
        self.log = self.directory / "accountsd.log"
        self.state.mkdir(mode=0o711)
        key = secrets.token_bytes(32)
        keys = self.state / "vault-keys"
        keys.touch(mode=0o600)
        keys.write_text(f"soak {base64.b64encode(key).decode()}\n", "ascii")
        self.vault = Vault(KeyRing({"soak": key}))
        own = {"storage.directory": self.state, "network.ports": port, "network.nameservers": ",".join(nameservers)}
        own |= {"network.ca_file": ca} if ca is not None else {}
        self._environment = [
            f"ACCOUNTSD_{name.replace('.', '__').upper()}={value}"
            for name, value in {**SETTINGS, **own, **(settings or {})}.items()
        ]
        if notify is not None:
            self._environment.append(f"NOTIFY_SOCKET={notify}")
        self._process: ServerProcess | None = None
        self._log_from = 0
        self.starts = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self.close)

    @property
    def conninfo(self) -> str:
        """How to reach its database."""
        return embedded_conninfo(self.state / "postgresql")

    @property
    def data(self) -> Path:
        """Where the embedded database is."""
        return self.state / "postgresql/data"

    @property
    def pid(self) -> int | None:
        """Its process id while there is a process."""
        return self._process.pid if self._process is not None else None

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.running

    @property
    def announced(self) -> bool:
        """Whether it has said, since its first start, that it is ready."""
        return self.log.exists() and b"accountsd " in self.log.read_bytes()

    def start(self) -> None:
        """Start it; does not wait until it is ready."""
        ours = environment(os.environ)
        others = [f"--unset={name}" for name in os.environ.keys() - ours.keys()]
        self._log_from = self.log_size
        # `env` sets the path: a server process starts in its own directory, not in the source tree.
        self._process = ServerProcess(
            ["/usr/bin/env", *others, f"PYTHONPATH={ROOT}", *self._environment, sys.executable, "-P", "-m", "daemon"],
            log=self.log, owner=Owner.ourselves(), directory=self.directory, name="accountsd",
        )  # fmt: skip
        self.starts += 1

    def kill(self) -> None:
        """`kill -9`: its database is left behind, for the next start to deal with."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def stop(self) -> int | None:
        """Ask it to end and wait; its exit code, None when it did not run or did not end in STOP_WITHIN."""
        process, code = self._process, None
        if process is None:
            return None
        with contextlib.suppress(psutil.Error, OSError):
            running = psutil.Process(process.pid)
            running.terminate()
            code = running.wait(STOP_WITHIN)
        process.stop()
        self._process = None  # not before: what is ours alone to wait for is known by it
        return code

    def remains(self) -> list[str]:
        """Processes that still work in its directory, though it has ended."""
        found = []
        for process in psutil.process_iter():
            try:
                if Path(process.cwd()).is_relative_to(self.directory):
                    found.append(f"{process.pid} {process.name()}")
            except (psutil.Error, OSError):
                continue
        return found

    def sample(self, began: float, *, tasks: bool = False, database_sessions: int = 0) -> Sample | None:
        """What it holds now; None when it does not run.  With `tasks` its metrics are asked, which blocks."""
        if self._process is None:
            return None
        try:
            process = psutil.Process(self._process.pid)
            with process.oneshot():
                return Sample(
                    at=time.monotonic() - began,
                    pid=process.pid,
                    rss_mib=process.memory_info().rss / 2**20,
                    descriptors=process.num_fds(),
                    threads=process.num_threads(),
                    connections=sum(1 for c in process.net_connections("tcp") if c.status == "ESTABLISHED"),
                    tasks=int(self.metrics().get("accountsd_tasks", 0)) if tasks else 0,
                    database_sessions=database_sessions,
                )
        except psutil.Error:
            return None

    def metrics(self, *, labelled: bool = False) -> dict[str, float]:
        """Its metrics without labels (or all, with them) by name; empty while it does not answer.

        Blocks, for METRICS_WITHIN at most.
        """
        try:
            found = OPERATIONS.findall(self.log.read_text(errors="replace"))
            with urllib.request.urlopen(f"{found[-1]}/metrics", timeout=METRICS_WITHIN) as answer:  # noqa: S310  # ours
                lines = answer.read(MAX_METRICS).decode().splitlines()
        except (OSError, IndexError, http.client.HTTPException):
            return {}
        plain = (line.rpartition(" ") for line in lines if line[:1] != "#" and (labelled or "{" not in line))
        return {name: float(value) for name, _, value in plain}

    @property
    def log_size(self) -> int:
        """Bytes that it has written in all its lives."""
        return self.log.stat().st_size if self.log.exists() else 0

    def said(self, since: int | None = None) -> str:
        """What it has written since its log had that size, or in this life."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(self._log_from if since is None else since)
            return log.read().decode(errors="replace")

    def last_words(self) -> str:
        """The end of what it has written."""
        return " / ".join(line[:300] for line in self.said().splitlines()[-4:])

    def bugs(self) -> list[str]:
        """Lines of its log that tell of bugs, at most twenty."""
        if not self.log.exists():
            return []
        with self.log.open(errors="replace") as lines:
            found = [line for line in lines if _BUGS.search(line) and not any(w in line for w in _OF_THE_WORLD)]
        return [short(line) for line in found[:20]]

    def close(self) -> None:
        """End whatever runs and remove what it wrote."""
        kill_server(self.data)
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


def short(line: str) -> str:
    """The event and the innermost frames of its traceback."""
    try:
        event = json.loads(line)
    except ValueError:
        return line[:500]
    text = {name: value for name, value in event.items() if name not in ("level", "timestamp", "exception")}
    return f"{text} {_innermost(event.get('exception') or [])}"[:1000]


def _innermost(stacks: list[dict[str, Any]]) -> list[str]:
    """What was raised and where, groups opened."""
    found = []
    for stack in stacks:
        if inner := [each for group in stack.get("exceptions") or [] for each in _innermost(group)]:
            found += inner
        else:
            frames = [f"{frame.get('filename')}:{frame.get('lineno')}" for frame in (stack.get("frames") or [])[-2:]]
            found.append(f"{stack.get('exc_type')}: {stack.get('exc_value')} at {frames}")
    return found
