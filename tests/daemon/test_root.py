"""How the root judges what its children end in."""

from types import SimpleNamespace

import psycopg
import pytest

from daemon.__main__ import Daemon
from daemon.storage.binaries import EmbeddedFailed
from daemon.storage.embedded import ServerDied
from daemon.storage.faults import DatabaseAway
from supervisor import Verdict


@pytest.mark.parametrize(
    ("exc", "verdict", "fatal"),
    [
        # the migration loses its connection to a server that is killed, or waits for a table in vain
        (ExceptionGroup("", [psycopg.OperationalError("server closed the connection")]), Verdict.EXCUSED, None),
        (psycopg.errors.LockNotAvailable("canceling statement due to lock timeout"), Verdict.EXCUSED, None),
        (DatabaseAway("the server is too slow"), Verdict.EXCUSED, None),
        (ServerDied("status -9"), Verdict.EXCUSED, None),
        (KeyError("ours"), Verdict.CRASH, None),
        (ExceptionGroup("", [DatabaseAway(""), KeyError("ours")]), Verdict.CRASH, None),
        (EmbeddedFailed("no binaries"), Verdict.CRASH, "no binaries"),
    ],
    ids=repr,
)
def test_a_database_in_trouble_spends_nothing(exc: Exception, verdict: Verdict, fatal: str | None) -> None:
    ended: list[str] = []
    assert Daemon._judge(SimpleNamespace(_end=ended.append), exc).verdict is verdict
    assert ended == ([fatal] if fatal else [])
