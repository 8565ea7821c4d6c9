"""A client of bytes: what it sends is as malformed as the test wants it."""

import re
import socket
from contextlib import asynccontextmanager

import trio

JSON = "Content-Type: application/json"


@asynccontextmanager
async def connection(address):
    stream = await trio.open_tcp_stream(*address)
    try:
        yield stream
    finally:
        await trio.aclose_forcefully(stream)


def request(method="GET", path="/mail/accounts", *headers, token=None, body=b""):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    if token is not None:
        lines.append(f"Cookie: sb-access-token={token}")
    if body:
        lines += [f"Content-Length: {len(body)}", "Content-Type: application/json"]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def until_closed(stream, seconds=5.0):
    """Everything that comes until the server closes; fails when it does not."""
    got = b""
    with trio.fail_after(seconds):
        try:
            while chunk := await stream.receive_some(65536):
                got += chunk
        except trio.BrokenResourceError:
            pass
    return got


async def answer(stream, seconds=5.0):
    """One whole answer: status, headers (lower case), body."""
    got = b""
    with trio.fail_after(seconds):
        while b"\r\n\r\n" not in got:
            chunk = await stream.receive_some(65536)
            assert chunk, f"closed after {got!r}"
            got += chunk
        head, _, body = got.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head.lower())[1]) if b"content-length" in head.lower() else 0
        while len(body) < length:
            chunk = await stream.receive_some(65536)
            assert chunk, f"closed after {body!r}"
            body += chunk
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    return int(head.split()[1]), headers, body


async def ask(address, data):
    async with connection(address) as stream:
        await stream.send_all(data)
        return await answer(stream)


class Stalled:
    """A client with a small window that asks for much and reads nothing."""

    def __init__(self, address):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect(address)
        self.socket.setblocking(False)

    def ask(self, data):
        self.socket.send(data)


async def until(condition):
    """Wait for what the server's own counts say."""
    with trio.fail_after(5):
        while not condition():      # noqa: ASYNC110 - what is waited for is counted in the server, which has no event
            await trio.sleep(0.01)
