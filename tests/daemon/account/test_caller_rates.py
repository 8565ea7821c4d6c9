"""What is counted, by whom and whose, and that nobody uses up what is another's; on a real database."""

from dataclasses import replace
from uuid import UUID

import pytest

from daemon.account.changing import ChangeRequest, NewCredentials
from daemon.account.service import AccountService
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
from tests.daemon.account.test_service import ANN, BOB, at, request
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
        ({"connects_per_mailbox": 1}, "connect.own_mailbox"),
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


# -- what all callers do together --------------------------------------------------------------------------------------

OF_ALL = [({"connects_per_host": 1}, "connect.host"), ({"connects_per_mailbox_of_all": 1}, "connect.mailbox")]
ELSEWHERE = Endpoint("other.example.test", 993, Security.TLS)


async def used_up(db: Database, servers: Servers, account: UUID, limited: dict[str, int]) -> AccountService:
    """A stranger has tried the account's mailbox, and with that everything at its hosts and elsewhere."""
    await execute(db, "DELETE FROM rates")
    service = service_on(db, **limited)
    guess = replace(request(), password=Secret("a guess"))
    servers.fault = Fault(FaultKind.AUTH_FAILED, "No.", disposition=Disposition.PARK)
    with pytest.raises(VerificationFailed):
        await service.connect(at(EVE), guess)
    with pytest.raises(RateExceeded):
        await service.connect(at(BOB), guess)
    servers.fault = None
    servers.asked = 0
    return service


@pytest.mark.parametrize("limited", [limited for limited, _ in OF_ALL], ids=[name for _, name in OF_ALL])
async def test_strangers_keep_no_owner_from_a_new_password(
    db: Database, servers: Servers, account: UUID, limited: dict[str, int]
) -> None:
    service = await used_up(db, servers, account, limited)
    for password in ("new", "newer"):
        await service.changes.change(at(ANN), account, credentials(password))
        assert (await stored(db, account))[0] == password
    port = request().imap.port + 1  # another port is the same host
    await service.changes.change(at(ANN), account, credentials("newest", replace(request().imap, port=port)))


@pytest.mark.parametrize(("limited", "name"), OF_ALL)
@pytest.mark.parametrize(
    ("imap", "smtp", "username"),
    [(ELSEWHERE, None, None), (None, replace(ELSEWHERE, port=465), None), (None, None, "another@example.test")],
    ids=["imap", "smtp", "username"],
)
async def test_another_mailbox_is_nobodys_yet(
    db: Database,
    servers: Servers,
    account: UUID,
    limited: dict[str, int],
    name: str,
    imap: Endpoint | None,
    smtp: Endpoint | None,
    username: str | None,
) -> None:
    """An owner guesses no other password at this door than anybody: what leads elsewhere is counted with all."""
    await execute(db, "DELETE FROM rates")
    service = service_on(db, **limited)
    servers.fault = Fault(FaultKind.AUTH_FAILED, "No.", disposition=Disposition.PARK)
    new = NewCredentials(Secret("a guess"), imap=imap, smtp=smtp, username=username)
    guess = ChangeRequest(credentials=lambda _: new)
    with pytest.raises(VerificationFailed):
        await service.changes.change(at(ANN), account, guess)
    servers.asked = 0
    refused = metrics.rates_exceeded.labels(name)
    before = refused._value.get()
    with pytest.raises(RateExceeded) as caught:
        await service.changes.change(at(ANN), account, guess)
    assert refused._value.get() == before + 1
    assert caught.value.allowance.rate.name == name
    assert caught.value.allowance.retry_after == pytest.approx(3600, abs=30)
    assert servers.asked == 0
    assert await stored(db, account) == ("the password", 1)


async def test_an_owners_own_attempts_are_counted_all_the_same(db: Database, servers: Servers, account: UUID) -> None:
    service = await used_up(db, servers, account, {"connects_per_host": 1, "connects_per_mailbox": 2})
    for password in ("new", "newer"):
        await service.changes.change(at(ANN), account, credentials(password))
    with pytest.raises(RateExceeded) as caught:
        await service.changes.change(at(ANN), account, credentials("newest"))
    assert caught.value.allowance.rate.name == "connect.own_mailbox"
