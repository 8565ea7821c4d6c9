"""Bodies that come in pieces: how long one may take, how large what comes may be, and who waits for whom meanwhile.

The server is a script at the other end of a stream in memory, so that its slowness is the virtual clock's.
"""

import re
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from daemon.account.pacing import LARGE, LARGE_BODIES, MOST_LARGE_BODIES, OVERDUE, Pacing
from daemon.account.turns import Turn
from daemon.errors import Fault, FaultKind
from daemon.imap import fetching
from daemon.imap.fetching import BODY_WITHIN, PIECE_WITHIN, Batch, Fetcher, Limiter, ascending_windows
from daemon.imap.session import Session
from daemon.imap.wire import CHUNK, MAX_LITERAL, Wire
from daemon.messages.incoming import IncomingMessage
from tests.daemon.imap.scripted import Peer, Stream

ACCOUNT = UUID(int=1)
BIG, SMALL = 1, 2
"""The UIDs in the folder."""

PIECE = 10_000
"""Bytes, for these tests."""

REAL_PIECE = fetching.PIECE

BODY = b"Subject: large\r\n\r\n".ljust(2 * PIECE + 1000, b"x")

Piece = Callable[[Peer, int], Awaitable[None]]
"""Answers, but for the last line, a command for the piece of the large message that begins at an offset."""


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "PIECE", PIECE)


def literal(data: bytes, origin: int) -> bytes:
    return b"* 1 FETCH (UID %d BODY[]<%d> {%d}\r\n%b)\r\n" % (BIG, origin, len(data), data)


async def server(piece: Piece, stream: trio.abc.Stream) -> None:
    """A folder with a large message and a small one, which tells the large one's pieces as it is made to."""
    peer = Peer(stream)
    try:
        while True:
            tag, _, command = (await peer.line()).partition(b" ")
            if b"FLAGS" in command:
                told = b"* %d FETCH (UID %d FLAGS () RFC822.SIZE %d BODY[]<0> {%d}\r\n%b)\r\n"
                small = b"Subject: small\r\n\r\n"
                await peer.raw(told % (1, BIG, len(BODY), PIECE, BODY[:PIECE]))
                await peer.raw(told % (2, SMALL, len(small), len(small), small))
            else:
                asked = re.search(rb"UID FETCH 1 \(UID BODY\.PEEK\[\]<(\d+)\.(\d+)>\)", command)
                assert asked is not None, command
                assert int(asked[2]) == PIECE
                await piece(peer, int(asked[1]))
            await peer.say(tag + b" OK done")
    except (EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # the client had enough


def fault_in(exc: BaseException) -> Fault:
    """The only one in a group of groups."""
    while isinstance(exc, BaseExceptionGroup):
        (exc,) = exc.exceptions
    assert isinstance(exc, Fault)
    return exc


class Folder:
    """What one account fetched of such a server, and when; the session is sound or it is not."""

    def __init__(self) -> None:
        self.messages: dict[int, IncomingMessage] = {}
        self.skipped: list[tuple[int, str]] = []
        self.complete = False
        self.waited_for = False
        """Whether the large message was stored before the cursor was moved."""
        self.ended = 0.0
        self.session: Session

    async def _store(self, batch: Batch) -> None:
        self.messages |= {message.uid: message for message in batch.messages}
        self.skipped += batch.skipped
        self.waited_for = self.waited_for or (BIG in self.messages and not self.complete)
        self.complete = self.complete or batch.done is not None

    async def fetch(self, piece: Piece, large_bodies: Limiter, max_body: int = 1000 * PIECE) -> None:
        """Fetch both messages; raises what the fetcher does, alone."""
        began = trio.current_time()
        ours, theirs = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server, piece, theirs)
            self.session = Session(Wire(Stream(ours), "localhost"))
            fetcher = Fetcher(self.session, ACCOUNT, modseq=False, max_body=max_body, large_bodies=large_bodies)
            try:
                await fetcher.windows(ascending_windows([BIG, SMALL], 2), self._store)
            finally:
                self.ended = trio.current_time() - began
                await self.session.aclose()

    async def fails(self, piece: Piece, large_bodies: Limiter) -> Fault:
        with pytest.RaisesGroup(Fault, flatten_subgroups=True) as caught:
            await self.fetch(piece, large_bodies)
        return fault_in(caught.value)

    @property
    def body(self) -> bytes:
        return b"".join(self.messages[BIG].pieces)


