"""The whole daemon as a process, seen from outside: HTTP, signals, files, its log and its exit code.

    daemon = start_daemon(dovecot.imaps_port, smtp.starttls_port)       # ends with the test
    shared_daemon                       one for a whole module, on a database of its own
    with daemon.client("user-1") as http: http.get("/mail/accounts")    # a signed-in caller
    daemon.stop() -> exit code          SIGTERM;   daemon.kill()  SIGKILL;   daemon.start()  again, on other ports
    daemon.log_text()                   all it ever said, standard output and error

It listens on ports the kernel chooses and says which on standard output.  It reaches loopback mail servers at the ports
given and trusts the tests' authority; everything it writes is below a directory of the test's.
"""

import contextlib
import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import jwt
import psycopg
import pytest
from psycopg import sql

from daemon.settings import RateSettings
from daemon.vault import generate_key_file
from ops.testservers.dovecot import Dovecot
from ops.testservers.dovecot_conf import DovecotOptions
from ops.testservers.smtp import SmtpOptions, SmtpServer
from tests.fix_dovecot import DovecotFarm
from tests.fix_postgres import Servers
from tests.fix_smtp import SmtpFarm

ROOT = Path(__file__).resolve().parent.parent
PASSWORD = "Blue-whale-11-sings"
SECRET = "a-session-secret-of-the-tests-0123456789abcdef"
COOKIE = "sb-access-token"
STARTS_WITHIN = 30.0
STOPS_WITHIN = 30.0

_ANNOUNCED = re.compile(r"API +http://(\S+)/mail/docs\n +operations +http://(\S+)/metrics")

Settings = dict[str, dict[str, Any]]
StartDaemon = Callable[..., "DaemonProcess"]


def eventually(what: Callable[[], Any], within: float = 20.0, every: float = 0.05) -> Any:
    """Ask until the answer is true, and give it; AssertionError with the last answer when time is up."""
    give_up = time.monotonic() + within
    while not (answer := what()):
        assert time.monotonic() < give_up, f"not within {within:g} s; the last answer was {answer!r}"
        time.sleep(every)
    return answer


def make_token(sub: str, *, lifetime: float = 3600, secret: str = SECRET, **claims: Any) -> str:
    """A session token as the issuer of a local set-up makes them; `plan` is the slug in `app_metadata`."""
    now = int(time.time())
    plan = claims.pop("plan", None)
    payload = {
        "iss": "accountsd", "sub": sub, "aud": "authenticated", "role": "authenticated", "email": f"{sub}@example.test",
        "iat": now, "exp": now + int(lifetime), "app_metadata": {"plan": plan} if plan else {},
    } | claims  # fmt: skip
    return jwt.encode(payload, secret, algorithm="HS256")


