"""Actors and their supervision on Trio, in OTP's words; knows nothing of mail and imports only Trio.

The map:

    spec       what a supervisor is told of a child           exits      how a child ended; restart truth table; rulings
    backoff    how long it pauses before a restart (pure)     budget     how many restarts are too many (pure)
    child      what is remembered and shown of a child        life       its task, and the ladder that ends it
    tending    run, judge, pause, run again                   report     what observers are told
    ordered    `Supervisor`: an order of children             dynamic    `DynamicSupervisor`: thousands, without order
    house      opens, resides, ends: every supervisor's life  judging    what follows the end of a child (pure)
    mailbox    an actor's bounded queue of commands           errors     the named errors

Two departures from OTP: restarts are paced, and a child that does not end in its time is abandoned and reported, for
Trio cannot kill. An abandoned task keeps `run()` from returning, so the composition root ends the process after a hard
limit of its own.
"""

from __future__ import annotations

from .backoff import Backoff
from .budget import RestartBudget
from .child import ChildInfo, ChildState, SupervisorStatistics
from .dynamic import DynamicSupervisor
from .errors import (
    AlreadyAnswered,
    AlreadyRunning,
    CallTimeout,
    ChildExists,
    DuplicateChildId,
    InvalidBackoff,
    InvalidBudget,
    InvalidCapacity,
    InvalidChildId,
    InvalidJudge,
    InvalidRestart,
    InvalidRuling,
    InvalidShutdown,
    InvalidStart,
    InvalidStartTimeout,
    InvalidStop,
    MailboxClosed,
    MailboxFull,
    NoGroup,
    NoSuchChild,
    NotRunning,
    RequestError,
    RestartBudgetSpent,
    ShutdownOverrun,
    SpecError,
    StartTimeout,
    TooManyChildren,
)
from .exits import Crash, Exit, Normal, Restart, Ruling, Shutdown, Verdict
from .life import CANCEL_GRACE
from .mailbox import Mailbox, MailboxStatistics, Reply
from .ordered import Supervisor
from .report import Context, Observer, Report
from .spec import ChildSpec, Element, Start, Strategy

__all__ = [
    "CANCEL_GRACE",
    "AlreadyAnswered",
    "AlreadyRunning",
    "Backoff",
    "CallTimeout",
    "ChildExists",
    "ChildInfo",
    "ChildSpec",
    "ChildState",
    "Context",
    "Crash",
    "DuplicateChildId",
    "DynamicSupervisor",
    "Element",
    "Exit",
    "InvalidBackoff",
    "InvalidBudget",
    "InvalidCapacity",
    "InvalidChildId",
    "InvalidJudge",
    "InvalidRestart",
    "InvalidRuling",
    "InvalidShutdown",
    "InvalidStart",
    "InvalidStartTimeout",
    "InvalidStop",
    "Mailbox",
    "MailboxClosed",
    "MailboxFull",
    "MailboxStatistics",
    "NoGroup",
    "NoSuchChild",
    "Normal",
    "NotRunning",
    "Observer",
    "Reply",
    "Report",
    "RequestError",
    "Restart",
    "RestartBudget",
    "RestartBudgetSpent",
    "Ruling",
    "Shutdown",
    "ShutdownOverrun",
    "SpecError",
    "Start",
    "StartTimeout",
    "Strategy",
    "Supervisor",
    "SupervisorStatistics",
    "TooManyChildren",
    "Verdict",
]
