"""Where the embedded server's directories are, and whether its user can get there.

A Unix socket's path has at most 107 bytes (sun_path of unix(7), less the final NUL).  Below a deep state directory the
socket therefore goes to the first run-time directory that is short enough: systemd's $RUNTIME_DIRECTORY,
$XDG_RUNTIME_DIR, /run for root, at last the directory for temporary files.  Its name is made from the home, so that
every start and every tool finds the same one.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .binaries import EmbeddedFailed, barrier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .binaries import ServerUser

LONGEST_SOCKET: Final = 107
"""Bytes."""


def prepare_home(home: Path, user: ServerUser) -> Path:
    """Make the home, and see that the server's user can pass through it; gives its absolute path.

    Raises:
        EmbeddedFailed: it cannot.
    """
    home = home.absolute()
    try:
        if not home.is_dir():
            home.mkdir(parents=True)
            home.chmod(0o711 if user.dropped else 0o700)
    except OSError as exc:
        raise EmbeddedFailed(f"cannot make {home}: {exc}") from exc
    if user.dropped and (closed := barrier(home, user)) is not None:
        raise EmbeddedFailed(
            f"{closed} is closed to {user.name}, as whom the server must run: choose another state directory, or let "
            f"others pass through it (chmod o+x {closed}), or do not run as root"
        )
    return home


def socket_directory(home: Path, user: ServerUser, *, create: bool = False) -> Path:
    """The directory of the server's socket; with `create` it is made, 0700 and the server's user's.

    Raises:
        EmbeddedFailed: there is no short enough path, or somebody else's file is in the place.
    """
    home = home.absolute()
    mark = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    places = [home / "run", *(base / f"accountsd-{mark}" for base in _bases())]
    for place in places:
        if _fits(place) and (not user.dropped or place.parent == home or _open_to(place.parent, user)):
            if create:
                _make(place, user)
            return place
    raise EmbeddedFailed(f"{places[0]} is too long for a Unix socket, and no run-time directory is short enough")


def _bases() -> Iterator[Path]:
    for variable in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        value = os.environ.get(variable, "").split(":", 1)[0]  # systemd separates several by colons
        if value.startswith("/"):
            yield Path(value)
    if os.geteuid() == 0:
        yield Path("/run")
    yield Path(tempfile.gettempdir())


def _fits(place: Path) -> bool:
    # libpq takes a comma for the end of a host name.
    return len(os.fsencode(place / ".s.PGSQL.5432")) <= LONGEST_SOCKET and "," not in str(place)


def _open_to(base: Path, user: ServerUser) -> bool:
    try:
        return barrier(base, user) is None
    except OSError:
        return False


def _make(place: Path, user: ServerUser) -> None:
    try:
        place.mkdir(mode=0o700)
        if user.dropped:
            os.chown(place, user.uid, user.gid)
    except FileExistsError:
        pass
    status = place.lstat()
    # In a directory for temporary files somebody else may have been first.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != user.uid or stat.S_IMODE(status.st_mode) & 0o077:
        raise EmbeddedFailed(f"{place} is not a directory of {user.name}'s own: remove it")
