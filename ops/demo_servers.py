"""What the demo runs: a Dovecot and an SMTP server of its own, and the daemon as everybody else would start it.

Everything lives in short directories below /tmp and listens on free loopback ports.  Nothing outlives the demo: the
daemon is asked to end (SIGTERM) and waited for; and if the demo itself dies without a word, a shell that waits for the
end of a pipe only we hold asks in our place.  The daemon is in a session of its own, so that Ctrl-C at the terminal is
the demo's to handle.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .testservers.dovecot import Dovecot
from .testservers.dovecot_conf import DovecotOptions
from .testservers.process import Owner, ServerFailed, short_directory
from .testservers.smtp import SmtpServer
from .testservers.tls import Authority

STOP_WITHIN: Final = 110.0
"""Seconds for the daemon's own end: its hard limit is 100."""

START_WITHIN: Final = 120.0
"""Seconds until it announces itself; making the database the first time takes two."""

ANNOUNCEMENT: Final = 4096
"""Bytes of the daemon's standard output that are looked at: its announcement has five lines."""

_ADDRESSES = re.compile(r"^  API +http://(\S+?)/\S*$.*^  operations +http://(\S+?)/\S*$", re.DOTALL | re.MULTILINE)

_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h

_WATCHED: Final = 'exec 3<&0 </dev/null; { read -r _ <&3; kill -TERM 0; } & exec "$@" 3<&-'
"""Runs the arguments as the group's leader beside a shell that passes on the end of the pipe as a request to end."""

_INHERITED: Final = ("ACCOUNTSD_", "STATE_DIRECTORY", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_")
"""Beginnings of environment names that belong to another set-up than the demo's."""

_CONFIG: Final = """\
[api]
bind = "127.0.0.1:0"
[operations]
bind = "127.0.0.1:0"
[storage]
directory = "{state}"
[network]
allow = ["127.0.0.0/8", "::1/128"]      # the demo's servers are on this machine
ports = [{ports}]
ca_file = "{ca}"
[sync]
window = {window}                       # small, so that there is progress to be seen
[logs]
format = "json"
"""


class DemoFailed(Exception):
    """The demo cannot go on: one sentence for a person."""


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what would make the daemon another one than the demo's."""
    return {name: value for name, value in environ.items() if not name.startswith(_INHERITED)}


class DaemonProcess:
    """`accountsd` as a child, in a directory of its own that goes with it."""

    def __init__(self, *, ports: tuple[int, ...], ca: Path, window: int) -> None:
        # 0711 and below /tmp: started by root, the embedded database's own user must be able to pass.
        self.directory = short_directory("accountsd-demo-", Owner.ourselves())
        self.state = self.directory / "state"
        self.config = self.directory / "demo.toml"
        self.log = self.directory / "accountsd.log"
        self._output = self.directory / "announcement"
        self.config.write_text(
            _CONFIG.format(state=self.state, ports=", ".join(map(str, ports)), ca=ca, window=window), "utf-8"
        )
        self._popen: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
        self.api = self.operations = ""
        """Their addresses as `host:port`, known after `announced`."""

    @property
    def pid(self) -> int | None:
        """The process id while there is a process."""
        return self._popen.pid if self._popen is not None else None

    def start(self) -> None:
        """Start it; `announced` tells when it is there."""
        watched, lifeline = os.pipe()
        command = [sys.executable, "-P", "-m", "daemon", "--config", str(self.config)]
        try:
            with self._output.open("wb") as output, self.log.open("wb") as log:
                self._popen = subprocess.Popen(
                    ["/bin/sh", "-c", _WATCHED, "sh", *command],
                    stdin=watched, stdout=output, stderr=log, start_new_session=True,
                    env=environment(os.environ), cwd=Path(__file__).parent.parent,
                )  # fmt: skip
        except BaseException:
            os.close(lifeline)
            raise
        finally:
            os.close(watched)
        self._lifeline = lifeline

    def announced(self) -> bool:
        """Whether it has said where it listens.

        Raises:
            DemoFailed: it ended instead.
        """
        with self._output.open("rb") as output:
            said = output.read(ANNOUNCEMENT).decode(errors="replace")
        if found := _ADDRESSES.search(said):
            self.api, self.operations = found[1], found[2]
            return True
        self.check()
        return False

    def check(self) -> None:
        """Raise `DemoFailed` with its last words when it has ended."""
        if self._popen is None or self._popen.poll() is not None:
            raise DemoFailed(f"the daemon ended by itself: {self.last_words()}")

    def last_words(self) -> str:
        """The last line of its log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return lines[-1][:500] if lines else "it said nothing"

    def stop(self) -> bool:
        """Ask it to end and wait; whether it did, or had ended before.  Its directory goes with it."""
        well = True
        if self._popen is not None:
            if self._popen.poll() is None:
                self._popen.send_signal(signal.SIGTERM)
                try:
                    well = self._popen.wait(STOP_WITHIN) in {0, -signal.SIGTERM}  # the latter before it listens for it
                except subprocess.TimeoutExpired:
                    self._popen.kill()
                    self._popen.wait()
                    well = False
            os.close(self._lifeline)  # the watching shell ends with it
            group, self._popen = self._popen.pid, None
            _wait_for_group(group)
        shutil.rmtree(self.directory, ignore_errors=True)
        return well and not self.directory.exists()


class MailServers:
    """Dovecot and an SMTP server that share a certificate authority."""

    def __init__(self) -> None:
        authority = Authority()
        # Hibernated connections are told of new mail at once; the usual ones after a fixed half second.
        self.dovecot = Dovecot(DovecotOptions(hibernate=True), authority=authority)
        try:
            self.smtp = SmtpServer(authority=authority)
        except BaseException:
            self.dovecot.close()
            raise

    def start(self) -> None:
        """Start both.

        Raises:
            DemoFailed: one does not start.
        """
        try:
            self.dovecot.start()
            self.smtp.start()
        except ServerFailed as failure:
            raise DemoFailed(str(failure)) from None

    @property
    def ports(self) -> tuple[int, int]:
        """IMAP over TLS, submission with STARTTLS."""
        return self.dovecot.imaps_port, self.smtp.starttls_port

    def close(self) -> None:
        """Stop both and remove what they wrote."""
        self.smtp.close()
        self.dovecot.close()


def adopt_orphans() -> None:
    """Make us the parent of what our children leave behind, so that it can be found and ended (Linux, prctl(2)).

    It also buries them: in a container whose first process is no init, ended orphans would stay for ever.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_leftovers() -> list[int]:
    """Kill every process that is still ours, and return their ids: after a good end there are none."""
    killed: list[int] = []
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return killed
        for pid in _children():
            if pid not in killed:
                killed.append(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _children() -> list[int]:
    tasks = Path("/proc/self/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


def _wait_for_group(group: int, patience: float = 5.0) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-group, os.WNOHANG)
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
