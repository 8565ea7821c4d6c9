"""The event log's order: what commits late is never skipped, what is rolled back never told."""

from uuid import UUID

import pytest

from daemon import events
from daemon.network import Endpoint, Security
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from tests.fix_postgres import BOTH_SERVERS
from tests.stored import make_account

IMAP = Endpoint("imap.example.test", 993, Security.TLS)
RECEIVED = events.EventType.EMAIL_RECEIVED


@pytest.fixture
async def account_id(db: Database) -> UUID:
    return (await make_account(db, username="you@example.test", imap=IMAP)).account_id


async def read_all(db: Database, *, limit: int = 2, cursor: tuple[int, int] = (0, 0)) -> list[events.Event]:
    """As a consumer does: page by page."""
    found: list[events.Event] = []
    while page := await db.run(lambda conn, cursor=cursor: events.read_after(conn, cursor, limit)):
        found += page
        cursor = page[-1].cursor
    return found


def numbers(found: list[events.Event]) -> list[object]:
    return [event.data["n"] for event in found]


@BOTH_SERVERS
async def test_a_late_commit_is_not_skipped(db: Database, account_id: UUID) -> None:
    async with db.transaction() as slow:
        await events.append(slow, RECEIVED, account_id, {"n": "slow"})
        async with db.transaction() as quick:
            await events.append(quick, RECEIVED, account_id, {"n": "quick"})
        assert numbers(await read_all(db)) == [], "while an older transaction may still tell something, nothing is read"
    found = await read_all(db)
    assert numbers(found) == ["slow", "quick"]
    async with db.transaction() as slow:
        await events.append(slow, RECEIVED, account_id, {"n": "slow again"})
        async with db.transaction() as quick:
            await events.append(quick, RECEIVED, account_id, {"n": "quick again"})
    assert numbers(await read_all(db, cursor=found[-1].cursor)) == ["slow again", "quick again"]


async def test_what_is_rolled_back_was_never_told(db: Database, account_id: UUID) -> None:
    class Undo(Exception):
        pass

    async def work(conn: Conn) -> None:
        await events.append(conn, RECEIVED, account_id, {"n": 1})
        raise Undo

    with pytest.raises(Undo):
        await db.run(work)
    assert await read_all(db) == []


async def test_many_keep_their_order_over_pages(db: Database, account_id: UUID) -> None:
    await db.run(lambda conn: events.append_many(conn, RECEIVED, account_id, ({"n": n} for n in range(25))))
    await db.run(lambda conn: events.append_many(conn, RECEIVED, account_id, ()))
    found = await read_all(db, limit=4)
    assert numbers(found) == list(range(25))
    assert {(event.type, event.account_id) for event in found} == {("email.received", account_id)}
    assert len({event.cursor for event in found}) == 25
