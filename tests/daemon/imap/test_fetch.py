"""FETCH against a server that says what it should not, when it should not.

Each conversation is over real sockets and bounded; what is asserted is what the session makes of the lie.
"""

from contextlib import aclosing

import pytest
import trio

from daemon.errors import Fault, FaultKind
from daemon.imap import flights
from daemon.imap.faults import Refused
from daemon.imap.news import FlagNews
from daemon.imap.parse import Malformed
from tests.daemon.imap.conversations import ending, fetch_all, saying
from tests.daemon.imap.scripted import Peer, talk


async def test_messages_are_given_while_they_come() -> None:
    async def script(peer: Peer) -> None:
        tag = await peer.expect(rb"UID FETCH 1:2 \(FLAGS\)")
        await peer.say(b"* 1 FETCH (UID 1 FLAGS ())")
        await release.wait()
        await peer.say(b"* 2 FETCH (UID 2 FLAGS ())", tag + b" OK")
        await peer.hear_out()

    release = trio.Event()
    async with talk(script) as imap, aclosing(imap.fetch([b"1:2"], [b"FLAGS"])) as messages:
        assert (await anext(messages)).uid == 1
        release.set()
        assert [message.uid async for message in messages] == [2]
        assert not imap.dirty


async def test_commands_are_sent_ahead_and_their_answers_told_apart() -> None:
    async def script(peer: Peer) -> None:
        tags = [await peer.expect(b"UID FETCH %d .*" % uid) for uid in (1, 2, 3)]
        for uid in (2, 1, 3):  # a server may answer in its own order
            await peer.say(b"* %d FETCH (UID %d FLAGS ())" % (uid, uid), tags[uid - 1] + b" OK")
        await peer.expect(b"UID FETCH 4 .*")
        await peer.say(b"A4 OK")
        await peer.hear_out()

    async with talk(script) as imap:
        found = await fetch_all(imap, b"1", b"2", b"3", b"4", depth=3)
        assert [message.uid for message in found] == [2, 1, 3]


async def test_sets_are_complete_in_our_order_whatever_the_servers() -> None:
    """Otherwise a cursor would move beyond messages that are not here yet."""

    async def script(peer: Peer) -> None:
        tags = [await peer.expect(b"UID FETCH.*") for _ in range(3)]
        await peer.say(b"* 2 FETCH (UID 2 FLAGS ())", tags[1] + b" OK")
        await peer.say(b"* 1 FETCH (UID 1 FLAGS ())", tags[0] + b" OK")
        await peer.say(b"* 3 FETCH (UID 3 FLAGS ())", tags[2] + b" OK")
        await peer.hear_out()

    told: list[object] = []
    async with talk(script) as imap:
        messages = imap.fetch([b"1", b"2", b"3"], [b"FLAGS"], depth=3, on_complete=lambda: told.append("complete"))
        async with aclosing(messages):
            async for message in messages:
                told.append(message.uid)  # noqa: PERF401 - in turn with what the callback appends
    assert told == [2, 1, "complete", "complete", 3, "complete"]


async def test_no_set_behind_a_refused_one_is_complete() -> None:
    async def script(peer: Peer) -> None:
        tags = [await peer.expect(b"UID FETCH.*") for _ in range(3)]
        await peer.say(tags[1] + b" NO", tags[2] + b" OK", tags[0] + b" OK")
        await peer.hear_out()

    complete: list[bool] = []
    async with talk(script) as imap:
        with pytest.raises(Refused):
            await fetch_all(imap, b"1", b"2", b"3", depth=3, on_complete=lambda: complete.append(True))
        assert complete == [True]
        assert not imap.dirty


async def test_an_unsolicited_fetch_without_a_uid_is_no_message_of_ours() -> None:
    """Sequence number 7, while UID 7 is asked for: imapclient takes its flags for those of UID 7."""
    answers = (b"* 7 FETCH (FLAGS (\\Deleted))", b"* 1 FETCH (UID 7 FLAGS (\\Seen))", b"%tag% OK")
    async with talk(saying(*answers, to=b"UID FETCH.*")) as imap:
        assert [message.flags for message in await fetch_all(imap, b"7")] == [(b"\\Seen",)]
        assert imap.take_news().must_reconcile


