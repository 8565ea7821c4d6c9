"""Proofs that only renew the last one: stored together, for whom the account still is, and never backwards."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import pytest
import trio

from daemon.account import proofs as proofs_module
from daemon.account.proofs import Proofs
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.storage.fence import Claim
from tests.daemon.account.running import add_account, execute
from tests.stored import one


async def _account(db: Database, number: int = 0, *, state: str = "watching") -> Claim:
    claim = await add_account(db, f"user{number}@example.test", 993, "pw")
    await execute(db, "UPDATE accounts SET state = %s, proof_until = now() WHERE id = %s", state, claim.account_id)
    return claim


async def _proof(db: Database, claim: Claim) -> datetime:
    until = await one(db, "SELECT proof_until FROM accounts WHERE id = %s", claim.account_id)
    assert isinstance(until, datetime)
    return until


async def test_a_hundred_are_one_transaction(db: Database) -> None:
    claims = [await _account(db, number) for number in range(100)]
    proofs = Proofs(db)
    for claim in claims:
        proofs.renew(claim, 600.0)
    before = db.statistics().transactions
    await proofs.store()
    assert db.statistics().transactions == before + 1
    fresh = "proof_until > now() + interval '590 s' AND last_synced_at > now() - interval '60 s'"
    assert await one(db, f"SELECT count(*) FROM accounts WHERE {fresh}") == 100


async def test_so_many_at_once_and_the_rest_after_them(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs_module, "MOST", 2)
    monkeypatch.setattr(proofs_module, "EVERY", 0.05)
    claims = [await _account(db, number) for number in range(5)]
    proofs = Proofs(db)
    before = db.statistics().transactions
    async with trio.open_nursery() as nursery:
        await nursery.start(proofs.run)
        for claim in claims:
            proofs.renew(claim, 600.0)
        with trio.fail_after(10):
            while db.statistics().transactions < before + 3:  # noqa: ASYNC110  # the database tells nobody
                await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    assert await one(db, "SELECT count(*) FROM accounts WHERE proof_until > now() + interval '590 s'") == 5


async def test_the_last_one_counts(db: Database) -> None:
    claim = await _account(db)
    proofs = Proofs(db)
    proofs.renew(claim, 600.0)
    proofs.renew(claim, 60.0)
    await proofs.store()
    assert await one(db, "SELECT proof_until < now() + interval '61 s' FROM accounts")


async def test_a_newer_proof_in_the_row_stays(db: Database) -> None:
    claim = await _account(db)
    await execute(db, "UPDATE accounts SET proof_until = now() + interval '1 hour'")
    before = await _proof(db, claim)
    proofs = Proofs(db)
    proofs.renew(claim, 60.0)
    await proofs.store()
    assert await _proof(db, claim) == before


@pytest.mark.parametrize("change", ["taken over", "another epoch", "to stop", "over"])
async def test_what_does_not_hold_any_more_is_not_written(db: Database, change: str) -> None:
    claim, other = await _account(db), await _account(db, 1)
    before = await _proof(db, claim)
    proofs = Proofs(db)
    given = claim
    if change == "taken over":
        await execute(db, "UPDATE claims SET owner = NULL WHERE account_id = %s", claim.account_id)
    elif change == "another epoch":
        given = replace(claim, epoch=claim.epoch + 1)
    elif change == "to stop":
        await execute(db, "UPDATE accounts SET desired = 'paused' WHERE id = %s", claim.account_id)
    proofs.renew(given, 0.0 if change == "over" else 600.0)
    proofs.renew(other, 600.0)
    await proofs.store()
    assert await _proof(db, claim) == before
    assert await one(db, "SELECT proof_until > now() + interval '590 s' FROM accounts WHERE id = %s", other.account_id)
    await proofs.store()
    assert await _proof(db, claim) == before, "however often it is tried"


async def test_a_row_that_somebody_holds_keeps_nobody_waiting_and_is_not_forgotten(db: Database) -> None:
    claim, other = await _account(db), await _account(db, 1)
    before = await _proof(db, claim)
    proofs = Proofs(db)
    proofs.renew(claim, 600.0)
    proofs.renew(other, 600.0)

    async def hold(conn: Conn) -> None:
        await conn.execute("SELECT FROM accounts WHERE id = %s FOR UPDATE", (claim.account_id,))
        with trio.fail_after(5):
            await proofs.store()

    await db.run(hold)
    assert await _proof(db, claim) == before
    assert await one(db, "SELECT proof_until > now() + interval '590 s' FROM accounts WHERE id = %s", other.account_id)
    await proofs.store()
    assert await one(db, "SELECT proof_until > now() + interval '590 s' FROM accounts WHERE id = %s", claim.account_id)


async def test_one_that_waited_says_when_it_was_given(db: Database) -> None:
    """The database was away meanwhile."""
    claim = await _account(db)
    await execute(db, "UPDATE accounts SET last_synced_at = NULL, last_contact_at = NULL")
    proofs = Proofs(db)
    proofs.renew(claim, 600.0)
    [(said_at, until)] = proofs._said.values()
    proofs._said[claim] = (said_at - 300.0, until - 300.0)
    await proofs.store()
    assert await one(
        db,
        "SELECT abs(extract(epoch FROM now() - last_synced_at) - 300) < 5 AND last_contact_at = last_synced_at"
        " AND abs(extract(epoch FROM proof_until - now()) - 300) < 5 FROM accounts",
    )


async def test_what_a_task_left_the_next_one_stores(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its supervisor starts it again after a fault, and nothing new comes for minutes."""
    monkeypatch.setattr(proofs_module, "EVERY", 0.05)
    claim = await _account(db)
    proofs = Proofs(db)
    store = proofs_module._store

    async def fails(conn: Conn, proofs: object) -> set[Claim]:
        del conn, proofs
        raise RuntimeError("a bug")

    proofs.renew(claim, 600.0)
    monkeypatch.setattr(proofs_module, "_store", fails)
    with pytest.raises(RuntimeError):
        await proofs.run()
    monkeypatch.setattr(proofs_module, "_store", store)
    async with trio.open_nursery() as nursery:
        await nursery.start(proofs.run)
        with trio.fail_after(10):
            while proofs._said:  # noqa: ASYNC110  # nobody tells
                await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    assert await one(db, "SELECT proof_until > now() + interval '590 s' FROM accounts")


async def test_what_is_renewed_while_it_is_stored_is_stored_again(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await _account(db)
    made = Proofs(db)
    store = proofs_module._store

    async def slow(conn: Conn, proofs: Sequence[tuple[Claim, tuple[float, float]]]) -> set[Claim]:
        done = await store(conn, proofs)
        made.renew(claim, 1200.0)
        return done

    made.renew(claim, 600.0)
    monkeypatch.setattr(proofs_module, "_store", slow)
    await made.store()
    monkeypatch.undo()
    await made.store()
    assert await one(db, "SELECT proof_until > now() + interval '1190 s' FROM accounts")
