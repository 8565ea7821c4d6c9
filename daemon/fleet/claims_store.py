"""The SQL of nodes and claims.  Only the database's clock counts.

A claim holds while its owner's row in `nodes` is fresh: one update a heartbeat for all accounts of a node.  Claims are
updated here and nowhere else.  Taking over waits for nobody: a claim whose owner is just writing (FOR SHARE) is
skipped, and taken in the next round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from daemon.storage.connection import Conn
from daemon.storage.fence import Claim

FORGET_NODE: Final = 3600.0
"""Seconds after which the row of a node that died is removed; until then it is there to be looked at."""

FORGET_COMMAND: Final = 86_400.0
"""Seconds after which a request that no node took is removed: its account has not run for a day."""


@dataclass(frozen=True, slots=True)
class FleetView:
    """All nodes and what is to be run, as one snapshot."""

    accounts: int
    """That are to run, on all nodes together."""

    capacities: Sequence[int]
    """Of the live nodes."""


async def beat(conn: Conn, node_id: UUID, *, name: str, version: str, capacity: int, ttl: float) -> None:
    """Say that this node lives, for `ttl` seconds from now."""
    await conn.execute(
        "INSERT INTO nodes (id, name, version, capacity, expires_at)"
        " VALUES (%(id)s, %(name)s, %(version)s, %(capacity)s, now() + make_interval(secs => %(ttl)s))"
        " ON CONFLICT (id) DO UPDATE SET name = excluded.name, version = excluded.version,"
        " capacity = excluded.capacity, heartbeat_at = now(), expires_at = excluded.expires_at",
        {"id": node_id, "name": name[:255], "version": version[:64], "capacity": capacity, "ttl": ttl},
    )


async def leave(conn: Conn, node_id: UUID) -> int:
    """Give everything back and go; how many accounts that were."""
    cursor = await conn.execute("UPDATE claims SET owner = NULL WHERE owner = %s", (node_id,))
    await conn.execute("DELETE FROM nodes WHERE id = %s", (node_id,))
    return cursor.rowcount


async def tidy(conn: Conn) -> None:
    """Remove what nobody needs: nodes long dead, requests that no node took."""
    await conn.execute("DELETE FROM nodes WHERE expires_at < now() - make_interval(secs => %s)", (FORGET_NODE,))
    await conn.execute(
        "DELETE FROM commands WHERE created_at < now() - make_interval(secs => %s)", (FORGET_COMMAND,)
    )


async def view(conn: Conn) -> FleetView:
    """What there is to run and who is there to run it."""
    cursor = await conn.execute(
        "SELECT (SELECT count(*) FROM accounts WHERE desired = 'running'),"
        " ARRAY(SELECT capacity FROM nodes WHERE expires_at > now())"
    )
    row = await cursor.fetchone()
    assert row is not None, "a SELECT without FROM gives one row"
    return FleetView(row[0], row[1])


async def begin_epoch(conn: Conn, node_id: UUID) -> None:
    """A new process of this node begins: its claims stay its own, in a new epoch."""
    await conn.execute("UPDATE claims SET epoch = epoch + 1, claimed_at = now() WHERE owner = %s", (node_id,))


async def claim(conn: Conn, node_id: UUID, limit: int, *, take_over: bool) -> list[Claim]:
    """Claim up to `limit` accounts that should run and that no live node has; every claim begins a new epoch.

    Args:
        conn: a transaction.
        node_id: for whom.
        limit: at most so many.
        take_over: also those of nodes that have not been heard in time, not only those of nodes that are no more.
    """
    cursor = await conn.execute(
        "WITH free AS (SELECT c.account_id FROM claims c JOIN accounts a ON a.id = c.account_id"
        "  WHERE a.desired = 'running' AND (c.owner IS NULL OR NOT EXISTS"
        "   (SELECT 1 FROM nodes n WHERE n.id = c.owner AND (n.expires_at > now() OR NOT %(take_over)s)))"
        "  ORDER BY c.claimed_at NULLS FIRST LIMIT %(limit)s FOR UPDATE OF c SKIP LOCKED)"
        " UPDATE claims c SET owner = %(node)s, epoch = c.epoch + 1, claimed_at = now() FROM free"
        " WHERE c.account_id = free.account_id RETURNING c.account_id, c.epoch",
        {"limit": limit, "node": node_id, "take_over": take_over},
    )
    return [Claim(row[0], node_id, row[1]) for row in await cursor.fetchall()]


Mark = tuple[int, str]
"""How many accounts a node has, and the sum of their hashes, each seeded with its epoch: equal while they are the same.
Two sets of claims have one mark by chance once in 2^64; claims and owners do not choose what they hash to."""

_MARK: Final = "count(*), coalesce(sum(uuid_hash_extended(c.account_id, c.epoch)), 0)::text"

_OWNED: Final = (
    " FROM claims c JOIN accounts a ON a.id = c.account_id WHERE c.owner = %(node)s AND a.desired = 'running'"
)


@dataclass(frozen=True, slots=True)
class Owned:
    """What one node runs or should run, by the database's word; what was paused or removed is not among it."""

    mark: Mark
    claims: Sequence[Claim]


