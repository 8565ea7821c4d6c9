"""The demonstration, as a process of its own: what it shows, and that nothing of it stays, however it ends."""

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ops.demo_servers import environment

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 90.0
"""Seconds until a line is there; it takes three on an idle machine."""

pytestmark = pytest.mark.slow

DIRECTORY = re.compile(r"/tmp/(?:accountsd-demo|dv|sm)-[^/\s]+")


class RunningDemo:
    """The demo's process, its lines so far, and all processes and directories it was seen with."""

    def __init__(self, *arguments: str, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.PIPE,
                 reading: int | None = None, program: tuple[str, ...] = ("-m", "ops.demo")) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-P", *program, *arguments],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            cwd=ROOT, stdin=stdin, stdout=stdout, stderr=subprocess.STDOUT, start_new_session=True,
        )
        self._me = psutil.Process(self._popen.pid)
        self._reading = os.fdopen(reading, "rb", 0) if reading is not None else self._popen.stdout
        self.output = ""
        self.processes: set[psutil.Process] = set()
        self.directories: set[Path] = set()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = self._reading.read(4096) if self._popen.stdout is None else self._reading.read1(4096)
            except OSError:         # a pseudo-terminal whose other side is gone
                return
            if not data:
                return
            self.output += data.decode(errors="replace")

    def wait_for(self, what: Callable[[str], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not what(self.output):
            self.look()
            assert self._popen.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)
        self.look()

    def look(self) -> None:
        """Note who is there now."""
        try:
            self.processes |= set(self._me.children(recursive=True))
        except psutil.NoSuchProcess:
            return
        for process in self.processes:
            try:
                words = " ".join(process.cmdline())
            except psutil.Error:
                continue
            self.directories |= {Path(found) for found in DIRECTORY.findall(words)}

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def wait(self) -> int:
        code = self._popen.wait(PATIENCE)
        self._reader.join(10.0)
        self._reading.close()
        return code

    def left(self) -> list[str]:
        """Processes that still run."""
        return [str(each) for each in self.processes if running(each)]

    def end(self) -> None:
        if self._popen.poll() is None:
            self._popen.kill()
        self.wait()
        for process in self.processes:
            if running(process):
                process.kill()
        for directory in self.directories:
            shutil.rmtree(directory, ignore_errors=True)


def running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def start() -> Iterator[Callable[..., RunningDemo]]:
    started: list[RunningDemo] = []

    def begin(*arguments: str, **options: Any) -> RunningDemo:
        demo = RunningDemo(*arguments, **options)
        started.append(demo)
        return demo

    yield begin
    for demo in started:
        demo.end()


def assert_nothing_is_left(demo: RunningDemo) -> None:
    assert demo.left() == []
    assert [str(directory) for directory in demo.directories if directory.exists()] == []


def test_it_shows_a_mailbox_synced_and_a_message_arriving(start):
    demo = start("--messages", "120")
    demo.wait_for(lambda output: "synced" in output)
    assert len(demo.processes) > 5, "it was not seen at work: nothing is proved"
    assert len(demo.directories) == 3
    assert demo.wait() == 0, demo.output
    assert "in PostgreSQL: 120 messages" in demo.output
    assert re.search(r"^  \d+ ms  'Hello 1' from ann@example\.org \(\d+ ms of it", demo.output, re.MULTILINE)
    assert demo.output.rstrip().endswith("Nothing is left running.")
    assert_nothing_is_left(demo)


@pytest.mark.parametrize("moment", ["Starting Dovecot", "Starting accountsd", "POST /mail/accounts", "Syncing INBOX"])
def test_an_interrupt_at_any_moment_leaves_nothing(start, moment):
    demo = start("--messages", "3000")
    demo.wait_for(lambda output: moment in output)
    demo.signal(signal.SIGINT)
    assert demo.wait() == 128 + signal.SIGINT, demo.output
    assert "Nothing is left running." in demo.output
    assert "DELETE /mail/accounts/" in demo.output or moment != "Syncing INBOX"
    assert_nothing_is_left(demo)


def test_a_second_interrupt_does_not_cut_the_end_short(start):
    demo = start("--messages", "120")
    demo.wait_for(lambda output: "synced" in output)
    for _ in range(3):
        demo.signal(signal.SIGINT)
        time.sleep(0.05)
    assert demo.wait() == 128 + signal.SIGINT, demo.output
    assert_nothing_is_left(demo)


def test_on_a_terminal_mail_keeps_coming_until_the_interrupt(start):
    ours, its = pty.openpty()
    typing = os.dup(ours)
    demo = start("--messages", "120", stdin=its, stdout=its, reading=ours)
    os.close(its)
    try:
        demo.wait_for(lambda output: "'Hello 1'" in output and "Ctrl-C ends" in output)
        os.write(typing, b"\n")
        demo.wait_for(lambda output: "'Hello 2'" in output)
        demo.wait_for(lambda output: "'Hello 3'" in output)
        assert "sb-access-token=" in demo.output
        demo.signal(signal.SIGINT)
        assert demo.wait() == 0, demo.output
    finally:
        os.close(typing)
    assert_nothing_is_left(demo)


def test_its_parts_end_with_it_even_if_it_is_killed(start):
    demo = start("--messages", "120")
    demo.wait_for(lambda output: "synced" in output)
    demo.signal(signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while demo.left() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert demo.left() == []


def test_a_daemon_that_does_not_start_is_told_in_a_sentence(start):
    broken = "from ops import demo, demo_servers as s; s._CONFIG += '[fleet]\\nclaim_ttl = 0\\n'; demo.main()"
    demo = start(program=("-c", broken))
    demo.wait_for(lambda output: "Starting accountsd" in output)
    assert demo.wait() == 1
    assert "demo: the daemon ended by itself: accountsd: the setting fleet.claim_ttl = 0 is wrong" in demo.output
    assert "Nothing is left running." in demo.output
    assert "Traceback" not in demo.output
    assert_nothing_is_left(demo)


def test_settings_of_another_daemon_do_not_reach_it():
    given = {"PATH": "/bin", "ACCOUNTSD_STORAGE__DSN": "x", "STATE_DIRECTORY": "/var/lib/x", "NOTIFY_SOCKET": "@x",
             "CREDENTIALS_DIRECTORY": "/run/x", "WATCHDOG_USEC": "1"}
    assert environment(given) == {"PATH": "/bin"}
