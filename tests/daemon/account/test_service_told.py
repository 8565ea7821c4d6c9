"""Who connects or changes an account is told what they did, whatever somebody else does the moment after."""

from collections.abc import Callable

import psycopg
import pytest
import trio

from daemon.account import verifying as verifying_module
from daemon.account.changing import ChangeRequest
from daemon.account.service import AccountService
from daemon.identity import Plans
from daemon.network import Dialer, NetworkPolicy, Resolver
from daemon.storage.database import Database
from daemon.storage.requests import Requests
from tests.daemon.account.running import VAULT
from tests.daemon.account.test_service import ANN, RATES, at, request

MEANWHILE = [
    "DELETE FROM account_access",
    "UPDATE accounts SET desired = 'removed', removed_at = now(), is_default = false",
]


@pytest.fixture
def service_with(monkeypatch: pytest.MonkeyPatch, db: Database) -> Callable[[Callable[[], None]], AccountService]:
    """A service that does something between its COMMIT and its answer."""

    async def accept(*_: object, **__: object) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(verifying_module, "verify_imap", accept)
    monkeypatch.setattr(verifying_module, "verify_smtp", accept)
    dialer = Dialer(NetworkPolicy(), Resolver())
    return lambda nudge: AccountService(
        Requests(db, migrated=lambda: True), dialer, VAULT, Plans({}, "free"), rates=RATES, nudge=nudge
    )


@pytest.mark.parametrize("statement", MEANWHILE)
async def test_what_was_done_is_told(
    database_dsn: str, service_with: Callable[[Callable[[], None]], AccountService], statement: str
) -> None:
    def meanwhile() -> None:
        with psycopg.connect(database_dsn) as conn:
            conn.execute(statement)  # type: ignore[call-overload]  # ours

    view = await service_with(meanwhile).connect(at(ANN), request())
    assert (view.sync_status, view.is_default, view.access) == ("pending", True, "owner")

    quiet = service_with(lambda: None)
    account_id = (await quiet.connect(at(ANN), request("other@example.test"))).id
    view = await service_with(meanwhile).changes.change(at(ANN), account_id, ChangeRequest(name="Ours"))
    assert (view.id, view.name) == (account_id, "Ours")
