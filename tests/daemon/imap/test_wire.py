"""Framing against streams that cut, drip, lie and stall.

`Pieces` is a stream in memory: these tests are about bytes and bounds, and the clock may jump.
"""

from collections.abc import Iterable
from itertools import pairwise

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import Fault, FaultKind
from daemon.imap import responses, wire
from daemon.imap.responses import read_response
from daemon.imap.wire import Wire


class Pieces:
    """Gives each piece as one read, a number as so many seconds of silence, and then the end."""

    def __init__(self, *pieces: bytes | float) -> None:
        self.pieces = list(pieces)
        self.sent = b""
        self.closed = False

    async def receive_some(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        if self.pieces and isinstance(self.pieces[0], (int, float)):
            await trio.sleep(self.pieces.pop(0))
        if not self.pieces:
            return b""
        piece = self.pieces.pop(0)
        if len(piece) > max_bytes:
            self.pieces.insert(0, piece[max_bytes:])
        return piece[:max_bytes]

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.sent += data

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


class Endless:
    """Gives the same piece for ever."""

    def __init__(self, piece: bytes) -> None:
        self.piece = piece
        self.given = 0

    async def receive_some(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        self.given += len(self.piece[:max_bytes])
        return self.piece[:max_bytes]


class Broken:
    async def receive_some(self, max_bytes: int) -> bytes:
        raise trio.BrokenResourceError

    async def send_all(self, data: bytes) -> None:
        raise ConnectionResetError


def on(*pieces: bytes | float) -> Wire:
    return Wire(Pieces(*pieces), "localhost", patience=60)


def cut(text: bytes, places: Iterable[int]) -> list[bytes]:
    at = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    return [text[low:high] for low, high in pairwise(at)]


CONVERSATION = (
    b"* OK hello\r\n* 1 FETCH (UID 5 BODY[] {7}\r\na\r\n()b\n FLAGS ({0}\r\n {3+}\r\nxyz))\r\n"
    b"+ go\r\nA1 OK [X] done\r\n"
)
RESPONSES = [
    (b"*", b"OK", None, [b"hello"]),
    (b"*", b"FETCH", 1, [(b"(UID 5 BODY[] {7}", b"a\r\n()b\n"), (b" FLAGS ({0}", b""), (b" {3+}", b"xyz"), b"))"]),
    (b"+", b"", None, [b"go"]),
    (b"A1", b"OK", None, [b"[X] done"]),
]


@given(st.lists(st.integers(0, 1000), max_size=30))
def test_responses_are_the_same_however_the_packets_are_cut(places: list[int]) -> None:
    async def read_all() -> list[object]:
        wire = on(*cut(CONVERSATION, places))
        return [tuple(await read_response(wire)) for _ in RESPONSES]

    assert trio.run(read_all) == RESPONSES


async def test_a_line_may_end_in_a_bare_newline() -> None:
    assert (await read_response(on(b"* 5 EXISTS\n"))).number == 5


async def test_nothing_is_kept_once_all_is_read(autojump_clock: trio.testing.MockClock) -> None:
    wire = on(b"x" * 100_000 + b"\r\n")
    await wire.wait_line()
    assert wire.has_line
    assert len(wire.take_line() or b"") == 100_000
    assert wire.take_line() is None
    assert wire.statistics().buffered == 0
    assert wire.statistics().received == 100_002


@pytest.mark.parametrize("pieces", [(), (b"* half a li",), (b"* 1 FETCH ({50}\r\nhalf",)])
async def test_an_end_anywhere_is_lost(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(Fault) as caught:
        await read_response(on(*pieces))
    assert caught.value.kind is FaultKind.LOST


@pytest.mark.parametrize("pieces", [(61,), (b"* half", 61), (b"* 1 FETCH ({50}\r\nhalf", 61)])
async def test_silence_is_lost(pieces: tuple[bytes | float, ...], autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(Fault) as caught:
        await read_response(on(*pieces, b"late\r\n"))
    assert caught.value.kind is FaultKind.LOST
    assert trio.current_time() < 61


async def test_a_response_that_drips_is_lost(autojump_clock: trio.testing.MockClock) -> None:
    """Each byte comes within the patience, and the whole would take a year."""
    drops = [piece for _ in range(500_000) for piece in (b"x", 50)]
    with pytest.raises(Fault) as caught:
        await read_response(on(*drops))
    assert caught.value.kind is FaultKind.LOST
    assert trio.current_time() < 200


async def test_a_literal_that_drips_is_lost(autojump_clock: trio.testing.MockClock) -> None:
    drops = [piece for _ in range(10_000) for piece in (b"x", 50)]
    with pytest.raises(Fault) as caught:
        await read_response(on(b"* 1 FETCH ({5000}\r\n", *drops))
    assert caught.value.kind is FaultKind.LOST
    assert trio.current_time() < 200


async def test_a_large_literal_may_take_its_time(autojump_clock: trio.testing.MockClock) -> None:
    size = 4_000_000
    slow = [piece for _ in range(size // 20_000) for piece in (b"x" * 20_000, 2)]
    response = await read_response(on(b"* 1 FETCH ({%d}\r\n" % size, *slow, b")\r\n"))
    assert response.size > size
    assert trio.current_time() > 300


@pytest.mark.parametrize("size", [b"9999999999", b"9" * 19, b"%d" % (wire.MAX_LITERAL + 1)])
async def test_a_giant_literal_is_refused_before_a_byte_of_it(size: bytes) -> None:
    stream = Endless(b"x")
    peer = Wire(stream, "localhost")
    peer._buffer += b"* 1 FETCH (BODY[] {" + size + b"}\r\n"
    with pytest.raises(Fault) as caught:
        await read_response(peer)
    assert caught.value.kind is FaultKind.PROTOCOL
    assert stream.given == 0


async def test_an_endless_line_is_refused() -> None:
    stream = Endless(b"x" * wire.CHUNK)
    with pytest.raises(Fault) as caught:
        await read_response(Wire(stream, "localhost"))
    assert caught.value.kind is FaultKind.PROTOCOL
    assert stream.given <= wire.MAX_LINE + 2 * wire.CHUNK


async def test_endless_literals_of_one_response_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "MAX_RESPONSE", 1_000_000)
    stream = Endless(b" {10}\r\n0123456789")
    with pytest.raises(Fault) as caught:
        await read_response(Wire(stream, "localhost"))
    assert caught.value.kind is FaultKind.PROTOCOL
    assert stream.given <= 1_000_000


@pytest.mark.parametrize(
    "line", [b"", b" ", b"*", b"* ", b"* 5", b"* 5 ", b"x" * 500 + b" OK", b"* " + b"x" * 500, b"\x00\xff"]
)
async def test_garbage_is_a_violation(line: bytes) -> None:
    with pytest.raises(Fault) as caught:
        await read_response(on(line + b"\r\n"))
    assert caught.value.kind is FaultKind.PROTOCOL


async def test_a_break_is_lost_in_our_own_words() -> None:
    peer = Wire(Broken(), "localhost")
    for attempt in (peer.wait_line, lambda: peer.wait_line(5), lambda: peer.send(b"x")):
        with pytest.raises(Fault) as caught:
            await attempt()
        assert caught.value.kind is FaultKind.LOST
        assert caught.value.__cause__ is not None


async def test_a_cancelled_read_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    peer = on(b"* 5 EX", 10, b"ISTS\r\n* 6 EXI", 10, b"STS\r\n{7}\r\nabc", 10, b"defg\r\n")
    cancelled = 0
    lines = []
    while len(lines) < 3:
        with trio.move_on_after(4) as scope:
            await peer.wait_line()
            lines.append(peer.take_line())
        cancelled += scope.cancelled_caught
    assert lines == [b"* 5 EXISTS", b"* 6 EXISTS", b"{7}"]
    block = None
    while block is None:
        with trio.move_on_after(4) as scope:
            block = await peer.block(7)
        cancelled += scope.cancelled_caught
    assert block == b"abcdefg"
    assert cancelled == 3


async def test_what_was_heard_last_is_known(autojump_clock: trio.testing.MockClock) -> None:
    peer = on(7, b"* OK Still", 5, b" here\r\n")
    began = peer.heard_at
    await read_response(peer)
    assert peer.heard_at - began == 12


async def test_closing_waits_for_nobody() -> None:
    class Sticky(Pieces):
        async def aclose(self) -> None:
            self.closed = True
            await trio.sleep_forever()

    stream = Sticky()
    await Wire(stream, "localhost").aclose()
    assert stream.closed


async def test_a_server_that_answers_before_it_is_asked_lets_others_have_their_turn() -> None:
    class Ready(Pieces):
        async def send_all(self, data: bytes) -> None:  # as the real one where the kernel has room
            self.sent += data

    wire, turns = Wire(Ready(b"x\r\n" * 100), "mail.example.test"), 0

    async def others() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    await wire.wait_line()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        for _ in range(50):
            await wire.send(b"A1 NOOP\r\n")
            assert wire.take_line() == b"x"
        nursery.cancel_scope.cancel()
    assert turns >= 40, "nearly one for each"
