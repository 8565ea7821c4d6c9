"""An actor's mailbox: a bounded queue of frozen commands with one receiver.

Who sends does not wait: `cast` either puts the command in or raises, so that a slow actor is felt by its callers at
once and holds no memory beyond `capacity`. `call` waits for an answer, for a bounded time. The actor waits in `receive`
and gives it the deadline of its next timer: timers are deadlines, not tasks. A mailbox serves one actor for one life:
the actor closes it when it ends, and everybody who still waits for an answer gets `MailboxClosed`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import trio

from .errors import AlreadyAnswered, CallTimeout, InvalidCapacity, MailboxClosed, MailboxFull

Message = TypeVar("Message")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class MailboxStatistics:
    """A mailbox at one moment."""

    capacity: int
    queued: int
    most_queued: int
    """The longest the queue ever was."""

    accepted: int
    refused: int
    """Casts and calls that found the mailbox full."""

    calls_waiting: int
    closed: bool


class Reply(Generic[Answer]):
    """Where the actor puts the answer to one call; travels inside the command."""

    __slots__ = ("_answered", "_caller_gone", "_error", "_ready", "_value")

    def __init__(self) -> None:
        self._ready = trio.Event()
        self._answered = False
        self._caller_gone = False
        self._value: Answer | None = None
        self._error: Exception | None = None

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits; an actor may skip a command whose caller has gone."""
        return not self._caller_gone

    def send(self, value: Answer) -> None:
        """Answer. Not heard when the caller has gone.

        Raises:
            AlreadyAnswered: this is the second answer.
        """
        self._claim()
        self._value = value
        self._ready.set()

    def fail(self, error: Exception) -> None:
        """Answer with an exception, which the caller's `call` raises.

        Raises:
            AlreadyAnswered: this is the second answer.
        """
        self._claim()
        self._error = error
        self._ready.set()

    def _claim(self) -> None:
        if self._answered:
            raise AlreadyAnswered("this call was answered before")
        self._answered = True

    async def _wait(self) -> Answer:
        await self._ready.wait()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # None is an Answer where the actor sent None

    def _leave(self) -> None:
        self._caller_gone = True

    def _break(self) -> None:
        if not self._answered and not self._ready.is_set():
            self._error = MailboxClosed("the actor ended before it answered")
            self._ready.set()


class Mailbox(Generic[Message]):
    """A queue of at most `capacity` commands. Use it from Trio's thread only.

    Raises:
        InvalidCapacity: `capacity` below 1.
    """

    __slots__ = ("_accepted", "_calls", "_closed", "_most_queued", "_queue", "_receiver", "_refused", "capacity")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise InvalidCapacity(f"capacity must be a whole number, 1 or more: {capacity!r}")
        self.capacity = capacity
        self._queue: deque[Message] | None = None  # made with the first command: an empty deque holds 700 bytes
        self._receiver: trio.lowlevel.Task | None = None
        self._calls: dict[Reply[Any], None] | None = None
        self._closed = False
        self._accepted = 0
        self._refused = 0
        self._most_queued = 0

    def cast(self, message: Message) -> None:
        """Put a command in, without waiting.

        Raises:
            MailboxFull: `capacity` commands wait already; this one is refused.
            MailboxClosed: the actor has ended.
        """
        if self._closed:
            raise MailboxClosed("the mailbox is closed")
        if self._queue is None:
            self._queue = deque()
        if len(self._queue) >= self.capacity:
            self._refused += 1
            raise MailboxFull(f"{self.capacity} commands wait already")
        self._queue.append(message)
        self._accepted += 1
        self._most_queued = max(self._most_queued, len(self._queue))
        self._wake()

    async def call(self, make: Callable[[Reply[Answer]], Message], within: float) -> Answer:
        """Put in the command that `make(reply)` builds and wait up to `within` seconds for its answer.

        Raises:
            MailboxFull: as for `cast`.
            MailboxClosed: the mailbox is closed, or was before the answer came.
            CallTimeout: no answer in time. The command is not taken back: the actor may still carry it out.
            Exception: whatever the actor answered with by `Reply.fail`.
        """
        reply: Reply[Answer] = Reply()
        self.cast(make(reply))
        if self._calls is None:
            self._calls = {}
        self._calls[reply] = None
        try:
            with trio.move_on_after(within) as patience:
                return await reply._wait()  # noqa: SLF001 - Reply's two faces: the actor sees only the public one
        finally:
            reply._leave()  # noqa: SLF001 - as above
            del self._calls[reply]
        assert patience.cancelled_caught
        raise CallTimeout(f"no answer within {within:g} s")

    async def receive(self, deadline: float = math.inf) -> Message | None:
        """The oldest command, or None when Trio's clock reaches `deadline` first.

        A command that waits already is returned even after the deadline; a cancelled `receive` loses none.

        Raises:
            MailboxClosed: the mailbox is closed.
            trio.BusyResourceError: another task receives.
        """
        if self._receiver is not None:
            raise trio.BusyResourceError("a mailbox has one receiver")
        if self._queue or self._closed:
            await trio.lowlevel.checkpoint()
        elif deadline == math.inf:
            await self._park()
        else:
            with trio.move_on_at(deadline):
                await self._park()
        if self._closed:
            raise MailboxClosed("the mailbox is closed")
        return self._queue.popleft() if self._queue else None

    def close(self) -> None:
        """Refuse and drop every command; whoever waits for an answer, and the receiver, get `MailboxClosed`."""
        self._closed = True
        self._queue = None
        for reply in self._calls or ():
            reply._break()  # noqa: SLF001 - as in call
        self._wake()

    def statistics(self) -> MailboxStatistics:
        """Numbers for an operator."""
        return MailboxStatistics(
            capacity=self.capacity,
            queued=len(self._queue or ()),
            most_queued=self._most_queued,
            accepted=self._accepted,
            refused=self._refused,
            calls_waiting=len(self._calls or ()),
            closed=self._closed,
        )

    async def _park(self) -> None:
        self._receiver = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._give_up)

    def _give_up(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._receiver = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _wake(self) -> None:
        if self._receiver is not None:
            task, self._receiver = self._receiver, None
            trio.lowlevel.reschedule(task)
