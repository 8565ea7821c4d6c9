"""What a wire takes in without waiting, between a stream that is watched and whoever reads lines."""

import socket
from collections.abc import Iterator

import pytest
import trio

from daemon.errors import Fault, FaultKind
from daemon.imap.wire import CHUNK, Wire
from daemon.network import PlainSocket

from .test_wire import on


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
async def wire(pair: tuple[socket.socket, socket.socket]) -> Wire:
    return Wire(PlainSocket(pair[0]), "mail.example.test")


@pytest.fixture
def server(pair: tuple[socket.socket, socket.socket]) -> socket.socket:
    return pair[1]


async def test_the_descriptor_is_that_of_the_connection(wire: Wire, pair: tuple[socket.socket, socket.socket]) -> None:
    assert wire.descriptor == pair[0].fileno() >= 0
    await wire.aclose()
    assert wire.descriptor == -1


async def test_a_stream_that_cannot_be_watched_has_no_descriptor() -> None:
    assert on(b"* OK\r\n").descriptor == -1


async def test_nothing_here_is_nothing_heard(wire: Wire) -> None:
    heard_at = wire.heard_at
    assert wire.receive_now() is False
    assert (wire.pending, wire.received, wire.heard_at) == (0, 0, heard_at)
    assert wire.take_simple_line() is None


async def test_what_is_here_is_counted_and_gives_lines(
    wire: Wire, server: socket.socket, autojump_clock: trio.testing.MockClock
) -> None:
    await trio.sleep(7)
    server.send(b"* OK Still here\r\n* 5 EXI")
    assert wire.receive_now() is True
    assert (wire.received, wire.pending, wire.heard_at) == (24, 24, trio.current_time())
    assert wire.take_simple_line() == b"* OK Still here"
    assert wire.take_simple_line() is None
    assert wire.pending == 7
    await trio.sleep(2)
    server.send(b"STS\n")
    assert wire.receive_now() is True
    assert wire.take_simple_line() == b"* 5 EXISTS"
    assert wire.statistics().received == 28
    assert wire.pending == 0
    assert not wire._buffer, "an idle session holds none"


async def test_what_was_taken_makes_room(wire: Wire, server: socket.socket) -> None:
    """A server whose packets always end within a line: the buffer is of the size of what is to be taken."""
    server.send(b"* OK")
    for _ in range(1000):
        server.send(b" here\r\n* OK")
        assert wire.receive_now()
        assert wire.take_simple_line() == b"* OK here"
        assert wire.take_simple_line() is None
        assert len(wire._buffer) < 40


async def test_a_single_call_takes_no_more_than_a_read(wire: Wire, server: socket.socket) -> None:
    server.send(b"x" * CHUNK + b"yz\r\n")
    assert wire.receive_now()
    assert wire.pending == CHUNK
    assert wire.receive_now()
    assert wire.take_simple_line() == b"x" * CHUNK + b"yz"


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
@pytest.mark.parametrize("line", [b"* 1 FETCH (BODY[] {3}", b"* 1 FETCH (BODY[] {3+}", b"* OK }"])
async def test_a_line_that_a_literal_may_belong_to_is_left_here(
    wire: Wire, server: socket.socket, line: bytes, end: bytes
) -> None:
    rest = end + b"abc)\r\n"
    server.send(b"* 1 EXISTS\r\n" + line + rest)
    assert wire.receive_now()
    assert wire.take_simple_line() == b"* 1 EXISTS"
    for _ in range(2):
        assert wire.take_simple_line() is None
    assert wire.pending == len(line + rest)
    assert wire.has_line, "so that the task is told of it"
    assert wire.take_line() == line
    assert wire.take_simple_line() == b"abc)"


@pytest.mark.parametrize("line", [b"", b"{", b"* LIST (}) x", b"} ", b"* OK {3} messages"])
async def test_braces_within_a_line_are_simple(wire: Wire, server: socket.socket, line: bytes) -> None:
    server.send(line + b"\r\n}\r\n")
    assert wire.receive_now()
    assert wire.take_simple_line() == line
    assert wire.take_simple_line() is None
    assert wire.pending == 3


async def test_a_later_line_with_a_literal_does_not_hold_up_a_simple_one(wire: Wire, server: socket.socket) -> None:
    server.send(b"* 1 EXISTS\r\n* 1 FETCH (BODY[] {3}")
    assert wire.receive_now()
    assert wire.take_simple_line() == b"* 1 EXISTS"
    assert wire.take_simple_line() is None, "it has not come whole"
    server.send(b"\r\n")
    assert wire.receive_now()
    assert wire.take_simple_line() is None
    assert wire.has_line


async def test_what_the_lookout_took_in_is_there_for_the_task(wire: Wire, server: socket.socket) -> None:
    server.send(b"* 5 EX")
    assert wire.receive_now()
    server.send(b"ISTS\r\n")
    await wire.wait_line()
    assert wire.take_line() == b"* 5 EXISTS"


async def test_an_end_is_lost_and_what_came_before_it_is_not(wire: Wire, server: socket.socket) -> None:
    server.send(b"* BYE\r\n")
    server.close()
    assert wire.receive_now()
    with pytest.raises(Fault) as caught:
        wire.receive_now()
    assert caught.value.kind is FaultKind.LOST
    assert wire.take_simple_line() == b"* BYE"


async def test_a_break_is_lost_in_our_own_words(wire: Wire, server: socket.socket) -> None:
    wire.send_now(b"x")
    server.close()  # with a byte unread, which is a reset
    for attempt in (wire.receive_now, lambda: wire.send_now(b"DONE\r\n")):
        with pytest.raises(Fault) as caught:
            attempt()
        assert caught.value.kind is FaultKind.LOST
        assert isinstance(caught.value.__cause__, trio.BrokenResourceError)
    assert (wire.sent, wire.received) == (1, 0)


async def test_closed_is_lost(wire: Wire) -> None:
    await wire.aclose()
    for attempt in (wire.receive_now, lambda: wire.send_now(b"DONE\r\n")):
        with pytest.raises(Fault) as caught:
            attempt()
        assert caught.value.kind is FaultKind.LOST


async def test_a_command_is_sent_and_counted(wire: Wire, server: socket.socket) -> None:
    wire.send_now(b"DONE\r\n")
    assert server.recv(100) == b"DONE\r\n"
    assert wire.statistics().sent == 6
