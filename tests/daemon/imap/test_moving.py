"""An account moved to another mailbox whose folder has the same UIDVALIDITY and the same UIDs, with other mail in it.

What the new one has is stored exactly; what of it was known keeps its id; what it has not is kept, and nothing else of
the former one counts: no cursor, no rung of the ladder, no row of renumberings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import trio

from daemon.imap import folder_sync
from daemon.imap.folder_record import FolderRecord
from daemon.imap.folder_sync import MAX_RESYNCS, FolderSync
from daemon.imap.folders_store import open_folders
from daemon.imap.plan import Method
from daemon.imap.session import Session
from daemon.storage.connection import Conn
from ops.testservers import mailbox
from ops.testservers.dovecot_conf import DovecotOptions
from ops.testservers.mail import messages
from ops.testservers.mailbox import Seed
from tests.daemon.imap.accounts import Account
from tests.daemon.imap.test_folder_sync import on_every_rung
from tests.fix_dovecot import MailUser
from tests.stored import one

_KEPT = "SELECT count(*) FROM former_placements WHERE kept"
_AWAITED = "SELECT count(*) FROM former_placements WHERE NOT kept"
_MESSAGES = "SELECT count(*) FROM messages"
_NOWHERE = (
    "SELECT count(*) FROM messages m WHERE NOT EXISTS (SELECT FROM placements WHERE message_id = m.id)"
    " AND NOT EXISTS (SELECT FROM former_placements WHERE message_id = m.id)"
)
MAILS: Sequence[Seed] = [
    Seed(mail, internal_date=1_700_000_000 + at) for at, mail in enumerate(messages(200, seed=31))
]


@dataclass
class Moving:
    """An account and two mailboxes that it may be in."""

    account: Account
    there: tuple[MailUser, ...]

    def go(self, to: int) -> None:
        """Move it; a session by the new credentials is the next."""
        self.account.user = self.there[to]
        self.account.mailbox += 1

    async def ids(self) -> dict[int, str]:
        """The messages that lie in the folder, by UID."""

        async def work(conn: Conn) -> dict[int, str]:
            cursor = await conn.execute(
                "SELECT uid, message_id::text FROM placements WHERE vanished_at IS NULL ORDER BY uid"
            )
            return dict(await cursor.fetchall())

        return await self.account.db.run(work)

    async def count(self, query: str) -> object:
        return await one(self.account.db, query)


@pytest.fixture
def moving(account: Account) -> Moving:
    """Two mailboxes of one age, by their files: INBOX has the same UIDVALIDITY in both."""
    server, here = account.server, account.user
    there = MailUser(f"there-{here.name}", here.password)
    assert server.uids(here.name) == []
    server.clone(here.name, [there.name])
    numbers = set()
    for user in (here, there):
        with server.client(user.name) as client:
            numbers.add(mailbox.uidvalidity(client, "INBOX"))
    assert len(numbers) == 1
    return Moving(account, (here, there))


@on_every_rung
async def test_the_same_numbers_with_other_mail(moving: Moving, monkeypatch: pytest.MonkeyPatch) -> None:
    account = moving.account
    here, there = (user.name for user in moving.there)
    account.server.seed(here, MAILS[:60])
    account.server.seed(there, MAILS[80:120])  # UIDs 1 to 40 are others
    account.server.seed(there, MAILS[40:60])
    await account.sync()
    before = await moving.ids()
    asked: list[object] = []
    original = Session.select

    async def select(self: Session, name: str, known: object = None) -> object:
        asked.append(known)
        return await original(self, name, known)  # type: ignore[arg-type]  # as it was given

    monkeypatch.setattr(Session, "select", select)
    moving.go(1)
    tally = await account.sync()
    await account.compare()
    assert asked == [None], "of the former mailbox's numbers the server is told nothing"
    assert (tally.new, tally.vanished) == (0, 0)
    after = await moving.ids()
    assert [after[uid] for uid in range(41, 61)] == [before[uid] for uid in range(41, 61)]
    assert not {after[uid] for uid in range(1, 41)} & set(before.values())
    assert (await moving.count(_KEPT), await moving.count(_MESSAGES)) == (40, 100)
    assert await account.folder("resyncs") == 0
    assert await account.folder("mailbox") == 2
    assert await account.folder("messages_done") == await account.folder("messages_total") == 60
    reset = "SELECT data - 'from' - 'to' FROM events WHERE type = 'folder.reset'"
    assert await moving.count(reset) == {"folder": "INBOX", "reason": "moved"}
    assert await moving.count("SELECT count(*) FROM events WHERE type = 'email.received'") == 0

    account.server.deliver(there, MAILS[150].content)
    assert (await account.sync()).new == 1
    await account.sync()
    await account.compare()
    assert (await moving.count(_KEPT), await moving.count(_MESSAGES)) == (40, 101), "it is kept for good"
    assert await account.folder("demoted") is None


async def test_there_and_back_and_again(moving: Moving) -> None:
    account = moving.account
    account.server.seed(moving.there[0].name, MAILS[:30])
    account.server.seed(moving.there[1].name, MAILS[20:45])
    await account.sync()
    first = await moving.ids()
    moving.go(1)
    await account.sync()
    second = await moving.ids()
    for turn in range(MAX_RESYNCS + 2):
        moving.go(turn % 2)
        await account.sync()
        await account.compare()
        assert await moving.ids() == (second if turn % 2 else first)
        assert (await moving.count(_MESSAGES), await account.folder("resyncs")) == (45, 0)


async def test_what_turns_up_later_is_known(moving: Moving) -> None:
    account = moving.account
    there = moving.there[1].name
    account.server.seed(moving.there[0].name, MAILS[:30])
    await account.sync()
    before = await moving.ids()
    moving.go(1)
    await account.sync()
    assert (await moving.ids(), await moving.count(_KEPT)) == ({}, 30)
    account.server.seed(there, [*MAILS[10:12], MAILS[100]])
    assert (await account.sync()).new == 3
    await account.compare()
    after = await moving.ids()
    assert [after[1], after[2]] == [before[11], before[12]]
    assert (await moving.count(_KEPT), await moving.count(_MESSAGES)) == (28, 31)
    told = "SELECT array_agg(data->>'message_id' ORDER BY id) FROM events WHERE type = 'email.received'"
    assert await moving.count(told) == list(after.values()), "the event names the message as the store does"


async def test_what_is_kept_costs_a_quiet_folder_nothing(moving: Moving) -> None:
    account = moving.account
    account.server.seed(moving.there[0].name, MAILS[:20])
    await account.sync()
    moving.go(1)
    await account.sync()
    asked: list[object] = []

    async def act(sync: FolderSync, session: Session) -> None:
        del session
        asked.append((sync.question() is not None, sync.record.settled, await sync.record.former_count()))

    await account.sync(act)
    assert asked == [(True, 0, 0)]

    async def opened(conn: Conn) -> bool:
        (found,) = await open_folders(conn, [(account.store.claim.account_id, "INBOX")])
        assert found is not None
        return found[1].former

    assert not await account.db.run(opened)


# -- sessions of the former mailbox that still run ---------------------------------------------------------------------


async def test_the_former_session_began_the_folder_after_the_move(moving: Moving) -> None:
    account = moving.account
    account.server.seed(moving.there[0].name, MAILS[:30])
    account.server.seed(moving.there[1].name, MAILS[50:90])
    account.mailbox = 1
    await account.sync()  # there was no row when the account was moved: the mailbox has number 2 by then
    moving.go(1)
    await account.sync()
    await account.compare()
    assert (await moving.count(_KEPT), await moving.count(_MESSAGES)) == (30, 70)


async def test_the_former_session_opened_the_folder_after_the_move(moving: Moving) -> None:
    account = moving.account
    account.server.seed(moving.there[0].name, MAILS[:30])
    account.server.seed(moving.there[1].name, MAILS[50:90])
    await account.sync()
    account.server.seed(moving.there[0].name, MAILS[30:35])
    assert (await account.sync()).new == 5, "its own cursor is good for it"
    moving.go(1)
    await account.sync()
    await account.compare()
    assert (await moving.count(_KEPT), await moving.count(_MESSAGES)) == (35, 75)


async def test_the_former_session_writes_after_the_move(moving: Moving) -> None:
    account = moving.account
    account.server.seed(moving.there[0].name, MAILS[:30])
    account.server.seed(moving.there[1].name, MAILS[50:90])

    async def act(sync: FolderSync, session: Session) -> None:
        account.server.expunge(account.user.name, [1, 2])
        account.server.seed(account.user.name, MAILS[30:40])
        await session.noop()
        await sync.take(session.take_news(), folder_sync.Tally())
        await sync.record.demote(Method.UID_DIFF, "it contradicted itself")

    await account.sync(act)
    assert await moving.count("SELECT count(*) FROM placements") == 40
    moving.go(1)
    await account.sync()
    await account.compare()
    assert (await account.folder("demoted"), await account.folder("demoted_reason")) == (None, None)
    assert await moving.count(_MESSAGES) == 78, "what was seen to vanish there is gone"
    assert await moving.count(_NOWHERE) == 0


async def test_what_a_former_session_began_is_begun_again(moving: Moving) -> None:
    account = moving.account
    account.server.seed(moving.there[0].name, MAILS[:30])
    account.server.seed(moving.there[1].name, MAILS[50:90])
    await account.sync()
    former = account.mailbox
    moving.go(1)
    await account.sync()
    later, account.mailbox, account.user = account.mailbox, former, moving.there[0]
    await account.sync()  # which cannot be: but if it were, the next would mend it
    account.mailbox, account.user = later, moving.there[1]
    await account.sync()
    await account.compare()
    assert await moving.count(_MESSAGES) == 70


# -- with renumberings -------------------------------------------------------------------------------------------------


async def test_moved_in_the_middle_of_a_renumbering(moving: Moving, monkeypatch: pytest.MonkeyPatch) -> None:
    account, server = moving.account, moving.account.server
    account.name = "Work"
    here, there = (user.name for user in moving.there)
    server.seed(here, MAILS[:60], "Work")
    await account.sync()
    server.recreate(here, "Work")
    server.seed(here, MAILS[:60], "Work")

    async def broken(self: FolderSync, *_: object) -> None:
        raise trio.TooSlowError

    with monkeypatch.context() as patched:
        patched.setattr(FolderSync, "_backfill", broken)
        with pytest.RaisesGroup(trio.TooSlowError, flatten_subgroups=True, allow_unwrapped=True):
            await account.sync()
    assert (await moving.count(_AWAITED), await account.folder("resyncs")) == (60, 1)
    server.seed(there, MAILS[50:70], "Work")
    moving.go(1)
    for _ in range(3):
        await account.sync()
        await account.compare()
    assert (await moving.count(_AWAITED), await moving.count(_KEPT), await moving.count(_MESSAGES)) == (0, 50, 70)
    assert await account.folder("resyncs") == 0


async def test_a_renumbering_after_the_move_drops_what_is_its_own(moving: Moving) -> None:
    account, server = moving.account, moving.account.server
    account.name = "Work"
    here, there = (user.name for user in moving.there)
    server.seed(here, MAILS[:20], "Work")
    server.seed(there, MAILS[40:80], "Work")
    await account.sync()
    moving.go(1)
    await account.sync()
    server.recreate(there, "Work")
    server.seed(there, [*MAILS[60:80], MAILS[0]], "Work")
    await account.sync()
    assert await account.folder("resyncs") == 1
    assert (await moving.count(_AWAITED), await moving.count(_KEPT)) == (20, 19)
    await account.sync()
    await account.compare()
    assert (await moving.count(_AWAITED), await moving.count(_KEPT), await moving.count(_MESSAGES)) == (0, 19, 40)
    assert await moving.count("SELECT array_agg(data->>'reason' ORDER BY id) FROM events WHERE type = 'folder.reset'") \
        == ["moved", "renumbered"]  # fmt: skip


@pytest.mark.parametrize("dovecot", [DovecotOptions()], indirect=True)
async def test_a_renumbering_leaves_no_message_nowhere(account: Account) -> None:
    account.name = "Work"
    account.server.seed(account.user.name, MAILS[:10], "Work")
    await account.sync()
    account.server.expunge(account.user.name, [1, 2], "Work")
    await account.sync()  # gone, in their grace
    account.server.recreate(account.user.name, "Work")
    account.server.seed(account.user.name, MAILS[2:10], "Work")
    await account.sync()
    await account.sync()
    await account.compare()
    assert await one(account.db, _NOWHERE) == 0
    assert await one(account.db, _MESSAGES) == 8


async def test_the_record_of_another_mailbox_knows_nothing_of_its_server(moving: Moving) -> None:
    account = moving.account
    account.server.seed(moving.there[0].name, MAILS[:3])
    await account.sync()
    record = await FolderRecord.open(account.store, "INBOX", 1)
    await record.demote(Method.UID_DIFF, "it contradicted itself")
    assert (await FolderRecord.open(account.store, "INBOX", 1)).folder.demoted is Method.UID_DIFF
    moved = await FolderRecord.open(account.store, "INBOX", 2)
    assert (moved.moved, moved.folder.demoted) == (True, None)
    assert await account.folder("demoted") == "uid_diff", "opening it says nothing to the database"
