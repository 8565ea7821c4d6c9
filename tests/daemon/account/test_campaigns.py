"""The registry of campaigns, on a real database."""

from functools import partial
from uuid import UUID, uuid4

import pytest
import trio

from daemon.account.campaigns import MOST_CAMPAIGNS, CampaignRegistry, TooManyCampaigns
from daemon.account.campaigns_store import Campaign
from daemon.account.service import AccountService
from daemon.account.views import CampaignsActive
from daemon.identity import User
from daemon.sharing.rules import AccountNotFound
from daemon.storage.database import Database
from tests.daemon.account.running import execute, until
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
    for known in ("active", "paused"):
        with pytest.raises(AccountNotFound):
            await service.campaigns.register(at(BOB), "c", uuid4(), known)  # type: ignore[arg-type]  # as above
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


# -- which account they are of -----------------------------------------------------------------------------------------


async def noted(service: AccountService, user: User, account_id: UUID) -> list[dict[str, object]]:
    """What an account's audit tells of campaigns, the first first."""
    entries = await service.sharing.audit(at(user), account_id, None)
    return [dict(entry.detail) for entry in reversed(entries) if entry.action == "campaign.registered"]


async def listed(service: AccountService, user: User) -> list[tuple[str, UUID, str]]:
    return [(each.id, each.account_id, each.status) for each in await service.campaigns.list(at(user))]


async def test_one_that_moves_is_noted_at_both_accounts(db: Database, account: UUID) -> None:
    service = service_on(db)
    second = (await service.connect(at(ANN), request("second@example.test"))).id
    await service.campaigns.register(at(ANN), "c", account, "active")
    await service.campaigns.register(at(ANN), "c", second, "active")
    assert await listed(service, ANN) == [("c", second, "active")]
    assert await noted(service, ANN, account) == [
        {"campaign_id": "c", "status": "active"}, {"campaign_id": "c", "status": "moved"},
    ]  # fmt: skip
    assert await noted(service, ANN, second) == [{"campaign_id": "c", "status": "active"}]


async def test_one_is_completed_where_it_was(db: Database, account: UUID) -> None:
    """Whichever account is named: another one of the caller's, somebody else's, or none at all."""
    service = service_on(db)
    second = (await service.connect(at(ANN), request("second@example.test"))).id
    theirs = (await service.connect(at(EVE), request("theirs@example.test"))).id
    for number, named in enumerate((second, theirs, uuid4())):
        await service.campaigns.register(at(ANN), f"c{number}", account, "active")
        await service.campaigns.register(at(ANN), f"c{number}", named, "completed")
        assert (await noted(service, ANN, account))[-1] == {"campaign_id": f"c{number}", "status": "completed"}
    assert await listed(service, ANN) == []
    assert await noted(service, ANN, second) == []
    assert await noted(service, EVE, theirs) == []
    assert await one(db, "SELECT count(*) FROM audit WHERE action = 'campaign.registered'") == 6


async def test_a_list_is_the_callers_own(db: Database, account: UUID) -> None:
    service = service_on(db)
    for id_, status in (("b", "paused"), ("a", "active"), ("c", "active")):
        await service.campaigns.register(at(ANN), id_, account, status)  # type: ignore[arg-type]  # one of three
    await service.campaigns.register(at(ANN), "c", account, "completed")
    await service.campaigns.register(at(BOB), "b", account, "active")
    assert await listed(service, ANN) == [("a", account, "active"), ("b", account, "paused")]
    assert await listed(service, BOB) == [("b", account, "active")]
    assert await listed(service, EVE) == []
    (first, _) = await service.campaigns.list(at(ANN))
    assert first.updated_at == await one(db, "SELECT updated_at FROM campaigns WHERE id = 'a'")


# -- while the only default account is disconnected --------------------------------------------------------------------


async def test_who_disconnects_waits_for_who_registers(db: Database, account: UUID) -> None:
    """Bob's campaign is of Ann's account, so that it is no lock of his own account that they meet at."""
    service = service_on(db)
    bobs = (await service.connect(at(BOB), request("bobs@example.test"))).id
    ended: list[str] = []

    async def disconnect() -> None:
        try:
            await service.disconnect(at(BOB), bobs)
            ended.append("disconnected")
        except CampaignsActive:
            ended.append("refused")

    async def waits_or_ended() -> bool:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type"
        return bool(ended or await one(db, f"{waiting} = 'Lock'"))

    register = partial(CampaignRegistry._register, caller=at(BOB), id_="c", wanted=Campaign(account, "active"))
    async with trio.open_nursery() as nursery, db.transaction() as conn:
        await register(conn)
        nursery.start_soon(disconnect)
        await until(waits_or_ended)
    assert ended == ["refused"]
    assert await one(db, "SELECT desired FROM accounts WHERE id = %s", bobs) == "running"


async def test_registered_and_disconnected_at_once_it_is_one_of_both(db: Database, account: UUID) -> None:
    service, done = service_on(db), list[str]()

    async def register(id_: UUID) -> None:
        try:
            await service.campaigns.register(at(BOB), "c", id_, "active")
            done.append("registered")
        except AccountNotFound:
            pass

    async def disconnect(id_: UUID) -> None:
        try:
            await service.disconnect(at(BOB), id_)
            done.append("disconnected")
        except CampaignsActive:
            pass

    for number in range(8):
        bobs = (await service.connect(at(BOB), request("bobs@example.test"))).id
        done.clear()
        async with trio.open_nursery() as nursery:
            for work in (register, disconnect) if number % 2 else (disconnect, register):
                nursery.start_soon(work, bobs)
        assert len(done) == 1
        if done == ["registered"]:
            await service.campaigns.register(at(BOB), "c", bobs, "completed")
            await service.disconnect(at(BOB), bobs)
