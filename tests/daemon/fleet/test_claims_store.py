"""Claims between nodes on one database: won once, expired, taken over, fenced, given back."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from daemon.fleet import claims_store
from daemon.network import Endpoint, Security
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.storage.fence import Claim, ClaimLost
from tests.daemon.account.running import execute
from tests.stored import make_account, one

IMAP = Endpoint("imap.example.test", 993, Security.TLS)


async def accounts(db: Database, count: int) -> list[UUID]:
    """Connected accounts that no node has."""
    made = [(await make_account(db, username=f"u{n}@example.test", imap=IMAP)).account_id for n in range(count)]
    await execute(db, "UPDATE claims SET owner = NULL, epoch = 0")
    return made


async def node(db: Database, *, ttl: float = 60.0, capacity: int = 100) -> UUID:
    node_id = uuid4()
    await beat(db, node_id, ttl=ttl, capacity=capacity)
    return node_id


async def beat(db: Database, node_id: UUID, *, ttl: float = 60.0, capacity: int = 100, version: str = "1") -> None:
    async def work(conn: Conn) -> None:
        await claims_store.beat(conn, node_id, name="test", version=version, capacity=capacity, ttl=ttl)

    await db.run(work)


async def claim(db: Database, node_id: UUID, limit: int = 100) -> list[Claim]:
    return await db.run(lambda conn: claims_store.claim(conn, node_id, limit, take_over=True))


async def owned(db: Database, node_id: UUID) -> list[Claim]:
    found = await db.run(lambda conn: claims_store.owned(conn, node_id))
    assert found.mark == await db.run(lambda conn: claims_store.mark(conn, node_id))
    assert found.mark[0] == len(found.claims)
    return list(found.claims)


def nothing() -> Callable[[Conn], Awaitable[Any]]:
    async def work(conn: Conn) -> None:
        await conn.execute("SELECT 1")

    return work


async def test_what_is_free_is_claimed_once(db: Database) -> None:
    ids = await accounts(db, 5)
    one_node, other = await node(db), await node(db)
    won = await claim(db, one_node, 3)
    rest = await claim(db, other)
    assert len(won) == 3
    assert {c.account_id for c in won + rest} == set(ids)
    assert {(c.owner, c.epoch) for c in won} == {(one_node, 1)}
    assert await claim(db, one_node) == []
    assert set(await owned(db, one_node)) == set(won)


async def test_concurrent_claims_never_meet_and_never_wait(db: Database) -> None:
    ids = await accounts(db, 4)
    one_node, other = await node(db), await node(db)
    async with db.transaction() as first:
        won = await claims_store.claim(first, one_node, 2, take_over=True)
        async with db.transaction() as second:
            rest = await claims_store.claim(second, other, 10, take_over=True)
    assert len(won) == len(rest) == 2
    assert {c.account_id for c in won + rest} == set(ids)


async def test_only_a_dead_nodes_claims_are_taken_over(db: Database) -> None:
    await accounts(db, 2)
    dead, living, third = await node(db), await node(db), await node(db)
    (lost,) = await claim(db, dead, 1)
    await claim(db, living, 1)
    assert await claim(db, third) == []
    await execute(db, "UPDATE nodes SET expires_at = now() - interval '1 ms' WHERE id = %s", dead)
    (taken,) = await claim(db, third)
    assert taken == Claim(lost.account_id, third, lost.epoch + 1)


async def test_a_heartbeat_keeps_the_claims(db: Database) -> None:
    await accounts(db, 1)
    tired, other = await node(db, ttl=-1.0), await node(db)
    await claim(db, tired)
    await beat(db, tired)
    assert await claim(db, other) == []


async def test_a_node_comes_back_with_what_it_says_now(db: Database) -> None:
    node_id = await node(db, capacity=10)
    await beat(db, node_id, capacity=20, version="2")
    view = await db.run(claims_store.view)
    assert list(view.capacities) == [20]
    assert await one(db, "SELECT version FROM nodes") == "2"


async def test_after_the_takeover_the_former_owner_writes_nothing(db: Database) -> None:
    await accounts(db, 1)
    former, latter = await node(db), await node(db)
    (old,) = await claim(db, former)
    await db.run(nothing(), claim=old)
    await execute(db, "UPDATE nodes SET expires_at = now() WHERE id = %s", former)
    (new,) = await claim(db, latter)
    with pytest.raises(ClaimLost):
        await db.run(nothing(), claim=old)
    await db.run(nothing(), claim=new)


async def test_a_takeover_passes_over_an_owner_who_is_writing(db: Database) -> None:
    await accounts(db, 1)
    former, latter = await node(db), await node(db)
    (old,) = await claim(db, former)
    await execute(db, "UPDATE nodes SET expires_at = now() WHERE id = %s", former)

    async def writing(conn: Conn) -> list[Claim]:
        return await claim(db, latter)

    assert await db.run(writing, claim=old) == []
    assert len(await claim(db, latter)) == 1


async def test_a_restarted_node_with_its_own_claims(db: Database) -> None:
    await accounts(db, 2)
    node_id = await node(db)
    won = await claim(db, node_id)
    assert set(await owned(db, node_id)) == set(won), "still its own, in the same epoch"


async def test_released_claims_are_free_and_others_are_left_alone(db: Database) -> None:
    await accounts(db, 2)
    node_id, other = await node(db), await node(db)
    won = await claim(db, node_id)
    stale = [Claim(c.account_id, c.owner, c.epoch - 1) for c in won]
    await db.run(lambda conn: claims_store.release(conn, stale))
    assert len(await owned(db, node_id)) == 2
    await db.run(lambda conn: claims_store.release(conn, won[:1]))
    assert [c.account_id for c in await claim(db, other)] == [won[0].account_id]


async def test_what_is_paused_or_removed_is_nobodys_to_run(db: Database) -> None:
    ids = await accounts(db, 2)
    node_id = await node(db)
    await claim(db, node_id)
    await execute(db, "UPDATE accounts SET desired = 'paused' WHERE id = %s", ids[0])
    assert [c.account_id for c in await owned(db, node_id)] == [ids[1]]
    assert (await db.run(claims_store.view)).accounts == 1
    await db.run(lambda conn: claims_store.mark_stopped(conn, ids[0]))
    await db.run(lambda conn: claims_store.mark_stopped(conn, ids[1]))
    assert await one(db, "SELECT state FROM accounts WHERE id = %s", ids[0]) == "stopped"
    assert await one(db, "SELECT state FROM accounts WHERE id = %s", ids[1]) == "new", "its owner wants it running"


async def test_leaving_gives_everything_back(db: Database) -> None:
    await accounts(db, 3)
    node_id, other = await node(db), await node(db)
    await claim(db, node_id)
    assert await db.run(lambda conn: claims_store.leave(conn, node_id)) == 3
    assert await one(db, "SELECT count(*) FROM nodes") == 1
    assert {c.epoch for c in await claim(db, other)} == {2}


async def test_requests_go_to_the_owner_once_and_in_order(db: Database) -> None:
    first, second = await accounts(db, 2)
    node_id, other = await node(db), await node(db)
    await claim(db, node_id, 2)
    for account_id, kind in ((second, "sync"), (first, "changed"), (second, "changed")):
        await execute(db, "INSERT INTO commands (account_id, kind) VALUES (%s, %s)", account_id, kind)

    async def take(of: UUID) -> list[tuple[UUID, str]]:
        async def work(conn: Conn) -> list[tuple[UUID, str]]:
            requests = await claims_store.commands(conn, of)
            assert await claims_store.commands(conn, of) == requests, "they stay until they are forgotten"
            await claims_store.forget(conn, [request.id for request in requests])
            return [(request.account_id, request.kind) for request in requests]

        return await db.run(work)

    assert await take(other) == []
    assert await take(node_id) == [(second, "sync"), (first, "changed"), (second, "changed")]
    assert await take(node_id) == []


async def test_tidying_removes_what_nobody_needs(db: Database) -> None:
    (account_id,) = await accounts(db, 1)
    old, young = await node(db), await node(db)
    await execute(db, "UPDATE nodes SET expires_at = now() - interval '2 hours' WHERE id = %s", old)
    for age in ("2 days", "2 hours"):
        await execute(
            db,
            "INSERT INTO commands (account_id, kind, created_at) VALUES (%s, 'sync', now() - %s::interval)",
            *(account_id, age),
        )
    await db.run(claims_store.tidy)
    assert await one(db, "SELECT id FROM nodes") == young
    assert await one(db, "SELECT count(*) FROM commands") == 1


async def test_after_an_outage_nobody_is_taken_for_dead(db: Database) -> None:
    """Every node looks dead until it has had time to say that it lives: only what has no node at all is claimed."""
    await accounts(db, 3)
    late, one_node = await node(db), await node(db)
    kept = await claim(db, late, 2)
    await execute(db, "UPDATE nodes SET expires_at = now() - interval '1 second' WHERE id = %s", late)
    cautious = await db.run(lambda conn: claims_store.claim(conn, one_node, 100, take_over=False))
    assert len(cautious) == 1
    assert set(await owned(db, late)) == set(kept)
    await execute(db, "DELETE FROM nodes WHERE id = %s", late)
    assert len(await db.run(lambda conn: claims_store.claim(conn, one_node, 100, take_over=False))) == 2
