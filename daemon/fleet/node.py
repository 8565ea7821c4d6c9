"""Which node this process is: an identity in the state directory that outlives the process.

A daemon that was killed and started again is the same node, and its claims are still its own: its accounts run again at
once instead of when the claims expire.  A lock on the file proves that the former process is gone; a second daemon in
the same directory takes the next identity.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

MOST = 64
"""Daemons that may share one state directory; more is a mistake in somebody's set-up."""


class NoNodeIdentity(Exception):
    """The state directory cannot hold the node's identity."""


@contextmanager
def node_identity(directory: Path) -> Iterator[UUID]:
    """This process's identity, its own for as long as the block runs.

    Raises:
        NoNodeIdentity: the directory cannot be written, or too many daemons use it.
    """
    for number in range(MOST):
        try:
            descriptor = os.open(directory / f"node-{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise NoNodeIdentity(f"{directory} cannot hold the node's identity: {exc.strerror}") from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield _identity(descriptor)
            return
        finally:
            os.close(descriptor)
    raise NoNodeIdentity(f"{MOST} daemons use {directory} already")


def _identity(descriptor: int) -> UUID:
    """What the file says, or a new identity where it says nothing sensible."""
    try:
        return UUID(os.pread(descriptor, 64, 0).decode("ascii").strip())
    except (UnicodeDecodeError, ValueError):
        identity = uuid4()
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{identity}\n".encode(), 0)
        os.fsync(descriptor)
        return identity
