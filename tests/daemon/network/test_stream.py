import socket
import struct
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from daemon.network import PlainSocket, Security, TLSSocket
from daemon.network.stream import LARGEST_READ

from .loopback import background, dialer_to, serving

BIG = bytes(range(256)) * 16384  # 4 MiB: more than the kernel takes at once


@pytest.fixture(params=[Security.STARTTLS, Security.TLS], ids=["plain", "tls"])
def security(request):
    return request.param


@pytest.fixture
def connect(security, authority, ca_file, tmp_path):
    """`async with connect(script) as stream`, over either kind."""
    context = authority.issue().server_context(tmp_path) if security is Security.TLS else None

    @asynccontextmanager
    async def connected(script):
        async with serving(script, context) as port:
            stream = await dialer_to(port, ca_file=ca_file).dial("localhost", port, security)
            try:
                yield stream
            finally:
                await stream.aclose()

    return connected


def reset(stream):
    """End the connection by RST."""
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def echo(stream):
    async for data in stream:
        await stream.send_all(data)


async def send_without_end(stream):
    while True:
        await stream.send_all(b"x" * 65536)


async def silence(stream):
    await trio.sleep_forever()


async def test_bytes_both_ways(connect):
    async with connect(echo) as stream, background() as nursery:
        nursery.start_soon(stream.send_all, BIG)
        received = bytearray()
        while len(received) < len(BIG):
            data = await stream.receive_some(100_000)
            assert 0 < len(data) <= LARGEST_READ
            received += data
        assert received == BIG


async def test_never_more_than_asked_for(connect):
    async with connect(echo) as stream:
        await stream.send_all(b"abcdefgh")
        received = b""
        while len(received) < 8:
            data = await stream.receive_some(3)
            assert 1 <= len(data) <= 3
            received += data
        assert received == b"abcdefgh"


async def test_small_records_are_gathered(authority, ca_file, tmp_path):
    said = trio.Event()

    async def script(stream):
        for _ in range(100):
            await stream.send_all(b"x" * 10)
        said.set()
        await trio.sleep_forever()

    async with serving(script, authority.issue().server_context(tmp_path)) as port:
        stream = await dialer_to(port, ca_file=ca_file).dial("localhost", port, Security.TLS)
        await said.wait()
        assert isinstance(stream, TLSSocket)
        assert len(await stream.receive_some(65536)) > 10
        await stream.aclose()


async def test_an_end_is_empty_and_stays_so(connect):
    async def script(stream):
        await stream.send_all(b"bye")

    async with connect(script) as stream:
        assert await stream.receive_some(100) == b"bye"
        assert await stream.receive_some(100) == b""
        assert await stream.receive_some(100) == b""


async def test_a_reset_is_broken_or_an_end(connect, security):
    async def script(stream):
        await stream.receive_some(1)
        reset(stream)

    async with connect(script) as stream:
        await stream.send_all(b"x")
        if security is Security.TLS:  # Python calls both an end
            assert await stream.receive_some(100) == b""
            return
        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.receive_some(100)
        assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_writing_into_a_reset_is_broken(connect):
    async def script(stream):
        await stream.receive_some(1)
        reset(stream)

    async with connect(script) as stream:
        with pytest.raises(trio.BrokenResourceError):
            await send_without_end(stream)


async def test_a_cancelled_read_loses_nothing(connect):
    go = trio.Event()

    async def script(stream):
        await go.wait()
        await stream.send_all(b"late")
        await trio.sleep_forever()

    async with connect(script) as stream:
        with trio.move_on_after(0.05) as scope:
            await stream.receive_some(100)
        assert scope.cancelled_caught
        go.set()
        assert await stream.receive_some(100) == b"late"


async def test_a_blocked_write_can_be_cancelled(connect):
    async with connect(silence) as stream:
        with trio.move_on_after(0.05) as scope:
            await stream.send_all(BIG * 4)
        assert scope.cancelled_caught


async def test_every_call_is_a_checkpoint(connect):
    async def script(stream):
        await stream.send_all(b"x" * 100)
        await trio.sleep_forever()

    async with connect(script) as stream:
        await stream.receive_some(1)
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.receive_some(1)
        assert scope.cancelled_caught
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.send_all(b"x")
        assert scope.cancelled_caught


async def test_closing_wakes_the_reader(connect):
    woken = trio.Event()

    async def read(stream):
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some(1)
        woken.set()

    async with connect(silence) as stream, background() as nursery:
        nursery.start_soon(read, stream)
        await wait_all_tasks_blocked()
        await stream.aclose()
        await woken.wait()


async def test_closed_is_closed(connect):
    async with connect(silence) as stream:
        await stream.aclose()
        await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some(1)
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")


async def test_closes_in_a_cancelled_scope(connect):
    heard_end = trio.Event()

    async def script(stream):
        try:
            while await stream.receive_some(100):
                pass
        except trio.BrokenResourceError:
            pass
        heard_end.set()

    async with connect(script) as stream:
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.aclose()
        await heard_end.wait()


async def test_tls_is_ended_with_its_farewell(authority, ca_file, tmp_path):
    ends = []

    async def script(stream):
        strict = trio.SSLStream(stream, authority.issue().server_context(tmp_path), server_side=True)
        await strict.do_handshake()
        ends.append(await strict.receive_some(100))

    async with serving(script) as port:
        stream = await dialer_to(port, ca_file=ca_file).dial("localhost", port, Security.TLS)
        await stream.aclose()
        await wait_all_tasks_blocked(0.05)
    assert ends == [b""]  # a truncation would have raised


async def test_a_detached_socket_is_the_plain_stream_no_more():
    ours, theirs = socket.socketpair()
    with theirs:
        stream = PlainSocket(ours)
        with stream.detach() as sock:
            assert not sock.getblocking()
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some(1)
            with pytest.raises(trio.ClosedResourceError):
                stream.detach()
            await stream.aclose()
            theirs.send(b"still open")
            assert sock.recv(100) == b"still open"


async def test_keepalive_is_set_on_every_connection(connect):
    async with connect(silence) as stream:
        sock = stream._socket
        tcp = socket.IPPROTO_TCP
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert [sock.getsockopt(tcp, option) for option in (
            socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT, socket.TCP_NODELAY)
        ] == [120, 30, 4, 240_000, 1]
        assert not sock.getblocking()
        assert not sock.get_inheritable()
