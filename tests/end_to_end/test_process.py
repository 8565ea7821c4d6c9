"""The daemon as a process: signals, exit codes, wrong settings, an empty configuration, no database."""

import os
import signal
import socket
import stat
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from tests.fix_daemon import SECRET, DaemonProcess, MailServers, StartDaemon, connect, eventually, make_token
from tests.fix_jwks import JwksServer
from tests.fix_postgres import Server


def test_sigterm_ends_it_quickly(start_daemon: StartDaemon, mail: MailServers, new_user: str) -> None:
    daemon = start_daemon(*mail.ports)
    with daemon.client(new_user) as http:
        account_id = connect(http, mail.mailbox(new_user))
        daemon.wait_synced(http, account_id)
    for number in (signal.SIGTERM, signal.SIGINT):
        assert daemon.process is not None
        daemon.process.send_signal(number)
        assert daemon.wait(10) == 0
        assert daemon.query("SELECT count(*) FROM nodes") == [(0,)]
        assert daemon.query("SELECT owner FROM claims") == [(None,)]
        assert daemon.events("daemon.stopped")
        assert "Traceback" not in daemon.log_text()
        daemon.start()


def test_a_second_signal_ends_it_at_once(start_daemon: StartDaemon, mail: MailServers, new_user: str) -> None:
    """A verification under way keeps the first one waiting: its server accepts and never greets."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        daemon = start_daemon(*mail.ports, port)
        body = mail.mailbox(new_user, imap_port=port)
        token = make_token(new_user)
        with socket.create_connection(daemon.api.removeprefix("http://").split(":")) as asking:
            asking.sendall(_request("/mail/accounts", token, body))
            silent.settimeout(10)
            with silent.accept()[0]:
                assert daemon.process is not None
                daemon.process.send_signal(signal.SIGTERM)
                eventually(lambda: daemon.events("daemon.stopping"))
                daemon.process.send_signal(signal.SIGTERM)
                assert daemon.wait(3) == 128 + signal.SIGTERM


def _request(path: str, token: str, body: dict[str, Any]) -> bytes:
    content = httpx.Request("POST", "http://x", json=body).content
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nCookie: sb-access-token={token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    ).encode() + content


# One of each kind of check; every key's own rules are in tests/daemon/test_settings.py.
WRONG = [
    ({"api": {"bind": "nowhere"}}, "api.bind", "nowhere"),
    ({"api": {"speed": 3}}, "api.speed", "unknown"),
    ({"auth": {"secret": "short-but-secret"}}, "auth.secret", "***"),
    ({"network": {"ca_file": "/nowhere/ca.pem"}}, "network.ca_file", "/nowhere/ca.pem"),
    ({"storage": {"dsn": "not a dsn with hunter2"}}, "storage.dsn", "***"),
    ({"vault": {"key_file": "/nowhere/keys"}}, "vault.key_file", "/nowhere/keys"),
]


@pytest.mark.parametrize(("sections", "key", "value"), WRONG)
def test_wrong_settings_are_one_sentence(
    tmp_path: Path, sections: dict[str, dict[str, Any]], key: str, value: str
) -> None:
    daemon = DaemonProcess(tmp_path, sections)
    daemon.launch()
    assert daemon.wait() == 2
    said = daemon.log_text()
    assert said.count("\n") == 1, said
    assert said.startswith("accountsd: ")
    assert key in said
    assert value in said
    assert "hunter2" not in said
    assert "short-but-secret" not in said
    assert not list(tmp_path.glob("state/postgresql/*"))


def test_an_address_in_use_is_told_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        daemon = DaemonProcess(tmp_path, {"operations": {"bind": f"127.0.0.1:{taken.getsockname()[1]}"}})
        daemon.launch()
        assert daemon.wait() == 2
    assert "operations.bind" in daemon.log_text()
    assert not (tmp_path / "state").exists()


def test_an_empty_configuration_starts(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    tmp_path.chmod(0o755)
    daemon = DaemonProcess(tmp_path / "daemon", {})
    empty = tmp_path / "empty.toml"
    empty.touch()
    state = home / ".local/state/accountsd"
    environ = {
        "ACCOUNTSD_API__BIND": "127.0.0.1:0",
        "ACCOUNTSD_OPERATIONS__BIND": "127.0.0.1:0",
        "HOME": str(home),
    }
    if os.geteuid() == 0:  # as root it would be /var/lib/accountsd, the machine's own
        for above in tmp_path.parents[:2]:
            above.chmod(above.stat().st_mode | 0o011)
        environ["STATE_DIRECTORY"] = str(state)
    try:
        daemon.launch("--config", str(empty), environ=environ)
        daemon.wait_ready()
        assert str(state) in daemon.log_text()
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in state.iterdir()}
        # As root the database has a user of its own, who must pass through to what is his.
        database = 0o711 if os.geteuid() == 0 else 0o700
        assert modes == {"vault-keys": 0o600, "session-secret": 0o600, "node-0": 0o600, "postgresql": database}
        secret = (state / "session-secret").read_text().strip()
        with daemon.client(None, token=make_token("me", secret=secret)) as http:
            assert http.get("/mail/accounts").json() == {"success": True, "accounts": []}
        assert secret not in daemon.log_text()
        children = psutil.Process(daemon.pid).children(recursive=True)
        assert children
        assert daemon.stop() == 0
        assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    finally:
        _end_embedded(daemon)


def _end_embedded(daemon: DaemonProcess) -> None:
    """Give the embedded server the chance to end before the whole group is killed."""
    if daemon.process is not None:
        daemon.stop()
    daemon.close()


def test_sessions_of_an_issuer(start_daemon: StartDaemon, jwks_server: JwksServer) -> None:
    daemon = start_daemon(auth={"mode": "jwks", "issuer": jwks_server.issuer})
    for algorithm in ("ES256", "RS256"):
        with daemon.client(None, token=jwks_server.make_token(alg=algorithm)) as http:
            assert http.get("/mail/accounts").status_code == 200
    for token in (make_token("me"), jwks_server.make_token(alg="HS256"), jwks_server.make_token(role="anon")):
        with daemon.client(None, token=token) as http:
            assert http.get("/mail/accounts").status_code == 401


def test_the_operators_listener(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    live = httpx.get(f"{daemon.operations}/health/live").json()
    assert live["status"] == "live"
    ready = httpx.get(f"{daemon.operations}/health/ready").json()
    assert (ready["status"], ready["database"], ready["schema"]) == ("ready", "up", "current")
    assert "accountsd_database_up 1.0" in daemon.metrics()
    for path in ("/metrics", "/health/ready", "/health/live"):
        assert httpx.get(f"{daemon.api}{path}").status_code == 404, "never on the public listener"


def test_without_its_database_it_waits(
    start_daemon: StartDaemon, private_server: Server, mail: MailServers, new_user: str
) -> None:
    private_server.stop()
    daemon = start_daemon(*mail.ports, launch=False, storage={"dsn": private_server.dsn})
    daemon.launch()
    out = daemon.home / "out"
    eventually(lambda: "API" in out.read_text())
    api, operations = (line.split()[-1].rsplit("/", 1)[0] for line in out.read_text().splitlines()[1:3])
    answer = httpx.get(f"{operations}/health/ready")
    assert (answer.status_code, answer.json()["database"]) == (503, "away")
    assert httpx.get(f"{operations}/health/live").status_code == 200
    cookies = {"sb-access-token": make_token(new_user, secret=SECRET)}
    with httpx.Client(base_url=api.removesuffix("/mail"), cookies=cookies, timeout=30) as http:
        refused = http.get("/mail/accounts")
    assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
    assert int(refused.headers["Retry-After"]) == refused.json()["retryAfter"]
    private_server.start()
    daemon.wait_ready()
    with daemon.client(new_user) as http:
        account_id = connect(http, mail.mailbox(new_user))
        daemon.wait_synced(http, account_id)
        private_server.stop(signal.SIGQUIT)
        assert httpx.get(f"{daemon.operations}/health/live").status_code == 200
        time.sleep(0.5)
        private_server.start()
        eventually(lambda: httpx.get(f"{daemon.operations}/health/ready").status_code == 200)
        daemon.wait_synced(http, account_id)
    assert daemon.stop() == 0


def test_a_newer_schema_is_refused(start_daemon: StartDaemon, database_dsn: str) -> None:
    with psycopg.connect(database_dsn, autocommit=True) as conn:
        conn.execute("INSERT INTO schema_migrations (version, name, checksum) VALUES (9999, 'later', 'x')")
    daemon = start_daemon(launch=False)
    daemon.launch()
    assert daemon.wait() == 1
    last = (daemon.home / "log").read_text().splitlines()[-1]
    assert last.startswith("accountsd: ")
    assert "9999" in last
