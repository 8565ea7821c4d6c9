"""Servers that lie and messages that nobody can store: the folder goes on, and nothing that is there is lost."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from daemon.imap import fetching
from daemon.imap.folder_changes import FolderSyncConfig
from daemon.imap.folder_record import FolderRecord, Store, Tally
from daemon.imap.folder_sync import FolderSync
from daemon.imap.open import open_session
from daemon.imap.session import Session
from daemon.messages import placements_store
from daemon.network import Endpoint, Security
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.vault.secret import Secret
from ops.testservers.mail import message, seeds
from tests.daemon.imap.accounts import Account
from tests.daemon.imap.conftest import DialTo
from tests.fix_scripted_imap import On, Say, ScriptedImap, Step
from tests.stored import make_account, one, stored_messages

OK = b"<tag> OK done\r\n"
_CAPABILITIES = b"[CAPABILITY IMAP4rev1 IDLE]"
_LIVE = "SELECT coalesce(array_agg(uid ORDER BY uid), '{}') FROM placements WHERE vanished_at IS NULL"
_SKIPPED = "SELECT coalesce(array_agg(uid ORDER BY uid), '{}') FROM skipped_messages"


def selected(exists: int, uidnext: int) -> Step:
    """The answer to EXAMINE of a server without mod-sequences."""
    numbers = b"* OK [UIDVALIDITY 7] v\r\n* OK [UIDNEXT %d] n\r\n" % uidnext
    return On(rb"EXAMINE", b"* %d EXISTS\r\n" % exists + numbers + b"<tag> OK [READ-ONLY] done\r\n")


def fetch(uid: int, *, date: str = "01-Jan-2026 00:00:00 +0000", size: int | None = None) -> bytes:
    """One message, its number its UID."""
    body = b"Message-ID: <m%d@a.test>\r\n\r\nbody\r\n" % uid
    told = f'UID {uid} FLAGS () INTERNALDATE "{date}" RFC822.SIZE {len(body) if size is None else size}'.encode()
    return b"* %d FETCH (%b BODY[]<0> {%d}\r\n%b)\r\n" % (uid, told, len(body), body)


@asynccontextmanager
async def session_with(dial_to: DialTo, server: ScriptedImap) -> AsyncIterator[Session]:
    endpoint = Endpoint("localhost", server.port, Security.TLS)
    async with open_session(dial_to(server.port), endpoint, "u", Secret("p")) as session:
        yield session


async def sync_with(
    db: Database, dial_to: DialTo, scripted_imap: Callable[..., Awaitable[ScriptedImap]], *steps: Step
) -> tuple[FolderRecord, Tally]:
    """One run against a server that says what it is told to."""
    greeting = Say(b"* OK " + _CAPABILITIES + b" hi\r\n")
    login = On(rb"LOGIN|AUTH", b"<tag> OK " + _CAPABILITIES + b" in\r\n")
    server = await scripted_imap(greeting, login, *steps, On(rb"LOGOUT", b"* BYE\r\n<tag> OK\r\n"), tls=True)
    claim = await make_account(db, username="u@a.test", imap=Endpoint("localhost", server.port, Security.TLS))
    record = await FolderRecord.open(Store(db, claim), "INBOX")
    async with session_with(dial_to, server) as session:
        sync = FolderSync(
            session,
            record,
            FolderSyncConfig(window=50, max_body=1 << 20),
            verify=lambda: session_with(dial_to, server),
            large_bodies=trio.Semaphore(1),
        )
        return record, await sync.run()


# -- what a server says out of order, or wrongly ---------------------------------------------------------------------


async def test_a_message_flagged_and_then_gone_in_one_telling_is_gone(account: Account) -> None:
    server, user = account.server, account.user.name
    server.seed(user, seeds(5, seed=1))

    async def live(sync: FolderSync, session: Session) -> None:
        await account.do(server.flag, [3], "\\Flagged")
        await session.noop()
        await account.do(server.expunge, [3])
        await session.noop()
        news = session.take_news()
        assert set(news.flags) == {3}
        assert list(news.vanished) == [range(3, 4)]
        tally = Tally()
        await sync.take(news, tally)
        assert tally.vanished == 1
        await account.compare()

    await account.sync(live)
    assert await account.folder("demoted") is None
    again = await account.sync()
    assert (again.new, again.vanished) == (0, 0)
    await account.compare()


async def test_a_uidnext_below_the_messages_hides_none(
    db: Database, dial_to: DialTo, scripted_imap: Callable[..., Awaitable[ScriptedImap]]
) -> None:
    record, _ = await sync_with(
        db,
        dial_to,
        scripted_imap,
        selected(exists=3, uidnext=1),
        On(rb"UID FETCH 1:\* \(UID\)", b"".join(b"* %d FETCH (UID %d)\r\n" % (n, n) for n in (1, 2, 3)) + OK),
        On(rb"UID SEARCH", b"* SEARCH 1 2 3\r\n<tag> OK\r\n"),
        On(rb"UID FETCH 1:3", fetch(1) + fetch(2) + fetch(3) + OK),
    )
    assert await one(db, _LIVE) == [1, 2, 3]
    assert record.cursor.uidnext == 4


async def test_sizes_and_dates_beyond_all_measure_spoil_no_message(
    db: Database, dial_to: DialTo, scripted_imap: Callable[..., Awaitable[ScriptedImap]]
) -> None:
    longest, last = (1 << 63) - 1, "31-Dec-9999 23:59:59 -1200"
    await sync_with(
        db,
        dial_to,
        scripted_imap,
        selected(exists=3, uidnext=4),
        On(rb"UID SEARCH", b"* SEARCH 1 2 3\r\n<tag> OK\r\n"),
        On(
            rb"UID FETCH 1:3",
            fetch(1, size=longest, date=last) + fetch(2, size=longest, date=last) + fetch(3) + OK,
        ),
    )
    assert await one(db, _LIVE) == [1, 2, 3]
    assert await one(db, _SKIPPED) == []
    assert await one(db, "SELECT count(DISTINCT size) FROM messages") == 1, "what is no size is counted"
    assert await one(db, "SELECT count(received_at) FROM messages") == 1


async def test_a_thousand_overlapping_disappearances_are_one(account: Account) -> None:
    account.server.seed(account.user.name, seeds(5, seed=1))
    await account.sync()
    record = await FolderRecord.open(account.store, "INBOX")
    ranges = [range(1 + n % 3, (1 << 32) - n) for n in range(1000)]
    assert placements_store._bounds(ranges) == ([1], [(1 << 32) - 1])
    assert placements_store._bounds([range(5, 6), range(1, 3), range(3, 5), range(9, 9)]) == ([1], [5])
    assert await record.count_in(ranges) == 5
    assert await record.vanish([range(2, 4)] * 1000) == 2
    assert await one(account.db, _LIVE) == [1, 4, 5]


async def test_an_emptied_and_renumbered_folder_keeps_its_mail_until_a_fresh_connection_agrees(
    account: Account,
) -> None:
    server, user = account.server, account.user.name
    account.name = "Work"
    server.seed(user, seeds(120, seed=5), "Work")
    await account.sync()
    held = "SELECT count(*) FROM messages"
    server.recreate(user, "Work")
    await account.sync()
    assert await one(account.db, held) == 120

    login_to, opened = account.login_to, 0

    def counted(*args: object, **kwargs: object) -> object:
        nonlocal opened
        opened += 1
        if opened == 2:
            server.seed(user, seeds(1, seed=6), "Work")  # the second look sees something else
        return login_to(*args, **kwargs)  # type: ignore[arg-type]  # handed through

    account.login_to = counted  # type: ignore[assignment]
    await account.sync()
    assert opened == 2
    assert await one(account.db, held) == 120, "the two looks did not agree"
    await account.sync()
    await account.compare()
    assert await one(account.db, held) == 1


# -- what was skipped, and what is large -----------------------------------------------------------------------------


async def test_a_skipped_message_that_went_hides_no_missing_one(account: Account) -> None:
    server, user, db = account.server, account.user.name, account.db
    server.seed(user, seeds(4, seed=1))
    await account.sync()
    folder = await account.folder("id")

    async def skip(conn: Conn) -> None:
        await conn.execute(
            "INSERT INTO skipped_messages (folder_id, uidvalidity, uid, reason) VALUES (%s, 1, 2, 'x')", (folder,)
        )
        await conn.execute("DELETE FROM placements WHERE uid = 2")

    await db.run(skip)
    server.expunge(user, [2])
    await account.sync()
    assert await one(db, _SKIPPED) == []
    await db.run(lambda conn: conn.execute("DELETE FROM placements WHERE uid = 1"))
    await account.sync()
    await account.compare()


async def test_a_large_message_that_comes_alone_is_fetched_once(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "PIECE", 20_000)
    server, user = account.server, account.user.name
    server.seed(user, seeds(2, seed=1))

    async def live(sync: FolderSync, session: Session) -> None:
        async def read_for(mail: bytes) -> int:
            before, tally = session.wire.received, Tally()
            await account.do(server.deliver, mail)
            with trio.fail_after(20):
                while not tally.new:
                    await sync.take(await session.idle(3), tally)
            return session.wire.received - before

        assert await read_for(message("large", body="y" * 300_000)) > 300_000
        assert sync.record.cursor.uidnext == 4
        assert await read_for(message("small")) < 20_000, "the large one came again"
        assert sync.record.cursor.uidnext == 5
        await account.compare()

    await account.sync(live)
    assert len(await stored_messages(account.db, account.store.claim.account_id)) == 4
