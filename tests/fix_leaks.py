"""Nothing outlives its test, and no task holds the loop: both fail the test that did it.

Leaks. After each test, once its fixtures are torn down, the process must have no child processes, sockets or threads
that it did not have before. A second or two of grace lets the kernel and finished threads go. Tasks need no look:
Trio's `run` does not return before the last has ended. Known and spared: servers the whole run shares
(`share_process`), and Trio's cached worker threads, which carry their default name while they have no work.

We adopt orphans (PR_SET_CHILD_SUBREAPER): what a daemon under test left running becomes our child and is found.

Tripwire. Every Trio test runs with an instrument that times each step of each task, the time this thread stood in the
run queue taken off, so that a busy machine is not to blame. A step longer than `STEP_LIMIT` means that somebody made a
blocking call. `@pytest.mark.blocking("reason")` lifts it for tests that have to.
"""

import ctypes
import gc
import inspect
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import trio

GRACE = 3.0
"""Seconds after a test until what is left is a leak."""

STEP_LIMIT = 1.0
"""Seconds one step of a task may take. Healthy steps take milliseconds; the slack is for garbage collection, page
faults and the other threads' share of the interpreter lock."""

_PR_SET_CHILD_SUBREAPER = 36
_shared_groups: set[int] = set()


def share_process(group: int) -> None:
    """Say that a server, known by its process group, is shared by several tests and ended by its own fixture."""
    _shared_groups.add(group)


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the process has that a test could leave behind: descriptions by identity."""

    children: dict[int, str] = field(default_factory=dict)
    sockets: dict[str, str] = field(default_factory=dict)
    threads: dict[int, str] = field(default_factory=dict)

    def beyond(self, before: "Holdings") -> list[str]:
        """Descriptions of what is here and was not there before."""
        return [
            f"{kind} {what}"
            for kind, now, then in (
                ("process", self.children, before.children),
                ("socket", self.sockets, before.sockets),
                ("thread", self.threads, before.threads),
            )
            for identity, what in now.items() if identity not in then
        ]


def holdings() -> Holdings:
    return Holdings(_children(), _sockets(), _threads())


def _children() -> dict[int, str]:
    found = {}
    for pid in _child_pids():
        try:
            child = psutil.Process(pid)
            if child.status() == psutil.STATUS_ZOMBIE:
                # An adopted orphan that ended: nobody else will ask for its status. One that Popen started is left
                # to Popen: a test that never waits for it is warned by Popen itself.
                if pid not in _popen_pids():
                    os.waitpid(pid, os.WNOHANG)
                continue
            if os.getpgid(pid) not in _shared_groups:
                found[pid] = f"{pid}: {' '.join(child.cmdline())[:200]}"
        except (psutil.NoSuchProcess, ProcessLookupError, ChildProcessError):
            continue
    return found


def _child_pids() -> list[int]:
    # Two reads for each test of the run: psutil's own way looks at every process of the machine.
    try:
        tasks = list(Path("/proc/self/task").iterdir())
        return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    except FileNotFoundError:       # a thread just ended, or a kernel without the file
        return [child.pid for child in psutil.Process().children()]


def _popen_pids() -> set[int]:
    return {each.pid for each in gc.get_objects() if isinstance(each, subprocess.Popen)}


def _sockets() -> dict[str, str]:
    found = {}
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except FileNotFoundError:
            continue
        if target.startswith("socket:"):
            found[target] = f"descriptor {descriptor.name}"
    return found


def _peers() -> dict[str, str]:
    """Where the process's internet sockets lead, by the words `_sockets` uses."""
    return {
        f"descriptor {each.fd}": f" {each.laddr} -> {each.raddr or '-'} {each.status}"
        for each in psutil.Process().net_connections("inet")
    }


def _threads() -> dict[int, str]:
    return {
        id(thread): f"{thread.name} ({thread})" for thread in threading.enumerate()
        if not thread.name.startswith("Trio thread ")
    }


@pytest.fixture(scope="session", autouse=True)
def adopt_orphans() -> Iterator[None]:
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.fixture(autouse=True)
def leaves_nothing_behind(adopt_orphans: None) -> Iterator[None]:
    before = holdings()
    yield
    left = holdings().beyond(before)
    if not left:
        return
    gc.collect()        # an abandoned object's socket is a ResourceWarning of its own, raised by pytest
    deadline = time.monotonic() + GRACE
    while (left := holdings().beyond(before)) and time.monotonic() < deadline:
        time.sleep(0.02)
    if left:
        peers = _peers()
        lines = [line + peers.get(line.removeprefix("socket "), "") for line in left]
        pytest.fail("the test left behind:\n  " + "\n  ".join(lines), pytrace=False)


class StepWatch(trio.abc.Instrument):
    """Remembers the longest step any task took without yielding, in seconds."""

    def __init__(self, queued: Callable[[], float] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.longest = 0.0
        self.culprit = ""
        self._queued = queued or _seconds_in_run_queue
        self._clock = clock
        self._started = self._looked = clock()
        self._queued_before = self._queued()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._started = self._clock()
        # Reading the kernel's account at every step would cost more than the steps. An older figure only makes
        # us more lenient, by what was queued since.
        if self._started - self._looked > 0.05:
            self._looked, self._queued_before = self._started, self._queued()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        took = self._clock() - self._started
        if took > self.longest and took > 0.1:
            took -= self._queued() - self._queued_before
            if took > self.longest:
                self.longest, self.culprit = took, task.name


def _seconds_in_run_queue() -> float:
    """How long this thread has been runnable without a core (proc(5): schedstat's second figure, nanoseconds)."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (FileNotFoundError, IndexError):
        return 0.0      # a kernel without the account: a busy machine counts against the test


def watched_run(async_fn: Callable[..., object], *args: object, instruments: tuple[trio.abc.Instrument, ...] = (),
                **kwargs: object) -> object:
    """`trio.run` that fails when a task held the loop for longer than `STEP_LIMIT`."""
    watch = StepWatch()
    result = trio.run(async_fn, *args, instruments=[*instruments, watch], **kwargs)
    if watch.longest > STEP_LIMIT:
        pytest.fail(
            f"a blocking call: task {watch.culprit} held the loop for {watch.longest:.2f} s "
            "(trio.to_thread.run_sync, or @pytest.mark.blocking with the reason)", pytrace=False)
    return result


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "blocking(reason): this test's tasks may hold the Trio loop")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        marker = item.get_closest_marker("blocking")
        if marker is not None:
            if not (marker.args and isinstance(marker.args[0], str)):
                raise pytest.UsageError(f"{item.nodeid}: blocking needs its reason")
            continue
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            # pytest-trio runs a test by the `run` of the nearest of these markers
            item.add_marker(pytest.mark.trio(run=watched_run), append=False)
