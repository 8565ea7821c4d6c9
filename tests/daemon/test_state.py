"""The state directory: made once, whole, and readable by nobody else."""

import os
import stat
from pathlib import Path
from uuid import UUID

import pytest

from daemon.fleet.node import NoNodeIdentity, node_identity
from daemon.settings import Settings, SettingsError, load
from daemon.state import LEAST_SECRET, MAX_SECRET, key_file, prepare


def settings(directory: Path, **environ: str) -> Settings:
    return load(None, {"ACCOUNTSD_STORAGE__DIRECTORY": str(directory)} | environ)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_missing_is_made_and_found_again(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "state"
    previous = os.umask(0)
    try:
        first = prepare(settings(home))
    finally:
        os.umask(previous)
    assert {each.name: mode(each) for each in home.iterdir()} == {"vault-keys": 0o600, "session-secret": 0o600}
    assert mode(home) == 0o711
    assert first.session_secret is not None
    assert len(first.session_secret.reveal()) >= LEAST_SECRET
    keys = first.key_file.read_bytes()
    again = prepare(settings(home))
    assert again.session_secret == first.session_secret
    assert again.database == home / "postgresql"
    assert key_file(again)
    assert again.key_file.read_bytes() == keys


def test_the_first_of_two_daemons_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one made its files between our look and our writing: theirs hold, and nothing of ours is left."""
    home = tmp_path / "state"
    theirs = prepare(settings(home))
    keys = theirs.key_file.read_bytes()
    monkeypatch.setattr(Path, "exists", lambda self: False)
    ours = prepare(settings(home))
    assert ours.session_secret == theirs.session_secret
    assert sorted(each.name for each in home.iterdir()) == ["session-secret", "vault-keys"]
    assert ours.key_file.read_bytes() == keys


@pytest.mark.parametrize("content", [b"", b"short", b"x" * (MAX_SECRET + 1), b"\xff" * 40, b" " * 64])
def test_a_secret_file_of_the_wrong_size(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "secret"
    file.touch(0o600)
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"auth\.secret_file") as caught:
        prepare(settings(tmp_path / "state", ACCOUNTSD_AUTH__SECRET_FILE=str(file)))
    assert str(file) in str(caught.value)


def test_a_secret_that_is_given_is_used(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.touch(0o600)
    file.write_text("s" * LEAST_SECRET + "\n")
    state = prepare(settings(tmp_path / "state", ACCOUNTSD_AUTH__SECRET_FILE=str(file)))
    assert state.session_secret is not None
    assert state.session_secret.reveal() == "s" * LEAST_SECRET
    given = prepare(settings(tmp_path / "state", ACCOUNTSD_AUTH__SECRET="t" * LEAST_SECRET))
    assert given.session_secret is not None
    assert given.session_secret.reveal() == "t" * LEAST_SECRET
    assert not (tmp_path / "state" / "session-secret").exists()


def test_with_an_issuer_there_is_no_secret(tmp_path: Path) -> None:
    environ = {"ACCOUNTSD_AUTH__MODE": "jwks", "ACCOUNTSD_AUTH__ISSUER": "https://x.test"}
    assert prepare(settings(tmp_path, **environ)).session_secret is None
    assert not (tmp_path / "session-secret").exists()


def test_looking_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        prepare(settings(tmp_path / "state"), create=False)
    assert not (tmp_path / "state").exists()


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(SettingsError, match="cannot be used"):
        prepare(settings(file / "state"))


def test_a_key_file_that_others_can_read(tmp_path: Path) -> None:
    state = prepare(settings(tmp_path))
    state.key_file.chmod(0o644)
    with pytest.raises(SettingsError, match=r"vault\.key_file.*(others|chmod|mode)"):
        key_file(state)
    state.key_file.chmod(0o600)
    state.key_file.write_text("2026 not-a-key\n")
    with pytest.raises(SettingsError, match="line 1") as caught:
        key_file(state)
    assert "not-a-key" not in str(caught.value)


def test_a_nodes_identity_outlives_its_process(tmp_path: Path) -> None:
    with node_identity(tmp_path) as first:
        with node_identity(tmp_path) as second:
            assert first != second
        assert mode(tmp_path / "node-0") == 0o600
    with node_identity(tmp_path) as again:
        assert again == first
    (tmp_path / "node-0").write_text("nonsense")
    with node_identity(tmp_path) as fresh:
        assert fresh not in {first, second}
        assert UUID((tmp_path / "node-0").read_text().strip()) == fresh


def test_nowhere_to_keep_an_identity(tmp_path: Path) -> None:
    with pytest.raises(NoNodeIdentity, match="cannot hold"), node_identity(tmp_path / "nowhere"):
        pass


def test_a_secret_that_others_can_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_text("s" * LEAST_SECRET)
    given = settings(tmp_path / "state", ACCOUNTSD_AUTH__SECRET_FILE=str(file))
    for wrong in (0o640, 0o604):
        file.chmod(wrong)
        with pytest.raises(SettingsError, match=r"auth\.secret_file.*others can read it"):
            prepare(given)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert prepare(given).session_secret is not None


def test_a_secret_that_is_no_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for place, words in ((pipe, "regular"), (tmp_path, "directory"), (tmp_path / "none", "No such")):
        with pytest.raises(SettingsError, match=words):
            prepare(settings(tmp_path / "state", ACCOUNTSD_AUTH__SECRET_FILE=str(place)))
