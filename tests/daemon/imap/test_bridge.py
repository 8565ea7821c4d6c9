"""IMAPClient on a session's connection: with a real Dovecot, and with answers that are none."""

import pytest
import trio

from daemon.errors import Fault, FaultKind
from daemon.imap import bridge
from daemon.imap.faults import Refused
from daemon.imap.parse import Malformed
from ops.testservers.dovecot import Dovecot
from tests.daemon.imap.conftest import LoginTo
from tests.daemon.imap.scripted import Peer, talk
from tests.daemon.imap.test_session import saying
from tests.fix_dovecot import MailUser

MESSAGE = b"Subject: \xc3\xbc\r\n\r\nhello\r\n"


async def test_rare_commands_between_the_sessions_own(dovecot: Dovecot, mail_user: MailUser, login_to: LoginTo) -> None:
    async with login_to(dovecot, mail_user) as session:
        await session.enable(b"QRESYNC")
        folder = await session.select("INBOX", read_only=False)
        for _ in range(2):
            assert b"APPENDUID" in await bridge.call(session, lambda client: client.append("INBOX", MESSAGE))
        assert (await session.idle(10)).exists == 2  # told while the bridge was on
        assert await bridge.call(session, lambda client: client.search("ALL")) == [1, 2]

        assert await bridge.call(session, lambda client: client.add_flags([1], [b"\\Flagged"])) is not None
        news = session.take_news()
        assert b"\\Flagged" in (news.flags[1].flags or ())
        assert (news.flags[1].modseq or 0) > (folder.highestmodseq or 0)

        await bridge.call(session, lambda client: client.create_folder("Entwürfe/2024"))
        await bridge.call(session, lambda client: client.move([1], "Entwürfe/2024"))
        news = session.take_news()
        assert news.vanished == (range(1, 2),)
        assert news.exists == 1
        assert (await session.status("Entwürfe/2024")).messages == 1
        assert [name for *_, name in await bridge.call(session, lambda client: client.list_folders("", "Ent*"))]
        await session.noop()
        assert not session.dirty


async def test_an_expunge_the_command_asked_for_is_news_too(
    dovecot: Dovecot, mail_user: MailUser, login_to: LoginTo
) -> None:
    dovecot.seed(mail_user.name, [MESSAGE] * 3)
    async with login_to(dovecot, mail_user) as session:
        await session.select("INBOX", read_only=False)
        await bridge.call(session, lambda client: client.delete_messages([1, 2], silent=True))
        await bridge.call(session, lambda client: client.expunge([1, 2]))
        news = session.take_news()
        assert (news.exists, news.removed) == (1, 2)


async def test_a_refusal_leaves_a_sound_session(dovecot: Dovecot, mail_user: MailUser, login_to: LoginTo) -> None:
    async with login_to(dovecot, mail_user) as session:
        with pytest.raises(Refused) as caught:
            await bridge.call(session, lambda client: client.rename_folder("nope", "nope2"))
        assert (caught.value.command, caught.value.status, caught.value.code) == ("RENAME", "NO", "NONEXISTENT")
        await session.noop()


@pytest.mark.parametrize("answer", [b"BAD [CLIENTBUG] what", b"NO", b"BAD"])
async def test_every_refusal_is_one(answer: bytes) -> None:
    async with talk(saying(b"%tag% " + answer, to=b"(NOOP|LIST .*)")) as session:
        with pytest.raises(Refused) as caught:
            await bridge.call(session, lambda client: client.list_folders())
        assert caught.value.status == answer.split()[0].decode()
        assert not session.dirty


@pytest.mark.parametrize("name", ["a\r\nb", "a\nb", "a\0b"])
async def test_a_line_break_never_leaves(dovecot: Dovecot, mail_user: MailUser, login_to: LoginTo, name: str) -> None:
    """Modified UTF-7 would hide it from the line, but Dovecot repeats the name, decoded, in a response."""
    async with login_to(dovecot, mail_user) as session:
        await session.select("INBOX")
        for attempt in (
            lambda client: client.rename_folder("nope", name),
            lambda client: client.append(name, MESSAGE),
            lambda client: client.search(["SUBJECT", name]),
            lambda client: client.search(name),
            lambda client: client.add_flags([1], [name.encode()]),
        ):
            with pytest.raises(ValueError, match="line breaks"):
                await bridge.call(session, attempt)
            assert not session.dirty
        await session.noop()


