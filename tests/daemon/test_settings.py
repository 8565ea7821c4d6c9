"""Every setting by file and by environment; wrong ones in one sentence that names key and value, never a secret."""

import json
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, SecretStr

from daemon.settings import PREFIX, Settings, SettingsError, load, state_directory
from daemon.settings_values import split_bind
from tests.fix_daemon import toml

LONG = "a-secret-of-enough-bytes-0123456789"

VALUES: dict[str, tuple[Any, Any]] = {
    "api.bind": ("[::1]:9000", "[::1]:9000"),
    "api.trusted_proxies": (["10.0.0.0/8", "::1"], (ip_network("10.0.0.0/8"), ip_network("::1/128"))),
    "api.max_body": (2048, 2048),
    "api.handler_timeout": (10.5, 10.5),
    "api.max_requests": (3, 3),
    "operations.bind": ("0.0.0.0:0", "0.0.0.0:0"),
    "storage.dsn": ("host=/run dbname=x", SecretStr("host=/run dbname=x")),
    "storage.directory": ("/var/lib/x", Path("/var/lib/x")),
    "storage.connections": (3, 3),
    "auth.mode": ("hs256", "hs256"),
    "auth.secret": (LONG, SecretStr(LONG)),
    "auth.secret_file": ("/etc/secret", Path("/etc/secret")),
    "auth.issuer": ("https://x.test/auth/v1", "https://x.test/auth/v1"),
    "auth.jwks_url": ("https://x.test/keys", "https://x.test/keys"),
    "auth.origins": (["https://a.test", "http://b.test:3000"], ("https://a.test", "http://b.test:3000")),
    "auth.default_plan": ("pro", "pro"),
    "vault.key_file": ("/etc/keys", Path("/etc/keys")),
    "network.allow": (["127.0.0.0/8"], (ip_network("127.0.0.0/8"),)),
    "network.ports": ([143, 993], frozenset({143, 993})),
    "network.ca_file": ("/etc/ca.pem", Path("/etc/ca.pem")),
    "network.nameservers": (["192.0.2.1", "[::1]:5353", "192.0.2.1:53"], ("192.0.2.1", "[::1]:5353", "192.0.2.1:53")),
    "fleet.claim_ttl": (5.0, 5.0),
    "fleet.max_accounts": (7, 7),
    "fleet.starting": (7, 7),
    "fleet.starting_per_host": (7, 7),
    "fleet.first_syncs": (7, 7),
    "sync.window": (7, 7),
    "sync.max_body": (2048, 2048),
    "sync.idle_renewal": (60.0, 60.0),
    "sync.poll": (60.0, 60.0),
    "sync.retry_first": (1.5, 1.5),
    "sync.retry_longest": (90.0, 90.0),
    "rates.connects": (7, 7),
    "rates.connects_per_host": (7, 7),
    "rates.connects_per_mailbox": (7, 7),
    "rates.connects_per_mailbox_of_all": (7, 7),
    "rates.changes": (7, 7),
    "rates.invitations": (7, 7),
    "audit.keep_days": (7, 7),
    "logs.level": ("debug", "debug"),
    "logs.format": ("json", "json"),
    "plans.pro.accounts": (12, 12),
}


def keys() -> Iterator[str]:
    for section, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from (f"{section}.{key}" for key in kind.model_fields)
        else:
            (inner,) = [each for each in get_args(kind) if isinstance(each, type) and issubclass(each, BaseModel)]
            yield from (f"{section}.pro.{key}" for key in inner.model_fields)