async def test_flags_of_mail_nobody_asked_about_are_news() -> None:
    answers = (b"* 9 FETCH (UID 99 FLAGS (\\Seen))", b"* 1 FETCH (UID 7 FLAGS ())", b"%tag% OK")
    async with talk(saying(*answers, to=b"UID FETCH.*")) as imap:
        assert [message.uid for message in await fetch_all(imap, b"1:50")] == [7]
        assert imap.take_news().flags == {99: FlagNews((b"\\Seen",), None)}


async def test_flags_alone_where_a_body_was_asked_for_are_news() -> None:
    answers = (
        b"* 1 FETCH (UID 7 FLAGS (\\Seen) MODSEQ (9))", b'* 1 FETCH (UID 7 BODY[] "text")', b"* 3 EXISTS", b"%tag% OK",
    )  # fmt: skip
    async with talk(saying(*answers, to=b"UID FETCH.*")) as imap:
        found = await fetch_all(imap, b"7", items=(b"FLAGS", b"BODY.PEEK[]"))
        assert [message.section(b"BODY[]") for message in found] == [b"text"]
        news = imap.take_news()
        assert news.exists == 3
        assert news.flags == {7: FlagNews((b"\\Seen",), 9)}


async def test_a_malformed_response_is_told_and_the_others_are_given() -> None:
    structure = b'("TEXT" "PLAIN" NIL NIL NIL "7BIT" 1 1)'
    answers = (
        b"* 1 FETCH (UID 1 BODYSTRUCTURE ((((", b"* 2 FETCH (UID 2 BODYSTRUCTURE " + structure + b")", b"%tag% OK",
    )  # fmt: skip
    bad: list[Malformed] = []
    async with talk(saying(*answers, to=b"UID FETCH.*")) as imap:
        found = await fetch_all(imap, b"1:2", items=(b"FLAGS", b"BODYSTRUCTURE"), on_malformed=bad.append)
        assert [message.uid for message in found] == [2]
        assert [fault.uid for fault in bad] == [1]
        assert imap.statistics().malformed == 1
        assert not imap.dirty


async def test_a_malformed_response_without_a_listener_is_a_fault() -> None:
    async with talk(saying(b"* 1 FETCH " + b"(" * 5000, b"%tag% OK", to=b"UID FETCH.*")) as imap:
        with pytest.raises(Malformed):
            await fetch_all(imap, b"1")
        assert imap.dirty


async def test_a_refused_fetch_is_raised_after_the_last_answer() -> None:
    async def script(peer: Peer) -> None:
        tags = [await peer.expect(b"UID FETCH.*") for _ in range(2)]
        await peer.say(tags[0] + b" NO [UNAVAILABLE] later", b"* 2 FETCH (UID 2 FLAGS ())", tags[1] + b" OK")
        tag = await peer.expect(b"NOOP")  # and the third set was not asked for
        await peer.say(tag + b" OK")
        await peer.hear_out()

    async with talk(script) as imap:
        async with aclosing(imap.fetch([b"1", b"2", b"3"], [b"FLAGS"])) as messages:
            assert (await anext(messages)).uid == 2
            with pytest.raises(Refused) as caught:
                await anext(messages)
        assert caught.value.fault().kind is FaultKind.UNAVAILABLE
        await imap.noop()


@pytest.mark.parametrize(
    "answers",
    [(b"* 1 FETCH (UID 1 BODY[] {500}", b"half"), (b"* BYE enough", b""), (b"* 1 FETCH (UID 1 FLAGS ())", b""), (b"",)],
)
async def test_an_end_in_fetch_is_lost(answers: tuple[bytes, ...]) -> None:
    async with talk(ending(*answers, to=b"UID FETCH.*")) as imap:
        with pytest.raises(Fault) as caught:
            await fetch_all(imap, b"1", items=(b"BODY.PEEK[]", b"FLAGS"))
        assert caught.value.kind is FaultKind.LOST
        assert imap.dirty


