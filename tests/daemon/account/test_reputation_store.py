"""What accounts have sent in the last 24 hours, on a real database: both sources, their edges, nothing twice."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import UUID, uuid4

import pytest

from daemon.account import reputation_store
from daemon.account.reputation_store import AHEAD, MOST_MESSAGES, WINDOW, reputations
from daemon.account.views import ReputationView
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from tests.daemon.account.running import add_account, execute
from tests.fix_postgres import BOTH_SERVERS
from tests.stored import one

NOW = datetime(2026, 5, 27, 8, 0, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)
SENT = "\\Sent"

_numbers = count(1)


async def standing(db: Database, user: str = "ann", at: datetime | None = NOW) -> list[ReputationView]:
    async def work(conn: Conn) -> list[ReputationView]:
        return await reputations(conn, user, at)

    return await db.run(work)


async def sent(db: Database, at: datetime | None = NOW) -> int:
    """Of the one account there is."""
    (view,) = await standing(db, at=at)
    return view.sent_today


async def folder(db: Database, account: UUID, name: str = "Sent", use: str | None = SENT) -> int:
    made = await one(
        db, "INSERT INTO folders (account_id, name, special_use) VALUES (%s, %s, %s) RETURNING id", account, name, use
    )
    assert isinstance(made, int)
    return made


async def copy(
    db: Database,
    account: UUID,
    place: int | None,
    *to: str,
    at: datetime | None = NOW,
    message_id: str | None = "",
    dated: datetime | None = None,
    **fields: Sequence[str],
) -> UUID:
    """A message as other clients leave it in a folder; with a Message-ID of its own if none is given."""
    row, number = uuid4(), next(_numbers)
    shown = {"to": to, **fields} if to else fields
    recipients = {name: [{"name": "", "email": email} for email in emails] for name, emails in shown.items()}
    await execute(
        db,
        "INSERT INTO messages (id, account_id, message_id, recipients, sent_at, received_at, size, body_state)"
        " VALUES (%s, %s, %s, %s, %s, %s, 1, 'stored')",
        row, account, f"{number}@example.test" if message_id == "" else message_id, json.dumps(recipients), dated, at,
    )  # fmt: skip
    if place is not None:
        await execute(db, "INSERT INTO placements (folder_id, uid, message_id) VALUES (%s, %s, %s)", place, number, row)
    return row


async def send(
    db: Database,
    account: UUID,
    *states: str,
    accepted_at: datetime | None = NOW,
    message_id: str = "ours@example.test",
    sandbox: bool = False,
) -> None:
    """A send as the ledger has it, with a recipient in each of the states."""
    name = f"msg_{next(_numbers):08}"
    await execute(
        db,
        "INSERT INTO sends (id, account_id, user_id, request_hash, state, sandbox, header_message_id, accepted_at,"
        " settled_at) VALUES (%s, %s, 'ann', %s, %s, %s, %s, %s, %s)",
        name, account, b"h" * 32, "sent" if accepted_at else "unknown", sandbox, message_id, accepted_at, accepted_at,
    )  # fmt: skip
    for number, state in enumerate(states):
        await execute(
            db, "INSERT INTO send_recipients (send_id, address, kind, state) VALUES (%s, %s, 'to', %s)",
            name, f"r{number}@example.test", state,
        )  # fmt: skip


@pytest.fixture
async def account(db: Database) -> UUID:
    return (await add_account(db, "box@example.test", 993, "pw", owner="ann")).account_id


@pytest.fixture
async def place(db: Database, account: UUID) -> int:
    return await folder(db, account)


@BOTH_SERVERS
async def test_what_is_not_known_yet(db: Database, account: UUID) -> None:
    assert await standing(db) == [ReputationView(account, "box@example.test", 500, 0)]
    assert await standing(db, "bob") == []
    await execute(db, "UPDATE accounts SET smtp_host = 'smtp.gmail.com'")
    assert (await standing(db))[0].daily_limit == 2000
    await execute(db, "UPDATE accounts SET daily_limit = 40")
    assert (await standing(db))[0].daily_limit == 40
    await execute(db, "UPDATE accounts SET daily_limit = 0, desired = 'paused'")
    assert (await standing(db))[0].daily_limit == 0


async def test_everybody_with_part_in_an_account_and_nobody_else(db: Database, account: UUID, place: int) -> None:
    for user in ("bob", "cid", "dan"):
        await add_account(db, f"{user}@example.test", 993, "pw", owner=user)
    other = (await add_account(db, "second@example.test", 993, "pw", owner="ann")).account_id
    await execute(db, "UPDATE accounts SET created_at = now() + interval '1 hour' WHERE id <> %s", account)
    await execute(db, "INSERT INTO account_access VALUES (%s, 'bob', 'admin'), (%s, 'cid', 'member')", account, account)
    await copy(db, account, place, "x@example.net")
    await copy(db, other, await folder(db, other), "x@example.net", "y@example.net")

    async def shown(user: str) -> list[tuple[str, int]]:
        return [(view.email, view.sent_today) for view in await standing(db, user)]

    assert await shown("ann") == [("box@example.test", 1), ("second@example.test", 2)]
    assert await shown("bob") == [("box@example.test", 1), ("bob@example.test", 0)], "the oldest first"
    assert await shown("cid") == [("box@example.test", 1), ("cid@example.test", 0)]
    assert await shown("dan") == [("dan@example.test", 0)]
    await execute(db, "DELETE FROM account_access WHERE user_id = 'cid' AND role = 'member'")
    assert await shown("cid") == [("cid@example.test", 0)]
    await execute(
        db, "UPDATE accounts SET desired = 'removed', removed_at = now(), is_default = false WHERE id = %s", other
    )
    assert await shown("ann") == [("box@example.test", 1)]


async def test_what_went_out_through_us(db: Database, account: UUID) -> None:
    every = ("queued", "accepted", "refused", "bounced", "complained", "delivered", "suppressed")
    await send(db, account, *every)
    assert await sent(db) == 4, "accepted, and what became of those"
    await send(db, account, "accepted", sandbox=True)
    await send(db, account, "queued", "accepted", accepted_at=None)
    assert await sent(db) == 4


async def test_the_edges_of_our_window(db: Database, account: UUID) -> None:
    for accepted in (-WINDOW - INSTANT, -WINDOW, INSTANT):
        await send(db, account, "accepted", accepted_at=NOW + accepted)
        assert await sent(db) == 0, accepted
    for counted, accepted in enumerate((-WINDOW + INSTANT, -INSTANT, timedelta()), 1):
        await send(db, account, "accepted", accepted_at=NOW + accepted)
        assert await sent(db) == counted, accepted


async def test_the_edges_of_theirs(db: Database, account: UUID, place: int) -> None:
    """By the server's clock, whatever the message says of itself."""
    for received in (-WINDOW, AHEAD + INSTANT, timedelta(days=25_000), None):
        at = NOW + received if received is not None else None
        await copy(db, account, place, "x@example.net", at=at, dated=NOW)
        assert await sent(db) == 0, received
    for counted, received in enumerate((-WINDOW + INSTANT, timedelta(), INSTANT, AHEAD), 1):
        await copy(db, account, place, "x@example.net", at=NOW + received, dated=NOW - timedelta(days=9))
        assert await sent(db) == counted, received


