"""Lists kept up to date, against the plain query: whatever is committed in whatever order, both say the same."""

import pickle
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import trio
from psycopg.rows import dict_row

from daemon.account import list_store
from daemon.account.access_store import VIEW_COLUMNS, view_of
from daemon.account.listing import Form, Listing
from daemon.account.views import AccountView
from daemon.identity import User, users_store
from daemon.network import Endpoint, Security
from daemon.storage.connection import Conn, TrioConnection
from daemon.storage.database import Database
from tests.daemon.account.running import execute
from tests.fix_postgres import BOTH_SERVERS
from tests.stored import make_account, one

ANN, BOB = User("ann", "ann@example.test", "Ann", "free"), User("bob", "bob@example.test", "Bob", "free")
IMAP = Endpoint("imap.example.test", 993, Security.TLS)
FORM = Form(lambda view: pickle.dumps(seen(view)), lambda shown: pickle.dumps(list(shown)))


def seen(view: AccountView) -> tuple[Any, ...]:
    """What the contract has a list show."""
    return (
        *(view.id, view.email, view.name, view.imap.host, view.imap.port, view.smtp.host, view.smtp.port),
        *(view.sync_status, view.is_default, view.created_at, view.access),
    )


async def plainly(conn: Conn, user_id: str) -> list[AccountView]:
    """The accounts that a user may see, oldest first, from what the tables say."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            f"SELECT {VIEW_COLUMNS}, now() AS now FROM accounts a JOIN account_access x ON x.account_id = a.id"
            " WHERE x.user_id = %s AND a.desired <> 'removed' ORDER BY a.created_at, a.id",
            (user_id,),
        )
        return [view_of(row) for row in await cursor.fetchall()]


class Lists:
    """A listing on a database, and the plain query beside it."""

    def __init__(self, db: Database, dsn: str, **options: Any) -> None:
        self.db = db
        self.dsn = dsn
        self.listing = Listing(self.read, FORM, **options)
        self.statements = 0
        self.fail: Exception | None = None

    async def read(self, work: Any) -> Any:
        self.statements += 1
        async with self.db.connection() as conn:
            result = await work(conn)
        if self.fail is not None:
            raise self.fail
        return result

    async def kept(self, user: User = ANN) -> list[tuple[Any, ...]]:
        return [pickle.loads(data) for data in pickle.loads(await self.listing.show(user.id))]

    async def same(self, user: User = ANN) -> list[tuple[Any, ...]]:
        """What both say; by the end of a proof's second they may differ, so proofs here end long before or after."""
        kept = await self.kept(user)
        plain = await self.db.run(lambda conn: plainly(conn, user.id))
        assert kept == [seen(view) for view in plain]
        return kept

    async def account(self, owner: User = ANN) -> UUID:
        name = f"{uuid4()}@example.test"
        return (await make_account(self.db, username=name, imap=IMAP, owner=owner.id)).account_id

    async def set(self, account_id: UUID, what: str) -> None:
        await execute(self.db, f"UPDATE accounts SET {what} WHERE id = '{account_id}'")

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Conn]:
        """A connection of another node, to hold transactions open on."""
        async with await TrioConnection.connect(self.dsn, autocommit=True) as conn:
            yield conn


@pytest.fixture
async def lists(db: Database, database_dsn: str) -> Lists:
    for user in (ANN, BOB):
        await db.run(lambda conn, user=user: users_store.remember(conn, user))  # type: ignore[misc]  # mypy: lambda
    return Lists(db, database_dsn)


