"""What an account keeps that is disconnected and connected again, and what the audit tells of the end."""

from uuid import UUID

import pytest

from daemon.account.changing import ChangeRequest
from daemon.account.service import AccountService
from daemon.storage.database import Database
from tests.daemon.account.test_changing import account, servers, service_on
from tests.daemon.account.test_service import ANN, BOB, at, request
from tests.stored import one

__all__ = ["account", "servers"]


async def told(service: AccountService, account_id: UUID) -> list[tuple[str, dict[str, object]]]:
    """An account's audit, the last first."""
    return [(entry.action, dict(entry.detail)) for entry in await service.sharing.audit(at(ANN), account_id, None)]


@pytest.mark.parametrize(("given", "expected"), [(None, "Ours"), ("Newly named", "Newly named")])
async def test_what_was_set_of_it_comes_back(db: Database, account: UUID, given: str | None, expected: str) -> None:
    service = service_on(db)
    await service.changes.change(at(ANN), account, ChangeRequest(name="Ours", daily_limit=7, paused=True))
    await service.disconnect(at(ANN), account)
    again = await service.connect(at(ANN), request(name=given))
    assert (again.id, again.name, again.daily_limit) == (account, expected, 7)
    assert (again.desired, again.state) == ("running", "new"), "who connects it wants it to run"
    assert (await told(service, account))[0] == ("account.connected", {"email": "box@example.test", "revived": True})


async def test_one_that_was_never_named_has_its_address_for_a_name(db: Database, account: UUID) -> None:
    service = service_on(db)
    assert (await service.get_account(ANN, account)).name == "box@example.test"
    await service.disconnect(at(ANN), account)
    assert (await service.connect(at(ANN), request())).name == "box@example.test"
    assert (await service.connect(at(BOB), request("bobs@example.test"))).name == "bobs@example.test"


async def test_what_a_disconnection_took_is_told(db: Database, account: UUID) -> None:
    service = service_on(db)
    second = (await service.connect(at(ANN), request("second@example.test"))).id
    for name in ("a", "b", "c"):
        await service.sharing.invite(at(ANN), account, f"{name}@example.test", "member")
    (first, *_) = await service.sharing.invitations(at(ANN), account)
    await service.sharing.revoke_invitation(at(ANN), account, first.id)  # is none that went
    await service.disconnect(at(ANN), account)
    assert (await told(service, account))[0] == ("account.disconnected", {"shares": 1, "invitations": 2})
    assert (await told(service, second))[0] == ("account.changed", {"is_default": True})
    await service.disconnect(at(ANN), second)
    assert (await told(service, second))[0] == ("account.disconnected", {"shares": 0, "invitations": 0})
    moved = "SELECT count(*) FROM audit WHERE detail ? 'is_default'"
    assert await one(db, moved) == 1, "there was none to move to"


async def test_who_disconnects_another_one_moves_no_default(db: Database, account: UUID) -> None:
    service = service_on(db)
    second = (await service.connect(at(ANN), request("second@example.test"))).id
    await service.disconnect(at(ANN), second)
    assert [action for action, _ in await told(service, account)] == ["account.connected"]


async def test_a_default_that_moves_is_told_at_both(db: Database, account: UUID) -> None:
    service = service_on(db)
    second = (await service.connect(at(ANN), request("second@example.test"))).id
    await service.changes.change(at(ANN), second, ChangeRequest(make_default=True, name="Second"))
    assert (await told(service, account))[0] == ("account.changed", {"is_default": False})
    assert (await told(service, second))[0] == ("account.changed", {"name": "Second", "is_default": True})
