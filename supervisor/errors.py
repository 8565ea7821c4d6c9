"""The named errors of supervision.

Three families, by who has to act: `SpecError` (the programmer who wrote the tree), `RequestError` (the caller of a
supervisor or a mailbox, at run time), and the exceptions that stand for the way a child ended and travel inside
`Crash` and up the tree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .exits import Exit


class SpecError(ValueError):
    """A child spec, or the supervisor made of them, cannot be right; raised before anything runs."""


class InvalidChildId(SpecError):
    """An id must not be empty."""


class DuplicateChildId(SpecError):
    """Two children of one supervisor bear the same id."""


class InvalidStart(SpecError):
    """`start` must be callable."""


class InvalidRestart(SpecError):
    """`restart` must be one of `Restart`."""


class InvalidShutdown(SpecError):
    """`shutdown` must be a number of seconds, 0 or more (infinity: wait for ever)."""


class InvalidStop(SpecError):
    """`stop` must be callable or None."""


class InvalidJudge(SpecError):
    """`judge` must be callable or None."""


class InvalidStartTimeout(SpecError):
    """`start_timeout` must be more than 0 seconds (infinity: wait for ever)."""


class InvalidBackoff(SpecError):
    """The numbers of a backoff do not make a pause."""


class InvalidBudget(SpecError):
    """The numbers of a restart budget do not make a budget."""


class InvalidRuling(SpecError):
    """`not_before` must be a finite number of seconds, 0 or more."""


class InvalidCapacity(SpecError):
    """A bound (mailbox capacity, number of children) must be 1 or more."""


class RequestError(Exception):
    """The caller asked for something that cannot be had now."""


class NotRunning(RequestError):
    """The supervisor does not run, or is stopping: it takes no children."""


class AlreadyRunning(RequestError):
    """`run()` was called on a supervisor that runs."""


class NoSuchChild(RequestError):
    """No child of this supervisor bears that id."""


class ChildExists(RequestError):
    """A child of that id is there already."""


class TooManyChildren(RequestError):
    """The dynamic supervisor holds `max_children` already."""


class NoGroup(RequestError):
    """A rest_for_one supervisor takes new children only into a group at its end, and there is none."""


class MailboxFull(RequestError):
    """The mailbox holds as many commands as it may; the actor is slower than its callers."""


class MailboxClosed(RequestError):
    """The actor behind the mailbox has ended, or does not take commands any more."""


class CallTimeout(RequestError):
    """The actor did not answer in time; it may still do what it was asked."""


class AlreadyAnswered(RequestError):
    """A reply is answered once."""


class StartTimeout(Exception):
    """A child did not say that it is ready within its `start_timeout`."""

    def __init__(self, child_id: str, seconds: float) -> None:
        super().__init__(f"{child_id} was not ready within {seconds:g} s")
        self.child_id = child_id
        self.seconds = seconds


class ShutdownOverrun(Exception):
    """A child did not end although it was cancelled: it is abandoned, for Trio cannot kill.

    Its task lives on and keeps its supervisor's nursery open, so `run()` does not return before it ends. Nobody else
    waits for it. The composition root must end the process after a hard limit of its own.
    """

    def __init__(self, child_id: str, seconds: float) -> None:
        super().__init__(f"{child_id} still ran {seconds:g} s after it was asked to stop")
        self.child_id = child_id
        self.seconds = seconds


class RestartBudgetSpent(Exception):
    """A supervisor gave up: more than `intensity` restarts within `period` seconds.

    `child_id` is the child that asked for one restart too many, `exits` are the exits counted, oldest first. The last
    crash is the cause.
    """

    def __init__(self, child_id: str, exits: tuple[Exit, ...]) -> None:
        super().__init__(f"{len(exits)} restarts are too many; the last was of {child_id}")
        self.child_id = child_id
        self.exits = exits
