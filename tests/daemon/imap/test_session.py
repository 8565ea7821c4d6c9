"""Sessions against a server that says what it should not, when it should not.

Each conversation is over real sockets and bounded; what is asserted is what the session makes of the lie.
"""

from contextlib import aclosing

import pytest
import trio

from daemon.errors import Fault, FaultKind
from daemon.imap import conversation, flights, session
from daemon.imap.conversation import Literal, quoted
from daemon.imap.faults import Refused
from daemon.imap.fetched import Fetched
from daemon.imap.folders import ListedFolder, list_folders
from daemon.imap.news import FlagNews, FolderStatus
from daemon.imap.parse import Malformed
from daemon.imap.search import MAX_UIDS
from daemon.imap.selected import Known
from daemon.imap.session import Session
from tests.daemon.imap.scripted import Peer, Script, scripted, talk


def saying(*answers: bytes, to: bytes) -> Script:
    """A server that answers one command with *answers*, `%tag%` being its tag, and then listens."""

    async def script(peer: Peer) -> None:
        tag = await peer.expect(to)
        await peer.say(*(answer.replace(b"%tag%", tag) for answer in answers))
        await peer.hear_out()

    return script


def ending(*answers: bytes, to: bytes) -> Script:
    """The same, but it closes the connection behind its last byte, which ends no line."""

    async def script(peer: Peer) -> None:
        tag = await peer.expect(to)
        await peer.raw(b"\r\n".join(answers).replace(b"%tag%", tag))

    return script


def idling(*packets: bytes, ends: bool = True) -> Script:
    """A server in IDLE that sends *packets*, apart from each other, and ends IDLE at DONE."""

    async def script(peer: Peer) -> None:
        tag = await peer.expect(b"IDLE")
        for packet in packets:
            await peer.raw(packet)
            await trio.sleep(0.02)  # so that they arrive as packets of their own
        if ends:
            assert await peer.line() == b"DONE"
            await peer.say(tag + b" OK idled")
            await peer.hear_out()

    return script


async def fetch_all(
    imap: Session, *sets: bytes, items: tuple[bytes, ...] = (b"FLAGS",), **options: object
) -> list[Fetched]:
    async with aclosing(imap.fetch(sets, items, **options)) as messages:
        return [message async for message in messages]


# IDLE


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
    monkeypatch.setattr(session, "DONE_TIME", 0.05)

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


# FETCH


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


# SELECT, SEARCH, STATUS, LIST, ENABLE


async def test_select_with_what_changed_since() -> None:
    answers = (
        b"* 99 EXISTS", b"* OK [UIDVALIDITY 1] old", b"* OK [CLOSED] the other one",
        b"* FLAGS (\\Seen)", b"* OK [PERMANENTFLAGS (\\Seen \\*)] ok", b"* 3 EXISTS", b"* 0 RECENT",
        b"* OK [UIDVALIDITY 17] ok", b"* OK [UIDNEXT 12] ok", b"* OK [HIGHESTMODSEQ 715194045007] ok",
        b"* OK [MAILBOXID (F2212ea87)] ok", b"* VANISHED (EARLIER) 4:6,9",
        b"* 2 FETCH (UID 7 FLAGS (\\Seen) MODSEQ (44))", b"* STATUS other (MESSAGES 1)", b"%tag% OK [READ-ONLY] done",
    )  # fmt: skip
    async with talk(saying(*answers, to=rb'EXAMINE "Entw&APw-rfe" \(QRESYNC \(17 40\)\)')) as imap:
        imap.enabled = frozenset({b"QRESYNC"})
        folder = await imap.select("Entwürfe", Known(17, 40))
        assert (folder.exists, folder.uidvalidity, folder.uidnext, folder.highestmodseq) == (3, 17, 12, 715194045007)
        assert (folder.read_only, folder.mailbox_id, folder.overflowed) == (True, "F2212ea87", False)
        assert folder.changed == {7: FlagNews((b"\\Seen",), 44)}
        assert folder.vanished == (range(4, 7), range(9, 10))
        assert folder.permanent_flags == (b"\\Seen", b"\\*")
        news = imap.take_news()
        assert news.exists is None
        assert news.statuses == {"other": FolderStatus(messages=1)}


