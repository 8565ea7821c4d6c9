"""accountsctl: tokens that the daemon's own verifier accepts, and a doctor that finds what we broke."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner, Result

from control_api.tokens import verifier_from
from daemon.settings import Settings, load
from daemon.state import prepare
from daemon.vault.secret import Secret
from ops import doctor, doctor_database
from ops.__main__ import main
from ops.cli_token import NoToken, make_token, user_id
from ops.doctor import Finding
from tests.fix_daemon import DaemonProcess, MailServers, StartDaemon, connect

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory as the daemon makes it, named by the environment."""
    for name in [name for name in os.environ if name.startswith("ACCOUNTSD_") or name == "CREDENTIALS_DIRECTORY"]:
        monkeypatch.delenv(name)
    state = tmp_path / "state"
    monkeypatch.setenv("ACCOUNTSD_STORAGE__DIRECTORY", str(state))
    monkeypatch.setenv("ACCOUNTSD_API__BIND", "127.0.0.1:0")
    monkeypatch.setenv("ACCOUNTSD_OPERATIONS__BIND", "127.0.0.1:0")
    prepare(load(None))
    return state


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def token_of(output: str) -> str:
    name, _, token = output.strip().partition("=")
    assert name == "sb-access-token"
    return token


# -- token -------------------------------------------------------------------------------------------------------------


async def test_the_daemon_accepts_the_token(here: Path) -> None:
    result = run("token", "--email", "You@Example.com", "--plan", "pro")
    assert result.exit_code == 0, result.output
    settings = load(None)
    verifier = verifier_from(settings, prepare(settings, create=False).session_secret)
    user = await verifier.verify(token_of(result.output))
    assert (user.email, user.plan, user.id) == ("You@Example.com", "pro", user_id("you@example.com"))


async def test_a_token_without_a_plan_has_the_default_one(here: Path) -> None:
    settings = load(None)
    secret = prepare(settings, create=False).session_secret
    user = await verifier_from(settings, secret).verify(make_token(settings, secret, "a@example.com", sub="me"))
    assert (user.plan, user.id) == (settings.auth.default_plan, "me")


def test_a_second_token_is_the_same_user() -> None:
    assert user_id("you@example.com") == user_id(" YOU@example.com ") != user_id("other@example.com")


