"""What a stream reads and writes without waiting; the other side chooses every byte that is on the wire."""

import select
import socket
import ssl
import struct

import pytest
import trio

from daemon.network import PlainSocket, TLSSocket, client_context
from daemon.network.stream import LARGEST_READ, SHORT
from daemon.network.tls import handshake

from .loopback import BOUND

of_tls = pytest.mark.parametrize("both", ["TLSv1.2", "TLSv1.3"], indirect=True)

RECORD = 1 << 14  # RFC 8446 section 5.1: the most that one may hold


class Peer:
    """The other side of a connection; TLS is done in memory, so that its records may be cut anywhere."""

    def __init__(self, sock, context):
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context and context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    async def shake_hands(self):
        sock = trio.socket.from_stdlib_socket(self.sock)
        done = False
        while not done:
            try:
                self.tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            if self.outgoing.pending:
                await sock.send(self.outgoing.read())
            if not done:
                self.incoming.write(await sock.recv(65536))

    def sealed(self, data):
        """As it is to be on the wire: one record for each RECORD bytes of it."""
        if self.tls is None:
            return data
        self.tls.write(data)
        return self.outgoing.read()

    def say(self, data):
        self.sock.setblocking(True)
        self.sock.sendall(self.sealed(data))

    def hear(self):
        self.sock.setblocking(True)
        data = self.sock.recv(65536)
        if self.tls is None:
            return data
        self.incoming.write(data)
        return self.tls.read(65536)

    def say_farewell(self):
        if self.tls is not None:
            with pytest.raises(ssl.SSLWantReadError):  # it was written, and ours is not waited for
                self.tls.unwrap()
            self.sock.sendall(self.outgoing.read())

    def end(self):
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


@pytest.fixture(params=["plain", "TLSv1.2", "TLSv1.3"])
async def both(request, authority, ca_file, tmp_path):
    """A stream and its peer."""
    context = None
    if request.param != "plain":
        context = authority.issue().server_context(tmp_path)
        context.maximum_version = ssl.TLSVersion[request.param.replace(".", "_")]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        peer = Peer(theirs, context)
        if context is None:
            stream = PlainSocket(ours)
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.shake_hands)
                stream = await handshake(ours, "localhost", client_context(ca_file))
            assert isinstance(stream, TLSSocket)
            assert stream.version() == request.param
        yield stream, peer
        await stream.aclose()


@pytest.fixture
def stream(both):
    return both[0]


@pytest.fixture
def peer(both):
    return both[1]


def readable(stream):
    """Whether the kernel has anything."""
    return bool(select.select([stream.fileno()], [], [], 0)[0])


async def hear(stream):
    """The first that is whole."""
    with trio.fail_after(BOUND):
        while (data := stream.receive_now()) is None:
            await trio.lowlevel.wait_readable(stream.fileno())
    return data


def send_on(stream, times):
    """Commands, whatever becomes of them."""
    for _ in range(times):
        stream.send_now(b"x" * SHORT)


async def test_nothing_is_here(stream):
    """Not even where TLS has said something for itself: 1.3 hands out its tickets after the handshake."""
    assert stream.receive_now() is None
    assert stream.receive_now() is None
    assert not readable(stream)


async def test_what_is_here_in_its_order(stream, peer):
    peer.say(b"* 1 EXISTS\r\n")
    first = await hear(stream)
    peer.say(b"* OK Still here\r\n")
    assert await hear(stream) == b"* OK Still here\r\n"
    assert first == b"* 1 EXISTS\r\n", "copied out of what all streams share"
    assert stream.receive_now() is None


@of_tls
async def test_half_a_record_is_nothing_until_it_is_whole(stream, peer):
    record = peer.sealed(b"* 2 EXISTS\r\n")
    stream.receive_now()  # tickets
    for cut in (record[:3], record[3:7], record[7:-1]):
        peer.sock.send(cut)
        await trio.lowlevel.wait_readable(stream.fileno())
        assert stream.receive_now() is None
        assert not readable(stream), "the half is with OpenSSL, and the kernel tells only of the rest"
    peer.sock.send(record[-1:])
    assert await hear(stream) == b"* 2 EXISTS\r\n"


@of_tls
async def test_a_record_and_the_half_of_another(stream, peer):
    first, second = peer.sealed(b"first"), peer.sealed(b"second")
    peer.sock.send(first + second[:-4])
    assert await hear(stream) == b"first"
    assert stream.receive_now() is None
    peer.sock.send(second[-4:])
    assert await hear(stream) == b"second"


