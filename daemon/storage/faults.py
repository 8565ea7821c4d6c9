"""Whose fault a database error is: decided here, once, by where it comes from.

away         nobody answers, or the server says that it cannot serve: the connection was refused, lost or closed by the
             server, it is starting, stopping, full, or a standby that takes no writes.  Nobody's account is at fault.
conflict     the server chose this transaction as the one to give way: the same work may be run again.
everything   else (a constraint, a statement's time-out, bad SQL) is an answer to the caller, and passes unchanged.
"""

from __future__ import annotations

from typing import Final

import psycopg
from psycopg import errors

from daemon.errors import Fault, FaultKind, leaves

CANNOT_SERVE: Final = frozenset({
    "25006",  # read_only_sql_transaction: nothing here begins a read-only one, so the primary has moved elsewhere
    "53100",  # disk_full
    "53300",  # too_many_connections
    "57P01",  # admin_shutdown
    "57P02",  # crash_shutdown
    "57P03",  # cannot_connect_now
    "57P05",  # idle_session_timeout: an operator's setting ended the session
})  # fmt: skip
"""SQLSTATEs by which a server says that it cannot serve now (PostgreSQL, appendix A); class 08 is added below."""

LONGEST_DETAIL: Final = 300
"""Characters of the driver's message that are kept: libpq lists each address it tried."""


class DatabaseAway(Fault):
    """PostgreSQL does not answer, or cannot serve; waiting is the remedy."""

    def __init__(self, detail: str, *, commit_unknown: bool = False) -> None:
        super().__init__(FaultKind.DATABASE_AWAY, "The database does not answer.")
        self.detail = " ".join(detail.split())[:LONGEST_DETAIL]
        """The driver's own words, for the log; they never hold a password."""
        self.commit_unknown = commit_unknown
        """Whether the connection was lost during COMMIT, so that nobody knows if the transaction is stored."""


def is_away(exc: psycopg.Error) -> bool:
    """Whether the server, rather than the statement, is what failed."""
    if exc.sqlstate is not None:
        return exc.sqlstate in CANNOT_SERVE or exc.sqlstate.startswith("08")
    # Without a SQLSTATE it is the client library's own: a refused or lost connection, or our misuse of a pipeline.
    return isinstance(exc, psycopg.OperationalError) and not isinstance(exc, errors.PipelineAborted)


def is_conflict(exc: psycopg.Error) -> bool:
    """Whether the server rolled this transaction back for another's sake (40001, 40P01)."""
    return isinstance(exc, errors.SerializationFailure | errors.DeadlockDetected)


def is_slow(exc: psycopg.Error) -> bool:
    """Whether a time limit ended it: a row lock held too long, a statement on a stalled disk (55P03, 57014, 25P03).

    Our own cancellations never get here: they end in `trio.Cancelled`.
    """
    limits = errors.LockNotAvailable | errors.QueryCanceled | errors.IdleInTransactionSessionTimeout
    return isinstance(exc, limits)


def away_in(exc: BaseException) -> psycopg.Error | None:
    """The loss of the database that explains this exception, also inside groups, or None.

    A group that holds any other failure beside it is not explained by it.
    """
    found = None
    for leaf in leaves(exc):
        if not isinstance(leaf, psycopg.Error):
            return None
        if is_away(leaf):
            found = leaf
    return found


def is_storage_trouble(exc: BaseException) -> bool:
    """Whether an exception, a group included, tells of nothing but a database that is away, gone, slow or contended.

    Whoever ended in it is to be started again and is not to blame, however often that happens.  Contended: the server
    chose it to give way, and it has nothing else that runs the same work again (a migration beside a fleet).
    """
    return all(_is_trouble(leaf) for leaf in leaves(exc))


def _is_trouble(leaf: BaseException) -> bool:
    if isinstance(leaf, Fault):
        return leaf.kind is FaultKind.DATABASE_AWAY
    return isinstance(leaf, psycopg.Error) and (is_away(leaf) or is_slow(leaf) or is_conflict(leaf))
