"""A COMMIT of an invitation whose answer was lost: it is told, once in the audit, whatever became of it meanwhile."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from daemon.identity import users_store
from daemon.identity.rates import Rate
from daemon.sharing.service import SharingService
from daemon.storage.database import Database
from daemon.storage.requests import Requests
from tests.daemon.account.running import add_account
from tests.daemon.sharing.test_sharing import ANN, OWNER
from tests.stored import one

Meanwhile = Callable[[SharingService, UUID, str], Awaitable[Any]]


class Forgetful:
    """A database that carries out everything and hears of it the second time only; others ask in between."""

    def __init__(self, database: Database, meanwhile: Callable[[], Awaitable[Any]]) -> None:
        self.database, self.meanwhile = database, meanwhile

    async def run(self, work: Any, *, in_doubt: Any = None, **how: Any) -> Any:
        await self.database.run(work, **how)
        await self.meanwhile()
        if in_doubt is not None:
            in_doubt()
        return await self.database.run(work, **how)


def service_on(database: Any) -> SharingService:
    return SharingService(Requests(database, migrated=lambda: True), Rate("invite.user", 1000, 86400.0))


@pytest.fixture
async def account(db: Database) -> UUID:
    for caller in (OWNER, ANN):
        await db.run(lambda conn, user=caller.user: users_store.remember(conn, user))  # type: ignore[misc]
    return (await add_account(db, "box@example.test", 993, "pw", owner="owner")).account_id


async def audited(db: Database, action: str) -> object:
    return await one(db, "SELECT count(*) FROM audit WHERE action = %s", action)


async def _nothing(*_: object) -> None: ...


MEANWHILE: dict[str, Meanwhile] = {
    "nothing": _nothing,
    "accepted": lambda service, _, invitation: service.accept(ANN, invitation),
    "declined": lambda service, _, invitation: service.decline(ANN, invitation),
    "taken back": lambda service, account, invitation: service.revoke_invitation(OWNER, account, invitation),
}


@pytest.mark.parametrize("meanwhile", MEANWHILE)
async def test_who_invited_has_invited(db: Database, account: UUID, meanwhile: str) -> None:
    quiet = service_on(db)

    async def happens() -> None:
        for received in await quiet.received(ANN):
            await MEANWHILE[meanwhile](quiet, account, received.id)

    made = await service_on(Forgetful(db, happens)).invite(OWNER, account, "ann@example.test", "admin", lambda _: None)
    assert (made.invitee_email, made.role) == ("ann@example.test", "admin")
    assert await one(db, "SELECT id FROM invitations") == made.id
    assert await audited(db, "invitation.created") == 1
