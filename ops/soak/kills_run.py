"""A run of `kills`: what is under way, and what the daemon is doing just now, by its log."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from ops.testservers.dovecot import Dovecot

from .campaign import Options, Report, Say
from .daemon_process import DaemonProcess
from .peek import Snapshot
from .settle import Mailbox
from .storm import Storm

_PHASES: Final = (
    ('"embedded.ready"', "connecting to the database"),
    ('"embedded.initialised"', "first start of the database"),
    ('"embedded.leftover', "stopping what was left behind"),
    ('"embedded.', "start of the database"),
)


@dataclass
class Run:
    """What is under way."""

    options: Options
    say: Say
    dovecot: Dovecot
    daemon: DaemonProcess
    storm: Storm
    report: Report = field(default_factory=Report)
    mailboxes: list[Mailbox] = field(default_factory=list)
    gapless: set[str] = field(default_factory=set)
    """User names of the accounts of the large mailbox."""

    kills: list[dict[str, Any]] = field(default_factory=list)
    phases: Counter[str] = field(default_factory=Counter)
    works_after: list[float] = field(default_factory=list)
    last: Snapshot | None = None
    looks: int = 0
    looking: trio.Lock = field(default_factory=trio.Lock)
    unseen: int = 0
    """Kills of the daemon after which nobody had looked into the store when it was started again."""

    origin: float = 0.0
    """When the daemon was started, or its database began to recover; monotonic."""
    log_from: int = 0
    """The size of its log then."""
    stored: int | None = None
    """The measure of progress at the first look since, None before."""
    working: bool = False
    incomplete: int = 0
    """First synchronisations that are not complete, at the last look."""
    watched: int = 0


def begin(run: Run) -> None:
    """A new life of the daemon begins, or of its database."""
    run.origin, run.stored, run.working = time.monotonic(), None, False
    run.log_from = run.daemon.log_size


def phase(run: Run) -> str:
    """What is going on now, by the log of this life and the last look."""
    if run.working:
        return "first synchronisation" if run.incomplete else "watching the storm"
    said = run.daemon.said(run.log_from)
    if '"storage.ready"' in said or ('"database.ready"' in said and '"embedded.binaries"' not in said):
        return "claims and logins"
    if '"database.ready"' in said:
        return "schema"
    return next((phase for words, phase in _PHASES if words in said), "before anything")
