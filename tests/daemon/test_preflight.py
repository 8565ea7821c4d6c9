"""What the settings name is tried before anything starts."""

import socket
from pathlib import Path

import pytest

from daemon.preflight import check, collide
from daemon.settings import SettingsError, load

FREE = {"ACCOUNTSD_API__BIND": "127.0.0.1:0", "ACCOUNTSD_OPERATIONS__BIND": "127.0.0.1:0"}


def test_what_can_be_used_passes() -> None:
    check(load(None, FREE))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("[::1]:80", "[::]:80", True),
        ("[::1]:80", "[0:0:0:0:0:0:0:1]:80", True),
        ("127.0.0.1:80", "127.0.0.1:81", False),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("0.0.0.0:80", "[::]:80", False),
        ("0.0.0.0:0", "0.0.0.0:0", False),
    ],
)
def test_addresses_collide(one: str, other: str, expected: bool) -> None:
    assert collide(one, other) is collide(other, one) is expected


def test_two_listeners_at_one_address() -> None:
    settings = load(None, {"ACCOUNTSD_API__BIND": "0.0.0.0:9", "ACCOUNTSD_OPERATIONS__BIND": "127.0.0.1:9"})
    with pytest.raises(SettingsError, match=r"api\.bind = '0.0.0.0:9' and operations\.bind = '127.0.0.1:9'"):
        check(settings)


@pytest.mark.parametrize("key", ["api.bind", "operations.bind"])
def test_an_address_in_use(key: str) -> None:
    name = "ACCOUNTSD_" + key.upper().replace(".", "__")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SettingsError, match=f"{key} = '{bind}' cannot be used"):
            check(load(None, FREE | {name: bind}))


def test_an_address_of_another_machine() -> None:
    with pytest.raises(SettingsError, match="cannot be used"):
        check(load(None, FREE | {"ACCOUNTSD_API__BIND": "192.0.2.1:0"}))


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_authorities_that_are_none(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsError, match=r"network\.ca_file") as caught:
        check(load(None, FREE | {"ACCOUNTSD_NETWORK__CA_FILE": str(file)}))
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("dsn", "words"),
    [
        ("hunter2", "no connection string"),
        ("host=h port=hunter2", "port"),
        ("postgresql://u:hunter2@h:0/d", "port"),
        ("postgresql://u:hunter2@h:66000/d", "port"),
        ("host=h port=1,hunter2", "port"),
        ("host=a,b,c port=1,2", "number of ports"),
        ("host=h connect_timeout=hunter2", "connect_timeout"),
    ],
)
def test_connection_strings_that_never_connect(dsn: str, words: str) -> None:
    with pytest.raises(SettingsError, match=rf"storage\.dsn = \*\*\* is wrong: .*{words}") as caught:
        check(load(None, FREE | {"ACCOUNTSD_STORAGE__DSN": dsn}))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "dsn", ["host=a,b port=1,2", "host=a,b port=1", "host=/run", "postgresql://u:p@[::1]:5432/d", "host=a port="]
)
def test_connection_strings_that_may_connect(dsn: str) -> None:
    check(load(None, FREE | {"ACCOUNTSD_STORAGE__DSN": dsn}))
