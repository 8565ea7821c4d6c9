"""What a request waits for, and what it sees when it has waited; on a real database.

A transaction that stores mail holds its account's row as a foreign key does, and nobody waits for that.  Whoever does
wait, for another request, looks again behind the lock: what gave them their right may be gone.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from uuid import UUID, uuid4

import pytest
import trio

from daemon.account import service as service_module
from daemon.account.changing import ChangeRequest
from daemon.account.service import AccountService
from daemon.sharing.rules import AccountNotFound, InvitationNotFound, NotAllowed
from daemon.storage.database import Database
from tests.daemon.account.running import until
from tests.daemon.account.test_changing import EVE, account, credentials, servers, service_on
from tests.daemon.account.test_service import ANN, BOB, at, request
from tests.stored import one

__all__ = ["account", "servers"]

Ask = Callable[[AccountService, UUID], Awaitable[object]]

ASKED: dict[str, Ask] = {
    "name": lambda service, id_: service.changes.change(at(BOB), id_, ChangeRequest(name="Ours")),
    "default": lambda service, id_: service.changes.change(at(ANN), id_, ChangeRequest(make_default=True)),
    "pause": lambda service, id_: service.changes.change(at(ANN), id_, ChangeRequest(paused=True)),
    "credentials": lambda service, id_: service.changes.change(at(ANN), id_, credentials(username="another")),
    "sync": lambda service, id_: service.sync_now(at(BOB), id_),
    "invite": lambda service, id_: service.sharing.invite(at(ANN), id_, "guest@example.test", "member"),
    "campaign": lambda service, id_: service.campaigns.register(at(BOB), "c", id_, "active"),
    "disconnect": lambda service, id_: service.disconnect(at(ANN), id_),
}


@pytest.mark.parametrize("asked", ASKED)
async def test_nobody_waits_for_mail_that_is_stored(
    db: Database, account: UUID, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setattr(service_module, "SYNC_WAIT", 0.01)
    service = service_on(db)
    other = (await service.connect(at(ANN), request("other@example.test"))).id
    await service.changes.change(at(ANN), other, ChangeRequest(make_default=True))
    async with db.transaction() as conn:
        await conn.execute(
            "INSERT INTO messages (id, account_id, size, body_state) VALUES (%s, %s, 1, 'stored')", (uuid4(), account)
        )
        await ASKED[asked](service, account)  # DatabaseAway, where it waited in vain
        await conn.execute("SELECT")  # which is open still
    assert await one(db, "SELECT count(*) FROM messages") == 1


@asynccontextmanager
async def meanwhile(db: Database, account_id: UUID, statement: str) -> AsyncIterator[Callable[..., None]]:
    """Another request has the account: what is started in the block waits for it, and finds the statement done."""
    async with trio.open_nursery() as nursery, db.transaction() as conn:
        await conn.execute("SELECT FROM accounts WHERE id = %s FOR NO KEY UPDATE", (account_id,))
        yield nursery.start_soon
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        await until(lambda: one(db, f"{waiting} AND wait_event_type = 'Lock'"))
        await conn.execute(statement)  # type: ignore[call-overload]  # ours


async def refused(ask: Callable[[], Awaitable[object]], expected: type[Exception]) -> None:
    with pytest.raises(expected):
        await ask()


@pytest.mark.parametrize("asked", ["name", "sync", "campaign"])
async def test_who_lost_their_share_while_they_waited_has_no_part(db: Database, account: UUID, asked: str) -> None:
    """By `changes_store.look`, `access_store.sync_request` and `sharing_store.lock`."""
    before = await one(db, "SELECT count(*) FROM audit")
    async with meanwhile(db, account, "DELETE FROM account_access WHERE user_id = 'bob'") as start:
        start(refused, partial(ASKED[asked], service_on(db), account), AccountNotFound)
    assert await one(db, "SELECT name FROM accounts") == "box@example.test"
    assert await one(db, "SELECT count(*) FROM commands WHERE kind = 'sync'") == 0
    assert await one(db, "SELECT count(*) FROM campaigns") == 0
    assert await one(db, "SELECT count(*) FROM audit") == before


@pytest.mark.parametrize("asked", ["name", "sync"])
async def test_who_lost_their_role_while_they_waited_may_not(db: Database, account: UUID, asked: str) -> None:
    before = await one(db, "SELECT count(*) FROM audit")
    async with meanwhile(db, account, "UPDATE account_access SET role = 'member' WHERE user_id = 'bob'") as start:
        start(refused, partial(ASKED[asked], service_on(db), account), NotAllowed)
    assert await one(db, "SELECT name FROM accounts") == "box@example.test"
    assert await one(db, "SELECT count(*) FROM commands WHERE kind = 'sync'") == 0
    assert await one(db, "SELECT count(*) FROM audit") == before, "nothing is told to be done that was not"


async def test_who_lost_their_invitation_while_they_waited_has_none(db: Database, account: UUID) -> None:
    service = service_on(db)
    made = await service.sharing.invite(at(ANN), account, EVE.email, "admin")
    revoked = "UPDATE invitations SET status = 'revoked', settled_at = now()"
    async with meanwhile(db, account, revoked) as start:
        start(refused, partial(service.sharing.accept, at(EVE), made.id), InvitationNotFound)
    assert await one(db, "SELECT count(*) FROM account_access WHERE user_id = 'eve'") == 0