async def test_the_window_ends_now_where_no_moment_is_given(db: Database, account: UUID, place: int) -> None:
    now = datetime.now(UTC)
    await copy(db, account, place, "old@example.net", at=now - WINDOW - timedelta(minutes=5))
    await copy(db, account, place, "new@example.net", at=now - WINDOW + timedelta(minutes=5))
    await send(db, account, "accepted", "accepted", accepted_at=now - WINDOW + timedelta(minutes=5))
    assert await sent(db, None) == 3
    assert await sent(db, now + timedelta(minutes=10)) == 0
    assert await sent(db, now - timedelta(minutes=10)) == 4


async def test_recipients_of_other_clients_mail(db: Database, account: UUID, place: int) -> None:
    await copy(db, account, place, "a@example.net", "A@Example.NET", cc=["b@example.net"], bcc=["c@example.net"])
    assert await sent(db) == 3, "each once"
    await copy(db, account, place, "a@example.net")
    assert await sent(db) == 4, "and again for another message"
    await copy(db, account, place, reply_to=["d@example.net"])
    assert await sent(db) == 5, "nobody is shown: somebody in Bcc"


async def test_copies_of_one_message_count_once(db: Database, account: UUID, place: int) -> None:
    """A server keeps one by itself, the client another; only the client's shows Bcc."""
    both = "the.same@example.test"
    await copy(db, account, place, "a@example.net", "b@example.net", message_id=both)
    await copy(db, account, place, "a@example.net", "b@example.net", bcc=["c@example.net"], message_id=both)
    await copy(db, account, place, message_id=both)
    assert await sent(db) == 3
    for _ in range(2):
        await copy(db, account, place, "a@example.net", message_id=None)
    assert await sent(db) == 5, "without one, each is a message"


