"""A long list of UIDs is told in parts that say the same, so that nobody else waits until all of it is understood."""

import pytest
import trio

from daemon.errors import Fault, FaultKind
from daemon.imap.news import NewsBox
from daemon.imap.responses import PIECE, Response, in_pieces, split_response
from daemon.imap.search import Found
from daemon.imap.selected import MAX_VANISHED, Selecting
from tests.daemon.imap.scripted import Peer, talk

UIDS = list(range(1_000_000, 1_160_000, 2))
COMMAS = b",".join(b"%d" % uid for uid in UIDS)


def pieces_of(line: bytes) -> list[Response]:
    pieces = in_pieces(split_response([line]))
    assert pieces is not None
    found = list(pieces)
    assert len(found) > 50
    assert all(piece.size < PIECE + 100 for piece in found)
    return found


@pytest.mark.parametrize(
    "line",
    [
        b"* SEARCH " + COMMAS.replace(b",", b" "),
        b"* SEARCH " + COMMAS.replace(b",", b" ") + b" (MODSEQ 917162500)",
        b'* ESEARCH (TAG "A7") UID ALL ' + COMMAS,
        b'* ESEARCH (TAG "A7") UID MIN 1000000 ALL ' + COMMAS + b" COUNT 80000 MODSEQ 917162500",
    ],
    ids=["search", "search modseq", "esearch", "esearch all"],
)
async def test_what_a_search_found_is_the_same_in_pieces(line: bytes) -> None:
    found = Found(len(UIDS))
    assert all(found.take(piece) for piece in pieces_of(line))
    assert (await found.ascending()).tolist() == UIDS


def test_what_vanished_is_the_same_in_pieces() -> None:
    selecting, news = Selecting("INBOX"), NewsBox()
    for piece in pieces_of(b"* VANISHED (EARLIER) " + COMMAS):
        selecting.take(piece)
        news.file(piece)
    assert [span.start for span in selecting.vanished] == UIDS
    told = news.take()
    assert len(told.vanished) + told.dropped == len(UIDS)
    assert [span.start for span in told.vanished] == UIDS[: len(told.vanished)]


@pytest.mark.parametrize("line", [b"* SEARCH 1 2 3", b"* 1 FETCH (" + b"x" * PIECE + b")", b"* OK " + COMMAS])
def test_all_else_stays_whole(line: bytes) -> None:
    assert in_pieces(split_response([line])) is None


@pytest.mark.parametrize("line", [b"* ESEARCH " + b"ALL 1 " * PIECE, b"* VANISHED " + COMMAS + b" " + COMMAS])
def test_no_list_has_so_much_beside_it(line: bytes) -> None:
    with pytest.raises(Fault) as caught:
        in_pieces(split_response([line]))
    assert caught.value.kind is FaultKind.PROTOCOL


@pytest.mark.parametrize("line", [b"* SEARCH " + b" " * 2 * PIECE, b"* SEARCH (" + b"x" * PIECE])
async def test_a_search_that_lists_nothing_found_nothing(line: bytes) -> None:
    found = Found(0)
    for piece in in_pieces(split_response([line])) or ():
        found.take(piece)
    assert not await found.ascending()


def test_what_is_beyond_the_bound_of_a_select_is_not_read() -> None:
    selecting = Selecting("INBOX", vanished=[range(1, 2)] * MAX_VANISHED)
    selecting.take(split_response([b"* VANISHED (EARLIER) no UIDs at all"]))
    assert selecting.overflowed
    assert len(selecting.vanished) == MAX_VANISHED


async def test_others_have_their_turn_while_a_long_list_is_read() -> None:
    turns: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        tag = await peer.expect(b"UID SEARCH ALL")
        await peer.say(b"* SEARCH " + COMMAS.replace(b",", b" "), tag + b" OK done")

    async def other(found: Found) -> None:
        while True:
            turns.append(found._gathering.count)
            await trio.lowlevel.checkpoint()

    async with talk(script) as session, trio.open_nursery() as nursery:
        found = Found(len(UIDS))
        nursery.start_soon(other, found)
        await session.command(b"UID SEARCH", b"ALL", sink=found.take)
        nursery.cancel_scope.cancel()
    assert (await found.ascending()).tolist() == UIDS
    told = [b - a for a, b in zip(turns, [*turns[1:], len(UIDS)], strict=True)]
    assert max(told) <= 3 * PIECE // 8, "few pieces between two turns of another task: before, all of them"