def toml(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """Sections and keys as TOML; JSON's strings, numbers and lists are TOML's."""
    lines = []
    for section, values in settings.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def bare_environment(home: Path) -> dict[str, str]:
    """What the daemon's process gets besides its settings."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def _end_with_tests() -> None:
    # PR_SET_PDEATHSIG (1): when the tests are killed outright, the daemon is told to stop.
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class DaemonProcess:
    """One daemon and its directory; may be started again and again."""

    def __init__(self, home: Path, settings: Settings) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.settings: Settings = {
            "api": {"bind": "127.0.0.1:0"},
            "operations": {"bind": "127.0.0.1:0"},
            "auth": {"secret": SECRET},
            "logs": {"format": "json"},
            "storage": {},
        }
        for section, values in settings.items():
            self.settings.setdefault(section, {}).update(values)
        self.settings["storage"].setdefault("directory", str(home / "state"))
        self.process: subprocess.Popen[bytes] | None = None
        self.api = self.operations = ""

    @property
    def dsn(self) -> str:
        """Where its data is."""
        return str(self.settings["storage"]["dsn"])

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def launch(self, *arguments: str, environ: Mapping[str, str] | None = None) -> None:
        """Start the process and wait for nothing."""
        assert self.process is None
        config = self.home / "settings.toml"
        config.touch(mode=0o600)
        config.write_text(toml(self.settings))
        command = [sys.executable, "-P", "-m", "daemon", *(arguments or ("--config", str(config)))]
        with (self.home / "out").open("wb") as out, (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd="/", stdin=subprocess.DEVNULL, stdout=out, stderr=log, start_new_session=True,
                preexec_fn=_end_with_tests, env=bare_environment(self.home) | dict(environ or {}),
            )  # fmt: skip

    def start(self) -> "DaemonProcess":
        """Start it, and return when it is ready to serve."""
        self.launch()
        self.wait_ready()
        return self

    def wait_ready(self) -> None:
        def announced() -> re.Match[str] | None:
            assert self.process is not None
            assert self.process.poll() is None, self.last_words()
            return _ANNOUNCED.search((self.home / "out").read_text())

        found = eventually(announced, STARTS_WITHIN)
        self.api, self.operations = f"http://{found[1]}", f"http://{found[2]}"

        def ready() -> bool:
            try:
                return httpx.get(f"{self.operations}/health/ready", timeout=5).status_code == 200
            except httpx.TransportError:
                return False

        eventually(ready, STARTS_WITHIN)

    def wait(self, within: float = STOPS_WITHIN) -> int:
        """The exit code, once it has ended by itself."""
        assert self.process is not None
        code = self.process.wait(within)
        self.process = None
        return code

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL: what a power cut leaves behind."""
        assert self.process is not None
        self.process.kill()
        self.wait()

    def close(self) -> None:
        """End it whatever it does; its process group with it."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(STOPS_WITHIN)
            self.process = None

    def log_text(self) -> str:
        """All it said, in all its lives; standard output of the last one."""
        return (self.home / "log").read_text(errors="replace") + (self.home / "out").read_text(errors="replace")

    def last_words(self) -> str:
        return self.log_text()[-4000:]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log's events of one name."""
        lines = (self.home / "log").read_text(errors="replace").splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [event for event in found if event.get("event") == name]

    @contextlib.contextmanager
    def client(self, sub: str | None, *, token: str | None = None, **claims: Any) -> Iterator[httpx.Client]:
        """A caller outside; None is one who has not signed in.  Connecting takes up to a minute."""
        cookies = {} if sub is None and token is None else {COOKIE: token or make_token(str(sub), **claims)}
        with httpx.Client(base_url=self.api, cookies=cookies, timeout=90) as client:
            yield client

    def metrics(self) -> str:
        return httpx.get(f"{self.operations}/metrics", timeout=10).text

    def query(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Look into its database."""
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            return conn.execute(query, parameters).fetchall()  # type: ignore[arg-type]  # the tests' own statements

    def status(self, http: httpx.Client, account_id: str | UUID) -> str:
        """The `sync_status` of an account."""
        return str(http.get(f"/mail/accounts/{account_id}").json()["account"]["sync_status"])

    def wait_synced(self, http: httpx.Client, account_id: str | UUID, within: float = 30.0) -> None:
        try:
            eventually(lambda: self.status(http, account_id) == "synced", within)
        except AssertionError:
            raise AssertionError(http.get(f"/mail/accounts/{account_id}").text + self.last_words()) from None


def loopback_settings(dsn: str, ca_file: Path, ports: tuple[int, ...]) -> Settings:
    """Settings under which loopback mail servers may be reached at these ports."""
    return {
        "storage": {"dsn": dsn},
        "network": {"allow": ["127.0.0.0/8", "::1/128"], "ports": list(ports), "ca_file": str(ca_file)},
        "sync": {"retry_first": 0.2, "retry_longest": 2.0},
        # One user tries one host hundreds of times.
        "rates": dict.fromkeys(RateSettings.model_fields, 100_000),
    }


@dataclass(frozen=True, slots=True)
class MailServers:
    """A Dovecot and an SMTP server that know the same password, one that could not stand in a log by chance."""

    imap: Dovecot
    smtp: SmtpServer

    @property
    def ports(self) -> tuple[int, ...]:
        return (self.imap.imap_port, self.imap.imaps_port, self.smtp.starttls_port, self.smtp.tls_port)

    def mailbox(self, user: str, **changes: Any) -> dict[str, Any]:
        """The body of a POST that connects a user's mailbox; `changes` replace members, None takes them out."""
        body = {
            "email": user, "imap_host": "localhost", "imap_port": self.imap.imaps_port, "imap_security": "tls",
            "smtp_host": "localhost", "smtp_port": self.smtp.starttls_port, "smtp_security": "starttls",
            "username": user, "password": PASSWORD,
        } | changes  # fmt: skip
        return {name: value for name, value in body.items() if value is not None}


@pytest.fixture(scope="session")
def mail(dovecot_farm: DovecotFarm, smtp_farm: SmtpFarm) -> MailServers:
    """The shared servers that accounts in these tests have their mail at."""
    imap = dovecot_farm.get(DovecotOptions(password=PASSWORD))
    return MailServers(imap, smtp_farm.get(SmtpOptions(password=PASSWORD)))


def connect(http: httpx.Client, body: Mapping[str, Any]) -> str:
    """Connect a mailbox that must be accepted; gives the account's id."""
    answer = http.post("/mail/accounts", json=dict(body))
    assert answer.status_code == 200, answer.text
    return str(answer.json()["account"]["id"])


@pytest.fixture
def start_daemon(database_dsn: str, ca_file: Path, tmp_path: Path) -> Iterator[StartDaemon]:
    """`start_daemon(*ports, **sections)`: a running daemon on the test's database; each call another node.

    They have one key ring, as nodes must: what one seals another opens.
    """
    keys = tmp_path / "vault-keys"
    generate_key_file(keys)
    with contextlib.ExitStack() as stack:
        count = 0

        def start(*ports: int, launch: bool = True, **sections: dict[str, Any]) -> DaemonProcess:
            nonlocal count
            count += 1
            settings = loopback_settings(database_dsn, ca_file, ports) | {"vault": {"key_file": str(keys)}}
            for section, values in sections.items():
                settings.setdefault(section, {}).update(values)
            daemon = DaemonProcess(tmp_path / f"daemon-{count}", settings)
            stack.callback(daemon.close)
            return daemon.start() if launch else daemon

        yield start


@pytest.fixture(scope="module")
def closed_port() -> Iterator[int]:
    """A loopback port where nobody listens: held, so that nobody comes to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture(scope="module")
def shared_daemon(
    postgres_servers: Servers, mail: MailServers, ca_file: Path, closed_port: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[DaemonProcess]:  # fmt: skip
    """One daemon for the tests of a module, which use users of their own and never stop it."""
    server = postgres_servers.get("embedded")
    name = postgres_servers.fresh_database("embedded")
    dsn = f"host={server.socket} user=postgres dbname={name}"
    settings = loopback_settings(dsn, ca_file, (*mail.ports, closed_port)) | {
        "plans.one": {"accounts": 1},
        "plans.free": {"accounts": 100},
    }
    settings["auth"] = {"origins": ["https://app.example.test"]}
    daemon = DaemonProcess(tmp_path_factory.mktemp("shared"), settings)
    try:
        yield daemon.start()
    finally:
        daemon.close()
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
