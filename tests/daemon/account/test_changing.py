"""Changes of accounts and campaigns as callers ask for them, on a real database; servers are real in tests/end_to_end.

Here the verification is let through, or refused, and what is looked at is who may, what is counted, and what is stored.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
import trio

from daemon.account import verifying as verifying_module
from daemon.account.caller_rates import CallerRates
from daemon.account.changes_store import Changeable
from daemon.account.changing import ChangedMeanwhile, ChangeRequest, NewCredentials
from daemon.account.service import AccountService
from daemon.account.views import AccountView, AlreadyConnected, VerificationFailed
from daemon.errors import Disposition, Fault, FaultKind
from daemon.identity import Plans, User
from daemon.network import Dialer, Endpoint, NetworkPolicy, Resolver
from daemon.sharing import audit_store
from daemon.sharing.rules import AccountNotFound, NotAllowed
from daemon.storage.database import Database
from daemon.storage.requests import Requests
from daemon.vault.secret import Secret
from tests.daemon.account.running import VAULT, execute, until
from tests.daemon.account.test_service import ANN, BOB, at, outcomes, request
from tests.daemon.account.test_service_repeated import Forgetful
from tests.stored import one

EVE = User("eve", "eve@example.test", "Eve", "free")
MANY = {
    "connects": 1000, "connects_per_host": 1000, "connects_per_mailbox": 1000, "connects_per_mailbox_of_all": 1000,
    "changes": 5000, "invitations": 1000,
}  # fmt: skip


def service_on(db: object, **rates: int) -> AccountService:
    requests = Requests(db, migrated=lambda: True)  # type: ignore[arg-type]  # all that it uses of it
    dialer = Dialer(NetworkPolicy(), Resolver())
    rated = CallerRates.of(**{**MANY, **rates})
    return AccountService(requests, dialer, VAULT, Plans({}, "free"), rates=rated, nudge=lambda: None)


class Servers:
    """Both servers' answers, and how often they were asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.fault: Fault | None = None
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    async def answer(self, *_: object, **__: object) -> None:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        if self.fault is not None:
            raise self.fault


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    made = Servers()
    monkeypatch.setattr(verifying_module, "verify_imap", made.answer)
    monkeypatch.setattr(verifying_module, "verify_smtp", made.answer)
    return made


@pytest.fixture
async def account(db: Database, servers: Servers) -> UUID:
    """Ann's, with Bob as its admin; Eve is a stranger to it."""
    service = service_on(db)
    for user in (BOB, EVE):
        await service.remember(user)
    made = (await service.connect(at(ANN), request())).id
    await execute(db, "INSERT INTO account_access VALUES (%s, 'bob', 'admin')", made)
    servers.asked = 0
    return made


def credentials(password: str = "new", imap: Endpoint | None = None, username: str | None = None) -> ChangeRequest:
    def new(_: Changeable) -> NewCredentials:
        return NewCredentials(Secret(password), imap=imap, username=username)

    return ChangeRequest(credentials=new)


async def stored(db: Database, account_id: UUID) -> tuple[str, int]:
    """The password, and its version."""
    key, sealed = [await one(db, f"SELECT {column} FROM accounts WHERE id = %s", account_id)
                   for column in ("data_key", "password_sealed")]  # fmt: skip
    version = await one(db, "SELECT credentials_version FROM accounts WHERE id = %s", account_id)
    assert isinstance(key, bytes)
    assert isinstance(sealed, bytes)
    assert isinstance(version, int)
    return VAULT.open(account_id, "password", key, sealed).reveal(), version


# -- a COMMIT whose answer was lost ------------------------------------------------------------------------------------


async def test_changing_twice_over_is_changing(db: Database, account: UUID) -> None:
    service = service_on(Forgetful(db))
    wanted = replace(credentials(), name="Ours", paused=True, daily_limit=7)
    await service.changes.change(at(ANN), account, wanted)
    assert await stored(db, account) == ("new", 2)
    assert await one(db, "SELECT count(*) FROM audit WHERE action = 'account.changed'") == 1


async def test_asking_twice_over_is_asking(db: Database, account: UUID) -> None:
    service = service_on(Forgetful(db))
    asked = await service._requests.settle(lambda conn, doubt: service._ask(conn, doubt, user=ANN, account_id=account))
    assert not asked[1], "it is the request itself, and no repeat of it"
    assert await one(db, "SELECT count(*) FROM commands WHERE kind = 'sync'") == 1


# -- credentials -------------------------------------------------------------------------------------------------------


async def test_what_a_server_refuses_changes_nothing(db: Database, servers: Servers, account: UUID) -> None:
    servers.fault = Fault(FaultKind.AUTH_FAILED, "No.", disposition=Disposition.PARK)
    with pytest.raises(VerificationFailed):
        await service_on(db).changes.change(at(ANN), account, replace(credentials(), name="Ours"))
    assert await stored(db, account) == ("the password", 1)
    assert await one(db, "SELECT name FROM accounts") == "box@example.test"
    assert await one(db, "SELECT count(*) FROM audit WHERE action = 'account.changed'") == 0


