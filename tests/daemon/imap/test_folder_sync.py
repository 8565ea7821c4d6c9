"""Synchronising a folder of a real Dovecot into a real PostgreSQL, on every rung of the ladder.

The measure is always the same: UIDs, flags, sizes and hashes of all bodies equal a plain dump of the server.
"""


import pytest
import trio

from daemon.errors import Disposition, Fault
from daemon.imap import fetching
from daemon.imap.folder_changes import FolderSyncConfig
from daemon.imap.folder_record import FolderRecord, Tally
from daemon.imap.folder_sync import MAX_RESYNCS, FolderSync
from daemon.imap.session import Session
from ops.testservers.dovecot_conf import DovecotOptions
from ops.testservers.mail import message, messages, seeds
from ops.testservers.mailbox import Seed
from tests.daemon.imap.accounts import Account
from tests.stored import one, stored_messages

LADDER = [
    pytest.param(DovecotOptions(), id="qresync"),
    pytest.param(DovecotOptions(without=frozenset({"QRESYNC"})), id="condstore"),
    pytest.param(DovecotOptions(without=frozenset({"QRESYNC", "CONDSTORE", "ENABLE", "ESEARCH"})), id="uid_diff"),
]
on_every_rung = pytest.mark.parametrize("dovecot", LADDER, indirect=True)

@on_every_rung
async def test_first_sync_then_changes_while_away(account: Account) -> None:
    server, user = account.server, account.user.name
    server.seed(user, seeds(230, seed=1))
    tally = await account.sync()
    assert tally.new == 0
    await account.compare()
    assert await account.folder("backfill_below") == 1
    assert await account.folder("messages_done") == await account.folder("messages_total") == 230
    assert await one(account.db, "SELECT count(*) FROM events WHERE type = 'email.received'") == 0

    uids = server.uids(user)
    server.flag(user, uids[10:60], "\\Flagged")
    server.flag(user, uids[20:30], "\\Seen", remove=True)
    server.expunge(user, uids[100:140])
    for mail in messages(7, seed=2):
        server.deliver(user, mail)
    tally = await account.sync()
    assert (tally.new, tally.vanished) == (7, 40)
    await account.compare()
    assert await one(account.db, "SELECT count(*) FROM events WHERE type = 'email.received'") == 7
    assert await account.folder("demoted") is None

    again = await account.sync()
    assert (again.new, again.changed, again.vanished) == (0, 0, 0)


async def test_a_comparison_that_finds_nothing_new_says_nothing_twice(account: Account) -> None:
    """Each renewal compares: with thousands of accounts, what it costs when nothing happened is what idling costs."""
    server, user = account.server, account.user.name
    server.seed(user, seeds(20, seed=1))
    spent: list[int] = []

    async def compare(sync: FolderSync) -> Tally:
        before = account.db.statistics().transactions
        tally = await sync.run()
        spent.append(account.db.statistics().transactions - before)
        return tally

    async def act(sync: FolderSync, _session: Session) -> None:
        for _ in range(3):
            await compare(sync)
        assert spent[1:] == [0, 0]
        await account.do(server.flag, [3], "\\Flagged")
        await account.do(server.expunge, [5])
        tally = await compare(sync)
        assert tally.vanished == 1
        assert spent[-1] > 0
        await account.compare()

    await account.sync(act)


@on_every_rung
async def test_news_are_stored_as_they_come(account: Account) -> None:
    server, user = account.server, account.user.name
    server.seed(user, seeds(20, seed=3))

    async def live(sync: FolderSync, session: Session) -> None:
        tally = Tally()
        await account.do(server.deliver, message("first"))
        await account.do(server.flag, [1, 2], "\\Answered")
        await account.do(server.expunge, [5])
        with trio.fail_after(20):
            while (tally.new, tally.vanished) != (1, 1) or tally.changed < 2:
                await sync.take(await session.idle(5), tally)
        await account.compare()

    await account.sync(live)
    await account.sync()
    await account.compare()


