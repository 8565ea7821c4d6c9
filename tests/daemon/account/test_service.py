"""What the API may ask of accounts, on a real database: scoping, duplicates, the default, reviving, quotas.

Servers are asked over real connections in the end-to-end tests; here the verification is let through.
"""

import pickle
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
import trio

from daemon import events
from daemon.account import service as service_module
from daemon.account import verifying as verifying_module
from daemon.account.caller_rates import CallerRates
from daemon.account.listing import Form
from daemon.account.service import AccountService
from daemon.account.views import (
    AccountView,
    AlreadyConnected,
    CampaignsActive,
    ConnectRequest,
    QuotaReached,
)
from daemon.identity import Plans, User
from daemon.network import Dialer, Endpoint, NetworkPolicy, Resolver, Security
from daemon.sharing.rules import AccountNotFound, NotAllowed
from daemon.sharing.views import Caller
from daemon.storage.database import Database
from daemon.storage.faults import DatabaseAway
from daemon.storage.requests import Requests
from daemon.vault.secret import Secret
from tests.daemon.account.running import VAULT, execute
from tests.stored import one

ANN = User("ann", "ann@example.test", "Ann", "free")
BOB = User("bob", "bob@example.test", "Bob", "free")
RATES = CallerRates.of(
    connects=1000, connects_per_host=1000, connects_per_mailbox=1000, connects_per_mailbox_of_all=1000, changes=1000,
    invitations=1000,
)  # fmt: skip
NUDGES: list[None] = []


def at(user: User) -> Caller:
    return Caller(user, "192.0.2.1")