async def test_two_who_change_them_at_once(db: Database, servers: Servers, account: UUID) -> None:
    service = service_on(db)
    servers.meanwhile = lambda: service.changes.change(at(ANN), account, credentials("first"))
    with pytest.raises(ChangedMeanwhile):
        await service.changes.change(at(ANN), account, credentials("second"))
    assert await stored(db, account) == ("first", 2)


async def test_who_lost_the_right_meanwhile_changes_nothing(db: Database, servers: Servers, account: UUID) -> None:
    service = service_on(db)
    servers.meanwhile = lambda: service.disconnect(at(ANN), account)
    with pytest.raises(AccountNotFound):
        await service.changes.change(at(ANN), account, credentials())
    assert await one(db, "SELECT count(*) FROM accounts WHERE data_key IS NOT NULL") == 0


async def test_no_server_is_asked_for_who_may_not(db: Database, servers: Servers, account: UUID) -> None:
    service = service_on(db)
    with pytest.raises(NotAllowed):
        await service.changes.change(at(BOB), account, credentials())
    with pytest.raises(AccountNotFound):
        await service.changes.change(at(EVE), account, credentials())
    assert servers.asked == 0


async def test_a_mailbox_that_is_connected_already(db: Database, account: UUID) -> None:
    service = service_on(db)
    await service.connect(at(BOB), request("other@example.test"))
    with pytest.raises(AlreadyConnected):
        await service.changes.change(at(ANN), account, credentials(username="other@example.test"))
    assert await stored(db, account) == ("the password", 1)


# -- the audit ---------------------------------------------------------------------------------------------------------


async def test_the_owner_reads_what_was_done_to_an_account_that_is_gone(db: Database, account: UUID) -> None:
    service = service_on(db)
    await service.disconnect(at(ANN), account)
    entries = await service.sharing.audit(at(ANN), account, None)
    assert [entry.action for entry in entries] == ["account.disconnected", "account.connected"]
    for user in (BOB, EVE):
        with pytest.raises(AccountNotFound):
            await service.sharing.audit(at(user), account, None)


async def test_what_is_so_already_is_no_change(db: Database, account: UUID) -> None:
    service = service_on(db)
    wanted = ChangeRequest(name="Ours", make_default=True, daily_limit=9, paused=False)
    for _ in range(3):
        await service.changes.change(at(ANN), account, wanted)
        await service.campaigns.register(at(ANN), "c", account, "paused")
    entries = await service.sharing.audit(at(ANN), account, None)
    assert [(entry.action, dict(entry.detail)) for entry in entries[:-1]] == [
        ("campaign.registered", {"campaign_id": "c", "status": "paused"}),
        ("account.changed", {"name": "Ours", "daily_limit": 9}),
    ]


async def test_old_entries_go(db: Database, account: UUID) -> None:
    service = service_on(db)
    await service.changes.change(at(ANN), account, ChangeRequest(name="Ours"))
    await execute(db, "UPDATE audit SET at = now() - interval '400 d' WHERE action = 'account.connected'")
    await db.run(lambda conn: audit_store.forget_old(conn, timedelta(days=401)))
    assert await one(db, "SELECT count(*) FROM audit") == 2
    await db.run(lambda conn: audit_store.forget_old(conn, timedelta(days=399)))
    assert await one(db, "SELECT action FROM audit") == "account.changed"


async def test_defaults_changed_at_once_leave_one(db: Database, account: UUID) -> None:
    service = service_on(db)
    ids = [account, *[(await service.connect(at(ANN), request(f"{n}@example.test"))).id for n in range(4)]]
    make = ChangeRequest(make_default=True)
    found = await outcomes(*[lambda each=each: service.changes.change(at(ANN), each, make) for each in ids * 5])  # type: ignore[misc]  # a default argument
    assert [(type(each), each.is_default) for each in found] == [(AccountView, True)] * 25  # type: ignore[attr-defined]
    assert await one(db, "SELECT count(*) FROM accounts WHERE is_default") == 1


@pytest.mark.parametrize("lost", ["share", "role", "account"])
async def test_a_running_request_ends_with_the_right_to_it(db: Database, account: UUID, lost: str) -> None:
    """Nobody serves the request here, so it waits; and ends as soon as the caller has lost what it takes."""
    service = service_on(db)
    ended: list[Exception] = []

    async def sync() -> None:
        try:
            await service.sync_now(at(BOB), account)
        except (AccountNotFound, NotAllowed) as exc:
            ended.append(exc)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sync)
        await until(lambda: one(db, "SELECT count(*) FROM commands WHERE kind = 'sync'"))
        if lost == "share":
            await service.sharing.revoke_share(at(ANN), account, "bob")
        elif lost == "role":
            await execute(db, "UPDATE account_access SET role = 'member' WHERE user_id = 'bob'")
        else:
            await service.disconnect(at(ANN), account)
    assert [type(each) for each in ended] == [NotAllowed if lost == "role" else AccountNotFound]