@pytest.mark.parametrize(
    ("code", "attribute", "value"),
    [
        (b"UIDVALIDITY 0", "uidvalidity", 0), (b"UIDVALIDITY 4294967296", "uidvalidity", 0),
        (b"UIDVALIDITY -3", "uidvalidity", 0), (b"UIDVALIDITY 4294967295", "uidvalidity", 4294967295),
        (b"UIDNEXT 0", "uidnext", None), (b"UIDNEXT 99999999999", "uidnext", None), (b"UIDNEXT x", "uidnext", None),
        (b"HIGHESTMODSEQ 0", "highestmodseq", None), (b"HIGHESTMODSEQ 9223372036854775808", "highestmodseq", None),
        (b"HIGHESTMODSEQ 9223372036854775807", "highestmodseq", 9223372036854775807),
        (b"NOMODSEQ", "highestmodseq", None),
    ],
)  # fmt: skip
async def test_numbers_of_a_folder_are_believed_within_their_types(code: bytes, attribute: str, value: object) -> None:
    async with talk(saying(b"* OK [" + code + b"] x", b"%tag% OK done", to=b"EXAMINE.*")) as imap:
        assert getattr(await imap.select("INBOX"), attribute) == value


@pytest.mark.parametrize(
    "answer", [b"* 2 FETCH (FLAGS ())", b"* 2 FETCH (((", b"* VANISHED (EARLIER) x", b"* 1 EXPUNGE"]
)
async def test_a_select_that_cannot_be_trusted_says_so(answer: bytes) -> None:
    async with talk(saying(answer, b"%tag% OK done", to=b"SELECT.*")) as imap:
        assert (await imap.select("INBOX", read_only=False)).overflowed


async def test_a_folder_that_is_not_there_is_refused_and_none_is_selected() -> None:
    async with talk(saying(b"%tag% NO [NONEXISTENT] gone", to=b"EXAMINE.*")) as imap:
        imap.selected = "INBOX"
        with pytest.raises(Refused) as caught:
            await imap.select("gone")
        assert caught.value.code == "NONEXISTENT"
        assert imap.selected is None
        assert not imap.dirty


@pytest.mark.parametrize("name", ["a\r\nA9 LOGOUT", "a\nb", "a\0b"])
async def test_a_line_break_in_a_name_never_leaves(name: str) -> None:
    async with talk(saying(to=b".*")) as imap:
        for attempt in (imap.select(name), imap.status(name)):
            with pytest.raises(ValueError, match="folder name"):
                await attempt
        with pytest.raises(ValueError, match="IMAP"):
            await imap.command(b"X", name.encode())
        with pytest.raises(ValueError, match="IMAP"):
            await fetch_all(imap, b"1", items=(name.encode(),))
        assert imap.statistics().wire.sent == 0
        assert not imap.dirty


@pytest.mark.parametrize(
    ("capabilities", "answers", "uids"),
    [
        (b"IMAP4REV1", (b"* SEARCH 3 1 2", b"* SEARCH 9 (MODSEQ 5)"), [1, 2, 3, 9]),
        (b"IMAP4REV1", (b"* SEARCH",), []),
        (b"ESEARCH", (b'* ESEARCH (TAG "A1") UID ALL 1:3,9',), [1, 2, 3, 9]),
        (b"ESEARCH", (b'* ESEARCH (TAG "A1") UID ALL 7',), [7]),
        (b"ESEARCH", (b'* ESEARCH (TAG "A1") UID',), []),
    ],
)
async def test_searching(capabilities: bytes, answers: tuple[bytes, ...], uids: list[int]) -> None:
    to = rb"UID SEARCH (RETURN \(ALL\) )?UNSEEN"
    async with talk(saying(*answers, b"%tag% OK", to=to), capabilities) as imap:
        assert list(await imap.uid_search(b"UNSEEN")) == uids


