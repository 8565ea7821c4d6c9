"""A connection that is lost while the server still carries out the COMMIT: the second try meets the first one's locks.

Whoever is asked again looks for what was done behind these locks, and so never takes their own deed for another's.
"""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
import trio

from daemon.account.changing import ChangeRequest
from daemon.account.service import AccountService
from daemon.sharing import audit_store
from daemon.storage.database import Database
from tests.daemon.account.test_changing import account, credentials, servers, service_on, stored
from tests.daemon.account.test_service import ANN, BOB, at, request
from tests.stored import one

__all__ = ["account", "servers"]


class SlowToCommit:
    """A database whose first try of everything is in COMMIT when the second begins."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def run(
        self, work: Callable[[Any], Awaitable[object]], *, in_doubt: Callable[[], None] | None = None, **how: Any
    ) -> object:
        if in_doubt is None:
            return await self.database.run(work, **how)
        done = trio.Event()

        async def first() -> None:
            async with self.database.transaction() as conn:
                await work(conn)
                done.set()
                while await one(self.database, WAITING) == 0:  # noqa: ASYNC110 - of the server, which tells nobody
                    await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            await done.wait()
            in_doubt()
            return await self.database.run(work, **how)


WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


async def _change(service: AccountService, account_id: UUID) -> None:
    await service.changes.change(at(ANN), account_id, credentials("new"))


async def _pause(service: AccountService, account_id: UUID) -> None:
    await service.changes.change(at(ANN), account_id, ChangeRequest(name="Ours", paused=True))


async def _disconnect(service: AccountService, account_id: UUID) -> None:
    await service.disconnect(at(ANN), account_id)


async def _invite(service: AccountService, account_id: UUID) -> None:
    await service.sharing.invite(at(ANN), account_id, "carl@example.test", "member")


async def _unshare(service: AccountService, account_id: UUID) -> None:
    await service.sharing.revoke_share(at(ANN), account_id, "bob")


async def _connect(service: AccountService, _: UUID) -> None:
    await service.connect(at(ANN), request("second@example.test"))


@pytest.mark.parametrize("ask", [_change, _pause, _disconnect, _invite, _unshare, _connect])
async def test_it_is_done_and_told_once(
    db: Database, account: UUID, ask: Callable[[AccountService, UUID], Awaitable[None]]
) -> None:
    before = await one(db, "SELECT count(*) FROM audit")
    with trio.fail_after(30):
        await ask(service_on(SlowToCommit(db)), account)
    assert await one(db, "SELECT count(*) FROM audit") == int(str(before)) + 1
    if ask is _change:
        assert await stored(db, account) == ("new", 2)


async def test_nobody_pushes_what_others_did_out_of_the_audit(
    db: Database, account: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_store, "MOST_ENTRIES", 5)
    monkeypatch.setattr(audit_store, "TRIM_EVERY", 1)
    service = service_on(db)
    for turn in range(10):
        await service.changes.change(at(BOB), account, ChangeRequest(paused=turn % 2 == 0))
    entries = await service.sharing.audit(at(ANN), account, None)
    assert [entry.action for entry in entries] == ["account.changed"] * 5 + ["account.connected"]


async def test_one_that_was_called_as_its_address_is_again(db: Database, account: UUID) -> None:
    service = service_on(db)
    await service.disconnect(at(ANN), account)
    again = await service.connect(at(ANN), request("other@example.test", username="box@example.test"))
    assert (again.id, again.name) == (account, "other@example.test")