def request(email: str = "box@example.test", **changes: object) -> ConnectRequest:
    made = ConnectRequest(
        email=email,
        name=None,
        imap=Endpoint("imap.example.test", 993, Security.TLS),
        smtp=Endpoint("smtp.example.test", 587, Security.STARTTLS),
        username=email,
        password=Secret("the password"),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def make_service(
    db: Database, plans: Plans | None = None, migrated: Callable[[], bool] = lambda: True
) -> AccountService:
    dialer = Dialer(NetworkPolicy(), Resolver())
    return AccountService(
        Requests(db, migrated=migrated), dialer, VAULT, plans or Plans({}, "free"), rates=RATES,
        nudge=lambda: NUDGES.append(None),
    )  # fmt: skip


@pytest.fixture
def service(db: Database, monkeypatch: pytest.MonkeyPatch) -> AccountService:
    async def accept(*_: object, **__: object) -> None:
        await trio.sleep(0.01)

    monkeypatch.setattr(verifying_module, "verify_imap", accept)
    monkeypatch.setattr(verifying_module, "verify_smtp", accept)
    return make_service(db)


async def listed(service: AccountService, user: User) -> list[AccountView]:
    """The user's list as the API shows it."""
    form = Form(pickle.dumps, lambda shown: pickle.dumps(list(shown)))
    return [pickle.loads(data) for data in pickle.loads(await service.listing(form).show(user.id))]


async def outcomes(*attempts: Callable[[], object]) -> list[object]:
    """What attempts made at once came to: results and exceptions."""
    found: list[object] = []

    async def attempt(work: Callable[[], object]) -> None:
        try:
            found.append(await work())  # type: ignore[misc]  # coroutine functions, made by lambdas
        except (AlreadyConnected, QuotaReached, CampaignsActive) as exc:
            found.append(exc)

    async with trio.open_nursery() as nursery:
        for work in attempts:
            nursery.start_soon(attempt, work)
    return found


async def test_connected_is_stored_sealed_and_told(db: Database, service: AccountService) -> None:
    NUDGES.clear()
    view = await service.connect(at(ANN), request(name="My box"))
    assert (view.email, view.name, view.sync_status, view.is_default) == ("box@example.test", "My box", "pending", True)
    assert (view.access, view.state, view.folders) == ("owner", "new", ())
    assert len(NUDGES) == 1
    sealed = await one(db, "SELECT password_sealed FROM accounts")
    key = await one(db, "SELECT data_key FROM accounts")
    assert isinstance(sealed, bytes)
    assert isinstance(key, bytes)
    assert b"the password" not in sealed
    assert VAULT.open(view.id, "password", key, sealed).reveal() == "the password"
    (told,) = await db.run(lambda conn: events.read_after(conn, (0, 0), 10))
    assert (told.type, told.account_id) == ("account.connected", view.id)
    assert await one(db, "SELECT kind FROM commands") == "changed"
    assert await one(db, "SELECT owner IS NULL FROM claims")
    assert service.statistics().connected == 1


async def test_a_stranger_sees_nothing(service: AccountService) -> None:
    view = await service.connect(at(ANN), request())
    await service.remember(BOB)
    assert await listed(service, BOB) == []
    assert await service.sync_overview(BOB) == []
    for wrong in (view.id, uuid4()):
        with pytest.raises(AccountNotFound):
            await service.get_account(BOB, wrong)
        with pytest.raises(AccountNotFound):
            await service.disconnect(at(BOB), wrong)
        with pytest.raises(AccountNotFound):
            await service.sync_now(at(BOB), wrong)
    with pytest.raises(AccountNotFound):
        await service.sync_now(at(BOB), None)
    assert (await service.get_account(ANN, view.id)).id == view.id


async def test_a_member_sees_and_an_admin_syncs_and_only_the_owner_disconnects(
    db: Database, service: AccountService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "SYNC_WAIT", 0.1)
    view = await service.connect(at(ANN), request())
    await service.remember(BOB)
    await execute(db, "INSERT INTO account_access VALUES (%s, 'bob', 'member')", view.id)
    assert [(seen.id, seen.access) for seen in await listed(service, BOB)] == [(view.id, "member")]
    with pytest.raises(NotAllowed):
        await service.sync_now(at(BOB), view.id)
    with pytest.raises(AccountNotFound):
        await service.sync_now(at(BOB), None)  # a shared account is nobody else's default
    await execute(db, "UPDATE account_access SET role = 'admin' WHERE user_id = 'bob'")
    assert (await service.sync_now(at(BOB), view.id)).status == "queued"
    with pytest.raises(AccountNotFound):
        await service.disconnect(at(BOB), view.id)
    await service.disconnect(at(ANN), view.id)
    assert await listed(service, BOB) == []
    assert await one(db, "SELECT string_agg(role, ',') FROM account_access") == "owner"


async def test_one_address_connected_many_times_at_once_is_one_account(db: Database, service: AccountService) -> None:
    found = await outcomes(*(lambda: service.connect(at(ANN), request()) for _ in range(8)))
    assert sum(isinstance(each, AccountView) for each in found) == 1
    assert sum(isinstance(each, AlreadyConnected) for each in found) == 7
    assert await one(db, "SELECT count(*) FROM accounts") == 1


async def test_one_mailbox_connected_by_two_at_once_is_one_account(db: Database, service: AccountService) -> None:
    found = await outcomes(*(lambda user=user: service.connect(at(user), request()) for user in (ANN, BOB, ANN, BOB)))
    assert sum(isinstance(each, AccountView) for each in found) == 1
    assert await one(db, "SELECT count(*) FROM accounts") == 1


async def test_of_many_connected_at_once_one_is_the_default(db: Database, service: AccountService) -> None:
    found = await outcomes(
        *(lambda n=n: service.connect(at(ANN), request(f"box{n}@example.test")) for n in range(8))
    )
    assert all(isinstance(each, AccountView) for each in found)
    assert await one(db, "SELECT count(*) FROM accounts WHERE is_default") == 1


async def test_the_quota_holds_under_concurrency(db: Database, service: AccountService) -> None:
    limited = make_service(db, Plans({"free": 3}, "free"))
    found = await outcomes(
        *(lambda n=n: limited.connect(at(ANN), request(f"box{n}@example.test")) for n in range(8))
    )
    refused = [each for each in found if isinstance(each, QuotaReached)]
    assert len(refused) == 5
    assert (refused[0].plan, refused[0].limit) == ("free", 3)
    assert await one(db, "SELECT count(*) FROM accounts") == 3


async def test_addresses_are_compared_case_folded(service: AccountService) -> None:
    await service.connect(at(ANN), request("Box@Example.test"))
    with pytest.raises(AlreadyConnected):
        await service.connect(at(ANN), request("bOX@eXAMPLE.test", username="another"))
    await service.connect(at(BOB), request("Box@Example.test", username="bob's"))


async def test_a_removed_mailbox_comes_back_with_its_id_and_mail(db: Database, service: AccountService) -> None:
    view = await service.connect(at(ANN), request())
    await execute(db, "INSERT INTO folders (account_id, name) VALUES (%s, 'INBOX')", view.id)
    await service.disconnect(at(ANN), view.id)
    assert await one(db, "SELECT data_key IS NULL AND password_sealed IS NULL FROM accounts")
    with pytest.raises(AccountNotFound):
        await service.get_account(ANN, view.id)
    assert (await service.connect(at(BOB), request())).id != view.id, "another's is another account"
    with pytest.raises(AlreadyConnected):
        await service.connect(at(ANN), request())
    (bobs,) = await listed(service, BOB)
    await service.disconnect(at(BOB), bobs.id)
    again = await service.connect(at(ANN), request(password=Secret("a new one")))
    assert (again.id, again.created_at, again.sync_status) == (view.id, view.created_at, "pending")
    assert [folder.name for folder in again.folders] == ["INBOX"]
    assert await one(db, "SELECT credentials_version FROM accounts WHERE id = %s", view.id) == 2


async def test_disconnecting_moves_the_default(db: Database, service: AccountService) -> None:
    views = [await service.connect(at(ANN), request(f"box{n}@example.test")) for n in range(3)]
    await service.disconnect(at(ANN), views[1].id)
    assert await defaults(service) == [views[0].id]
    await service.disconnect(at(ANN), views[0].id)
    assert await defaults(service) == [views[2].id]
    await service.disconnect(at(ANN), views[2].id)
    assert await listed(service, ANN) == []
    assert service.statistics().disconnected == 3


async def defaults(service: AccountService) -> list[UUID]:
    return [view.id for view in await listed(service, ANN) if view.is_default]


async def test_campaigns_hold_the_last_default(db: Database, service: AccountService) -> None:
    views = [await service.connect(at(ANN), request(f"box{n}@example.test")) for n in range(2)]
    await execute(
        db, "INSERT INTO campaigns (user_id, id, account_id, status) VALUES ('ann', 'c', %s, 'active')", views[1].id
    )
    found = await outcomes(*(lambda view=view: service.disconnect(at(ANN), view.id) for view in views))
    assert sum(isinstance(each, CampaignsActive) for each in found) == 1, "two at once leave one"
    await execute(db, "UPDATE campaigns SET status = 'paused'")
    (left,) = await listed(service, ANN)
    await service.disconnect(at(ANN), left.id)


async def test_before_the_schema_is_there_nothing_is_answered(db: Database) -> None:
    with pytest.raises(DatabaseAway):
        await listed(make_service(db, migrated=lambda: False), ANN)


async def test_a_list_is_asked_for_again_when_its_connection_is_lost(db: Database, service: AccountService) -> None:
    await service.connect(at(ANN), request())
    assert len(await listed(service, ANN)) == 1
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    await execute(db, f"SELECT pg_terminate_backend(pid) {others}")
    async with db.connection() as conn:
        await conn.close()  # the one that was spared
    assert len(await listed(service, ANN)) == 1
