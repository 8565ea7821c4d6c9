"""GET /mail/accounts per second with few and many accounts, beside a bare Quart-Trio route.

The bare route answers with the very bytes that the API answered with, so that what is compared is the API's own work:
verifying the session, asking the database, making the answer.  Server and client are two processes on one machine.
"""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import jwt
import trio

from ops.testservers.dovecot import Dovecot
from ops.testservers.process import free_ports

from . import accounts as connected
from .child import command, environment
from .place import Place, opened
from .result import Row, Say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SIZES: Final = (10, 1000)
QUICK_SIZES: Final = (3,)

CLIENTS: Final = 8
"""Connections that ask at the same time, each again as soon as it is answered."""

LASTING: Final = 6.0
QUICK_LASTING: Final = 0.5
"""Seconds of asking."""

START_WITHIN: Final = 30.0

SECRET: Final = "a session secret of a benchmark, which ends with it"  # noqa: S105  # nobody else's

MAX_ANSWER: Final = 8 << 20
"""Bytes of an answer: a thousand accounts make about half a megabyte."""


async def measure(*, quick: bool, say: Say) -> list[Row]:
    """Requests per second."""
    sizes, lasting = (QUICK_SIZES, QUICK_LASTING) if quick else (SIZES, LASTING)
    rows = []
    with Dovecot() as dovecot:
        async with opened(dovecot) as place:
            for size in sizes:
                say(f"GET /mail/accounts with {size} accounts, then a bare route")
                users = [f"{size}-{number}@example.test" for number in range(size)]
                owner = f"bench-{size}"
                await connected.connect(place.database, place.vault, users, place.imap, "unused", owner=owner)
                rows.append(await _compare(place, owner, size, lasting))
    return rows


async def _compare(place: Place, owner: str, size: int, lasting: float) -> Row:
    async with _server({"kind": "api", "conninfo": place.conninfo, "key": place.key.hex()}) as port:
        body, ours = await _load(port, owner, lasting)
    async with _server({"kind": "bare", "body": body.decode()}) as port:
        _, bare = await _load(port, owner, lasting)
    name = f"GET /mail/accounts, {size} accounts"
    return Row("api", name, ours, "req/s", bare, "bare Quart-Trio route", (">=", 0.5), "ratio")


@asynccontextmanager
async def _server(request: dict[str, Any]) -> AsyncIterator[int]:
    """A server process; its port."""
    [port] = free_ports(1)
    text = json.dumps({**request, "port": port, "secret": SECRET}).encode()
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command("ops.bench.api_child"), stdin=text, env=environment())
        process = await nursery.start(run)
        with trio.fail_after(START_WITHIN):
            while True:
                try:
                    stream = await trio.open_tcp_stream("127.0.0.1", port)
                except OSError:
                    await trio.sleep(0.05)
                else:
                    await stream.aclose()
                    break
        yield port
        nursery.cancel_scope.cancel()
        process.kill()


def _request(owner: str) -> bytes:
    now = int(time.time())
    claims = {
        "sub": owner, "email": f"{owner}@example.test", "role": "authenticated", "aud": "authenticated",
        "iss": "accountsd", "iat": now, "exp": now + 3600,
    }  # fmt: skip
    token = jwt.encode(claims, SECRET, algorithm="HS256")
    return (
        f"GET /mail/accounts HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: sb-access-token={token}\r\n"
        "Accept: application/json\r\n\r\n"
    ).encode()


async def _load(port: int, owner: str, lasting: float) -> tuple[bytes, float]:
    """Ask for so many seconds by CLIENTS connections; an answer, and answers a second."""
    request, counts = _request(owner), [0] * CLIENTS
    body = b""

    async def client(number: int, until: float) -> None:
        nonlocal body
        while trio.current_time() < until:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                kept = True
                while kept and trio.current_time() < until:
                    await stream.send_all(request)
                    body, kept = await _answer(stream)
                    counts[number] += 1

    await client(0, trio.current_time() + lasting / 10)  # warm
    counts[0] = 0
    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for number in range(CLIENTS):
            nursery.start_soon(client, number, trio.current_time() + lasting)
    return body, sum(counts) / (time.perf_counter() - began)


async def _answer(stream: trio.SocketStream) -> tuple[bytes, bool]:
    """One answer with a Content-Length: its body, and whether the connection is kept; both end one now and then."""
    data = bytearray()
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += await _more(stream, len(data))
    head = bytes(data[:end]).lower()
    if not head.startswith(b"http/1.1 200"):
        raise ConnectionError(f"answered {bytes(data[:300])!r}")
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    while len(data) < end + 4 + length:
        data += await _more(stream, len(data))
    return bytes(data[end + 4 :]), b"\r\nconnection: close" not in head


async def _more(stream: trio.SocketStream, have: int) -> bytes:
    data = await stream.receive_some(1 << 18)
    if not data or have > MAX_ANSWER:
        raise ConnectionError("no whole answer came")
    return bytes(data)
