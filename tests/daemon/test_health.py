"""What a person is told of the whole process in one line."""

from types import SimpleNamespace

from daemon.health import Health


def said(*, ready: bool = True, migrated: bool = True, stopping: bool = False) -> str:
    database = SimpleNamespace(statistics=lambda: SimpleNamespace(ready=ready, reason="connection refused"))
    fleet = SimpleNamespace(statistics=lambda: SimpleNamespace(running=7, states={"watching": 5, "syncing": 2}))
    return Health(database, fleet, migrated=lambda: migrated, stopping=lambda: stopping).words()


def test_what_is_waited_for_or_what_runs_is_said() -> None:
    assert said() == "7 accounts, 5 up to date and watched"
    assert said(ready=False, migrated=False) == "Waiting for the database: connection refused"
    assert said(migrated=False) == "Bringing the schema up to date"
    assert said(ready=False, stopping=True) == "Stopping"
