"""The overview of synchronisation: what it says of each account, in one statement and so of one moment."""

from typing import Any, ClassVar
from uuid import UUID

import psycopg
import pytest

from daemon.account import access_store
from daemon.account.views import SyncOverview
from daemon.network import Endpoint, Security
from daemon.storage.database import Database
from tests.daemon.account.running import execute
from tests.stored import make_account, one

IMAP = Endpoint("imap.example.test", 993, Security.TLS)


class Counted(psycopg.AsyncCursor[Any]):
    """A cursor that tells what was asked by all of its kind."""

    asked: ClassVar[list[object]] = []

    async def execute(self, query: Any, *args: Any, **options: Any) -> Any:
        self.asked.append(query)
        return await super().execute(query, *args, **options)


async def account(db: Database, name: str, owner: str, **columns: str) -> UUID:
    claim = await make_account(db, username=f"{name}@example.test", imap=IMAP, owner=owner)
    if columns:
        changes = ", ".join(f"{column} = {value}" for column, value in columns.items())
        await execute(db, f"UPDATE accounts SET {changes} WHERE id = %s", claim.account_id)
    return claim.account_id


async def overview(db: Database, user: str) -> list[SyncOverview]:
    return await db.run(lambda conn: access_store.overview(conn, user))


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        ({}, "idle"),
        ({"state": "'syncing'"}, "syncing"),
        ({"state": "'watching'", "proof_until": "now() + interval '1 hour'"}, "idle"),
        ({"state": "'watching'", "proof_until": "now() - interval '1 minute'"}, "syncing"),
        ({"state": "'watching'", "proof_until": "now() - interval '1 hour'"}, "failed"),
        ({"state": "'retrying'", "state_reason": "'No.'", "trouble_since": "now() - interval '1 hour'"}, "failed"),
        ({"state": "'parked'", "state_reason": "'No.'"}, "failed"),
        ({"state": "'stopped'", "desired": "'paused'"}, "idle"),
    ],
)
async def test_how_the_synchronisation_goes(db: Database, columns: dict[str, str], word: str) -> None:
    await account(db, "box", "ann", **columns)
    (found,) = await overview(db, "ann")
    assert found.sync_status == word


async def test_it_has_all_that_the_user_may_see_oldest_first_in_one_statement(db: Database) -> None:
    younger = await account(db, "younger", "ann", new_messages="7", last_synced_at="'2026-01-02 03:04:05+00'")
    older = await account(db, "older", "ann", created_at="now() - interval '1 day'")
    shared = await account(db, "shared", "bob", new_messages="3", created_at="now() - interval '2 days'")
    await account(db, "hidden", "bob")
    await account(db, "gone", "ann", desired="'removed'", removed_at="now()")
    await execute(db, "INSERT INTO account_access VALUES (%s, 'ann', 'member')", shared)
    async with db.connection() as conn:
        usual, conn.cursor_factory = conn.cursor_factory, Counted
        try:
            Counted.asked.clear()
            found = await access_store.overview(conn, "ann")
        finally:
            conn.cursor_factory = usual
    assert len(Counted.asked) == 1
    assert [(view.id, view.new_message_count) for view in found] == [(shared, 3), (older, 0), (younger, 7)]
    assert [view.email for view in found] == ["shared@example.test", "older@example.test", "younger@example.test"]
    synced = await one(db, "SELECT last_synced_at FROM accounts WHERE id = %s", younger)
    assert [view.last_sync_at for view in found] == [None, None, synced]
