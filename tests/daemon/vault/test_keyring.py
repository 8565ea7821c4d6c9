import base64
import copy
import os
import pickle
import stat
from datetime import UTC, datetime

import pytest

from daemon.vault import KeyFile, KeyFileError, KeyRing, UnknownKey, generate_key_file, new_line
from daemon.vault.keyring import MAX_FILE, MAX_KEYS, load, parse

A, B = bytes(range(32)), bytes(range(32, 64))
A64, B64 = base64.b64encode(A).decode(), base64.b64encode(B).decode()


def write(path, text, mode=0o600):
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "vault-keys"


def test_the_first_is_current():
    ring = KeyRing(parse(f"# keys\n\n  new {A64}  \r\n#old {B64}\nold\t{B64}\n"))
    assert (ring.current, ring.ids) == ("new", ("new", "old"))
    assert (ring.key("new"), ring.key("old")) == (A, B)
    assert ring.statistics().ids == ("new", "old")


@pytest.mark.parametrize(("text", "message"), [
    ("", "no key"), ("# only a comment\n", "no key"), ("\n\n", "no key"),
    (f"a {A64}\nb\n", "line 2 is not"), (f"a {A64} x", "line 1 is not"), (A64, "line 1 is not"),
    (f"-a {A64}", "line 1 does not begin"), (f"{'a' * 33} {A64}", "line 1 does not begin"), (f"a/b {A64}", "line 1"),
    (f"a {A64}\na {B64}", "line 2 repeats an id"), (f"a {A64}\nb {A64}", "line 2 repeats a key"),
    (f"a {A64[:-4]}", "line 1 does not hold"), (f"a {A64}AAAA", "line 1 does not hold"), ("a " + A.hex(), "line 1"),
    (f"a {A64[:-1]}", "line 1 does not hold"), (f"a {A64[:20]}*{A64[20:]}", "line 1 does not hold"),
    ("a " + base64.b64encode(bytes(32)).decode(), "line 1 holds one byte"),
    ("\n".join(f"k{n} {base64.b64encode(os.urandom(32)).decode()}" for n in range(MAX_KEYS + 1)), "more than"),
])
def test_a_wrong_line_is_named_and_not_shown(text, message, path):
    with pytest.raises(KeyFileError) as caught:
        load(write(path, text))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert not any(part in str(caught.value) for part in (A64[:8], B64[:8], A.hex()[:8]))
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620, 0o601, 0o777])
def test_a_file_open_to_others_is_refused(mode, path):
    with pytest.raises(KeyFileError, match="open to others"):
        load(write(path, f"a {A64}\n", mode), {})


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_its_owners_alone_is_good(mode, path):
    assert load(write(path, f"a {A64}\n", mode), {}).current == "a"


def test_a_credential_of_systemd_is_taken_as_it_is(tmp_path, path):
    write(path, f"a {A64}\n", 0o440)
    assert load(path, {"CREDENTIALS_DIRECTORY": str(tmp_path)}).current == "a"
    other = tmp_path / "other"
    other.mkdir()
    for directory in (str(other), "", str(path)[:-5]):
        with pytest.raises(KeyFileError, match="open to others"):
            load(path, {"CREDENTIALS_DIRECTORY": directory})
    (other / "link").symlink_to(path)  # a link inside does not make a credential of what it names
    with pytest.raises(KeyFileError, match="open to others"):
        load(other / "link", {"CREDENTIALS_DIRECTORY": str(other)})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_file_is_refused(path):
    write(path, f"a {A64}\n")
    os.chown(path, 65534, 65534)
    with pytest.raises(KeyFileError, match="another user"):
        load(path, {})


def test_what_is_no_file_is_refused_and_does_not_block(path, tmp_path):
    with pytest.raises(KeyFileError, match="No such file"):
        load(path)
    with pytest.raises(KeyFileError, match="Is a directory"):
        load(tmp_path)
    os.mkfifo(path, 0o600)
    with pytest.raises(KeyFileError, match="regular file"):
        load(path)


def test_size_and_text_are_bounded(path):
    with pytest.raises(KeyFileError, match="larger"):
        load(write(path, "#" * (MAX_FILE + 1)))
    path.write_bytes(b"a \xff\xfe\n")
    with pytest.raises(KeyFileError, match="ASCII"):
        load(path)


@pytest.mark.parametrize("umask", [0, 0o777])
def test_a_generated_file_loads_and_is_private(umask, path):
    old = os.umask(umask)
    try:
        generate_key_file(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_nlink == 1
    assert len(load(path, {}).ids) == 1
    assert os.listdir(path.parent) == [path.name]


def test_an_existing_file_is_never_replaced(path):
    write(path, "precious")
    with pytest.raises(FileExistsError):
        generate_key_file(path)
    assert path.read_text() == "precious"
    assert os.listdir(path.parent) == [path.name]


def test_a_failed_generation_leaves_nothing(path, monkeypatch):
    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        generate_key_file(path)
    assert os.listdir(path.parent) == []


def test_new_lines_differ_and_parse():
    lines = {new_line(datetime(2026, 11, 22, tzinfo=UTC)) for _ in range(20)}
    assert len(lines) == 20
    assert all(line.startswith("2026-11-22-") for line in lines)
    assert all(len(next(iter(parse(line).values()))) == 32 for line in lines)


def test_reload_takes_the_new_ring_or_keeps_the_old(path):
    file = KeyFile(write(path, f"a {A64}\n"))
    write(path, f"b {B64}\na {A64}\n")
    assert file.ring.ids == ("a",)
    assert file.reload().ids == ("b", "a")
    write(path, "broken")
    with pytest.raises(KeyFileError):
        file.reload()
    assert file.ring.ids == ("b", "a")
    assert file.statistics().current == "b"


def test_an_unknown_key_is_named():
    with pytest.raises(UnknownKey, match="'gone'"):
        KeyRing({"a": A}).key("gone")


@pytest.mark.parametrize("keys", [{}, {"a": A[:-1]}, {"a": A + b"x"}, {"": A}, {"a b": A}, {"ä": A}])
def test_a_ring_checks_its_keys(keys):
    with pytest.raises(ValueError, match="key"):
        KeyRing(keys)


def test_a_ring_never_prints_a_key():
    ring = KeyRing({"a": A, "b": B})
    for text in (repr(ring), str(ring), f"{ring}", repr([ring])):
        assert text.strip("[]") == "KeyRing(current='a', 2 keys)"
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            copied(ring)


def test_the_mapping_given_stays_the_callers():
    keys = {"a": A}
    ring = KeyRing(keys)
    keys["a"] = B
    assert ring.key("a") == A
