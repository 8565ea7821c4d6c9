"""PostgreSQL as a supervised child of the daemon, for those who bring no server.

`home/` holds  data/            the cluster, owned by the server's user
               run/             its socket, 0700; in a short run-time directory if this path is too long for a socket
               server-VERSION/  a copy of the binaries, where the server's user could not read the originals
               hba.conf, ident.conf, lock

Access.  The server has no network address.  Its socket is in a directory that only the server's user and root enter,
and it admits by peer authentication the daemon's own user and root, as role `accountsd` (owner of the database
`accountsd`, not a superuser: what gets into our SQL must not get a shell) or `postgres` (for maintenance).  The client
checks in turn, by `requirepeer`, that the server is run by the user it expects.

Durability.  fsync is on, data has checksums, `initdb` is whole or not at all.  However the daemon or the server ends,
the next start recovers; a server left behind by a killed daemon is stopped first (see `leftover`).

The conninfo depends on `home` alone, so it stays good when the supervisor starts this child again.
"""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING, Final

import psycopg
import structlog
import trio
from psycopg.conninfo import make_conninfo

from daemon.errors import Fault, FaultKind

from .binaries import ENVIRONMENT, EmbeddedFailed, Installation, ServerUser, server_user
from .cluster import DATABASE, accepts, choose, initialise, write_access
from .connection import TrioConnection
from .faults import is_away
from .leftover import hold, read_small, stop_leftover
from .places import prepare_home, socket_directory
from .server_log import ServerLog

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .connection import Conn

log = structlog.get_logger(__name__)

READY_WITHIN: Final = 300.0
"""Seconds until the server takes connections: after a crash it replays at most max_wal_size (1 GB)."""

LET_IN_WITHIN: Final = 10.0
"""Seconds for which a server that is ready may still refuse or drop us: when one of its sessions was killed it ends all
others and recovers, which takes a second or two so early."""

PAUSE: Final = 0.5
"""Seconds between two attempts meanwhile."""

STOP_WITHIN: Final = 30.0
"""Seconds for a fast shutdown, whose length is a checkpoint's; then an immediate one."""

QUIT_WITHIN: Final = 10.0
"""Seconds for an immediate shutdown: the server itself kills after five what does not end."""

SETTINGS: Final = {
    "max_connections": "64",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "jit": "off",  # short statements only
    "max_parallel_workers_per_gather": "0",  # small machines; containers have 64 MB of /dev/shm
    "timezone": "UTC", "log_timezone": "UTC", "lc_messages": "C",
    "log_line_prefix": "", "log_error_verbosity": "terse",  # severity and text alone: see server_log
    "log_min_error_statement": "panic", "log_checkpoints": "off",
}  # fmt: skip
"""What the server is started with; the caller's settings come over these."""

COMPRESSION: Final = {"wal_compression": "lz4", "default_toast_compression": "lz4"}
"""Where the build has LZ4: bodies are written twice as fast as with pglz."""


KILLED: Final = "was terminated by signal 9"
"""How the server tells that one of its processes was killed (postmaster.c, LogChildExit)."""


class ServerDied(Fault):
    """The server ended though nobody asked it to, or was killed while it started; starting it again is the remedy."""

    def __init__(self, detail: str) -> None:
        super().__init__(FaultKind.DATABASE_AWAY, "The embedded database stopped.")
        self.detail = detail


def embedded_conninfo(home: Path) -> str:
    """How to reach the server of a home; for operators' tools as well, which run as the daemon's user or root.

    Raises:
        EmbeddedFailed: no directory for its socket.
    """
    user = server_user()
    return _conninfo(socket_directory(home, user), user, DATABASE, DATABASE)


