"""A COMMIT whose answer was lost: what was done is done once, told once, and that is the answer.

The first try of a transaction that is rolled back is no such COMMIT: then what another one did meanwhile is told.
"""

from collections.abc import Awaitable, Callable
from uuid import UUID

import psycopg
import pytest

from daemon.identity.rates import Rate
from daemon.sharing.rules import InvitationNotFound, ShareNotFound
from daemon.sharing.service import SharingService
from daemon.storage.database import Database
from daemon.storage.requests import Requests
from tests.daemon.account.running import execute
from tests.daemon.account.test_service_repeated import Forgetful
from tests.daemon.sharing.test_sharing import ANN, OWNER, account, service
from tests.stored import one

__all__ = ["account", "service"]


def again(db: object) -> SharingService:
    return SharingService(Requests(db, migrated=lambda: True), Rate("invite.user", 1000, 86400.0))  # type: ignore[arg-type]


async def told(db: Database, action: str) -> object:
    return await one(db, "SELECT count(*) FROM audit WHERE action = %s", action)


async def test_each_is_done_and_told_once(db: Database, account: UUID) -> None:
    forgetful = again(Forgetful(db))
    made = await forgetful.invite(OWNER, account, "ann@example.test", "member")
    assert await told(db, "invitation.created") == 1
    await forgetful.decline(ANN, made.id)
    assert await told(db, "invitation.declined") == 1
    made = await forgetful.invite(OWNER, account, "ann@example.test", "member")
    await forgetful.revoke_invitation(OWNER, account, made.id)
    assert await told(db, "invitation.revoked") == 1
    for leaving in (True, False):
        made = await forgetful.invite(OWNER, account, "ann@example.test", "member")
        assert await forgetful.accept(ANN, made.id) == account
        await forgetful.revoke_share(ANN if leaving else OWNER, account, "ann")
    assert await told(db, "invitation.accepted") == 2
    assert await told(db, "share.left") == await told(db, "share.revoked") == 1


class Conflicting:
    """A database whose first try of everything gives way to another transaction, which does what is given."""

    def __init__(self, database: Database, other: Callable[[], Awaitable[object]]) -> None:
        self._database = database
        self._other = other

    async def run(self, work: Callable[[object], Awaitable[object]], **how: object) -> object:
        tried = False

        async def gives_way(conn: object) -> object:
            nonlocal tried
            if tried:
                return await work(conn)
            tried = True
            await self._other()
            raise psycopg.errors.DeadlockDetected

        return await self._database.run(gives_way, **how)  # type: ignore[arg-type]


async def test_what_another_one_did_is_not_taken_for_ones_own(
    db: Database, service: SharingService, account: UUID
) -> None:
    made = await service.invite(OWNER, account, "ann@example.test", "member")
    conflicting = again(Conflicting(db, lambda: service.revoke_invitation(OWNER, account, made.id)))
    with pytest.raises(InvitationNotFound):
        await conflicting.revoke_invitation(OWNER, account, made.id)
    await execute(db, "INSERT INTO account_access VALUES (%s, 'ann', 'member')", account)
    conflicting = again(Conflicting(db, lambda: service.revoke_share(OWNER, account, "ann")))
    with pytest.raises(ShareNotFound):
        await conflicting.revoke_share(OWNER, account, "ann")
