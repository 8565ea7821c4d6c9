"""The cluster before its server starts: binaries that fit its data, its making, and who is admitted."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Final

import structlog
import trio

from .binaries import (
    ENVIRONMENT,
    EmbeddedFailed,
    Installation,
    ServerUser,
    copy_for,
    find_installation,
    name_of,
    readable,
)
from .leftover import read_small

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

log = structlog.get_logger(__name__)

DATABASE: Final = "accountsd"
"""The database and the role that owns it; `postgres` stays the maintenance database."""

INITIALISE_WITHIN: Final = 120.0
"""Seconds for initdb, which takes one or two and a slow disk."""


async def choose(installation: Installation | None, home: Path, data: Path, user: ServerUser) -> Installation:
    """Binaries that fit the data and that the server's user can read.

    Raises:
        EmbeddedFailed: there are none.
    """
    major = _version_of(data, user)
    if installation is None:
        installation = await find_installation(major)
    elif major not in (None, installation.major):
        raise EmbeddedFailed(f"{data} was written by PostgreSQL {major}, {installation.bin} is {installation.major}")
    if not await trio.to_thread.run_sync(readable, installation, user):
        installation = await trio.to_thread.run_sync(copy_for, installation, home)
    log.info("embedded.binaries", place=str(installation.bin), version=installation.version)
    return installation


def _version_of(data: Path, user: ServerUser) -> int | None:
    """The major version that wrote the data, or None if there is none."""
    if not data.exists():
        return None
    lines = read_small(data / "PG_VERSION")
    if not lines or not lines[0].isdecimal():
        raise EmbeddedFailed(f"{data} is not a PostgreSQL data directory: move it away, or restore it")
    if data.stat().st_uid != user.uid:
        raise EmbeddedFailed(f"{data} is not {user.name}'s, as whom the server must run: chown -R {user.name} {data}")
    return int(lines[0])


async def initialise(installation: Installation, data: Path, user: ServerUser) -> None:
    """Make the data directory, whole or not at all: one that initdb did not finish is never taken for a database.

    Raises:
        EmbeddedFailed: initdb did not succeed.
    """
    fresh = data.with_name("data.new")
    if fresh.exists():
        await trio.to_thread.run_sync(shutil.rmtree, fresh)
    fresh.mkdir(mode=0o700)
    if user.dropped:
        os.chown(fresh, user.uid, user.gid)
    arguments = ("-U", "postgres", "-A", "peer", "-E", "UTF8", "--locale=C.UTF-8", "--data-checksums")
    status, said = await _run(installation, user, "initdb", "-D", str(fresh), *arguments, "--no-instructions")
    if status:
        raise EmbeddedFailed(f"initdb failed: {said}")
    fresh.rename(data)
    descriptor = os.open(data.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    log.info("embedded.initialised", version=installation.version)


async def accepts(installation: Installation, data: Path, user: ServerUser, options: Mapping[str, str]) -> bool:
    """Whether this build knows these values; it says so without being started."""
    given = [f"--{name}={value}" for name, value in options.items()]
    status, _ = await _run(installation, user, "postgres", "-D", str(data), *given, "-C", "server_version")
    return status == 0


async def _run(installation: Installation, user: ServerUser, program: str, *arguments: str) -> tuple[int, str]:
    """A program's exit status, and what it said to standard error."""
    try:
        with trio.fail_after(INITIALISE_WITHIN):
            done = await trio.run_process(
                [str(installation.bin / program), *arguments], capture_stdout=True, capture_stderr=True, check=False,
                cwd="/", env=ENVIRONMENT, **user.run_as,
            )  # fmt: skip
    except trio.TooSlowError:
        raise EmbeddedFailed(f"{program} did not end within {INITIALISE_WITHIN:g} s") from None
    except OSError as exc:
        raise EmbeddedFailed(f"{program} does not run: {exc}") from exc
    return done.returncode, " ".join(done.stderr.decode("utf-8", "replace").split())[-1000:]


def write_access(home: Path, user: ServerUser) -> None:
    """Who is admitted: in files of ours, which the server's user reads and cannot change where it is another."""
    admitted = sorted({name_of(os.geteuid()), "root"})
    quoted = ['"' + name.replace('"', '""') + '"' for name in admitted]
    identities = [f"accountsd {name} {role}" for name in quoted for role in (DATABASE, "postgres")]
    for file, lines in (("hba.conf", ["local all all peer map=accountsd"]), ("ident.conf", identities)):
        fresh = home / f"{file}.new"
        fresh.write_text("\n".join(["# Written anew at every start.", *lines, ""]))
        fresh.chmod(0o644 if user.dropped else 0o600)
        fresh.rename(home / file)
