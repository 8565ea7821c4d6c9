"""SELECT, SEARCH, STATUS, LIST and the conversation itself, against a server that lies.

Each conversation is over real sockets and bounded; what is asserted is what the session makes of the lie.
"""


import pytest
import trio

from daemon.errors import Fault, FaultKind
from daemon.imap import conversation
from daemon.imap.conversation import Literal, quoted
from daemon.imap.faults import Refused
from daemon.imap.folders import ListedFolder, list_folders
from daemon.imap.lanes import LONG_ANSWER, weight
from daemon.imap.news import FlagNews, FolderStatus
from daemon.imap.parse import Malformed
from daemon.imap.search import MAX_UIDS
from daemon.imap.selected import Known
from tests.daemon.imap.conversations import fetch_all, saying
from tests.daemon.imap.scripted import Peer, scripted, talk


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


async def test_the_answer_to_a_first_select_is_short() -> None:
    """Only QRESYNC makes it long: a server that says something else without an end is soon found out."""
    line, said = b"* OK [UNSEEN 1] still working on it\r\n", 0

    async def script(peer: Peer) -> None:
        nonlocal said
        await peer.expect(b"EXAMINE.*")
        while True:
            await peer.raw(line * 1000)
            said += 1000

    async with talk(script) as imap:
        with pytest.raises(Fault, match="floods us"):
            await imap.select("INBOX")
    assert said * weight(len(line)) < LONG_ANSWER / 4
