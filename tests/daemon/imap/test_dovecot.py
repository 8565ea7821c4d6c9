"""Whole conversations with a real Dovecot: what sync does, in all rungs of the ladder."""

from contextlib import aclosing
from datetime import UTC, datetime

import pytest
import trio

from daemon.errors import Fault, FaultKind
from daemon.imap.folders import list_folders
from daemon.imap.selected import Known
from daemon.imap.session import Session
from daemon.imap.uidset import uid_batches
from daemon.network import Security
from ops.testservers.dovecot import Dovecot
from ops.testservers.dovecot_conf import DovecotOptions
from ops.testservers.mailbox import Seed
from tests.daemon.imap.conftest import LoginTo
from tests.fix_dovecot import MailUser

ALL = (b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE", b"BODY.PEEK[HEADER]", b"BODY.PEEK[]", b"ENVELOPE", b"BODYSTRUCTURE")
LADDER = [
    DovecotOptions(),
    DovecotOptions(without=frozenset({"QRESYNC"})),
    DovecotOptions(without=frozenset({"QRESYNC", "CONDSTORE", "ENABLE", "ESEARCH", "SASL-IR"})),
]


def message(number: int) -> bytes:
    return (
        b"From: =?utf-8?q?J=C3=BCrgen?= <j@example.test>\r\nTo: a@example.test, b@example.test\r\n"
        b"Subject: number %d\r\nDate: Mon, 7 Feb 1994 21:52:25 -0800\r\nMessage-ID: <%d@example.test>\r\n"
        b"\r\nbody (\"%d\") {7}\r\n" % (number, number, number)
    )


async def deliver(server: Dovecot, user: MailUser, text: bytes) -> None:
    await trio.to_thread.run_sync(server.deliver, user.name, text)


@pytest.mark.parametrize("security", Security)
@pytest.mark.parametrize("dovecot", LADDER, indirect=True)
async def test_a_folder_is_read_whole(
    dovecot: Dovecot, mail_user: MailUser, login_to: LoginTo, security: Security
) -> None:
    moment = datetime(2024, 2, 29, 12, 30, tzinfo=UTC)
    when = moment.timestamp()
    dovecot.seed(mail_user.name, [Seed(message(n), flags=("\\Seen",), internal_date=when) for n in range(1, 41)])
    async with login_to(dovecot, mail_user, security) as session:
        await session.enable(b"QRESYNC", b"CONDSTORE")
        folder = await session.select("INBOX")
        assert (folder.exists, folder.uidnext, folder.read_only) == (40, 41, True)
        uids = await session.uids()
        assert list(uids) == list(range(1, 41))
        found = {}
        async with aclosing(session.fetch(uid_batches(uids, 7), ALL, depth=3)) as messages:
            async for each in messages:
                found[each.uid] = each
        assert sorted(found) == list(range(1, 41))
        for number, each in found.items():
            text = message(number)
            assert each.section(b"BODY[]") == text
            assert each.section(b"BODY[HEADER]") == text.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
            assert (each.size, each.internal_date) == (len(text), moment)
            assert b"\\Seen" in (each.flags or ())
            assert each.envelope is not None
            assert each.envelope.subject == b"number %d" % number
            assert each.structure is not None
            assert each.structure[:2] == (b"text", b"plain")
            assert not each.unreadable
        assert not session.take_news()
        assert session.statistics().malformed == 0


async def test_looking_changes_nothing(dovecot: Dovecot, mail_user: MailUser, login_to: LoginTo) -> None:
    dovecot.seed(mail_user.name, [message(1)])
    async with login_to(dovecot, mail_user) as session:
        await session.select("INBOX")
        async with aclosing(session.fetch([b"1"], [b"BODY.PEEK[]<5.10>"])) as messages:
            assert [each.section(b"BODY[]<5>") async for each in messages] == [message(1)[5:15]]
    async with login_to(dovecot, mail_user) as session:
        await session.select("INBOX")
        async with aclosing(session.fetch([b"1"], [b"FLAGS"])) as messages:
            assert [each.flags async for each in messages] == [(b"\\Recent",)]


@pytest.mark.parametrize("dovecot", LADDER, indirect=True)
async def test_new_mail_is_pushed(dovecot: Dovecot, mail_user: MailUser, login_to: LoginTo) -> None:
    async with login_to(dovecot, mail_user) as session, trio.open_nursery() as nursery:
        await session.select("INBOX")
        nursery.start_soon(deliver, dovecot, mail_user, message(1))
        with trio.fail_after(30):
            news = await session.idle(25)
        assert news.exists == 1
        assert list(await session.uid_search(b"1:*")) == [1]


async def test_what_changed_since_the_last_visit(dovecot: Dovecot, mail_user: MailUser, login_to: LoginTo) -> None:
    dovecot.seed(mail_user.name, [message(n) for n in range(1, 11)])
    async with login_to(dovecot, mail_user) as session:
        await session.enable(b"QRESYNC")
        before = await session.select("INBOX")
    assert before.highestmodseq is not None
    dovecot.flag(mail_user.name, [4], "\\Flagged")
    dovecot.expunge(mail_user.name, [2, 3, 9])
    dovecot.seed(mail_user.name, [message(11)])
    async with login_to(dovecot, mail_user) as session:
        await session.enable(b"QRESYNC")
        now = await session.select("INBOX", Known(before.uidvalidity, before.highestmodseq))
        assert (now.exists, now.overflowed) == (8, False)
        assert (now.highestmodseq or 0) > before.highestmodseq
        assert {uid for span in now.vanished for uid in span} == {2, 3, 9}
        assert now.changed.keys() >= {4, 11}
        assert b"\\Flagged" in (now.changed[4].flags or ())

        changes = session.fetch([b"1:*"], [b"FLAGS"], changed_since=before.highestmodseq, vanished=True)
        async with aclosing(changes) as messages:  # the same, streamed
            assert {each.uid async for each in messages} == now.changed.keys()
        assert {uid for span in session.take_news().vanished for uid in span} == {2, 3, 9}


@pytest.mark.parametrize("dovecot", [LADDER[0], LADDER[2]], indirect=True)
async def test_what_goes_while_we_watch(dovecot: Dovecot, mail_user: MailUser, login_to: LoginTo) -> None:
    dovecot.seed(mail_user.name, [message(n) for n in range(1, 6)])

    async def expunge() -> None:
        await trio.to_thread.run_sync(dovecot.expunge, mail_user.name, [2, 3])

    async with login_to(dovecot, mail_user) as session, trio.open_nursery() as nursery:
        enabled = await session.enable(b"QRESYNC")
        await session.select("INBOX")
        nursery.start_soon(expunge)
        exists, removed, vanished = 5, 0, set[int]()
        with trio.fail_after(30):
            while exists != 3:
                news = await session.idle(25)
                exists = news.exists if news.exists is not None else exists
                removed += news.removed
                vanished |= {uid for span in news.vanished for uid in span}
        assert (removed, vanished) == ((0, {2, 3}) if enabled else (2, set()))
        assert list(await session.uids()) == [1, 4, 5]


async def test_folders_and_their_status(dovecot: Dovecot, mail_user: MailUser, login_to: LoginTo) -> None:
    dovecot.seed(mail_user.name, [message(1), message(2)], folder="INBOX/Entw&APw-rfe &- mehr")
    async with login_to(dovecot, mail_user) as session:
        listed = await list_folders(session)
        assert listed.unusable == 0
        by_name = {folder.name: folder for folder in listed.folders}
        assert b"\\Sent" in by_name["Sent"].attributes
        name = next(name for name in by_name if "mehr" in name)
        assert name == "INBOX/Entwürfe & mehr"
        status = await session.status(name)
        assert (status.messages, status.uidnext) == (2, 3)
        assert (await session.select(name)).exists == 2


async def test_a_server_that_dies_is_lost_at_once(
    private_dovecot: Dovecot, new_user: str, login_to: LoginTo
) -> None:
    user = MailUser(new_user, private_dovecot.password)

    async def idle(session: Session) -> Fault:
        with pytest.raises(Fault) as caught:
            await session.idle(100)
        return caught.value

    async with login_to(private_dovecot, user) as session, trio.open_nursery() as nursery:
        await session.select("INBOX")

        async def kill() -> None:
            await trio.sleep(0.2)
            await trio.to_thread.run_sync(private_dovecot.stop)

        nursery.start_soon(kill)
        with trio.fail_after(30):
            fault = await idle(session)
        assert fault.kind is FaultKind.LOST


async def test_an_idle_session_keeps_no_buffer(dovecot: Dovecot, mail_user: MailUser, login_to: LoginTo) -> None:
    dovecot.seed(mail_user.name, [b"Subject: large\r\n\r\n" + b"x" * 76 * 1000 + b"\r\n"] * 3)
    async with login_to(dovecot, mail_user) as session:
        await session.select("INBOX")
        async with aclosing(session.fetch([b"1:*"], [b"BODY.PEEK[]"])) as messages:
            assert [len(each.section(b"BODY[]") or b"") > 76_000 async for each in messages] == [True] * 3
        await session.idle(0.05)
        assert session.statistics().wire.buffered == 0
        assert session.wire._buffer.__sizeof__() < 100
