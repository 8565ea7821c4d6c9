"""An embedded server that is killed while it starts: no person is told what to mend, it is started again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
import trio

from daemon.storage import embedded
from daemon.storage.connection import TrioConnection
from daemon.storage.embedded import ServerDied, run_embedded
from daemon.storage.leftover import holders

DEADLINE = 60.0
FAST = {"fsync": "off", "shared_buffers": "16MB"}
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path that the server's user can enter."""
    place = Path(tempfile.mkdtemp(prefix="emb-", dir="/tmp"))
    place.chmod(0o711)
    yield place / "pg"
    left, _ = holders(place / "pg/data")
    shutil.rmtree(place)
    assert not left, "a server was left running"


async def ask(home: Path) -> object:
    """Start the server, ask it something, stop it."""
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:

            async def serve(task_status: trio.TaskStatus[str]) -> None:
                await run_embedded(home, settings=FAST, task_status=task_status)

            dsn = await nursery.start(serve)
            async with await TrioConnection.connect(dsn, autocommit=True) as conn:
                row = await (await conn.execute("SELECT 1")).fetchone()
            nursery.cancel_scope.cancel()
    return row


@pytest.mark.parametrize("step", ["_ready", "_create_database"])
async def test_a_server_killed_while_it_starts_is_to_be_started_again(
    home: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_step = getattr(embedded, step)

    async def killed(*arguments: Any) -> None:
        [process] = [each for each in arguments if isinstance(each, trio.Process)]
        process.kill()
        await whole_step(*arguments)

    assert await ask(home) == (1,)
    with monkeypatch.context() as patch, trio.fail_after(DEADLINE):
        patch.setattr(embedded, step, killed)
        with pytest.raises(ServerDied):
            await run_embedded(home, settings=FAST)
    assert await ask(home) == (1,)


@pytest.mark.parametrize(
    ("status", "last", "killed"),
    [
        (-9, "starting PostgreSQL", True),
        (1, "startup process (PID 7) was terminated by signal 9: Killed / aborting startup", True),
        (1, "startup process (PID 7) was terminated by signal 6: Aborted / aborting startup", False),
        (1, 'invalid value for parameter "max_connections"', False),
        (None, "redo starts", False),
    ],
)
def test_who_was_killed_said_nothing_for_a_person(status: int | None, last: str, killed: bool) -> None:
    process, lines = SimpleNamespace(poll=lambda: status), SimpleNamespace(last=last)
    assert embedded._was_killed(process, lines) is killed


async def test_a_server_that_drops_the_first_connection_is_asked_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, dropped = TrioConnection.connect, []

    async def drops_first(conninfo: str, **options: Any) -> Any:
        if not dropped:
            dropped.append(conninfo)
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return await connect(conninfo, **options)

    monkeypatch.setattr(embedded, "TrioConnection", SimpleNamespace(connect=drops_first))
    assert await ask(home) == (1,)
    assert dropped
