"""A change whose COMMIT was not heard of is known by its entry in the audit, whatever others changed in between."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from daemon.account.changing import ChangeRequest
from daemon.sharing.rules import AccountNotFound
from daemon.storage.database import Database
from tests.daemon.account.test_changing import account, credentials, servers, service_on, stored
from tests.daemon.account.test_service import ANN, BOB, at, request
from tests.stored import one

__all__ = ["account", "servers"]


class Doubtful:
    """A database that hears of what may be in doubt the second time only; others ask in between."""

    def __init__(self, database: Database, meanwhile: Callable[[], Awaitable[object]]) -> None:
        self._database = database
        self._meanwhile = meanwhile

    async def run(self, work: Any, *, in_doubt: Callable[[], None] | None = None, **how: Any) -> Any:
        done = await self._database.run(work, **how)
        if in_doubt is None:
            return done
        await self._meanwhile()
        in_doubt()
        return await self._database.run(work, **how)


async def changed_by(db: Database) -> list[str]:
    """Who changed the account, by the audit: one name for each entry."""
    names = await one(db, "SELECT string_agg(user_id, ' ' ORDER BY id) FROM audit WHERE action = 'account.changed'")
    return str(names or "").split()


async def test_what_another_one_changed_in_between_stays(db: Database, account: UUID) -> None:
    bobs = ChangeRequest(name="Bob's", daily_limit=9, paused=False)
    doubtful = service_on(Doubtful(db, lambda: service_on(db).changes.change(at(BOB), account, bobs)))
    view = await doubtful.changes.change(at(ANN), account, ChangeRequest(name="Ann's", daily_limit=7, paused=True))
    assert (view.name, view.daily_limit, view.desired) == ("Bob's", 9, "running"), "as it is when it is told"
    assert await one(db, "SELECT name FROM accounts") == "Bob's"
    assert await changed_by(db) == ["ann", "bob"]
    assert await one(db, "SELECT detail ->> 'name' FROM audit WHERE user_id = 'ann' AND detail ? 'paused'") == "Ann's"


@pytest.mark.parametrize("theirs", ["a name", "credentials"])
async def test_credentials_are_changed_once(db: Database, account: UUID, theirs: str) -> None:
    quiet = service_on(db)

    async def meanwhile() -> None:
        if theirs == "a name":
            await quiet.changes.change(at(BOB), account, ChangeRequest(name="Bob's"))
        else:
            await quiet.changes.change(at(ANN), account, credentials("newer"))

    doubtful = service_on(Doubtful(db, meanwhile))
    await doubtful.changes.change(at(ANN), account, credentials("new"))
    assert await stored(db, account) == (("new", 2) if theirs == "a name" else ("newer", 3))
    assert await changed_by(db) == ["ann", "bob" if theirs == "a name" else "ann"]


@pytest.mark.parametrize(("gone", "what"), [("account", "name"), ("account", "credentials"), ("share", "name")])
async def test_what_is_gone_in_between_is_not_found(db: Database, account: UUID, gone: str, what: str) -> None:
    quiet = service_on(db)
    caller = ANN if gone == "account" else BOB

    async def meanwhile() -> None:
        if gone == "share":
            await quiet.sharing.revoke_share(at(ANN), account, "bob")
        else:
            await quiet.disconnect(at(ANN), account)

    wanted = ChangeRequest(name="Ours") if what == "name" else credentials()
    with pytest.raises(AccountNotFound):
        await service_on(Doubtful(db, meanwhile)).changes.change(at(caller), account, wanted)
    assert await changed_by(db) == [caller.id], "it was changed"


async def test_a_default_that_moved_on_in_between_stays_there(db: Database, account: UUID) -> None:
    quiet = service_on(db)
    second, third = [(await quiet.connect(at(ANN), request(f"{n}@example.test"))).id for n in range(2)]
    make = ChangeRequest(make_default=True)
    doubtful = service_on(Doubtful(db, lambda: quiet.changes.change(at(ANN), third, make)))
    view = await doubtful.changes.change(at(ANN), second, make)
    assert not view.is_default
    assert await one(db, "SELECT id FROM accounts WHERE is_default") == third
    moves = "SELECT string_agg(account_id || ' ' || (detail ->> 'is_default'), ',' ORDER BY id) FROM audit WHERE action"
    assert await one(db, f"{moves} = 'account.changed'") == (
        f"{account} false,{second} true,{second} false,{third} true"
    )
