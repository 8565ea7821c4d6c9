"""Settings that no file should hold: told in one short sentence, without a word of what is secret."""

import os
from pathlib import Path
from typing import Any

import pytest

from daemon.settings import SettingsError, load
from tests.fix_daemon import toml

LONG = "a-secret-of-enough-bytes-0123456789"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path / "nowhere.toml", {})
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path, {})
    file = tmp_path / "settings.toml"
    for data, words in ((b"a = [", "not TOML"), (b"\xff", "not UTF-8"), (b"#" * (2 << 20), "larger"),
                        (b"api = 3", "api"), (b"[nowhere]\nx = 1", "nowhere")):  # fmt: skip
        file.write_bytes(data)
        with pytest.raises(SettingsError, match=words):
            load(file, {})


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (Path("/dev/zero"), pipe, tmp_path):
        with pytest.raises(SettingsError, match="cannot be read"):
            load(path, {})
    with pytest.raises(SettingsError, match="NUL"):
        load(Path("a\0b"), {})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('[storage]\ndirectory = "a\\u0000b"', "storage.directory.*NUL"),
        ('[auth]\nsecret_file = "a\\u0000b"', "auth.secret_file.*NUL"),
        ('[network]\nallow = "' + "[" * 100_000 + '"', "network.allow.*must be a list"),
        ("[network]\nallow = " + "[" * 100_000, "nested too deeply"),
        ("[sync]\nwindow = 0x" + "f" * 6000, "sync.window"),
        ("[sync]\nwindow = " + "9" * 6000, "not TOML"),
        ("[api.bind" + ".a" * 5000 + "]", "api.bind"),
    ],
)
def test_hostile_files_are_one_sentence(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(content)
    with pytest.raises(SettingsError, match=words) as caught:
        load(file, {})
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "values", "needed"),
    [
        ("auth", {"secret": "hunter2"}, "auth.secret"),
        ("auth", {"secret": ["hunter2"]}, "auth.secret"),
        ("storage", {"dsn": ["hunter2"]}, "storage.dsn"),
        ("auth", {"secret": LONG + "hunter2", "mode": "jwks"}, "auth.issuer"),
        ("auth", {"secret": LONG + "hunter2", "origins": ["nowhere"]}, "auth.origins"),
        ("auth", {"secret": LONG + "hunter2", "colour": 1}, "auth.colour"),
    ],
)
def test_a_secret_is_never_shown(tmp_path: Path, section: str, values: dict[str, Any], needed: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(toml({section: values}))
    with pytest.raises(SettingsError, match=needed.replace(".", r"\.")) as caught:
        load(file, {})
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value.__context__ if caught.value.__suppress_context__ is False else "")
    assert LONG not in str(caught.value)


def test_settings_print_no_secrets() -> None:
    settings = load(None, {"ACCOUNTSD_AUTH__SECRET": LONG, "ACCOUNTSD_STORAGE__DSN": "password=hunter2"})
    assert LONG not in repr(settings)
    assert "hunter2" not in f"{settings} {settings.model_dump()!r}"


@pytest.mark.parametrize("section", ["storage", "auth", "sync", "plans"])
def test_a_section_that_is_none_is_told_without_its_value(tmp_path: Path, section: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f'{section} = "postgresql://u:hunter2@h/d"')
    with pytest.raises(SettingsError) as caught:
        load(file, {})
    assert str(caught.value) == f"the setting {section} is wrong: it must be a section"


@pytest.mark.parametrize("url", ["https://u:hunter2@x.test:port/", "https://u:hun/ter2@hunter2@:1/", "u:hunter2@x.y"])
def test_a_password_in_a_url_is_masked(url: str) -> None:
    for key in ("ACCOUNTSD_AUTH__JWKS_URL", "ACCOUNTSD_AUTH__ORIGINS"):
        with pytest.raises(SettingsError, match=r"\*\*\*@") as caught:
            load(None, {key: url + "x" * 300})
        assert "ter2" not in str(caught.value)