@BOTH_SERVERS
async def test_what_a_list_shows_is_followed(lists: Lists) -> None:
    assert await lists.same() == []
    first, second = await lists.account(), await lists.account()
    assert [row[0] for row in await lists.same()] == [first, second]
    for what in (
        "name = 'Other'", "imap_host = 'other.test'", "imap_port = 143", "smtp_host = 'smtp.test'", "smtp_port = 465",
        "email = 'other@example.test', email_normal = 'other@example.test'", "desired = 'paused'",
        "desired = 'running'", "state = 'syncing'", "created_at = created_at - interval '1 day'",
        "state = 'retrying', state_reason = 'x', trouble_since = now()",
        "trouble_since = now() - interval '6 minutes'", "state = 'watching', trouble_since = NULL",
        "proof_until = now() + interval '1 hour', first_synced_at = now()",
        "proof_until = now() - interval '1 minute'", "proof_until = now() + interval '2 hours'",
        "proof_until = now() - interval '6 minutes'", "proof_until = NULL", "state = 'parked'",
        "desired = 'removed', removed_at = now()",
    ):  # fmt: skip
        await lists.set(second, what)
        await lists.same()
    assert [row[0] for row in await lists.same()] == [first]
    assert lists.listing.statistics().read == 2, "what followed the second account was read as a whole"


async def test_nothing_new_is_one_statement_and_no_form_is_made(lists: Lists) -> None:
    await lists.account()
    shown = await lists.listing.show(ANN.id)
    before = lists.statements
    assert await lists.listing.show(ANN.id) is shown
    assert lists.statements == before + 1
    assert lists.listing.statistics().unchanged == 1


async def test_what_is_not_shown_is_no_change_and_stays_on_its_page(lists: Lists) -> None:
    account_id = await lists.account()
    await lists.set(account_id, "state = 'watching', proof_until = now() + interval '1 hour'")
    await lists.kept()
    amended = lists.listing.statistics().amended
    quiet = (
        "last_contact_at = now()", "new_messages = new_messages + 1", "sync_requested_at = now()",
        "proof_until = proof_until + interval '1 minute'", "state = 'watching'",
    )  # fmt: skip
    for what in quiet:
        await lists.set(account_id, what)
        await lists.same()
    assert lists.listing.statistics().amended == amended

    async def hot(conn: Conn) -> int:
        cursor = await conn.execute("SELECT pg_stat_get_xact_tuples_hot_updated('accounts'::regclass)")
        return int((await cursor.fetchone() or (0,))[0])

    async def on_their_page(conn: Conn) -> int:
        before = await hot(conn)  # what this connection has not yet reported of earlier transactions
        for what in quiet:
            await conn.execute(f"UPDATE accounts SET {what} WHERE id = '{account_id}'".encode())
        return await hot(conn) - before

    assert await lists.db.run(on_their_page) == len(quiet)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
async def test_transactions_open_while_the_list_is_read(lists: Lists, order: tuple[int, ...]) -> None:
    ids = [await lists.account() for _ in range(3)]
    await lists.same()
    async with lists.open() as one_, lists.open() as two, lists.open() as three:
        nodes = (one_, two, three)
        for number, (node, account_id) in enumerate(zip(nodes, ids, strict=True)):
            await node.execute("BEGIN")
            await node.execute("UPDATE accounts SET name = %s WHERE id = %s", (f"by {number}", account_id))
            await lists.same()
        for number in order:
            await nodes[number].execute("COMMIT" if number != 1 else "ROLLBACK")
            shown = {row[0]: row[2] for row in await lists.same()}
            assert (shown[ids[number]] == f"by {number}") == (number != 1)


