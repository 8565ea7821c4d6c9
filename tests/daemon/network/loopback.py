"""Servers of a few lines on the loopback interface, for what real ones never do.

    async def script(stream): ...
    async with serving(script) as port: ...              # plain
    async with serving(script, context) as port: ...     # TLS, handshake done

A script that ends closes its connection; one that fails fails the test, unless the client went away.
"""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import trio
from trio.testing import wait_all_tasks_blocked

from daemon.network import Dialer, NetworkPolicy, Resolver, client_context

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1"))
BOUND = 10.0
"""Seconds for any one conversation; only a hang takes that long."""

Script = Callable[[trio.abc.Stream], Awaitable[None]]


@asynccontextmanager
async def background() -> AsyncIterator[trio.Nursery]:
    """A nursery that ends with the block, and hands on a single exception of it as it was raised."""
    try:
        with trio.fail_after(BOUND):
            async with trio.open_nursery() as nursery:
                yield nursery
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        failure = group.exceptions[0]
        raise failure from failure.__cause__


@asynccontextmanager
async def serving(script: Script, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[int]:
    """A server on 127.0.0.1 that plays *script* to each client; its port."""

    async def serve(stream: trio.abc.Stream) -> None:
        try:
            if tls is not None:
                stream = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
                await stream.do_handshake()
            await script(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client had enough
        finally:
            await trio.aclose_forcefully(stream)

    async with background() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, port, host="127.0.0.1"))
        yield listeners[0].socket.getsockname()[1]
        await wait_all_tasks_blocked(0.01)  # let the script see the client go, and assert what it will


def dialer_to(*ports: int, ca_file: Path | None = None) -> Dialer:
    """A dialer that may reach the loopback interface at these ports."""
    policy = NetworkPolicy(allow=LOOPBACK, ports=frozenset(ports))
    return Dialer(policy, Resolver(), tls=client_context(ca_file))


async def read_until(stream, end: bytes) -> bytes:
    """What comes, up to and including *end*; what comes sooner or later than that fails."""
    data = b""
    while not data.endswith(end):
        more = await stream.receive_some(65536)
        assert more, data
        data += bytes(more)
    return data
