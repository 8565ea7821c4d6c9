"""The keys that wrap accounts' data keys: one current key, which seals, and older ones, which only open.

The file, one key a line, the current one first; blank lines and lines that begin with # count for nothing:

    # id     base64 of 32 random bytes
    2026-11  <44 characters>
    2026-05  <44 characters>

To rotate, write a new line at the top, reload, let every data key be wrapped anew (`Vault.rewrap`), and only then take
the old line away.  There is no default key: without a file nothing is sealed.

The file must be its owner's alone.  Below `$CREDENTIALS_DIRECTORY` systemd sees to that, by a directory that nobody
else enters, and its modes are not judged.  No message here ever holds a key or a part of a line that might be one.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final, NoReturn

KEY_SIZE: Final = 32
"""Bytes of a key: AES-256."""

MAX_ID: Final = 32
"""Characters of a key's id: it is stored with every account."""

MAX_KEYS: Final = 64
"""Keys of one ring; rotated monthly, that is five years without taking an old line away."""

MAX_FILE: Final = 1 << 16
"""Bytes of the file: 64 keys with a page of comments each."""

_ID: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_ID - 1}}}")


class KeyFileError(Exception):
    """The key file cannot be used; one sentence naming the file and the line, never what the line holds."""


class UnknownKey(Exception):
    """Something is sealed under a key that is not in the ring; the id is in the message, and is no secret."""


@dataclass(frozen=True, slots=True)
class KeyRingStatistics:
    """Which keys there are."""

    current: str
    ids: tuple[str, ...]


class KeyRing:
    """Keys by their id.  Never prints a key, and is not pickled."""

    __slots__ = ("__keys", "_current")

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """*keys* in the order of the file, the current one first.  Raises ValueError for none or a wrong size."""
        if not keys or len(keys) > MAX_KEYS:
            raise ValueError(f"a key ring has 1 to {MAX_KEYS} keys")
        for key_id, key in keys.items():
            if not _ID.fullmatch(key_id):
                raise ValueError("a key's id has letters, digits, dots, hyphens and underscores only")
            if len(key) != KEY_SIZE:
                raise ValueError(f"the key {key_id} does not have {KEY_SIZE} bytes")
        self.__keys = MappingProxyType(dict(keys))
        self._current = next(iter(keys))

    @property
    def current(self) -> str:
        """The id of the key that seals."""
        return self._current

    @property
    def ids(self) -> tuple[str, ...]:
        """All ids, the current one first."""
        return tuple(self.__keys)

    def key(self, key_id: str) -> bytes:
        """The key itself, for `vault` alone.  Raises UnknownKey."""
        try:
            return self.__keys[key_id]
        except KeyError:
            raise UnknownKey(f"no key {key_id!r:.40} in the key ring") from None

    def statistics(self) -> KeyRingStatistics:
        """Which keys there are."""
        return KeyRingStatistics(self._current, self.ids)

    def __repr__(self) -> str:
        return f"KeyRing(current={self._current!r}, {len(self.__keys)} keys)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a KeyRing is not pickled")


class KeyFile:
    """A key file and the ring that was last read from it; `reload` is for SIGHUP."""

    def __init__(self, path: Path, environ: Mapping[str, str] | None = None) -> None:
        """Raises KeyFileError."""
        self._path = path
        self._environ = os.environ if environ is None else environ
        self._ring = load(path, self._environ)

    @property
    def ring(self) -> KeyRing:
        """The ring as it was last read."""
        return self._ring

    def reload(self) -> KeyRing:
        """Read the file again.  Raises KeyFileError, and the ring stays what it was."""
        self._ring = load(self._path, self._environ)
        return self._ring

    def statistics(self) -> KeyRingStatistics:
        """Which keys there are."""
        return self._ring.statistics()


def load(path: Path, environ: Mapping[str, str] | None = None) -> KeyRing:
    """Read a key file.  Raises KeyFileError."""
    text = _read(path, os.environ if environ is None else environ)
    try:
        return KeyRing(parse(text))
    except ValueError as exc:
        raise KeyFileError(f"the key file {path} is wrong: {exc}") from None


def parse(text: str) -> dict[str, bytes]:
    """The keys of a file's text, in order.  Pure.  Raises ValueError naming the line by its number."""
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2:
            raise ValueError(f"line {number} is not an id and a key")
        key_id, encoded = words
        if not _ID.fullmatch(key_id):
            raise ValueError(f"line {number} does not begin with an id of at most {MAX_ID} letters, digits and ._-")
        if key_id in keys:
            raise ValueError(f"line {number} repeats an id")
        key = _decoded(encoded)
        if key is None:
            raise ValueError(f"line {number} does not hold {KEY_SIZE} bytes of base64")
        if key in keys.values():
            raise ValueError(f"line {number} repeats a key under another id")
        if len(set(key)) == 1:
            raise ValueError(f"line {number} holds one byte {KEY_SIZE} times, which is no key")
        keys[key_id] = key
    if not keys:
        raise ValueError("it holds no key")
    if len(keys) > MAX_KEYS:
        raise ValueError(f"it holds more than {MAX_KEYS} keys")
    return keys


def new_line(now: datetime | None = None) -> str:
    """A line with a fresh key, its id the date and four random digits, so that two of a day differ."""
    day = (now or datetime.now(UTC)).strftime("%Y-%m-%d")
    return f"{day}-{secrets.token_hex(2)} {base64.b64encode(secrets.token_bytes(KEY_SIZE)).decode()}\n"


def generate_key_file(path: Path) -> None:
    """Write a new file with one fresh key, mode 0600, whole or not at all; an existing file is never touched.

    Raises FileExistsError, and OSError as writing does.
    """
    content = "# Keys that seal credentials; the first is current.  Losing them loses every password.\n" + new_line()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o600)  # whatever the umask took
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # unlike a rename, it never replaces
    finally:
        temporary.unlink(missing_ok=True)
    _sync_directory(path.parent)


def _read(path: Path, environ: Mapping[str, str]) -> str:
    try:
        # O_NONBLOCK: a pipe put in the file's place must not hold the start.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            _check_access(path, os.fstat(file.fileno()), environ)  # what was opened, whatever the path means by now
            content = file.read(MAX_FILE + 1)
    except OSError as exc:
        raise KeyFileError(f"the key file {path} cannot be read: {exc.strerror}") from None
    if len(content) > MAX_FILE:
        raise KeyFileError(f"the key file {path} is larger than {MAX_FILE} bytes")
    try:
        return content.decode("ascii")
    except UnicodeDecodeError:
        raise KeyFileError(f"the key file {path} is not ASCII text") from None


def _check_access(path: Path, status: os.stat_result, environ: Mapping[str, str]) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError(f"the key file {path} is not a regular file")
    if _is_credential(path, environ):
        return
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyFileError(f"the key file {path} is open to others: its mode must be 0600 or 0400")
    if status.st_uid not in {os.geteuid(), 0}:
        raise KeyFileError(f"the key file {path} belongs to another user")


def _is_credential(path: Path, environ: Mapping[str, str]) -> bool:
    directory = environ.get("CREDENTIALS_DIRECTORY")
    return bool(directory) and path.resolve().is_relative_to(Path(str(directory)).resolve())


def _decoded(text: str) -> bytes | None:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == KEY_SIZE else None


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
