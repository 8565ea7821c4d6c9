"""A COMMIT whose answer was lost: the work runs once more upon its own result, and the caller hears what was done."""

import pytest
import trio

from daemon.account import verifying as verifying_module
from daemon.account.service import AccountService
from daemon.account.views import AlreadyConnected
from daemon.sharing.rules import AccountNotFound
from daemon.storage.database import Database
from tests.daemon.account.test_service import ANN, at, make_service, request
from tests.stored import one


class Forgetful:
    """A database that carries out everything and hears of it the second time only."""

    def __init__(self, database):
        self.database = database

    async def run(self, work, *, in_doubt=None, **how):
        await self.database.run(work, **how)
        if in_doubt is not None:
            in_doubt()
        return await self.database.run(work, **how)


@pytest.fixture
def service(db: Database, monkeypatch: pytest.MonkeyPatch) -> AccountService:
    async def accept(*_: object, **__: object) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(verifying_module, "verify_imap", accept)
    monkeypatch.setattr(verifying_module, "verify_smtp", accept)
    return make_service(Forgetful(db))  # type: ignore[arg-type]  # all that the service uses of it


async def told(db: Database, kind: str) -> object:
    return await one(db, "SELECT count(*) FROM events WHERE type = %s", kind)


async def test_connecting_twice_over_is_connecting(db: Database, service: AccountService) -> None:
    view = await service.connect(at(ANN), request())
    assert (view.state, view.is_default) == ("new", True)
    assert await one(db, "SELECT count(*) FROM accounts") == 1
    assert await told(db, "account.connected") == 1
    with pytest.raises(AlreadyConnected):
        await service.connect(at(ANN), request())


async def test_disconnecting_twice_over_is_disconnecting(db: Database, service: AccountService) -> None:
    view = await service.connect(at(ANN), request())
    await service.disconnect(at(ANN), view.id)
    assert await told(db, "account.disconnected") == 1
    assert await one(db, "SELECT desired FROM accounts") == "removed"
    assert service.statistics().disconnected == 1
    with pytest.raises(AccountNotFound):
        await service.disconnect(at(ANN), view.id)  # that is another wish, and has no account any more


async def test_reviving_twice_over_is_reviving(db: Database, service: AccountService) -> None:
    view = await service.connect(at(ANN), request())
    await service.disconnect(at(ANN), view.id)
    again = await service.connect(at(ANN), request())
    assert (again.id, again.state) == (view.id, "new")
    assert await one(db, "SELECT count(*) FROM accounts") == 1
    assert await one(db, "SELECT credentials_version FROM accounts") == 2
    assert await told(db, "account.connected") == 2
