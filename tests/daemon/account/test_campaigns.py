"""The registry of campaigns, on a real database."""

from uuid import UUID, uuid4

import pytest

from daemon.account.campaigns import MOST_CAMPAIGNS, TooManyCampaigns
from daemon.account.views import CampaignsActive
from daemon.sharing.rules import AccountNotFound
from daemon.storage.database import Database
from tests.daemon.account.running import execute
from tests.daemon.account.test_changing import EVE, account, servers, service_on
from tests.daemon.account.test_service import ANN, BOB, at, request
from tests.daemon.account.test_service_repeated import Forgetful
from tests.stored import one

__all__ = ["account", "servers"]


async def test_campaigns_of_an_account_that_is_gone_can_be_ended(db: Database, account: UUID) -> None:
    service = service_on(db)
    second = (await service.connect(at(ANN), request("second@example.test"))).id
    await service.campaigns.register(at(ANN), "c", account, "active")
    await service.disconnect(at(ANN), account)
    with pytest.raises(CampaignsActive):
        await service.disconnect(at(ANN), second)
    with pytest.raises(AccountNotFound):  # only to end it
        await service.campaigns.register(at(ANN), "c", account, "active")
    await service.campaigns.register(at(ANN), "c", account, "paused")
    with pytest.raises(AccountNotFound):
        await service.campaigns.register(at(ANN), "c", account, "active")
    await service.campaigns.register(at(ANN), "c", account, "completed")
    with pytest.raises(AccountNotFound):
        await service.campaigns.register(at(ANN), "c", account, "paused")
    await service.disconnect(at(ANN), second)


async def test_campaigns_are_their_users_own(db: Database, account: UUID) -> None:
    service = service_on(db)
    await service.campaigns.register(at(BOB), "c", account, "active")
    for known in ("active", "paused", "completed"):
        with pytest.raises(AccountNotFound):
            await service.campaigns.register(at(EVE), "c", account, known)  # type: ignore[arg-type]  # one of three
    with pytest.raises(AccountNotFound):
        await service.campaigns.register(at(BOB), "c", uuid4(), "completed")
    assert await one(db, "SELECT status FROM campaigns") == "active"
    await service.disconnect(at(ANN), account)  # a guest's campaign keeps nobody's account connected


async def test_campaigns_are_bounded(db: Database, account: UUID) -> None:
    service = service_on(db)
    await execute(
        db, "INSERT INTO campaigns (user_id, id, account_id, status)"
        " SELECT 'ann', 'c' || n, %s, 'paused' FROM generate_series(1, %s) n", account, MOST_CAMPAIGNS,
    )  # fmt: skip
    with pytest.raises(TooManyCampaigns):
        await service.campaigns.register(at(ANN), "new", account, "active")
    await service.campaigns.register(at(ANN), "c1", account, "active")
    await service.campaigns.register(at(ANN), "c1", account, "completed")
    await service.campaigns.register(at(ANN), "new", account, "active")


async def test_a_campaign_twice_over_is_one(db: Database, account: UUID) -> None:
    service = service_on(Forgetful(db))
    await service.campaigns.register(at(ANN), "c", account, "active")
    await service.campaigns.register(at(ANN), "c", account, "completed")
    assert await one(db, "SELECT count(*) FROM audit WHERE action = 'campaign.registered'") == 2
    assert await one(db, "SELECT count(*) FROM campaigns") == 0
