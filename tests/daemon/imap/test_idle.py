"""IDLE against a server that says what it should not, when it should not.  Renewals are in `test_watch`.

Each conversation is over real sockets and bounded; what is asserted is what the session makes of the lie.
"""


import pytest
import trio

from daemon.errors import Fault, FaultKind
from daemon.imap import watch as watch_module
from daemon.imap.faults import Refused
from daemon.imap.news import FlagNews
from tests.daemon.imap.conversations import idling, saying
from tests.daemon.imap.scripted import Peer, talk


async def test_a_line_split_over_two_packets_is_heard_whole() -> None:
    async with talk(idling(b"+ idling\r\n", b"* 4 EX", b"ISTS\r\n")) as imap:
        assert (await imap.idle(20)).exists == 4


async def test_news_in_one_packet_with_the_permission_to_idle_is_heard() -> None:
    async with talk(idling(b"+ idling\r\n* 4 EXISTS\r\n")) as imap:
        assert (await imap.idle(20)).exists == 4


async def test_news_before_the_permission_to_idle_is_heard() -> None:
    async with talk(idling(b"* 4 EXISTS\r\n", b"+ idling\r\n")) as imap:
        assert (await imap.idle(20)).exists == 4


async def test_a_literal_in_idle_is_read() -> None:
    packets = (b"+ idling\r\n", b"* 4 FETCH (UID 9 FLAGS ({5}", b"\r\n\\S", b"een))\r\n")
    async with talk(idling(*packets)) as imap:
        assert (await imap.idle(20)).flags == {9: FlagNews((b"\\Seen",), None)}


async def test_what_comes_after_done_is_heard_too() -> None:
    async def script(peer: Peer) -> None:
        tag = await peer.expect(b"IDLE")
        await peer.say(b"+ idling", b"* 4 EXISTS")
        await peer.line()
        await peer.say(b"* 5 EXISTS", b"* 1 EXPUNGE", tag + b" OK idled")
        await peer.hear_out()

    async with talk(script) as imap:
        news = await imap.idle(20)
        assert (news.exists, news.removed) == (4, 1)


async def test_a_sign_of_life_is_heard_and_is_no_news() -> None:
    async with talk(idling(b"+ idling\r\n", b"* OK Still here\r\n")) as imap:
        before = imap.heard_at
        assert not await imap.idle(0.2)
        assert imap.heard_at > before


async def test_idle_is_renewed_in_its_time() -> None:
    async with talk(idling(b"+ idling\r\n")) as imap:
        assert not await imap.idle(0.05)
        assert not imap.dirty


@pytest.mark.parametrize("words", [b"", b"* BYE shutting down\r\n"])
async def test_an_end_in_idle_is_lost(words: bytes) -> None:
    async with talk(idling(b"+ idling\r\n", words, ends=False)) as imap:
        with pytest.raises(Fault) as caught:
            await imap.idle(20)
        assert caught.value.kind is FaultKind.LOST
        assert imap.dirty


@pytest.mark.parametrize("line", [b"+ again\r\n", b"XX OK what\r\n", b"\x00\x01\r\n", b"A1 OK over\r\n"])
async def test_garbage_in_idle_is_a_violation(line: bytes) -> None:
    async with talk(idling(b"+ idling\r\n", line, ends=False)) as imap:
        with pytest.raises(Fault) as caught:
            await imap.idle(20)
        assert caught.value.kind is FaultKind.PROTOCOL


async def test_idle_refused_leaves_a_sound_session() -> None:
    async with talk(saying(b"%tag% NO not now", to=b"IDLE")) as imap:
        with pytest.raises(Refused):
            await imap.idle(20)
        assert not imap.dirty


async def test_done_unanswered_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "DONE_TIME", 0.05)

    async def script(peer: Peer) -> None:
        await peer.expect(b"IDLE")
        await peer.say(b"+ idling")
        while True:  # it talks on, and never ends
            await peer.say(b"* OK Still here")
            await trio.sleep(0.01)

    async with talk(script) as imap:
        with pytest.raises(Fault) as caught:
            await imap.idle(0.05)
        assert caught.value.kind is FaultKind.LOST


async def test_an_idle_can_be_interrupted() -> None:
    async with talk(idling(b"+ idling\r\n")) as imap, trio.open_nursery() as nursery:

        async def later() -> None:
            await trio.sleep(0.05)
            imap.interrupt()

        nursery.start_soon(later)
        assert not await imap.idle(20)
        assert not imap.dirty


async def test_an_interrupt_before_idle_is_not_lost() -> None:
    async with talk(idling(b"+ idling\r\n")) as imap:
        imap.interrupt()
        assert not await imap.idle(20)  # at once: nothing was sent
        assert imap.statistics().commands == 0
        assert not await imap.idle(0.05)
        assert imap.statistics().commands == 1


async def test_news_from_before_makes_idle_return_at_once() -> None:
    async with talk(saying(b"* 9 EXISTS", b"%tag% OK", to=b"NOOP")) as imap:
        await imap.noop()
        assert (await imap.idle(20)).exists == 9
        assert imap.statistics().commands == 1


async def test_a_cancelled_idle_costs_the_session() -> None:
    async with talk(idling(b"+ idling\r\n")) as imap:
        with trio.move_on_after(0.05) as scope:
            await imap.idle(20)
        assert scope.cancelled_caught
        assert imap.dirty
        with pytest.raises(Fault):
            await imap.noop()
