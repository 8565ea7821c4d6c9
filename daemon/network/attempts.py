"""Connect to one of several addresses: staggered attempts, the first that answers wins (RFC 8305)."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from itertools import chain, zip_longest
from typing import Final

import structlog
import trio

from .guard import Address

STAGGER: Final = 0.25
"""Seconds before the next address is tried beside the last (RFC 8305 section 5: 250 ms)."""

MOST_ATTEMPTS: Final = 8
"""Addresses tried in one dial: with the stagger, all of them have 13 of the 15 s a dial has."""

Connect = Callable[[Address, int], Awaitable[socket.socket]]

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Race:
    winner: socket.socket | None = None


def in_order(addresses: Sequence[Address]) -> list[Address]:
    """The families in turn, beginning with that of the first address (RFC 8305 section 4), each once."""
    unique = list(dict.fromkeys(addresses))
    if not unique:
        return []
    first = [address for address in unique if address.version == unique[0].version]
    second = [address for address in unique if address.version != unique[0].version]
    pairs = chain.from_iterable(zip_longest(first, second))
    return [address for address in pairs if address is not None][:MOST_ATTEMPTS]


async def connect_first(
    addresses: Sequence[Address], port: int, connect: Connect | None = None
) -> socket.socket | None:
    """A connected non-blocking socket, or None when no address answered; the caller owns the deadline.

    *connect* connects to one address and raises OSError.
    """
    order = in_order(addresses)
    race = _Race()
    try:
        async with trio.open_nursery() as nursery:
            for address in order:
                failed = trio.Event()
                attempt = partial(connect or connect_one, address, port)
                nursery.start_soon(_attempt, race, attempt, address, failed, nursery.cancel_scope)
                with trio.move_on_after(STAGGER):  # a failure lets the next go at once
                    await failed.wait()
    except BaseException:
        if race.winner is not None:
            race.winner.close()
        raise
    return race.winner


async def _attempt(
    race: _Race,
    connect: Callable[[], Awaitable[socket.socket]],
    address: Address,
    failed: trio.Event,
    others: trio.CancelScope,
) -> None:
    try:
        sock = await connect()
    except OSError as exc:
        log.debug("network.attempt_failed", address=str(address), error=_error_name(exc))
        failed.set()
        return
    if race.winner is None:
        race.winner = sock
        others.cancel()
    else:
        sock.close()  # two came in at the same moment


async def connect_one(address: Address, port: int) -> socket.socket:
    """A connected non-blocking socket to exactly this address.  Raises OSError."""
    await trio.lowlevel.checkpoint()
    sock = socket.socket(_family(address), socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        code = sock.connect_ex((str(address), port))
        if code == errno.EINPROGRESS:
            await trio.lowlevel.wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        trio.lowlevel.notify_closing(sock)
        sock.close()
        raise
    return sock


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6


def _error_name(exc: OSError) -> str:
    return errno.errorcode.get(exc.errno or 0, "unknown")