@of_tls
async def test_the_largest_record_is_read_at_once_and_nothing_stays_hidden(stream, peer):
    data = bytes(range(256)) * (RECORD // 256)
    peer.say(data + data[::-1] + b"end")
    for expected in (data, data[::-1], b"end"):
        assert await hear(stream) == expected
        assert stream._socket.pending() == 0
    assert stream.receive_now() is None


async def test_what_a_smaller_read_has_left_with_openssl_is_here(stream, peer):
    peer.say(b"abcdefgh")
    assert await stream.receive_some(3) == b"abc"
    assert stream.receive_now() == b"defgh"


async def test_much_comes_in_bounded_pieces(stream, peer):
    data = bytes(range(256)) * 256
    peer.say(data)
    received = b""
    while len(received) < len(data):
        piece = await hear(stream)
        assert 0 < len(piece) <= LARGEST_READ
        received += piece
    assert received == data


async def test_an_end_is_empty_and_stays_so(stream, peer):
    peer.say(b"* BYE\r\n")
    peer.say_farewell()
    peer.end()
    assert await hear(stream) == b"* BYE\r\n"
    assert await hear(stream) == b""
    assert stream.receive_now() == b""


@pytest.mark.parametrize("before", [b"", b"* BY"], ids=["between", "within"])
async def test_an_end_without_farewell_is_an_end(stream, peer, before):
    """Within a record, too: half of one is no more than nothing."""
    peer.sock.send(peer.sealed(b"* BYE\r\n")[: len(before)])
    peer.end()
    if peer.tls is None and before:
        assert await hear(stream) == before
    assert await hear(stream) == b""
    assert stream.receive_now() == b""


async def test_a_reset_is_broken(stream, peer):
    stream.receive_now()  # tickets
    peer.reset()
    await trio.lowlevel.wait_readable(stream.fileno())
    if peer.tls is not None:  # Python calls it an end
        assert stream.receive_now() == b""
        return
    with pytest.raises(trio.BrokenResourceError) as caught:
        stream.receive_now()
    assert isinstance(caught.value.__cause__, ConnectionResetError)


@of_tls
async def test_what_is_no_tls_is_broken(stream, peer):
    peer.sock.send(b"* BYE I forgot that this is encrypted\r\n")
    with pytest.raises(trio.BrokenResourceError):
        await hear(stream)


@of_tls
async def test_a_record_that_somebody_touched_is_broken(stream, peer):
    record = bytearray(peer.sealed(b"* 2 EXISTS\r\n"))
    record[-1] ^= 1  # of what authenticates it
    peer.sock.send(record)
    with pytest.raises(trio.BrokenResourceError) as caught:
        await hear(stream)
    assert isinstance(caught.value.__cause__, ssl.SSLError)


async def test_what_is_closed_is_closed(stream):
    assert stream.fileno() >= 0
    await stream.aclose()
    assert stream.fileno() == -1
    with pytest.raises(trio.ClosedResourceError):
        stream.receive_now()
    with pytest.raises(trio.ClosedResourceError):
        stream.send_now(b"x")


async def test_what_is_given_away_is_closed():
    ours, theirs = socket.socketpair()
    with theirs:
        stream = PlainSocket(ours)
        with stream.detach():
            assert stream.fileno() == -1
            for attempt in (stream.receive_now, lambda: stream.send_now(b"x")):
                with pytest.raises(trio.ClosedResourceError):
                    attempt()


async def test_a_command_is_with_the_kernel_at_once(stream, peer):
    for command in (b"DONE\r\n", b"x" * SHORT):
        stream.send_now(command)
        assert peer.hear() == command


async def test_a_command_goes_out_while_half_an_answer_is_here(stream, peer):
    answer = peer.sealed(b"A1 OK\r\n")
    peer.sock.send(answer[:-2])
    await trio.lowlevel.wait_readable(stream.fileno())
    stream.receive_now()
    stream.send_now(b"DONE\r\n")
    assert peer.hear() == b"DONE\r\n"
    peer.sock.send(answer[-2:])
    assert (await hear(stream)).endswith(b"K\r\n" if peer.tls else b"\r\n")


async def test_who_takes_nothing_is_lost(stream):
    with pytest.raises(trio.BrokenResourceError):
        send_on(stream, 100_000)


@pytest.mark.parametrize("both", ["plain"], indirect=True)
async def test_what_was_taken_in_part_is_lost(stream):
    with pytest.raises(trio.BrokenResourceError, match="takes nothing"):
        stream.send_now(b"x" * (1 << 24))


async def test_writing_into_a_reset_is_broken(stream, peer):
    peer.reset()
    await trio.lowlevel.wait_readable(stream.fileno())
    with pytest.raises(trio.BrokenResourceError):
        send_on(stream, 2)