def value_of(settings: Settings, key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


def in_file(tmp_path: Path, key: str, value: Any) -> Path:
    section, _, name = key.rpartition(".")
    file = tmp_path / "settings.toml"
    also: dict[str, dict[str, Any]] = {"plans.free": {"accounts": 1}} if section.startswith("plans.") else {}
    file.write_text(toml({section: {name: value}} | also))
    return file


def variable(key: str) -> str:
    return PREFIX + key.upper().replace(".", "__")


def text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def test_every_key_is_tried_here() -> None:
    assert set(keys()) == set(VALUES)


@pytest.mark.parametrize("key", VALUES)
def test_every_key_in_a_file_and_in_the_environment(tmp_path: Path, key: str) -> None:
    given, expected = VALUES[key]
    assert value_of(load(in_file(tmp_path, key, given), {}), key) == expected
    also = {"ACCOUNTSD_PLANS__FREE__ACCOUNTS": "1"} if key.startswith("plans.") else {}
    assert value_of(load(None, {variable(key): text(given)} | also), key) == expected
    if isinstance(given, list):
        assert value_of(load(None, {variable(key): json.dumps(given)}), key) == expected


@pytest.mark.parametrize(
    ("bind", "parts"),
    [("127.0.0.1:8025", ("127.0.0.1", 8025)), ("[::1]:0", ("::1", 0)), ("::1:65535", ("::1", 65535))],
)
def test_a_bind_that_was_let_pass_has_an_address_and_a_port(bind: str, parts: tuple[str, int]) -> None:
    assert split_bind(Settings.model_validate({"api": {"bind": bind}}).api.bind) == parts


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = in_file(tmp_path, "sync.window", 3)
    assert load(file, {"ACCOUNTSD_SYNC__WINDOW": "4"}).sync.window == 4


def test_nothing_given_is_usable() -> None:
    settings = load(None, {"PATH": "/bin", "ACCOUNTSDX": "not ours"})
    assert (settings.api.bind, settings.operations.bind) == ("127.0.0.1:8025", "127.0.0.1:8026")
    assert settings.storage.dsn.get_secret_value() == ""
    assert settings.plans == {}
    assert settings.network.allow == ()


WRONG = [
    ("api.bind", "8025", "8025"),
    ("api.bind", "localhost:8025", "localhost:8025"),
    ("api.bind", "127.0.0.1:65536", "127.0.0.1:65536"),
    ("api.trusted_proxies", ["10.0.0.1/8"], "10.0.0.1/8"),
    ("api.max_body", 1, "1"),
    ("api.handler_timeout", 0, "0"),
    ("storage.connections", 1, "1"),
    ("auth.mode", "both", "both"),
    ("auth.origins", ["app.example.com"], "app.example.com"),
    ("auth.origins", ["https://a.test/path"], "https://a.test/path"),
    ("auth.default_plan", "No Slug", "No Slug"),
    ("network.allow", ["everything"], "everything"),
    ("network.ports", [0], "0"),
    ("network.ports", [65536], "65536"),
    ("network.nameservers", ["dns.example.com"], "dns.example.com"),
    ("network.nameservers", ["192.0.2.1:0"], "192.0.2.1:0"),
    ("auth.origins", ["https://a b.test"], "a b.test"),
    ("auth.origins", ["https://a.test?x"], "a.test?x"),
    ("auth.origins", ["https://a.test#x"], "a.test#x"),
    ("auth.origins", ["https://a.test:99999"], "99999"),
    ("auth.origins", ["https://*.a.test"], "*.a.test"),
    ("auth.jwks_url", "https:///keys", "https:///keys"),
    ("auth.jwks_url", "ftp://a.test/keys", "ftp://a.test/keys"),
    ("auth.jwks_url", "https://a.test:port/keys", "a.test:port"),
    ("auth.jwks_url", "https://a.test:0/keys", "a.test:0"),
    ("auth.jwks_url", "https://a.test/my keys", "my keys"),
    ("storage.directory", "", "empty"),
    ("network.ca_file", "", "empty"),
    ("vault.key_file", "~no-such-user-here/keys", "~no-such-user-here"),
    ("api.bind", "127.0.0.1:" + "9" * 5000, "address:port"),
    ("sync.poll", "nan", "nan"),
    ("fleet.claim_ttl", 1, "1"),
    ("fleet.max_accounts", 0, "0"),
    ("sync.idle_renewal", 1800, "1800"),
    ("sync.window", "many", "many"),
    ("logs.level", "loud", "loud"),
    ("plans.pro.accounts", -1, "-1"),
]


@pytest.mark.parametrize(("key", "value", "shown"), WRONG)
def test_a_wrong_value_is_one_sentence_with_key_and_value(
    tmp_path: Path, key: str, value: Any, shown: str
) -> None:
    for attempt in ((in_file(tmp_path, key, value), {}), (None, {variable(key): text(value)})):
        with pytest.raises(SettingsError) as caught:
            load(*attempt)
        sentence = str(caught.value)
        assert "\n" not in sentence
        assert key in sentence
        assert shown in sentence


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ACCOUNTSD_", "not a setting"),
        ("ACCOUNTSD_API", "not a setting"),
        ("ACCOUNTSD_API__", "not a setting"),
        ("ACCOUNTSD_NOWHERE__KEY", "not a setting"),
        ("ACCOUNTSD_API__BIND__DEEP__ER", "not a setting"),
        ("ACCOUNTSD_API__SPEED", "api.speed is unknown"),
    ],
)
def test_a_misspelt_variable_is_told(name: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load(None, {name: "1"})


def test_credentials_of_the_unit_fill_what_is_open(tmp_path: Path) -> None:
    for name, content in (("auth-secret", LONG), ("vault-keys", "k"), ("storage-dsn", "dbname=unit\n")):
        (tmp_path / name).write_text(content)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    settings = load(None, environ)
    assert settings.auth.secret_file == tmp_path / "auth-secret"
    assert settings.vault.key_file == tmp_path / "vault-keys"
    assert settings.storage.dsn.get_secret_value() == "dbname=unit"
    settings = load(None, environ | {"ACCOUNTSD_STORAGE__DSN": "dbname=env"})
    assert settings.storage.dsn.get_secret_value() == "dbname=env"


def test_where_state_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = load(None, {"ACCOUNTSD_STORAGE__DIRECTORY": "/srv/x"})
    assert state_directory(given, {"STATE_DIRECTORY": "/unit"}) == Path("/srv/x")
    nothing = load(None, {})
    assert state_directory(nothing, {"STATE_DIRECTORY": "/unit:/other"}) == Path("/unit")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert state_directory(nothing, {}) == Path("/var/lib/accountsd")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert state_directory(nothing, {"XDG_STATE_HOME": "/xdg"}) == Path("/xdg/accountsd")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert state_directory(nothing, {}) == tmp_path / ".local/state/accountsd"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"plans.pro": {"accounts": 1}}, "auth.default_plan must be one of the plans.*plans.free.*not given"),
        ({"plans.pro": {"accounts": 1}, "auth": {"default_plan": "gold"}}, "auth.default_plan.*plans.gold.*'gold'"),
        ({"sync": {"retry_first": 30, "retry_longest": 20}}, "sync.retry_first.*retry_longest.*20 s.*value: 30"),
        ({"auth": {"secret": LONG, "secret_file": "/x"}}, r"auth.secret .*drop auth.secret .*value: \*\*\*"),
        ({"auth": {"mode": "jwks", "issuer": "x.test"}}, "auth.issuer must be an http"),
        ({"auth": {"mode": "jwks", "issuer": "https://x.test?a"}}, "auth.issuer must be an http"),
    ],
)
def test_settings_that_contradict_each_other(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(toml(values))
    with pytest.raises(SettingsError, match=words):
        load(file, {})


def test_an_issuer_of_any_form_where_the_keys_are_named() -> None:
    settings = load(None, {
        "ACCOUNTSD_AUTH__MODE": "jwks", "ACCOUNTSD_AUTH__ISSUER": "ours",
        "ACCOUNTSD_AUTH__JWKS_URL": "http://[::1]:8000/keys",
    })  # fmt: skip
    assert settings.auth.issuer == "ours"


def test_a_credential_gives_way_to_a_secret_in_the_settings(tmp_path: Path) -> None:
    (tmp_path / "auth-secret").write_text(LONG)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), "ACCOUNTSD_AUTH__SECRET": LONG}
    assert load(None, environ).auth.secret_file is None


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("network.allow", ["1.2.3.4/8"], "the setting network.allow = ['1.2.3.4/8'] is wrong: must hold networks such"),
        ("network.nameservers", ["x"], "the setting network.nameservers = ['x'] is wrong: must hold addresses such"),
        ("network.ports", [0], "the setting network.ports = [0] is wrong: must be greater than or equal to 1"),
        ("sync.window", "many", "the setting sync.window = 'many' is wrong: must be a whole number"),
        ("plans.No", 3, "the setting plans.No = 3 is wrong: must"),
    ],
)
def test_the_words_are_for_a_person(tmp_path: Path, key: str, value: Any, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(in_file(tmp_path, key, value), {})
    assert str(caught.value).startswith(said)


def test_a_home_is_found_or_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert load(None, {"ACCOUNTSD_VAULT__KEY_FILE": "~/keys"}).vault.key_file == Path("/home/somebody/keys")

    def nowhere() -> Path:
        raise RuntimeError

    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(SettingsError, match=r"storage\.directory is missing"):
        state_directory(load(None, {}), {})