async def test_access_given_and_taken_in_open_transactions(lists: Lists) -> None:
    account_id = await lists.account()
    assert await lists.same(BOB) == []
    async with lists.open() as giving, lists.open() as other:
        await giving.execute("BEGIN")
        await giving.execute("INSERT INTO account_access VALUES (%s, 'bob', 'member')", (account_id,))
        assert await lists.same(BOB) == []
        # A later transaction that ends earlier, after which the first one ends: neither hides the other.
        second = await lists.account()
        await other.execute("BEGIN")
        await other.execute("INSERT INTO account_access VALUES (%s, 'bob', 'admin')", (second,))
        await other.execute("COMMIT")
        assert [(row[0], row[-1]) for row in await lists.same(BOB)] == [(second, "admin")]
        await giving.execute("COMMIT")
        assert {row[-1] for row in await lists.same(BOB)} == {"member", "admin"}
    await execute(lists.db, "UPDATE account_access SET role = 'admin' WHERE user_id = 'bob'")
    assert [row[-1] for row in await lists.same(BOB)] == ["admin", "admin"]
    await lists.set(account_id, "name = 'Shared'")
    assert "Shared" in {row[2] for row in await lists.same(BOB)}
    await execute(lists.db, f"DELETE FROM account_access WHERE account_id = '{account_id}' AND user_id = 'bob'")
    assert [row[0] for row in await lists.same(BOB)] == [second]
    await execute(lists.db, f"DELETE FROM accounts WHERE id = '{second}'")
    assert await lists.same(BOB) == []
    assert len(await lists.same(ANN)) == 1
    assert await one(lists.db, "SELECT count(*) FROM access_changes WHERE user_id = 'bob'") == 1


async def test_grants_of_many_in_opposite_order_do_not_deadlock(lists: Lists) -> None:
    ids = [await lists.account() for _ in range(2)]
    async with lists.open() as left, lists.open() as right:
        for node, account_id, users in ((left, ids[0], ("ann", "bob")), (right, ids[1], ("bob", "ann"))):
            await node.execute("BEGIN")
            await node.execute("SET LOCAL lock_timeout = 500")
            for user in users[:1]:
                await node.execute("UPDATE account_access SET user_id = user_id WHERE account_id = %s", (account_id,))
                await node.execute("INSERT INTO access_changes VALUES (%s, pg_current_xact_id())"
                                   " ON CONFLICT DO NOTHING", (user,))  # fmt: skip
        await left.execute("INSERT INTO account_access VALUES (%s, 'bob', 'member')", (ids[0],))
        await right.execute("INSERT INTO account_access VALUES (%s, 'bob', 'member')", (ids[1],))
        await left.execute("COMMIT")
        await right.execute("COMMIT")
    assert len(await lists.same(BOB)) == 2


async def test_a_status_changes_by_itself(lists: Lists) -> None:
    stale, troubled = await lists.account(), await lists.account()
    await lists.set(stale, "state = 'watching', proof_until = now() + interval '1.5 s', first_synced_at = now()")
    await lists.set(
        troubled,
        "state = 'retrying', state_reason = 'x', first_synced_at = now(),"
        " trouble_since = now() - interval '5 minutes' + interval '1.5 s'",
    )
    assert [row[7] for row in await lists.kept()] == ["synced", "syncing"]
    await trio.sleep(1.6)
    assert [row[7] for row in await lists.same()] == ["syncing", "error"]
    # The proof grows, which no trigger tells.
    await lists.set(stale, "proof_until = now() + interval '1 hour'")
    assert [row[7] for row in await lists.same()] == ["synced", "error"]
    assert lists.listing.statistics().read == 1