@on_every_rung
async def test_an_interrupted_first_sync_goes_on_where_it_was(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, user = account.server, account.user.name
    server.seed(user, seeds(180, seed=4))
    stored = 0
    original = FolderRecord.store_batch

    async def failing(self: FolderRecord, *args: object, **kwargs: object) -> int:
        nonlocal stored
        stored += 1
        if stored == 3:
            raise ConnectionResetError("cut")
        return await original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(FolderRecord, "store_batch", failing)
        # Exactly this: the reader, whose batches nobody takes any more, adds nothing of its own.
        with pytest.RaisesGroup(ConnectionResetError, flatten_subgroups=True, allow_unwrapped=True):
            await account.sync()
    assert await account.folder("backfill_below") == 81  # two windows of 50, the newest first
    server.expunge(user, server.uids(user)[-20:-10])
    server.flag(user, server.uids(user)[-5:], "\\Deleted")
    server.deliver(user, message("meanwhile"))
    await account.sync()
    await account.compare()


async def test_large_bodies_come_in_pieces(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "PIECE", 10_000)
    monkeypatch.setattr(fetching, "BATCH_BYTES", 30_000)
    server, user = account.server, account.user.name
    sizes = [100, 9_000, 10_000, 25_000, 200_000, 100, 60_000]
    server.seed(user, [message(f"size {size}", body="x" * size) for size in sizes])
    account.config = FolderSyncConfig(window=2, max_body=150_000)
    await account.sync()
    dump = server.dump(user)
    held = await stored_messages(account.db, account.store.claim.account_id)
    assert {uid: m.size for uid, m in held.items()} == {uid: m.size for uid, m in dump.items()}
    wrong = [uid for uid, m in held.items() if m.sha256 != dump[uid].sha256]
    assert wrong == [5]  # above max_body: its metadata is there, its body is not
    assert await one(account.db, "SELECT body_state FROM messages ORDER BY size DESC LIMIT 1") == "too_large"
    assert await account.folder("backfill_below") == 1


@on_every_rung
async def test_renumbering_keeps_the_messages_ids(account: Account) -> None:
    server, user = account.server, account.user.name
    mails = [Seed(mail, internal_date=1_700_000_000 + at) for at, mail in enumerate(messages(60, seed=5))]
    account.name = "Work"  # INBOX cannot be deleted and made anew
    server.seed(user, mails, "Work")
    await account.sync()
    ids = "SELECT array_agg(id::text ORDER BY id) FROM messages"
    before = await one(account.db, ids)
    server.recreate(user, "Work")
    server.seed(user, mails[10:], "Work")
    await account.sync()
    await account.compare()
    assert await one(account.db, ids) == before  # what was not found again has not been given up yet
    assert await account.folder("resyncs") == 1
    await account.sync()
    after = await one(account.db, ids)
    assert isinstance(before, list)
    assert isinstance(after, list)
    assert set(after) < set(before)
    assert len(after) == 50
    assert await one(account.db, "SELECT count(*) FROM events WHERE type = 'folder.reset'") == 1
    assert await one(account.db, "SELECT count(*) FROM events WHERE type = 'email.received'") == 0
    await account.sync()
    assert await account.folder("resyncs") == 0


async def test_endless_renumbering_parks(account: Account) -> None:
    account.name = "Work"
    account.server.seed(account.user.name, seeds(3, seed=6), "Work")
    for _ in range(MAX_RESYNCS + 1):
        await account.sync()
        account.server.recreate(account.user.name, "Work")
    with pytest.raises(Fault) as caught:
        await account.sync()
    assert caught.value.disposition is Disposition.PARK


@on_every_rung
async def test_a_mass_disappearance_is_looked_at_twice(account: Account) -> None:
    server, user = account.server, account.user.name
    server.seed(user, seeds(120, seed=7))
    await account.sync()
    server.expunge(user, server.uids(user)[:100])
    opened = 0
    login_to = account.login_to

    def counted(*args: object, **kwargs: object) -> object:
        nonlocal opened
        opened += 1
        return login_to(*args, **kwargs)

    account.login_to = counted  # type: ignore[assignment]
    await account.sync()
    assert opened == 2
    await account.compare()


async def test_vanished_messages_have_a_grace(account: Account) -> None:
    server, user = account.server, account.user.name
    server.seed(user, seeds(10, seed=8))
    await account.sync()
    server.expunge(user, [3])
    await account.sync()
    assert await one(account.db, "SELECT count(*) FROM messages") == 10
    aged = "UPDATE placements SET vanished_at = now() - interval '1 hour' WHERE vanished_at IS NOT NULL RETURNING 1"
    assert await one(account.db, aged) == 1
    await account.sync()
    assert await one(account.db, "SELECT count(*) FROM messages") == 9
    assert await one(account.db, "SELECT count(*) FROM bodies") == 9