@pytest.mark.parametrize(
    "answer", [b"* SEARCH 1 x", b"* SEARCH 0", b'* ESEARCH (TAG "A1") UID ALL (1 2)', b"* ESEARCH ((("]
)
async def test_an_unreadable_search_is_a_violation(answer: bytes) -> None:
    async with talk(saying(answer, b"%tag% OK", to=b"UID SEARCH.*")) as imap:
        with pytest.raises(Malformed):
            await imap.uid_search(b"ALL")


@pytest.mark.parametrize("answer", [b'* ESEARCH (TAG "A1") UID ALL 1:4294967295', b"* SEARCH 1:%d" % (MAX_UIDS + 1)])
async def test_a_giant_range_is_never_expanded(answer: bytes) -> None:
    async with talk(saying(answer, b"%tag% OK", to=b"UID SEARCH.*")) as imap:
        with pytest.raises(Fault) as caught:
            await imap.uid_search(b"ALL")
        assert caught.value.kind is FaultKind.PROTOCOL


async def test_the_uids_of_a_folder_without_esearch_are_streamed() -> None:
    answers = (b"* 2 FETCH (UID 9)", b"* 1 FETCH (UID 4)", b"* 1 FETCH (UID 4)", b"%tag% OK")
    async with talk(saying(*answers, to=rb"UID FETCH 1:\* \(UID\)")) as imap:
        assert list(await imap.uids()) == [4, 9]


async def test_status_of_a_folder_beside_others() -> None:
    answers = (
        b"* STATUS other (MESSAGES 9)", b"* STATUS Sent (MESSAGES 3 UIDNEXT 8 UIDVALIDITY 17 UNSEEN 1)", b"%tag% OK",
    )  # fmt: skip
    async with talk(saying(*answers, to=rb'STATUS "Sent" \(MESSAGES UIDNEXT UIDVALIDITY UNSEEN\)')) as imap:
        assert await imap.status("Sent") == FolderStatus(3, 8, 17, 1, None)
        assert imap.take_news().statuses == {"other": FolderStatus(messages=9)}


async def test_one_unusable_folder_does_not_cost_the_list() -> None:
    answers = (
        b'* LIST (\\HasNoChildren) "/" INBOX', b'* LIST (\\Noselect) "/" "&AOQ-"', b"* LIST () NIL {4}\r\na\"b'",
        b'* LIST () "/" &bad', b'* LIST () "/" "&AA0ACg-"', b"* LIST nonsense", b'* LIST (\\Sent) "." 2024',
        b"%tag% OK",
    )  # fmt: skip
    async with talk(saying(*answers, to=b'LIST "" "\\*"')) as imap:
        listed = await list_folders(imap)
    assert listed.unusable == 3
    assert listed.folders == (
        ListedFolder("INBOX", "/", frozenset({b"\\HasNoChildren"})),
        ListedFolder("ä", "/", frozenset({b"\\Noselect"})),
        ListedFolder("a\"b'", None, frozenset()),
        ListedFolder("2024", ".", frozenset({b"\\Sent"})),
    )
    assert [folder.selectable for folder in listed.folders] == [True, False, True, True]


async def test_qresync_refused_does_not_cost_condstore() -> None:
    async def script(peer: Peer) -> None:
        tag = await peer.expect(b"ENABLE QRESYNC")
        await peer.say(tag + b" BAD no")
        tag = await peer.expect(b"ENABLE CONDSTORE")
        await peer.say(b"* ENABLED CONDSTORE", tag + b" OK")
        await peer.hear_out()

    async with talk(script, b"ENABLE QRESYNC CONDSTORE") as imap:
        assert await imap.enable(b"QRESYNC", b"UTF8=ACCEPT") == {b"CONDSTORE"}


async def test_only_what_is_offered_and_confirmed_is_enabled() -> None:
    async with talk(saying(b"* ENABLED X-EVIL", b"%tag% OK", to=b"ENABLE QRESYNC"), b"ENABLE QRESYNC") as imap:
        assert await imap.enable(b"QRESYNC") == frozenset()
    async with talk(saying(to=b".*"), b"IMAP4REV1") as imap:
        assert await imap.enable(b"QRESYNC") == frozenset()
        assert imap.statistics().commands == 0


