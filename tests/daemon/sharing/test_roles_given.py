"""An invitation gives the role that it names, whatever address its invitee had before; and none to its own owner."""

from dataclasses import replace
from uuid import UUID

import pytest

from daemon.identity import users_store
from daemon.sharing.rules import Access, InvitationNotFound
from daemon.sharing.service import SharingService
from daemon.sharing.views import Caller
from daemon.storage.database import Database
from tests.daemon.account.running import execute
from tests.daemon.sharing.test_sharing import ANN, OWNER, account, service
from tests.stored import one

__all__ = ["account", "service"]


async def moved(db: Database, caller: Caller, email: str) -> Caller:
    """The same user with another address."""
    now = replace(caller, user=replace(caller.user, email=email))
    await db.run(lambda conn: users_store.remember(conn, now.user))
    return now


@pytest.mark.parametrize(("had", "given"), [("member", "admin"), ("admin", "member"), ("admin", "admin")])
async def test_who_has_a_role_has_the_one_that_they_accept(
    db: Database, service: SharingService, account: UUID, had: Access, given: Access
) -> None:
    await execute(db, "INSERT INTO account_access VALUES (%s, 'ann', %s)", account, had)
    made = await service.invite(OWNER, account, "ann.new@example.test", given)
    ann = await moved(db, ANN, "ann.new@example.test")
    (received,) = await service.received(ann)
    assert (received.id, received.role, received.expires_at) == (made.id, given, made.expires_at)
    for _ in range(2):
        assert await service.accept(ann, made.id) == account
    assert [(share.user_id, share.role) for share in await service.shares(OWNER, account)] == [("ann", given)]
    entry = (await service.audit(OWNER, account, None))[0]
    assert (entry.action, entry.user_id, entry.detail) == (
        "invitation.accepted", "ann", {"invitation_id": made.id, "role": given},
    )  # fmt: skip
    assert await one(db, "SELECT count(*) FROM audit WHERE action = 'invitation.accepted'") == 1


@pytest.mark.parametrize("role", ["member", "admin"])
async def test_the_owner_gets_no_role_of_their_own_giving(
    db: Database, service: SharingService, account: UUID, role: Access
) -> None:
    """Invited by another address of theirs, which is theirs to have: they have it now."""
    made = await service.invite(OWNER, account, "Owner.New@example.test", role)
    owner = await moved(db, OWNER, "owner.new@example.test")
    assert list(await service.received(owner)) == []
    for answer in (service.accept, service.decline):
        with pytest.raises(InvitationNotFound):
            await answer(owner, made.id)
    assert await one(db, "SELECT string_agg(user_id || ' ' || role, ',') FROM account_access") == "owner owner"
    assert await one(db, "SELECT string_agg(action, ' ') FROM audit") == "invitation.created"
    assert [each.id for each in await service.invitations(owner, account)] == [made.id]
    await service.revoke_invitation(owner, account, made.id)  # it is theirs to take back
    assert list(await service.invitations(owner, account)) == []
