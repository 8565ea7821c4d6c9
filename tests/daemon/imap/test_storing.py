"""Batches as the database takes them, or does not: few and many, and messages that fit no column."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import psycopg
import pytest

from daemon.imap.fetching import Batch
from daemon.imap.folder_record import FolderRecord
from daemon.imap.plan import Cursor, Method
from daemon.messages import messages_store
from daemon.messages.headers import MAX_IDENTIFIER
from daemon.messages.incoming import IncomingMessage
from daemon.messages.messages_store import FEW, Lookup, Prepared
from daemon.storage.connection import Conn
from ops.testservers.mail import message, seeds
from tests.daemon.imap.accounts import Account
from tests.stored import one

_LIVE = "SELECT coalesce(array_agg(uid ORDER BY uid), '{}') FROM placements WHERE vanished_at IS NULL"
_SKIPPED = "SELECT coalesce(array_agg(uid ORDER BY uid), '{}') FROM skipped_messages"


async def test_a_very_long_message_id_is_cut_and_stored(account: Account) -> None:
    random = Random(1)
    identifier = "".join(chr(random.randrange(0x10000, 0x2FFFF)) for _ in range(995)).encode()
    mail = b"From: a@b.test\r\nMessage-ID: <" + identifier + b">\r\nSubject: s\r\n\r\nx\r\n"
    account.server.seed(account.user.name, [mail])
    await account.sync()
    await account.compare()
    assert await one(account.db, _SKIPPED) == []
    length = await one(account.db, "SELECT octet_length(message_id) FROM messages")
    assert isinstance(length, int)
    assert MAX_IDENTIFIER - 4 < length <= MAX_IDENTIFIER


async def test_a_message_that_the_database_refuses_is_skipped_alone(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, user = account.server, account.user.name
    server.seed(user, seeds(70, seed=1))  # two windows
    original = messages_store.store
    asked = 0

    async def refusing(conn: Conn, folder_id: int, batch: Prepared, found: Lookup) -> None:
        nonlocal asked
        asked += 1
        if {7, 72} & {each.uid for each in batch.messages}:
            raise psycopg.DataError("not this one")
        await original(conn, folder_id, batch, found)

    monkeypatch.setattr(messages_store, "store", refusing)
    await account.sync()
    assert await one(account.db, _SKIPPED) == [7]
    assert await one(account.db, _LIVE) == [uid for uid in range(1, 71) if uid != 7]
    assert await account.folder("backfill_below") == 1
    assert asked < 20, "it is looked for by halves"

    for name in ("a", "b", "c"):  # 71, 72 and 73: news, told together
        server.deliver(user, message(name))
    tally = await account.sync()
    assert tally.new == 2
    assert await one(account.db, _SKIPPED) == [7, 72]
    assert await account.folder("uidnext") == 74
    assert await one(account.db, "SELECT count(*) FROM events WHERE type = 'email.received'") == 2

    asked = 0
    await account.sync()
    assert asked == 0, "what was skipped is not asked for again"
    assert await account.folder("demoted") is None


@pytest.mark.parametrize(
    "poison",
    [
        pytest.param({"size": 1 << 63}, id="a number beyond bigint"),
        pytest.param({"size": -1}, id="a constraint"),
        pytest.param({"flags": ("a\x00b",)}, id="text with NUL"),
        pytest.param({"flags": ("\ud800",)}, id="half a surrogate"),
    ],
)
@pytest.mark.parametrize("few", [FEW, 0], ids=["few, by INSERT", "many, by COPY"])
async def test_whatever_the_refusal_the_others_are_stored(
    account: Account, poison: dict[str, object], few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages_store, "FEW", few)
    record = await FolderRecord.open(account.store, "INBOX")
    await record.begin(Cursor(1, 10, None, 10), 9, Method.UID_DIFF, resync=False)
    mails: Sequence[IncomingMessage] = [
        IncomingMessage(uid, (), None, None, 20, (b"Message-ID: <m%d>\r\n\r\n" % uid,), "stored")
        for uid in range(1, 9)
    ]
    bad = [replace(each, **poison) if each.uid == 4 else each for each in mails]  # type: ignore[arg-type]  # varied
    cursor = replace(record.cursor, backfill_below=1)
    assert await record.store_batch(Batch(bad, ((9, "unreadable"),), None), cursor, arrived=False) == 7
    assert await one(account.db, _LIVE) == [1, 2, 3, 5, 6, 7, 8]
    assert await one(account.db, _SKIPPED) == [4, 9]
    assert (await account.folder("backfill_below"), record.cursor) == (1, cursor)


_ROWS = (
    "SELECT array_agg(to_jsonb(m) - '{id,created_at}'::text[]"
    " || to_jsonb(p) - '{id,message_id,folder_id,created_at}'::text[]"
    " || jsonb_build_object('body', (SELECT array_agg(encode(b.data, 'hex') ORDER BY b.part)"
    "  FROM bodies b WHERE b.message_id = m.id)) ORDER BY p.uid)"
    " FROM placements p JOIN messages m ON m.id = p.message_id"
)


async def test_few_messages_are_stored_as_many_are(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    account.server.seed(account.user.name, seeds(FEW, seed=3))
    await account.sync()
    by_insert = await one(account.db, _ROWS)

    async def forget(conn: Conn) -> None:
        await conn.execute("DELETE FROM placements")
        await conn.execute("DELETE FROM messages")
        await conn.execute("UPDATE folders SET uidvalidity = NULL, uidnext = NULL, backfill_below = NULL")

    await account.db.run(forget)
    monkeypatch.setattr(messages_store, "FEW", 0)
    await account.sync()
    assert len(by_insert) == FEW
    assert await one(account.db, _ROWS) == by_insert


async def test_a_refusal_that_no_message_explains_is_told(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.server.seed(account.user.name, seeds(3, seed=1))

    async def refusing(conn: Conn, folder_id: int, batch: Prepared, found: Lookup) -> None:
        raise psycopg.DataError("nothing at all")

    monkeypatch.setattr(messages_store, "store", refusing)
    with pytest.RaisesGroup(psycopg.DataError, flatten_subgroups=True, allow_unwrapped=True):
        await account.sync()
    assert await one(account.db, _SKIPPED) == []