async def run_embedded(
    home: Path,
    *,
    settings: Mapping[str, str] | None = None,
    installation: Installation | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the server that lives in `home` until cancelled; reports the conninfo once it takes connections.

    Args:
        home: made if missing; nobody else may run a server in it.
        settings: server parameters over SETTINGS.
        installation: binaries other than the best that are found.
        task_status: `started(conninfo)`, of an empty or existing database `accountsd`.

    Raises:
        EmbeddedFailed: a person has to change something.
        ServerDied: it ended by itself after it had been ready, or was killed before.
    """
    user = server_user()
    home = prepare_home(home, user)
    data = home / "data"
    with hold(home):
        sockets = socket_directory(home, user, create=True)
        if data.exists():
            await stop_leftover(data, sockets)
        installation = await choose(installation, home, data, user)
        if not data.exists():
            await initialise(installation, data, user)
        write_access(home, user)
        ours = {
            "listen_addresses": "",
            "unix_socket_directories": '"' + str(sockets).replace('"', '""') + '"',
            "unix_socket_permissions": "0700",
            "hba_file": str(home / "hba.conf"),
            "ident_file": str(home / "ident.conf"),
            "log_destination": "stderr",
            "logging_collector": "off",
        }
        compression = COMPRESSION if await accepts(installation, data, user, COMPRESSION) else {}
        options = {**SETTINGS, **compression, **(settings or {}), **ours}
        await _serve(installation, data, user, options, sockets, task_status)


async def _serve(
    installation: Installation,
    data: Path,
    user: ServerUser,
    options: Mapping[str, str],
    sockets: Path,
    task_status: trio.TaskStatus[str],
) -> None:
    began = trio.current_time()
    command = [str(installation.bin / "postgres"), "-D", str(data), *(f"--{k}={v}" for k, v in options.items())]
    # Its own session: a Ctrl-C at the terminal is the daemon's to handle.  Not our stdout: whoever reads that to its
    # end would wait for the server as well.
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        cwd="/", env=ENVIRONMENT, **user.run_as,
    )  # fmt: skip
    assert process.stderr is not None
    lines = ServerLog()
    failure: EmbeddedFailed | ServerDied | None = None
    async with trio.open_nursery() as nursery:
        # Shielded, for a server whose log nobody reads cannot stop either; it ends with the last of its processes.
        reading = trio.CancelScope(shield=True)
        nursery.start_soon(_follow, reading, lines, process.stderr)
        try:
            await _ready(data, process, lines)
            await _create_database(_conninfo(sockets, user, "postgres", "postgres"), process)
            log.info("embedded.ready", version=installation.version, took=round(trio.current_time() - began, 3))
            task_status.started(_conninfo(sockets, user, DATABASE, DATABASE))
            await process.wait()
            failure = ServerDied(f"status {process.returncode}: {lines.last}")
        except EmbeddedFailed as exc:
            failure = ServerDied(f"while it started: {lines.last}") if _was_killed(process, lines) else exc
        finally:
            with trio.CancelScope(shield=True):
                await _stop(process)
            # A process that inherited the pipe and lives on must not hold us.
            reading.deadline = trio.current_time() + QUIT_WITHIN
    if failure is not None:  # outside the nursery, which would wrap it in a group
        raise failure


def _was_killed(process: trio.Process, lines: ServerLog) -> bool:
    """Whether somebody killed the server, or a process of its start: the kernel when memory was short, an operator.

    Then it is no matter for a person what it last said, and another start is the remedy, as after it was ready.
    """
    status = process.poll()
    return status is not None and (status < 0 or KILLED in lines.last)


async def _follow(scope: trio.CancelScope, lines: ServerLog, stream: trio.abc.ReceiveStream) -> None:
    with scope:
        async with stream:
            await lines.follow(stream)


async def _ready(data: Path, process: trio.Process, lines: ServerLog) -> None:
    """Wait for the state that the server writes into the eighth line of postmaster.pid."""
    with trio.move_on_after(READY_WITHIN):
        while process.poll() is None:
            state = read_small(data / "postmaster.pid")
            if len(state) >= 8 and state[0] == str(process.pid) and state[7].strip() == "ready":
                return
            await trio.sleep(0.02)
        await trio.sleep(0.1)  # for its last words to arrive
        raise EmbeddedFailed(f"the server does not start: {lines.last}")
    raise EmbeddedFailed(f"the server was not ready within {READY_WITHIN:g} s: {lines.last}")


async def _create_database(conninfo: str, process: trio.Process) -> None:
    """Make the role and the database where they are missing.

    Raises:
        EmbeddedFailed: the server is up but does not let us in.
    """
    deadline = trio.current_time() + LET_IN_WITHIN
    while True:
        try:
            with trio.fail_after(READY_WITHIN):
                conn = await TrioConnection.connect(conninfo, autocommit=True, prepare_threshold=None)
                async with conn:
                    await _make_role_and_database(conn)
        except (psycopg.Error, trio.TooSlowError) as exc:
            with trio.move_on_after(PAUSE):  # is it just ending?
                await process.wait()
            away = isinstance(exc, psycopg.Error) and is_away(exc)
            if process.returncode is None and away and trio.current_time() < deadline:
                continue
            raise EmbeddedFailed(f"the server does not take our connection: {exc}") from exc
        else:
            return


async def _make_role_and_database(conn: Conn) -> None:
    row = await (await conn.execute("SELECT FROM pg_roles WHERE rolname = %s", (DATABASE,))).fetchone()
    if row is None:
        await conn.execute("CREATE ROLE accountsd LOGIN")
    row = await (await conn.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,))).fetchone()
    if row is None:
        await conn.execute("CREATE DATABASE accountsd OWNER accountsd")


async def _stop(process: trio.Process) -> None:
    """Fast shutdown, then immediate, then the end; by bounded waits, for a supervisor waits for us."""
    for number, seconds in ((signal.SIGINT, STOP_WITHIN), (signal.SIGQUIT, QUIT_WITHIN), (signal.SIGKILL, QUIT_WITHIN)):
        if process.returncode is None:
            process.send_signal(number)
            with trio.move_on_after(seconds):
                await process.wait()
                log.info("embedded.stopped", signal=number.name)


def _conninfo(sockets: Path, user: ServerUser, role: str, database: str) -> str:
    return make_conninfo("", host=str(sockets), user=role, dbname=database, requirepeer=user.name)
