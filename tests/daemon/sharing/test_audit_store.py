"""The audit's own bounds: the newest entries of each account stay, and a request is known by its entry."""

from functools import partial
from uuid import UUID, uuid4

import psycopg
import pytest

from daemon.sharing import audit_store
from daemon.sharing.audit_store import Action
from daemon.storage.database import Database
from tests.daemon.account.running import add_account
from tests.daemon.sharing.test_sharing import OWNER, account, service
from tests.stored import one

__all__ = ["account", "service"]


async def note(db: Database, account_id: UUID, request: UUID | None = None) -> int:
    """Write an entry; which one it is, trimmed or not."""
    values = {"caller": OWNER, "account_id": account_id, "action": Action.CHANGED, "request": request}
    await db.run(partial(audit_store.note, **values))  # type: ignore[arg-type]  # as its parameters are
    number = await one(db, "SELECT max(id) FROM audit")
    assert isinstance(number, int)
    return number


async def kept(db: Database, account_id: UUID) -> list[int]:
    entries = await one(db, "SELECT array_agg(id ORDER BY id) FROM audit WHERE account_id = %s", account_id)
    assert isinstance(entries, list)
    return entries


async def test_the_newest_stay(db: Database, account: UUID) -> None:
    other = (await add_account(db, "other@example.test", 993, "pw", owner="owner")).account_id
    theirs = [await note(db, other) for _ in range(3)]
    entries = [await note(db, account) for _ in range(7)]
    for most in (8, 7, 4, 4, 1):
        await db.run(partial(audit_store.trim, account_id=account, user_id="owner", most=most))
        assert await kept(db, account) == entries[-most:]
    assert await kept(db, other) == theirs, "each account has its own"


async def test_now_and_then_the_oldest_go(
    db: Database, account: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_store, "TRIM_EVERY", 5)
    monkeypatch.setattr(audit_store, "MOST_ENTRIES", 3)
    expected: list[int] = []
    lengths: list[int] = []
    for _ in range(14):
        number = await note(db, account)
        expected.append(number)
        if number % 5 == 0:
            expected = expected[-3:]
        assert await kept(db, account) == expected
        lengths.append(len(expected))
    assert max(lengths) == 3 + 5 - 1, "it is not looked at each time"


async def test_a_request_is_known_by_its_entry(db: Database, account: UUID) -> None:
    done, another = uuid4(), uuid4()
    await note(db, account)
    await note(db, account, done)
    known = [await db.run(partial(audit_store.was_noted, request=each)) for each in (done, another)]
    assert known == [True, False]
    with pytest.raises(psycopg.errors.UniqueViolation):
        await note(db, account, done)