@pytest.mark.parametrize(("arguments", "told"), [
    (["--email", "nobody"], "not an email address"),
    (["--email", "a@b", "--hours", "0"], "hours"),
    (["--email", "a@b", "--hours", "1e9"], "hours"),
    (["--email", "a@b", "--hours", "nan"], "hours"),
    (["--email", "a@b", "--plan", "Not A Slug"], "slug"),
    (["--email", "a@b", "--sub", ""], "user id"),
    (["--email", "a@b", "--sub", "x" * 256], "user id"),
])
def test_what_the_daemon_would_refuse_is_refused_here(here: Path, arguments: list[str], told: str) -> None:
    result = run("token", *arguments)
    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_in_mode_jwks_there_is_no_token(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCOUNTSD_AUTH__MODE", "jwks")
    monkeypatch.setenv("ACCOUNTSD_AUTH__ISSUER", "https://issuer.example.com")
    result = run("token", "--email", "you@example.com")
    assert result.exit_code == 2
    assert "sessions come from the issuer" in result.stderr
    with pytest.raises(NoToken):
        make_token(load(None), Secret("x" * 40), "you@example.com")


def test_nothing_is_made_where_no_daemon_ever_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCOUNTSD_STORAGE__DIRECTORY", str(tmp_path / "nowhere"))
    result = run("token", "--email", "you@example.com")
    assert result.exit_code == 2
    assert "session-secret" in result.stderr
    assert not (tmp_path / "nowhere").exists()


def test_a_wrong_setting_is_one_sentence(here: Path, tmp_path: Path) -> None:
    config = tmp_path / "wrong.toml"
    config.write_text("[sync]\nwindow = 'many'\n")
    result = run("token", "--email", "you@example.com", "--config", str(config))
    assert result.exit_code == 2
    assert "sync.window" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("arguments", [["token"], ["diagram", "cats"], ["cure"], ["doctor", "--config", "/"]])
def test_wrong_usage_is_code_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_a_diagram_is_printed() -> None:
    assert run("diagram", "states").output.startswith("```mermaid\nstateDiagram-v2")


def test_a_document_without_a_place_for_the_picture_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "x.md"
    document.write_text("nothing\n")
    result = run("diagram", "house", "--into", str(document))
    assert result.exit_code == 1
    assert document.read_text() == "nothing\n"


# -- doctor ------------------------------------------------------------------------------------------------------------


def marks(findings: list[Finding], word: str) -> set[str]:
    found = {finding.mark for finding in findings if word in finding.what}
    assert found, f"nothing was said of {word!r}: {findings}"
    return found


def examine(config: Path | None = None) -> list[Finding]:
    async def collect() -> list[Finding]:
        return [finding async for finding in doctor.examine(config)]

    return trio.run(collect)


@pytest.fixture
def daemon(start_daemon: StartDaemon, mail: MailServers) -> DaemonProcess:
    started = start_daemon(*mail.ports)
    # Where it listens was the kernel's choice; the doctor reads the settings that a person would have written.
    settings = started.settings | {
        "api": {"bind": started.api.removeprefix("http://")},
        "operations": {"bind": started.operations.removeprefix("http://")},
    }
    lines = []
    for section, values in settings.items():
        lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    (started.home / "person.toml").write_text("\n".join(lines))
    return started


def test_a_running_daemon_is_well(daemon: DaemonProcess, mail: MailServers, new_user: str) -> None:
    with daemon.client(new_user) as http:
        daemon.wait_synced(http, connect(http, mail.mailbox(new_user)))
    findings = examine(daemon.home / "person.toml")
    # Whether this machine reaches a DNS is not the daemon's health.
    assert [each for each in findings if each.mark == "wrong" and "resolve" not in each.what] == []
    for word in ("import names", "settings are readable", "state directory", "key ring", "GiB free", "api.bind",
                 "operations.bind", "clocks", "schema is at version", "1 of 1 known nodes", "1 watching"):  # fmt: skip
        assert marks(findings, word) == {"ok"}
    assert daemon.stop() == 0


def test_a_parked_account_is_named_with_its_reason(
    daemon: DaemonProcess, mail: MailServers, new_user: str
) -> None:
    with daemon.client(new_user) as http:
        account = connect(http, mail.mailbox(new_user))
        daemon.wait_synced(http, account)
        daemon.query(
            "UPDATE accounts SET state = 'parked', state_code = 'auth_failed', state_reason = %s WHERE id = %s"
            " RETURNING id", "The server refused the password.", account)  # fmt: skip
    findings = examine(daemon.home / "person.toml")
    (told,) = [finding for finding in findings if account in finding.what]
    assert told.mark == "wrong"
    assert new_user in told.what
    assert "The server refused the password." in told.what
    assert "connect it again" in told.remedy
    assert daemon.stop() == 0


def test_a_schema_of_a_newer_version_is_told(daemon: DaemonProcess) -> None:
    daemon.query(
        "INSERT INTO schema_migrations SELECT max(version) + 1, 'later', 'x' FROM schema_migrations RETURNING version")
    findings = examine(daemon.home / "person.toml")
    assert marks(findings, "the schema does not fit") == {"wrong"}
    assert daemon.stop() == 0


def test_a_daemon_that_does_not_run_is_told(here: Path, monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    monkeypatch.setenv("ACCOUNTSD_API__BIND", f"127.0.0.1:{closed_port}")
    findings = examine()
    assert marks(findings, "api.bind") == {"wrong"}
    assert marks(findings, "embedded database") == {"note"}
    assert marks(findings, "operations.bind") == {"note"}


@pytest.mark.parametrize(
    ("bind", "knocks_at"),
    [
        ("127.0.0.1:8025", "127.0.0.1:8025"), ("0.0.0.0:8025", "127.0.0.1:8025"), ("[::1]:8025", "[::1]:8025"),
        ("[::]:8025", "[::1]:8025"), (":::8025", "[::1]:8025"), ("::1:8025", "[::1]:8025"),
    ],
)  # fmt: skip
def test_every_address_that_may_be_bound_is_looked_at(bind: str, knocks_at: str) -> None:
    assert doctor._reachable(Settings.model_validate({"api": {"bind": bind}}).api.bind) == knocks_at


def test_secrets_that_others_can_read_are_wrong(here: Path) -> None:
    assert marks(examine(), "session secret") == {"ok"}
    (here / "session-secret").chmod(0o644)
    (here / "vault-keys").chmod(0o640)
    here.chmod(0o777)
    findings = examine()
    assert marks(findings, "session secret") == {"wrong"}
    assert marks(findings, "vault.key_file") == {"wrong"}
    assert marks(findings, "state directory") == {"wrong"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look at another user's set-up")
def test_root_judges_a_set_up_as_the_user_it_belongs_to(here: Path) -> None:
    for path in (here, *here.iterdir()):
        os.chown(path, 65534, 65534)
    for directory in here.parents:
        if directory.is_relative_to("/tmp") and directory != Path("/tmp"):
            directory.chmod(directory.stat().st_mode | 0o011)
    assert marks(examine(), "key ring") == {"ok"}
    os.chown(here / "vault-keys", 1, 1)
    assert marks(examine(), "vault.key_file") == {"wrong"}
    assert os.geteuid() == 0


def test_a_database_that_does_not_answer_is_told_without_its_password(
    here: Path, monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    monkeypatch.setenv("ACCOUNTSD_STORAGE__DSN", f"host=127.0.0.1 port={closed_port} user=x password=Swordfish-77")
    findings = examine()
    assert marks(findings, "configured database") == {"wrong"}
    assert "Swordfish" not in repr(findings)
    monkeypatch.setenv("ACCOUNTSD_STORAGE__DSN", "Swordfish-77 is no connection string")
    findings = examine()
    assert marks(findings, "no connection string") == {"wrong"}
    assert "Swordfish" not in repr(findings)


def test_a_full_disk_and_wrong_authorities_are_told(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "DISK_WRONG", 1 << 62)
    monkeypatch.setenv("ACCOUNTSD_NETWORK__CA_FILE", str(here / "session-secret"))
    findings = examine()
    assert marks(findings, "GiB free") == {"wrong"}
    assert marks(findings, "network.ca_file") == {"wrong"}


def test_wrong_settings_end_the_examination(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCOUNTSD_SYNC__WINDOW", "many")
    result = run("doctor")
    assert result.exit_code == 1
    assert "sync.window" in result.output
    assert "1 thing is wrong" in result.stderr


def test_the_embedded_database_of_a_running_daemon_is_looked_into(tmp_path: Path) -> None:
    """As an operator does it: the command in a process of its own, beside a daemon with its own database."""
    daemon = DaemonProcess(tmp_path, {"auth": {}})
    daemon.settings["auth"] = {}
    try:
        for directory in (tmp_path, *tmp_path.parents):     # the server's own user must be able to pass
            if directory.is_relative_to("/tmp") and directory != Path("/tmp") and os.geteuid() == 0:
                directory.chmod(directory.stat().st_mode | 0o011)
        daemon.start()
        config = tmp_path / "person.toml"
        config.write_text(
            f'[api]\nbind = "{daemon.api.removeprefix("http://")}"\n[storage]\ndirectory = "{tmp_path / "state"}"\n'
            f'[operations]\nbind = "{daemon.operations.removeprefix("http://")}"\n')
        answer = subprocess.run(
            [sys.executable, "-P", "-m", "ops", "doctor", "--config", str(config)],
            cwd=ROOT, capture_output=True, text=True, timeout=60, env={"PATH": os.environ["PATH"], "HOME": "/nowhere"},
        )
        assert "the embedded database is PostgreSQL 18" in answer.stdout
        assert "the schema is at version" in answer.stdout
        assert daemon.stop() == 0
    finally:
        daemon.close()


def test_a_foreign_clock_is_told(monkeypatch: pytest.MonkeyPatch, daemon: DaemonProcess) -> None:
    real = time.time
    monkeypatch.setattr(doctor_database.time, "time", lambda: real() - 3600)
    assert marks(examine(daemon.home / "person.toml"), "the database's clock") == {"wrong"}
    monkeypatch.undo()
    assert daemon.stop() == 0
