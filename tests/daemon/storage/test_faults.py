"""Whose fault an error is: the table, and what a group of errors says."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from daemon.errors import Disposition, Fault, FaultKind
from daemon.storage.embedded import ServerDied
from daemon.storage.faults import DatabaseAway, away_in, is_away, is_conflict, is_storage_trouble


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (psycopg.OperationalError("connection refused"), True),
        (errors.ConnectionTimeout("too late"), True),
        (errors.AdminShutdown(), True),
        (errors.CrashShutdown(), True),
        (errors.CannotConnectNow(), True),
        (errors.TooManyConnections(), True),
        (errors.DiskFull(), True),
        (errors.ConnectionFailure(), True),
        (errors.ReadOnlySqlTransaction(), True),
        (errors.PipelineAborted("ours"), False),
        (errors.QueryCanceled(), False),
        (errors.LockNotAvailable(), False),
        (errors.UniqueViolation(), False),
        (errors.SerializationFailure(), False),
        (errors.IdleInTransactionSessionTimeout(), False),
        (errors.UndefinedTable(), False),
        (psycopg.InterfaceError("ours"), False),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, Exception) else str(given),
)
def test_away_is_judged_by_where_the_error_comes_from(error: psycopg.Error, away: bool) -> None:
    assert is_away(error) is away


def test_conflicts_are_the_two_that_the_server_resolves_by_rolling_back() -> None:
    assert is_conflict(errors.DeadlockDetected())
    assert is_conflict(errors.SerializationFailure())
    assert not is_conflict(errors.LockNotAvailable())


def test_a_group_is_explained_only_when_nothing_else_failed() -> None:
    lost, other = errors.AdminShutdown(), errors.UniqueViolation()
    assert away_in(ExceptionGroup("", [ExceptionGroup("", [lost]), other])) is lost
    assert away_in(ExceptionGroup("", [lost, ValueError()])) is None
    assert away_in(ExceptionGroup("", [other])) is None


def test_the_fault_tells_the_owner_nothing_of_the_server_and_the_log_a_bounded_line() -> None:
    away = DatabaseAway("connection to server at 10.0.0.1 failed:\n\tno route " + "x" * 1000)
    assert away.kind is FaultKind.DATABASE_AWAY
    assert away.disposition is Disposition.RETRY
    assert "10.0.0.1" not in away.reason
    assert len(away.detail) == 300
    assert "\n" not in away.detail


@pytest.mark.parametrize(
    ("exc", "trouble"),
    [
        (DatabaseAway("refused"), True),
        (ServerDied("killed"), True),
        (psycopg.OperationalError("the connection is lost"), True),
        (errors.LockNotAvailable(), True),
        (errors.DeadlockDetected(), True),
        (errors.SerializationFailure(), True),
        (ExceptionGroup("", [errors.AdminShutdown(), DatabaseAway("")]), True),
        (errors.UndefinedTable(), False),
        (Fault(FaultKind.LOST, "by the mail server"), False),
        (ExceptionGroup("", [DatabaseAway(""), KeyError()]), False),
    ],
    ids=repr,
)
def test_what_is_the_databases_is_nobodys_bug(exc: Exception, trouble: bool) -> None:
    assert is_storage_trouble(exc) is trouble