async def test_a_copy_of_what_we_sent_does_not_count_twice(db: Database, account: UUID, place: int) -> None:
    await send(db, account, "accepted", "accepted", "refused")
    await copy(db, account, place, "r0@example.test", "r1@example.test", message_id="ours@example.test")
    assert await sent(db) == 2
    await send(db, account, "accepted", message_id="<bracketed@example.test>")
    await copy(db, account, place, "r0@example.test", message_id="bracketed@example.test")
    assert await sent(db) == 3
    # Accepted just before the window began, copied after that: it is over for us, so it is over.
    await send(db, account, "accepted", accepted_at=NOW - WINDOW, message_id="early@example.test")
    await copy(db, account, place, "r0@example.test", message_id="early@example.test", at=NOW - WINDOW + INSTANT)
    assert await sent(db) == 3
    # Nobody knows yet whether the server took it; its copy says so.
    await send(db, account, "queued", accepted_at=None, message_id="unknown@example.test")
    await copy(db, account, place, "r0@example.test", message_id="unknown@example.test")
    assert await sent(db) == 4


async def test_another_accounts_send_hides_nothing(db: Database, account: UUID, place: int) -> None:
    other = (await add_account(db, "bob@example.test", 993, "pw", owner="bob")).account_id
    await send(db, other, "accepted", message_id="theirs@example.test")
    await copy(db, account, place, "x@example.net", message_id="theirs@example.test")
    assert await sent(db) == 1


async def test_only_what_lies_in_the_sent_folder_now(db: Database, account: UUID, place: int) -> None:
    inbox, drafts = await folder(db, account, "INBOX", None), await folder(db, account, "Drafts", "\\Drafts")
    await copy(db, account, inbox, "me@example.test")
    await copy(db, account, drafts, "x@example.net")
    await copy(db, account, None, "x@example.net")
    row = await copy(db, account, place, "x@example.net")
    assert await sent(db) == 1
    await execute(db, "INSERT INTO placements (folder_id, uid, message_id) VALUES (%s, 9999, %s)", inbox, row)
    assert await sent(db) == 1, "once, however often it is filed"
    await execute(db, "UPDATE placements SET vanished_at = now() WHERE folder_id = %s", place)
    assert await sent(db) == 0


async def test_servers_write_special_uses_as_they_like(db: Database, account: UUID) -> None:
    await copy(db, account, await folder(db, account, "Gesendet", "\\SENT"), "x@example.net")
    await copy(db, account, await folder(db, account, "Sent Items", "\\sent"), "x@example.net")
    await copy(db, account, await folder(db, account, "Sent", None), "x@example.net")
    assert await sent(db) == 2, "a name alone is no special use"


@BOTH_SERVERS
async def test_a_large_account_is_asked_by_index_and_in_bounds(
    db: Database, account: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, inbox = await folder(db, account), await folder(db, account, "INBOX", None)
    await execute(
        db,
        "INSERT INTO messages (id, account_id, message_id, recipients, received_at, size, body_state)"
        " SELECT gen_random_uuid(), %s, n || '@example.test', '{\"to\": [{\"email\": \"x@example.net\"}]}',"
        " %s::timestamptz - n * interval '10 minutes', 1, 'stored' FROM generate_series(0, 19999) AS n",
        account, NOW,
    )  # fmt: skip
    await execute(
        db,
        "INSERT INTO placements (folder_id, uid, message_id)"
        " SELECT CASE WHEN n %% 4 = 0 THEN %s ELSE %s END, 1000000 + n, id"
        " FROM (SELECT id, row_number() OVER (ORDER BY received_at) AS n FROM messages) AS m",
        place, inbox,
    )  # fmt: skip
    await execute(db, "ANALYZE messages, placements, folders, accounts")
    assert await sent(db) == 36, "a quarter of 144"

    async def explain(conn: Conn) -> str:
        given = {"user": "ann", "at": NOW, "window": WINDOW, "ahead": AHEAD, "copied": WINDOW, "most": MOST_MESSAGES}
        cursor = await conn.execute("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) " + reputation_store._SENT, given)
        return "\n".join(row[0] for row in await cursor.fetchall())

    plan = await db.run(explain)
    for table in ("messages", "placements"):
        assert f"Seq Scan on {table}" not in plan, plan
    assert "messages_account_received" in plan, plan
    monkeypatch.setattr(reputation_store, "MOST_MESSAGES", 8)
    assert await sent(db) == 2
    await copy(db, account, place, "a@example.net", "b@example.net", "c@example.net", at=NOW + AHEAD)
    other = (await add_account(db, "bob@example.test", 993, "pw", owner="bob")).account_id
    for _ in range(8):
        await copy(db, other, None, "x@example.net", at=NOW + AHEAD)
    assert await sent(db) == 5, "the newest, and the account's own"