async def test_time_that_passes_between_two_statements_is_noticed(
    lists: Lists, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [await lists.account() for _ in range(2)]
    await lists.set(ids[0], "state = 'watching', proof_until = now() + interval '0.1 s', first_synced_at = now()")
    await lists.set(ids[1], "state = 'watching', proof_until = now() + interval '1.5 s', first_synced_at = now()")
    await lists.kept()
    await trio.sleep(0.2)
    plain = list_store.read_changes

    async def late(conn: Conn, **parameters: Any) -> Any:
        await trio.sleep(1.5)
        return await plain(conn, **parameters)

    monkeypatch.setattr(list_store, "read_changes", late)
    assert [row[7] for row in await lists.kept()] == ["syncing", "syncing"]
    assert lists.listing.statistics().read == 2


async def test_a_failed_statement_changes_nothing(lists: Lists) -> None:
    account_id = await lists.account()
    await lists.same()
    await lists.set(account_id, "name = 'New'")
    lists.fail = psycopg.OperationalError("lost")
    with pytest.raises(psycopg.OperationalError):
        await lists.kept()
    with trio.move_on_after(0):
        await lists.kept()
    lists.fail = None
    assert [row[2] for row in await lists.same()] == ["New"]


async def test_another_server_is_read_from_the_start(lists: Lists, monkeypatch: pytest.MonkeyPatch) -> None:
    await lists.account()
    await lists.same()
    entry = lists.listing._entries[ANN.id]
    assert entry.kept is not None
    object.__setattr__(entry.kept, "server", entry.kept.server.replace(year=2000))
    await lists.same()
    assert lists.listing.statistics().read == 2


async def test_a_stampede_shares_statements_and_sees_what_came_before(lists: Lists) -> None:
    account_id = await lists.account()
    await lists.kept()
    before, shown = lists.statements, []

    async def ask() -> None:
        shown.append(await lists.kept())

    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(ask)
    assert len(shown) == 30
    assert lists.statements - before <= 2
    await lists.set(account_id, "name = 'Later'")  # committed before the next is asked, so it must be seen
    assert [row[2] for row in await lists.kept()] == ["Later"]


async def test_memory_is_bounded_and_what_was_given_up_is_read_again(db: Database, lists: Lists) -> None:
    await lists.account()
    tiny = Lists(db, lists.dsn, budget=5000)
    for number in range(20):
        await tiny.listing.show(f"stranger-{number}")
    assert tiny.listing.statistics().lists <= 2
    assert tiny.listing.statistics().cost <= 5000
    assert await tiny.same() == await lists.same()
    none = Lists(db, lists.dsn, budget=0)
    assert await none.same() == await lists.same()
    assert none.listing.statistics().cost == 0


ACTIONS = (
    "UPDATE accounts SET name = md5(random()::text) WHERE id = %(id)s",
    "UPDATE accounts SET state = CASE state WHEN 'new' THEN 'syncing' ELSE 'new' END WHERE id = %(id)s",
    "UPDATE accounts SET last_contact_at = now() WHERE id = %(id)s",
    "UPDATE accounts SET proof_until = now() + (random() - 0.5) * interval '1 day', state = 'watching'"
    " WHERE id = %(id)s",
    "UPDATE accounts SET trouble_since = now() + (random() - 0.5) * interval '1 day' WHERE id = %(id)s",
    "UPDATE accounts SET desired = CASE WHEN desired = 'removed' THEN 'running' ELSE 'removed' END,"
    " removed_at = CASE WHEN desired = 'removed' THEN NULL ELSE now() END WHERE id = %(id)s AND NOT is_default",
    "INSERT INTO account_access VALUES (%(id)s, 'bob', 'member') ON CONFLICT (account_id, user_id) DO UPDATE"
    " SET role = 'admin' WHERE account_access.role <> 'owner'",
    "DELETE FROM account_access WHERE account_id = %(id)s AND user_id = 'bob' AND role <> 'owner'",
)


@pytest.mark.parametrize("seed", range(6))
async def test_any_interleaving_gives_what_the_plain_query_gives(lists: Lists, seed: int) -> None:
    chance = random.Random(seed)
    ids = [await lists.account(chance.choice((ANN, BOB))) for _ in range(6)]
    async with lists.open() as one_, lists.open() as two, lists.open() as three:
        nodes: list[tuple[Conn, list[UUID]]] = [(one_, ids[:2]), (two, ids[2:4]), (three, ids[4:])]
        began: set[int] = set()
        for _ in range(60):
            number = chance.randrange(3)
            node, own = nodes[number]
            if number not in began:
                await node.execute("BEGIN")
                began.add(number)
            if chance.random() < 0.4:
                await node.execute("COMMIT" if chance.random() < 0.8 else "ROLLBACK")
                began.discard(number)
            else:
                await node.execute(chance.choice(ACTIONS).encode(), {"id": chance.choice(own)})
            if chance.random() < 0.7:
                await lists.same(chance.choice((ANN, BOB)))
        for number in began:
            await nodes[number][0].execute("COMMIT")
    await lists.same(ANN)
    await lists.same(BOB)