@pytest.mark.parametrize(
    "answer", [b"\x16\x03\x01 garbage", b"A99 OK not mine", b"+ more", b"* 1 FETCH (BODY[] {9999999999}", b"x" * 300]
)
async def test_lies_in_fetch_are_violations(answer: bytes) -> None:
    async with talk(saying(answer, to=b"UID FETCH.*")) as imap:
        with pytest.raises(Fault) as caught:
            await fetch_all(imap, b"1")
        assert caught.value.kind is FaultKind.PROTOCOL


async def test_a_flood_of_what_nobody_asked_for_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flights, "_STRAYS", 500)

    async def script(peer: Peer) -> None:
        await peer.expect(b"UID FETCH.*")
        while True:
            await peer.raw(b"* 1 FETCH (UID 1 FLAGS ())\r\n" * 100)

    async with talk(script) as imap:
        with pytest.raises(Fault) as caught:
            await fetch_all(imap, b"1")
        assert caught.value.kind is FaultKind.PROTOCOL


async def test_all_messages_are_as_many_as_the_folder_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """`1:*` asks for no five million responses where there are three messages."""
    monkeypatch.setattr(flights, "_STRAYS", 500)
    said = 0

    async def script(peer: Peer) -> None:
        nonlocal said
        await peer.expect(b"UID FETCH.*")
        while True:
            await peer.raw(b"* 1 FETCH (UID 1 FLAGS ())\r\n" * 100)
            said += 100

    async with talk(script) as imap:
        imap.newsbox.messages = 3
        with pytest.raises(Fault, match="floods us"):
            await fetch_all(imap, b"1:*")
    assert said < 50_000, "more is sent only as fast as it is read"


async def test_half_open_in_fetch_is_lost_after_the_patience() -> None:
    async with talk(saying(b"* 1 FETCH (UID 1 FLAGS ())", to=b"UID FETCH.*")) as imap:
        imap.wire.patience = 0.1
        with pytest.raises(Fault) as caught:
            await fetch_all(imap, b"1")
        assert caught.value.kind is FaultKind.LOST


async def test_a_cancelled_fetch_leaves_a_session_that_only_closes() -> None:
    async with talk(saying(b"* 1 FETCH (UID 1 FLAGS ())", to=b"UID FETCH.*")) as imap:
        with trio.move_on_after(0.1) as scope:
            await fetch_all(imap, b"1")
        assert scope.cancelled_caught
        assert imap.dirty
        with pytest.raises(Fault) as caught:
            await imap.noop()
        assert caught.value.kind is FaultKind.LOST
        await imap.logout()  # says nothing, waits for nothing


async def test_stopping_early_leaves_a_session_that_only_closes() -> None:
    async with talk(saying(b"* 1 FETCH (UID 1 FLAGS ())", b"* 2 FETCH (UID 2 FLAGS ())", to=b"UID FETCH.*")) as imap:
        async with aclosing(imap.fetch([b"1:2"], [b"FLAGS"])) as messages:
            await anext(messages)
        assert imap.dirty


async def test_changes_since_a_modseq_with_what_vanished() -> None:
    answers = (b"* VANISHED (EARLIER) 3:5", b"* 1 FETCH (UID 1 FLAGS () MODSEQ (9))", b"%tag% OK")
    to = rb"UID FETCH 1:\* \(FLAGS\) \(CHANGEDSINCE 8 VANISHED\)"
    async with talk(saying(*answers, to=to)) as imap:
        found = await fetch_all(imap, b"1:*", changed_since=8, vanished=True)
        assert [(message.uid, message.modseq) for message in found] == [(1, 9)]
        assert imap.take_news().vanished == (range(3, 6),)
