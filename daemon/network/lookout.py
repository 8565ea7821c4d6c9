"""One look at thousands of quiet connections, instead of a task that wakes up for each.

    connections ──► epoll ──► run: `readable`, `due` ──► enough? wake the task that waits ──► it goes on by itself

A connection in IDLE hears a line every two minutes that says nothing, and is renewed every nine.  With ten thousand of
them that is a hundred steps of tasks a second, each of which costs more than what is done in it.  So their tasks sleep,
and their watchers are called from here: plain functions that read and write what is here without waiting, and say when
it is more than they can judge.  What a watcher raises, it raises in the task that waits.
"""

from __future__ import annotations

import select
from contextlib import suppress
from heapq import heappop, heappush
from math import ceil, inf
from typing import TYPE_CHECKING, Final, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

TICK: Final = 0.05
"""Seconds between the moments at which watchers are due: those of one moment share a step of the loop."""

AT_ONCE: Final = 16
"""Watchers called before other tasks have their turn, or twice as many: each takes up to 0.2 ms."""


class Watcher(Protocol):
    """Judges one connection; must not wait, nor take long."""

    def readable(self) -> bool:
        """There is something to be read; whether the task is to go on with it."""
        ...

    def due(self) -> bool:
        """The time has come; whether the task is to go on.  If not, the watcher has said when it is due again."""
        ...


class _Entry:
    """A task that waits."""

    __slots__ = ("failure", "task", "tick", "watcher")

    def __init__(self, task: trio.lowlevel.Task, watcher: Watcher) -> None:
        self.task = task
        self.watcher = watcher
        self.tick = 0
        self.failure: Exception | None = None


class Lookout:
    """That of one event loop; `run` must run for anything to be seen."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._entries: dict[int, _Entry] = {}
        """By descriptor."""
        self._ticks: dict[int, set[int]] = {}
        """Who is due when: descriptors by the number of the tick."""
        self._order: list[int] = []
        """A heap of the ticks."""
        self._sleep = trio.CancelScope()
        self.seen = 0
        """Times that something was to be read."""

    @property
    def waiting(self) -> int:
        """Tasks that wait."""
        return len(self._entries)

    async def wait(self, fd: int, watcher: Watcher, due_at: float) -> None:
        """Sleep until *watcher* has seen enough of the descriptor, or raises, or somebody calls `wake`.

        *due_at* is Trio's time, inf for never.  Raises whatever the watcher raised; trio.ClosedResourceError for a
        descriptor that was closed, when another connection has got its number.  Closing the descriptor wakes nobody:
        only the task that waits may close it.
        """
        if fd in self._entries:
            self._end(fd, trio.ClosedResourceError("the descriptor was closed by somebody else"))
        entry = _Entry(trio.lowlevel.current_task(), watcher)
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLRDHUP)
        self._entries[fd] = entry
        self._arm(fd, entry, due_at)

        def abort(_: Callable[[], object]) -> trio.lowlevel.Abort:
            self._forget(fd)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        failure, entry.failure = entry.failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # no cycle with its own traceback: `telemetry.lean` counts on sessions that leave none

    def due_again(self, fd: int, due_at: float) -> None:
        """A watcher's own word, from within its calls: when it is due next, which is not before the next tick."""
        entry = self._entries[fd]
        self._disarm(fd, entry)
        self._arm(fd, entry, max(due_at, trio.current_time() + TICK))

    def wake(self, fd: int) -> None:
        """Let the task go on, if one waits for the descriptor."""
        if fd in self._entries:
            self._end(fd, None)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look until cancelled; those who wait meanwhile wait on when it is run again."""
        task_status.started()
        while True:
            # One scope for all that comes before the next tick; `_arm` moves its deadline.
            with trio.CancelScope(deadline=self._order[0] * TICK if self._order else inf) as self._sleep:
                while True:
                    await trio.lowlevel.wait_readable(self._epoll)
                    self._look()
            await self._ring()
            self._look()  # where the next tick has come meanwhile, there is no wait in which anything could be seen

    def close(self) -> None:
        """Give the descriptor back."""
        self._epoll.close()

    def _look(self) -> None:
        for fd, _ in self._epoll.poll(0, AT_ONCE):
            if (entry := self._entries.get(fd)) is not None:
                self.seen += 1
                self._call(fd, entry, entry.watcher.readable)

    async def _ring(self) -> None:
        """Call those who are due."""
        now, called = trio.current_time(), 0
        while self._order and self._order[0] * TICK <= now:
            tick = heappop(self._order)
            due = self._ticks[tick]
            while due:
                fd = due.pop()
                entry = self._entries[fd]
                entry.tick = 0
                self._call(fd, entry, entry.watcher.due)
                called += 1
                if called % AT_ONCE == 0:
                    await trio.lowlevel.cancel_shielded_checkpoint()  # the tick is off the heap: it is gone through
            del self._ticks[tick]

    def _call(self, fd: int, entry: _Entry, method: Callable[[], bool]) -> None:
        try:
            enough, failure = entry.task.context.run(method), None
        except Exception as exc:  # noqa: BLE001 - whoever waits is to hear it, and nobody else
            enough, failure = True, exc
        if enough and self._entries.get(fd) is entry:
            self._end(fd, failure)
        elif failure is not None:  # its task was woken in this very call, and has not had its turn yet
            entry.failure = failure
        del failure  # no cycle with its own traceback

    def _end(self, fd: int, failure: Exception | None) -> None:
        entry = self._forget(fd)
        entry.failure = failure
        trio.lowlevel.reschedule(entry.task)

    def _forget(self, fd: int) -> _Entry:
        entry = self._entries.pop(fd)
        self._disarm(fd, entry)
        with suppress(OSError, ValueError):  # closed meanwhile, and so forgotten by the kernel; or we are closed
            self._epoll.unregister(fd)
        return entry

    def _arm(self, fd: int, entry: _Entry, due_at: float) -> None:
        if due_at == inf:
            return
        tick = entry.tick = max(1, ceil(due_at / TICK))
        due = self._ticks.get(tick)
        if due is None:
            due = self._ticks[tick] = set()
            heappush(self._order, tick)
            self._sleep.deadline = min(self._sleep.deadline, tick * TICK)
        due.add(fd)

    def _disarm(self, fd: int, entry: _Entry) -> None:
        if entry.tick:
            self._ticks[entry.tick].discard(fd)
            entry.tick = 0