# The conversation itself


async def test_arguments_that_are_no_ascii_go_as_literals() -> None:
    async def script(peer: Peer) -> None:
        tag, _, rest = (await peer.line()).partition(b" ")
        assert rest == b'X "a\\"b\\\\" {3}'
        await peer.say(b"* 3 EXISTS", b"+ go on")
        assert await peer.block(3) == "ü1".encode()
        assert await peer.line() == b" {2}"
        await peer.say(b"+ go on")
        assert await peer.line() == b"\xff\xfe"
        await peer.say(tag + b" OK")
        await peer.hear_out()

    async with talk(script) as imap:
        await imap.command(b"X", quoted('a"b\\'), quoted("ü1"), Literal(b"\xff\xfe"))
        assert imap.take_news().exists == 3


async def test_literals_go_at_once_where_that_is_offered() -> None:
    async def script(peer: Peer) -> None:
        tag, _, rest = (await peer.line()).partition(b" ")
        assert rest == b"X {2+}"
        assert await peer.line() == "ü".encode()
        await peer.say(tag + b" OK")
        await peer.hear_out()

    async with talk(script, b"LITERAL-") as imap:
        await imap.command(b"X", quoted("ü"))


async def test_a_literal_refused_leaves_a_sound_session() -> None:
    async with talk(saying(b"%tag% NO [OVERQUOTA] too large", to=b"X .*")) as imap:
        with pytest.raises(Refused):
            await imap.command(b"X", Literal(b"x" * 99))
        assert not imap.dirty


@pytest.mark.parametrize("answer", [b"+ what", b"A99 OK", b"%tag% MAYBE", b"* BAD", b"%tag% FETCH x"])
async def test_an_answer_that_is_none_is_a_violation_or_nothing(answer: bytes) -> None:
    async with talk(saying(answer, to=b"NOOP")) as imap:
        imap.wire.patience = 0.2
        with pytest.raises(Fault) as caught:
            await imap.noop()
        assert caught.value.kind is (FaultKind.LOST if answer == b"* BAD" else FaultKind.PROTOCOL)


async def test_an_endless_answer_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "MAX_ANSWER", 100_000)

    async def script(peer: Peer) -> None:
        await peer.expect(b"NOOP")
        while True:
            await peer.raw(b"* OK and another thing\r\n" * 50)

    async with talk(script) as imap:
        with pytest.raises(Fault) as caught:
            await imap.noop()
        assert caught.value.kind is FaultKind.PROTOCOL


async def test_a_command_has_one_deadline_however_much_is_said() -> None:
    async def script(peer: Peer) -> None:
        await peer.expect(b"X")
        while True:
            await peer.say(b"* OK Searched 1%")
            await trio.sleep(0.01)

    async with talk(script) as imap:
        with pytest.raises(Fault) as caught:
            await imap.command(b"X", within=0.1)
        assert caught.value.kind is FaultKind.LOST


async def test_a_goodbye_with_a_reason_is_that_fault() -> None:
    async with talk(saying(b"* BYE [UNAVAILABLE] maintenance", to=b"NOOP")) as imap:
        with pytest.raises(Fault) as caught:
            await imap.noop()
        assert caught.value.kind is FaultKind.UNAVAILABLE


@pytest.mark.parametrize("answers", [(b"* BYE logging out", b"%tag% OK"), (b"* BYE",), (b"%tag% BAD what",), ()])
async def test_logging_out_never_fails(answers: tuple[bytes, ...]) -> None:
    async with talk(saying(*answers, to=b"LOGOUT")) as imap:
        await imap.logout(within=0.2)
        assert imap.dirty


async def test_alerts_are_kept_for_the_owner() -> None:
    async with talk(saying(b"%tag% OK [ALERT] Your mailbox is almost full", to=b"NOOP")) as imap:
        await imap.noop()
        assert imap.take_news().alerts == ("Your mailbox is almost full",)


async def test_the_peer_of_these_tests_speaks_as_told() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()

    async with scripted(script) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            assert (await stream.receive_some()).startswith(b"* OK [CAPABILITY IMAP4rev1")