async def mark(conn: Conn, node_id: UUID) -> Mark:
    """Whether what this node owns has changed; of ten thousand accounts it costs us 1 ms, and reading them 16.

    The server looks at all of them for either, 6 to 8 ms (measured).
    """
    cursor = await conn.execute(f"SELECT {_MARK}{_OWNED}", {"node": node_id})
    row = await cursor.fetchone()
    assert row is not None, "an aggregate gives one row"
    return (row[0], row[1])


async def owned(conn: Conn, node_id: UUID) -> Owned:
    """What this node owns, and its mark, of one moment."""
    cursor = await conn.execute(
        f"SELECT {_MARK}, array_agg(c.account_id), array_agg(c.epoch){_OWNED}", {"node": node_id}
    )
    row = await cursor.fetchone()
    assert row is not None, "an aggregate gives one row"
    claims = [Claim(account_id, node_id, epoch) for account_id, epoch in zip(row[2] or (), row[3] or (), strict=True)]
    return Owned((row[0], row[1]), claims)


async def release(conn: Conn, claims: Sequence[Claim]) -> None:
    """Give accounts back; those that are another node's by now are left alone."""
    await conn.execute(
        "UPDATE claims c SET owner = NULL FROM unnest(%s::uuid[], %s::uuid[], %s::bigint[]) AS g (id, owner, epoch)"
        " WHERE c.account_id = g.id AND c.owner = g.owner AND c.epoch = g.epoch",
        ([c.account_id for c in claims], [c.owner for c in claims], [c.epoch for c in claims]),
    )


async def mark_stopped(conn: Conn, account_id: UUID) -> None:
    """Nobody runs the account, for its owner said so; in the fenced transaction that precedes the release."""
    await conn.execute(
        "UPDATE accounts SET state = 'stopped', state_since = now(), state_code = NULL, state_reason = NULL,"
        " retry_at = NULL, trouble_since = NULL, proof_until = NULL WHERE id = %s AND desired <> 'running'",
        (account_id,),
    )


@dataclass(frozen=True, slots=True)
class Request:
    """What an owner asks of the node that runs an account."""

    id: int
    account_id: UUID
    kind: str


async def commands(conn: Conn, node_id: UUID) -> list[Request]:
    """The requests for this node's accounts, oldest first; they stay until `forget`, so none is lost on the way."""
    cursor = await conn.execute(
        "SELECT m.id, m.account_id, m.kind FROM commands m JOIN claims c ON c.account_id = m.account_id"
        " WHERE c.owner = %s ORDER BY m.id LIMIT 10000",
        (node_id,),
    )
    return [Request(*row) for row in await cursor.fetchall()]


async def forget(conn: Conn, requests: Sequence[int]) -> None:
    """These requests have been delivered."""
    await conn.execute("DELETE FROM commands WHERE id = ANY(%s)", (list(requests),))