async def evenly(seconds: float, peer: Peer, said: bytes) -> None:
    """A line so slow that this takes so long, and never silent for as long as a connection's patience."""
    step = -(-len(said) // 20)
    for at in range(0, len(said), step):
        await trio.sleep(seconds / 20)
        await peer.raw(said[at : at + step])


async def after(seconds: float, peer: Peer, origin: int) -> None:
    """A server that needs so long for each piece."""
    await evenly(seconds, peer, literal(BODY[origin : origin + PIECE], origin))


async def endless(seconds: float, peer: Peer, origin: int) -> None:
    """One whose message never ends: not before we should have had enough of it."""
    if origin < 100 * PIECE:
        await evenly(seconds, peer, literal(b"y" * PIECE, origin))


async def drips(peer: Peer, origin: int) -> None:
    """One that keeps talking, within every bound of the connection, and does not give the piece."""
    for _ in range(2000):
        await trio.sleep(1.0)
        await peer.say(b"* OK Still here")


# -- how long ----------------------------------------------------------------------------------------------------------


async def test_a_body_may_come_slowly(autojump_clock: MockClock) -> None:
    """At 10 KB/s, say: a session that ended over it would end over it again, and the account never catch up."""
    folder = Folder()
    await folder.fetch(partial(after, BODY_WITHIN / 3 - 1.0), trio.Semaphore(1))
    assert folder.body == BODY
    assert folder.messages[BIG].body_state == folder.messages[SMALL].body_state == "stored"
    assert folder.complete
    assert folder.waited_for, "the cursor moves when the body is there, and not before"
    assert folder.ended == pytest.approx(BODY_WITHIN - 3.0), "three pieces, one after the other"


async def test_large_bodies_come_one_after_the_other(autojump_clock: MockClock) -> None:
    places, folders = trio.Semaphore(1), [Folder(), Folder()]
    async with trio.open_nursery() as nursery:
        for folder in folders:
            nursery.start_soon(folder.fetch, partial(after, 1.0), places)
    assert sorted(folder.ended for folder in folders) == pytest.approx([3.0, 6.0])


async def test_a_piece_that_drips_ends_the_session_and_gives_its_place_back(autojump_clock: MockClock) -> None:
    places, folder = trio.Semaphore(1), Folder()
    fault = await folder.fails(drips, places)
    assert fault.kind is FaultKind.LOST
    assert "too slow with a large message" in str(fault)
    assert folder.ended == pytest.approx(PIECE_WITHIN)
    assert places.value == 1
    assert set(folder.messages) == {SMALL}, "what came before is stored"
    assert not folder.complete, "and the window is fetched again"


async def test_a_body_that_takes_too_long_is_kept_without_it(autojump_clock: MockClock) -> None:
    places, folder = trio.Semaphore(1), Folder()
    each = BODY_WITHIN / 3 + 1.0
    await folder.fetch(partial(endless, each), places)
    large = folder.messages[BIG]
    assert large.body_state == "too_large"
    assert sum(map(len, large.pieces)) == PIECE, "its head is kept"
    assert BODY_WITHIN < folder.ended <= BODY_WITHIN + each
    assert places.value == 1
    assert folder.complete, "it is not asked for again"


@pytest.mark.parametrize(
    "slow",
    [
        pytest.param(drips, id="a piece without end"),
        pytest.param(partial(endless, BODY_WITHIN / 3 + 1.0), id="pieces without end"),
    ],
)
async def test_no_number_of_slow_servers_keeps_a_body_from_others(slow: Piece, autojump_clock: MockClock) -> None:
    """All places are taken by those who drip, and somebody waits: the slowest has to leave."""
    turns, honest = Pacing(starting=1, starting_per_host=1, first_syncs=1).large_bodies, Folder()
    told: Counter[FaultKind | None] = Counter()

    async def hold() -> None:
        try:
            await Folder().fetch(slow, Turn(turns))
        except* Fault as group:
            told[fault_in(group).kind] += 1
        else:
            told[None] += 1

    async with trio.open_nursery() as nursery:
        for _ in range(MOST_LARGE_BODIES):
            nursery.start_soon(hold)
        await trio.testing.wait_all_tasks_blocked()
        await honest.fetch(partial(after, 0.0), Turn(turns))
        assert honest.body == BODY
        # Two begin every LARGE seconds.
        assert honest.ended <= max(OVERDUE, LARGE * MOST_LARGE_BODIES / LARGE_BODIES)
    assert told == {FaultKind.UNAVAILABLE: 1, (FaultKind.LOST if slow is drips else None): MOST_LARGE_BODIES - 1}
    assert turns.taken == turns.waiting == 0


# -- how large ---------------------------------------------------------------------------------------------------------


async def test_a_body_beyond_the_bound_is_kept_without_it_although_its_size_was_told_small(
    autojump_clock: MockClock,
) -> None:
    asked: list[int] = []

    async def more(peer: Peer, origin: int) -> None:
        asked.append(origin)
        if len(asked) < 10:
            await endless(0.0, peer, origin)

    folder = Folder()
    await folder.fetch(more, trio.Semaphore(1), max_body=4 * PIECE)
    assert asked == [0, PIECE, 2 * PIECE, 3 * PIECE, 4 * PIECE], "no piece is asked for beyond it"
    large = folder.messages[BIG]
    assert (large.body_state, sum(map(len, large.pieces))) == ("too_large", PIECE)
    assert folder.complete


async def test_a_server_that_gives_more_than_was_asked_gives_no_more_than_a_literal_may_hold(
    autojump_clock: MockClock,
) -> None:
    """It ignores the length of a piece: what comes counts, and the body ends at its bound."""
    asked: list[int] = []

    async def generous(peer: Peer, origin: int) -> None:
        asked.append(origin)
        if len(asked) < 10:
            await peer.raw(literal(b"y" * MAX_LITERAL, origin))

    folder = Folder()
    await folder.fetch(generous, trio.Semaphore(1), max_body=2 * MAX_LITERAL)
    assert asked == [0, MAX_LITERAL, 2 * MAX_LITERAL]
    assert folder.messages[BIG].body_state == "too_large"
    assert folder.complete


def test_what_is_asked_for_fits_into_a_literal() -> None:
    """A server that gives a little more than it was asked for must not be taken for a flood."""
    assert 2 * REAL_PIECE <= MAX_LITERAL


async def test_a_piece_larger_than_any_literal_is_refused_before_it_comes(autojump_clock: MockClock) -> None:
    async def flood(peer: Peer, origin: int) -> None:
        await peer.raw(b"* 1 FETCH (UID 1 BODY[]<%d> {%d}\r\n" % (origin, MAX_LITERAL + 1))
        while True:
            await peer.raw(b"y" * CHUNK)
            await trio.sleep(0.0)

    places, folder = trio.Semaphore(1), Folder()
    fault = await folder.fails(flood, places)
    assert fault.kind is FaultKind.PROTOCOL
    assert str(MAX_LITERAL) in str(fault)
    assert folder.session.wire.received < PIECE + 4 * CHUNK, "the first window, and what lay behind the announcement"
    assert places.value == 1
    assert set(folder.messages) == {SMALL}
    assert not folder.complete


# -- what is gone ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "told"), [(0, []), (1, [BIG])], ids=["before", "half way"])
async def test_a_large_message_that_goes_meanwhile_holds_nobody_up(
    given: int, told: list[int], autojump_clock: MockClock
) -> None:
    """Gone before a piece of it came, the next comparison knows it as gone; after one, why it is not there."""

    async def going(peer: Peer, origin: int) -> None:
        if origin < given * PIECE:
            await after(0.0, peer, origin)

    folder = Folder()
    await folder.fetch(going, trio.Semaphore(1))
    assert [uid for uid, _ in folder.skipped] == told
    assert set(folder.messages) == {SMALL}
