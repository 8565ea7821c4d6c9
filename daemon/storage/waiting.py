"""Who waits for psycopg: its generators yield "readable", "writable" or both, and Trio waits for that.

A generator of an open connection yields a `Wait`; one that connects or cancels yields (descriptor, `Wait`), for its
descriptor may change.  Both are sent the `Ready` flags back.
"""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import trio
from psycopg import errors as e
from psycopg.waiting import Ready, Wait

if TYPE_CHECKING:
    from collections.abc import Generator

BUSY: Final = 0.005
"""Seconds without a checkpoint while the socket is always ready: short beside any deadline, long beside a poll."""

_EVENTS: Final = {
    int(Wait.R): select.POLLIN,
    int(Wait.W): select.POLLOUT,
    int(Wait.RW): select.POLLIN | select.POLLOUT,
}

T = TypeVar("T")

_last_yield = 0.0


def _poll(fd: int, want: int) -> int:
    poll = select.poll()
    poll.register(fd, _EVENTS[want])
    ready = 0
    for _, event in poll.poll(0):
        if event & ~select.POLLOUT:  # IN, HUP, ERR: reading tells which
            ready |= Ready.R if want & Wait.R else Ready.W
        if event & select.POLLOUT:
            ready |= Ready.W
    return ready


async def _until_ready(fd: int, want: int) -> int:
    if want == Wait.R:
        await trio.lowlevel.wait_readable(fd)
        return Ready.R
    if want == Wait.W:
        await trio.lowlevel.wait_writable(fd)
        return Ready.W
    ready = 0

    async with trio.open_nursery() as nursery:

        async def readable() -> None:
            nonlocal ready
            await trio.lowlevel.wait_readable(fd)
            ready |= Ready.R
            nursery.cancel_scope.cancel()

        async def writable() -> None:
            nonlocal ready
            await trio.lowlevel.wait_writable(fd)
            ready |= Ready.W
            nursery.cancel_scope.cancel()

        nursery.start_soon(readable)
        nursery.start_soon(writable)
    return ready


async def drive(gen: Generator[Any, Any, T], fd: int | None = None, *, eager: bool = False) -> T:
    """Run a psycopg generator to its end; with no fd, a connecting one, which yields its own descriptor.

    eager: look at the socket before waiting for it, so that a timeout of 0 still looks once.

    Raises:
        psycopg.OperationalError: the socket was closed under the wait.
    """
    global _last_yield
    try:
        state = next(gen)
        while True:
            sock, want = state if fd is None else (fd, state)
            # Writable is the common case, and a poll is far cheaper than a trip round the loop: COPY and pipelines
            # live by it.  A checkpoint now and then keeps it fair.
            ready = _poll(sock, want) if eager or want & Wait.W else 0
            if not ready:
                ready = await _until_ready(sock, want)
                _last_yield = time.monotonic()
            elif time.monotonic() - _last_yield > BUSY:
                await trio.lowlevel.checkpoint()
                _last_yield = time.monotonic()
            state = gen.send(ready)
    except StopIteration as stop:
        if time.monotonic() - _last_yield > BUSY:
            await trio.lowlevel.cancel_shielded_checkpoint()
            _last_yield = time.monotonic()
        return cast("T", stop.value)
    except (OSError, trio.ClosedResourceError) as exc:
        raise e.OperationalError("connection socket closed") from exc
