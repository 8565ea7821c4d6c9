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
import signal
import sys
import time
import urllib.request
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import psutil

from daemon.storage.embedded import embedded_conninfo
from daemon.vault import KeyRing, Vault
from ops.bench.child import environment
from ops.testservers.process import Owner, ServerProcess, short_directory

from .samples import Sample

STOP_WITHIN: Final = 60.0
"""Seconds for an orderly end, the database's shutdown included."""

RENEWAL: Final = 20.0
"""Seconds between renewals of IDLE: a soak of minutes must see many, and deaf connections found by them."""

_CONFIG: Final = """\
[api]
bind = "127.0.0.1:0"
[operations]
bind = "127.0.0.1:0"
[storage]
directory = "{state}"
[network]
allow = ["127.0.0.0/8", "::1/128"]
ports = [{port}]
{trust}
nameservers = {nameservers}
[fleet]
starting_per_host = 40                  # all accounts are at this one host
[sync]
window = 50
idle_renewal = {renewal}
retry_first = 0.1
retry_longest = 3
[logs]
format = "json"
"""

METRICS_WITHIN: Final = 2.0
"""Seconds that a scrape may take; a daemon that is just starting, or held up by a fault, is asked again later."""

MAX_METRICS: Final = 1 << 20
"""Bytes of a scrape: ours are 30 KB."""

_OPERATIONS: Final = re.compile(r"operations  (http://\S+/metrics)")
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
        """`settings`, by names such as `sync.retry_longest`, stand above those that campaigns share.

        `notify` is the socket on which it talks to systemd.
        """
        self.directory = short_directory("soak-", Owner.ourselves())
        self.state = self.directory / "state"
        self.log = self.directory / "accountsd.log"
        self._config = self.directory / "soak.toml"
        trust = f'ca_file = "{ca}"' if ca is not None else ""
        text = _CONFIG.format(
            state=self.state, port=port, trust=trust, renewal=RENEWAL, nameservers=json.dumps(list(nameservers))
        )
        self._config.write_text(text, "utf-8")
        self.state.mkdir(mode=0o711)
        key = secrets.token_bytes(32)
        keys = self.state / "vault-keys"
        keys.touch(mode=0o600)
        keys.write_text(f"soak {base64.b64encode(key).decode()}\n", "ascii")
        self.vault = Vault(KeyRing({"soak": key}))
        self._environment = [
            f"ACCOUNTSD_{name.replace('.', '__').upper()}={value}" for name, value in (settings or {}).items()
        ]
        if notify is not None:
            self._environment.append(f"NOTIFY_SOCKET={notify}")
        self._process: ServerProcess | None = None
        self.starts = 0

    @property
    def conninfo(self) -> str:
        """How to reach its database."""
        return embedded_conninfo(self.state / "postgresql")

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
        command = [sys.executable, "-P", "-m", "daemon", "--config", str(self._config)]
        # `env` sets the path: a server process starts in its own directory, not in the source tree.
        path = environment()["PYTHONPATH"]
        self._process = ServerProcess(
            ["/usr/bin/env", f"PYTHONPATH={path}", *self._environment, *command],
            log=self.log, owner=Owner.ourselves(), directory=self.directory, name="accountsd",
        )  # fmt: skip
        self.starts += 1

    def kill(self) -> None:
        """`kill -9`: its database is left behind, for the next start to deal with."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def kill_database(self) -> bool:
        """`kill -9` of the database's first process; whether there was one."""
        try:
            pid = int((self.state / "postgresql/data/postmaster.pid").read_text().split()[0])
            if "postgres" not in psutil.Process(pid).name():
                return False
            os.kill(pid, signal.SIGKILL)
        except (OSError, ValueError, IndexError, psutil.Error):
            return False
        return True

    def stop(self) -> int | None:
        """Ask it to end and wait; its exit code, None when it did not run or did not end in STOP_WITHIN."""
        process, self._process = self._process, None
        if process is None:
            return None
        code = None
        with contextlib.suppress(psutil.Error, OSError):
            running = psutil.Process(process.pid)
            running.terminate()
            code = running.wait(STOP_WITHIN)
        process.stop()
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
            found = _OPERATIONS.findall(self.log.read_text(errors="replace"))
            with urllib.request.urlopen(found[-1], timeout=METRICS_WITHIN) as answer:  # noqa: S310  # http, to itself
                lines = answer.read(MAX_METRICS).decode().splitlines()
        except (OSError, IndexError, http.client.HTTPException):
            return {}
        plain = (line.rpartition(" ") for line in lines if line[:1] != "#" and (labelled or "{" not in line))
        return {name: float(value) for name, _, value in plain}

    def bugs(self) -> list[str]:
        """Lines of its log that tell of bugs, at most twenty."""
        if not self.log.exists():
            return []
        with self.log.open(errors="replace") as lines:
            found = [line for line in lines if _BUGS.search(line) and not any(w in line for w in _OF_THE_WORLD)]
        return [_short(line) for line in found[:20]]

    def close(self) -> None:
        """End whatever runs and remove what it wrote."""
        self.kill_database()
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


def _short(line: str) -> str:
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


def bury(known: Collection[int | None]) -> None:
    """Collect the orphans that have ended and were given to us, but not those whose owner waits for them."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error, ChildProcessError):
            if child.pid not in known and child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)
