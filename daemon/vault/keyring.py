"""The key ring: the keys that wrap every account's data key, read from one file.

    # comment
    2026-11 4Jv7...base64 of 32 bytes...=      the first is current: it wraps what is sealed from now on
    2025-03 q0aX...=                           older ones still open what they wrapped

Rotation is a new line at the top and a restart: accounts are wrapped anew as they run, and an old line may go when
nothing is left under it.  There is no default key, and a file that others can read is refused.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

KEY_BYTES: Final = 32
"""AES-256."""

MAX_FILE: Final = 64 << 10
"""Bytes of a key file: a thousand keys."""

_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,32}")


class KeyFileError(ValueError):
    """A key file that cannot be used: the line is named, never a key."""


class KeyRing:
    """Keys by id; the first is current."""

    __slots__ = ("_keys", "current")

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys:
            raise KeyFileError("it holds no key")
        self._keys = dict(keys)
        self.current = next(iter(self._keys))
        """The id of the key that wraps from now on."""

    def __repr__(self) -> str:
        return f"<KeyRing of {len(self._keys)}>"

    def key(self, key_id: str) -> bytes | None:
        """The key of an id, or None."""
        return self._keys.get(key_id)

    @classmethod
    def load(cls, path: Path) -> KeyRing:
        """Read a key file.

        Raises:
            OSError: it cannot be read.
            KeyFileError: it is open to others, too large, or a line in it is wrong.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise KeyFileError("it is no regular file")
            if status.st_mode & 0o077 and not _is_credential(path):
                raise KeyFileError("others can read it: chmod 600")
            data = file.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise KeyFileError(f"it is larger than {MAX_FILE} bytes")
        try:
            return cls(_parse(data.decode("ascii")))
        except UnicodeDecodeError:
            raise KeyFileError("it is not ASCII") from None


def _is_credential(path: Path) -> bool:
    """Systemd's credentials are readable by the unit's user only, whatever their mode bits say."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return bool(directory) and path.resolve().is_relative_to(Path(str(directory)).resolve())


def _parse(text: str) -> dict[str, bytes]:
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        if len(words) != 2 or not _ID.fullmatch(words[0]):
            raise KeyFileError(f"line {number} is not 'id base64-of-32-bytes'")
        if words[0] in keys:
            raise KeyFileError(f"line {number} names a key id a second time")
        try:
            key = base64.b64decode(words[1], validate=True)
        except binascii.Error:
            key = b""
        if len(key) != KEY_BYTES:
            raise KeyFileError(f"line {number} does not hold {KEY_BYTES} bytes in base64")
        keys[words[0]] = key
    return keys


def generate_key_file(path: Path) -> None:
    """Make a key file with one new key, mode 0600; whole or not at all, and never over one that is there.

    Raises:
        OSError: the directory cannot be written.
    """
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    line = f"{datetime.now(UTC):%Y-%m-%d} {base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}\n"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        with suppress(FileExistsError):  # made by another daemon a moment ago: that one holds
            os.link(fresh, path)
    finally:
        fresh.unlink()
