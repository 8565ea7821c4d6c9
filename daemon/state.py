"""The state directory and the secrets in it: found where the settings say, made where they say nothing.

vault-keys        the key ring that seals credentials          0600
session-secret    signs session tokens of a local set-up       0600
node-N            which node this daemon is
postgresql/       the embedded database
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .settings import Settings, SettingsError, state_directory
from .vault import KeyFile, KeyFileError, generate_key_file
from .vault.secret import Secret

MAX_SECRET: Final = 4096
"""Bytes of a secret's file: HS256 gains nothing beyond 64."""

LEAST_SECRET: Final = 32
"""Bytes: RFC 7518 section 3.2 wants a key at least as long as the hash."""


@dataclass(frozen=True, slots=True)
class State:
    """Where things are."""

    directory: Path
    key_file: Path
    session_secret: Secret | None
    """None with `auth.mode = jwks`."""

    @property
    def database(self) -> Path:
        """The home of the embedded server."""
        return self.directory / "postgresql"


def prepare(settings: Settings, *, create: bool = True) -> State:
    """Find the state directory, and make what is missing in it.

    Args:
        settings: as read.
        create: make what is missing; without it a missing secret is an error.

    Raises:
        SettingsError: a directory or file that cannot be used.
    """
    directory = state_directory(settings)
    key_file = settings.vault.key_file or directory / "vault-keys"
    try:
        if create:
            # 0711: the embedded server's own user must be able to pass; everything inside has its own mode.
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
            if settings.vault.key_file is None and not key_file.exists():
                with suppress(FileExistsError):  # made by another daemon a moment ago: that one holds
                    generate_key_file(key_file)
        secret = _session_secret(settings, directory, create=create)
    except OSError as exc:
        problem = f"{exc.strerror} ({exc.filename})"
        raise SettingsError(f"the state directory {directory} cannot be used: {problem}") from None
    return State(directory, key_file, secret)


def key_file(state: State) -> KeyFile:
    """The key ring's file, read and checked.

    Raises:
        SettingsError: it is missing, unreadable, open to others or malformed.
    """
    try:
        return KeyFile(state.key_file)
    except (OSError, KeyFileError) as exc:
        problem = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise SettingsError(f"the setting vault.key_file = {str(state.key_file)!r} is wrong: {problem}") from None


def _session_secret(settings: Settings, directory: Path, *, create: bool) -> Secret | None:
    auth = settings.auth
    if auth.mode != "hs256":
        return None
    if auth.secret is not None:
        return Secret(auth.secret.get_secret_value())
    file = auth.secret_file or directory / "session-secret"
    if auth.secret_file is None and create and not file.exists():
        _write_once(file, secrets.token_hex(32))
    try:
        # O_NONBLOCK: a pipe put in the file's place must not hold the start.
        with open(file, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as opened:
            problem = _open_to_others(file, os.fstat(opened.fileno()), create=create)
            data = opened.read(MAX_SECRET + 1) if problem is None else b""
    except OSError as exc:
        problem = exc.strerror
    if problem is not None:
        raise SettingsError(f"the setting auth.secret_file = {str(file)!r} is wrong: {problem}")
    try:
        text = data.decode("utf-8").strip()
    except UnicodeDecodeError:
        text = ""
    if not LEAST_SECRET <= len(text.encode()) <= MAX_SECRET:
        raise SettingsError(
            f"the setting auth.secret_file = {str(file)!r} is wrong: it must hold {LEAST_SECRET} to {MAX_SECRET} bytes"
        )
    return Secret(text)


def _open_to_others(file: Path, status: os.stat_result, *, create: bool) -> str | None:
    """Why a secret's file cannot be trusted.

    As with the key ring, systemd's credentials are exempt: nobody else enters their directory.  Who only looks at a
    set-up without starting it reads on, to report everything that is wrong with it.
    """
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and file.resolve().is_relative_to(Path(credentials).resolve()):
        return None
    if create and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return "others can read it: its mode must be 0600 or 0400"
    return None


def _write_once(file: Path, text: str) -> None:
    """Whole or not at all, readable by nobody else from the first moment; the first of two daemons wins."""
    fresh = file.with_name(f"{file.name}.{os.getpid()}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, text.encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.link(fresh, file)
    except FileExistsError:
        pass  # made by another daemon a moment ago: that one holds
    finally:
        fresh.unlink()
