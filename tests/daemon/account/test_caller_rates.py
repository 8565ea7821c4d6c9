"""What is counted, by whom and whose, and that nobody uses up what is another's; on a real database."""

from dataclasses import replace
from uuid import UUID

import pytest

from daemon.account.views import AlreadyConnected, VerificationFailed
from daemon.errors import Disposition, Fault, FaultKind
from daemon.identity.rates import Allowance, RateExceeded
from daemon.network import Endpoint, Security
from daemon.sharing.rules import AccountNotFound
from daemon.storage.database import Database
from daemon.telemetry import metrics
from daemon.vault.secret import Secret
from tests.daemon.account.running import execute
from tests.daemon.account.test_changing import EVE, Servers, account, credentials, servers, service_on, stored
from tests.daemon.account.test_service import ANN, at, request
from tests.stored import one

__all__ = ["account", "servers"]


async def test_a_stranger_uses_up_nobodys_rates(db: Database, account: UUID) -> None:
    service = service_on(db, connects_per_mailbox=1, connects_per_mailbox_of_all=1, connects_per_host=1)
    await execute(db, "DELETE FROM rates")
    for _ in range(3):
        with pytest.raises(AccountNotFound):
            await service.changes.change(at(EVE), account, credentials())
        with pytest.raises(AlreadyConnected):
            await service.connect(at(ANN), request())  # a duplicate of one's own: no server is asked
    assert await one(db, "SELECT count(*) FROM rates WHERE name NOT IN ('connect.user', 'change.user')") == 0
    await service.changes.change(at(ANN), account, credentials())


@pytest.mark.parametrize(
    ("limited", "name"),
    [
        ({"connects": 1}, "connect.user"),
        ({"connects_per_host": 1}, "connect.host"),
        ({"connects_per_mailbox": 1}, "connect.own_mailbox"),
        ({"connects_per_mailbox_of_all": 1}, "connect.mailbox"),
        ({"changes": 1}, "change.user"),
    ],
)
async def test_each_rate_ends_somewhere(
    db: Database, servers: Servers, account: UUID, limited: dict[str, int], name: str
) -> None:
    await execute(db, "DELETE FROM rates")
    service, stood = service_on(db, **limited), list[Allowance]()
    await service.changes.change(at(ANN), account, credentials(), stood.append)
    assert [each.rate.name for each in stood] == ["change.user", "connect.user"]
    servers.asked = 0
    refused = metrics.rates_exceeded.labels(name)
    before = refused._value.get()
    with pytest.raises(RateExceeded) as caught:
        await service.changes.change(at(ANN), account, credentials("again"))
    assert refused._value.get() == before + 1
    assert caught.value.allowance.rate.name == name
    assert caught.value.allowance.retry_after == pytest.approx(3600, abs=30)
    assert servers.asked == 0
    assert (await stored(db, account))[0] == "new"


async def test_a_mailbox_is_one_at_both_servers_however_it_is_written(db: Database, account: UUID) -> None:
    await execute(db, "DELETE FROM rates")
    service = service_on(db)
    wanted = request("Other@example.test")
    same = Endpoint("SAME.example.test", 993, Security.TLS)
    await service.connect(at(EVE), replace(wanted, imap=same, smtp=replace(same, host="same.example.test", port=587)))
    assert await one(db, "SELECT count(*) FROM rates") == 4  # of the caller, of the host, and of the mailbox two


async def test_a_stranger_alone_keeps_nobody_from_their_mailbox(db: Database, servers: Servers, account: UUID) -> None:
    service = service_on(db, connects_per_mailbox=2, connects_per_mailbox_of_all=4)
    await execute(db, "DELETE FROM rates")
    servers.fault = Fault(FaultKind.AUTH_FAILED, "No.", disposition=Disposition.PARK)
    guess = replace(request(), password=Secret("a guess"))
    for _ in range(2):
        with pytest.raises(VerificationFailed):
            await service.connect(at(EVE), guess)
    for _ in range(5):
        with pytest.raises(RateExceeded):
            await service.connect(at(EVE), guess)
    servers.fault = None
    await service.changes.change(at(ANN), account, credentials())
