"""How a conversation with a mail server begins, whatever it speaks: a greeting and a login, each in its time.

Only what is the same for IMAP and SMTP: the two deadlines, and the sentence for each way in which they are missed.
What is said between is theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import trio

from daemon.errors import Fault, FaultKind

SILENT: Final = "The server accepts connections but does not greet; it may expect another encryption at this port."
UNFINISHED: Final = "The server began its greeting and did not finish it in time."
ENDLESS: Final = "The server's greeting has no end."
CLOSED: Final = "The server closed the connection without a greeting."
UNWELCOME: Final = "The mail server refuses connections from here."


def foreign(protocol: str) -> str:
    """The sentence for a greeting that is none of the protocol's."""
    return f"The server greeted with something that is no {protocol}."


@dataclass(slots=True)
class Opening:
    """How far it has come."""

    greeted: bool = False
    """Whether the server has said who it is: from then on it is there, and slow."""


@contextmanager
def login_within(seconds: float) -> Iterator[Opening]:
    """Bound everything from the first packet to the login.

    Raises:
        Fault: CONNECT_FAILED when the time was over before the greeting was marked as read, else UNAVAILABLE.
    """
    opening = Opening()
    try:
        with trio.fail_after(seconds):
            yield opening
    except trio.TooSlowError:
        if opening.greeted:
            reason = f"The mail server did not finish the login within {seconds:g} seconds."
            raise Fault(FaultKind.UNAVAILABLE, reason) from None
        reason = f"The mail server did not answer within {seconds:g} seconds."
        raise Fault(FaultKind.CONNECT_FAILED, reason) from None


@contextmanager
def greeting_within(seconds: float, begun: Callable[[], bool]) -> Iterator[None]:
    """Bound the wait for the greeting; `begun` tells at its end whether a part of one has come.

    Raises:
        Fault: CONNECT_FAILED when the time was over.
    """
    try:
        with trio.fail_after(seconds):
            yield
    except trio.TooSlowError:
        raise Fault(FaultKind.CONNECT_FAILED, UNFINISHED if begun() else SILENT) from None