async def test_selecting_by_the_bridge_is_our_own_mistake(
    dovecot: Dovecot, mail_user: MailUser, login_to: LoginTo
) -> None:
    async with login_to(dovecot, mail_user) as session:
        with pytest.raises(RuntimeError, match="bridge"):
            await bridge.call(session, lambda client: client.select_folder("INBOX"))
        assert session.dirty


async def test_a_cancelled_call_costs_the_session() -> None:
    async def script(peer: Peer) -> None:
        await peer.expect(b"NOOP")
        await peer.hear_out()

    async with talk(script) as session:
        with trio.move_on_after(0.1) as scope:
            await bridge.call(session, lambda client: client.noop())
        assert scope.cancelled_caught
        assert session.dirty


async def test_a_silent_server_is_lost() -> None:
    async with talk(saying(to=b".*")) as session:
        with pytest.raises(Fault) as caught:
            await bridge.call(session, lambda client: client.noop(), within=0.1)
        assert caught.value.kind is FaultKind.LOST


async def test_a_goodbye_is_its_fault() -> None:
    async with talk(saying(b"* BYE [UNAVAILABLE] maintenance", to=b"NOOP")) as session:
        with pytest.raises(Fault) as caught:
            await bridge.call(session, lambda client: client.noop())
        assert caught.value.kind is FaultKind.UNAVAILABLE


@pytest.mark.parametrize(
    "answer",
    [
        b"* LIST " + b"(" * 5000, b"* LIST (", b'* LIST () "/" &bad-' + b"\xff", b"\x00garbage",
        b"* LIST () {9999999999}", b"* SEARCH x", b"* LIST",
    ],
)  # fmt: skip
async def test_answers_that_are_none_are_violations(answer: bytes) -> None:
    async with talk(saying(answer, b"%tag% OK", to=b"(LIST|UID SEARCH) .*")) as session:
        run = (lambda client: client.search()) if b"SEARCH" in answer else (lambda client: client.list_folders())
        session.selected = "INBOX"
        try:
            await bridge.call(session, run)
        except Fault as fault:
            assert fault.kind is FaultKind.PROTOCOL  # noqa: PT017 - a LIST of nothing may also be read as no folders
        else:
            assert answer == b"* LIST"


async def test_an_answer_beyond_the_bound_ends_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "MAX_BRIDGED", 10_000)

    async def script(peer: Peer) -> None:
        await peer.line()
        while True:
            await peer.raw(b"* 5 EXISTS\r\n" * 100)

    async with talk(script) as session:
        with pytest.raises(Fault) as caught:
            await bridge.call(session, lambda client: client.noop())
        assert caught.value.kind is FaultKind.PROTOCOL


async def test_a_mistake_before_anything_is_sent_costs_nothing() -> None:
    async with talk(saying(b"%tag% OK", to=b"NOOP")) as session:
        with pytest.raises(AttributeError):
            await bridge.call(session, lambda client: client.no_such_method())
        await session.noop()


async def test_an_unsolicited_fetch_is_handed_on() -> None:
    answers = (b"* 3 FETCH (UID 9 FLAGS (\\Seen))", b"* 4 FETCH (FLAGS ())", b"* 2 EXPUNGE", b"* 7 EXISTS", b"%tag% OK")
    async with talk(saying(*answers, to=b"NOOP")) as session:
        await bridge.call(session, lambda client: client.noop())
        news = session.take_news()
        assert (news.exists, news.removed, news.unplaced) == (7, 1, 1)
        assert news.flags[9].flags == (b"\\Seen",)


async def test_unreadable_answers_say_nothing_of_the_remote_text() -> None:
    async with talk(saying(b"* LIST (remote-marker", b"%tag% OK", to=b"LIST .*")) as session:
        with pytest.raises(Malformed) as caught:
            await bridge.call(session, lambda client: client.list_folders())
        assert "remote-marker" not in caught.value.reason
