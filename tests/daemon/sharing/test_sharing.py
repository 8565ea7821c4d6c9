"""Invitations and shares on a real database: who may, what each sees, and that nothing of it can be had twice."""

from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import pytest
import trio

from daemon.identity import User, users_store
from daemon.identity.rates import Allowance, Rate, RateExceeded
from daemon.sharing.rules import (
    AccountNotFound,
    CannotInvite,
    Conflict,
    InvitationNotFound,
    NotAllowed,
    ShareNotFound,
)
from daemon.sharing.service import SharingService
from daemon.sharing.views import Caller
from daemon.storage.database import Database
from daemon.storage.requests import Requests
from tests.daemon.account.running import add_account, execute
from tests.stored import one

OWNER = Caller(User("owner", "owner@example.test", "The Owner", "free"), "192.0.2.1")
ANN = Caller(User("ann", "Ann@Example.test", "Ann", "free"), "192.0.2.2")
BOB = Caller(User("bob", "bob@example.test", "Bob", "free"), "192.0.2.3")
NOBODY = Caller(User("phone", "", "", "free"), "")


@pytest.fixture
async def service(db: Database) -> SharingService:
    for caller in (OWNER, ANN, BOB, NOBODY):
        await db.run(lambda conn, user=caller.user: users_store.remember(conn, user))  # type: ignore[misc]
    return SharingService(Requests(db, migrated=lambda: True), Rate("invite.user", 1000, 86400.0))


@pytest.fixture
async def account(db: Database, service: SharingService) -> UUID:
    del service
    return (await add_account(db, "box@example.test", 993, "pw", owner="owner")).account_id


async def outcomes(*asked: Callable[[], Awaitable[object]]) -> list[object]:
    found: list[object] = []

    async def one_of(ask: Callable[[], Awaitable[object]]) -> None:
        try:
            found.append(await ask())
        except Exception as exc:  # noqa: BLE001  # that is the outcome
            found.append(exc)

    async with trio.open_nursery() as nursery:
        for ask in asked:
            nursery.start_soon(one_of, ask)
    return found


async def test_an_invitation_is_received_and_accepted_and_is_a_share(
    db: Database, service: SharingService, account: UUID
) -> None:
    made = await service.invite(OWNER, account, "ANN@example.TEST", "admin")
    assert made.id.startswith("inv_")
    assert (made.expires_at - made.created_at).days == 31
    assert [each.id for each in await service.invitations(OWNER, account)] == [made.id]
    (received,) = await service.received(ANN)
    assert (received.id, received.account_email, received.inviter_name) == (made.id, "box@example.test", "The Owner")
    assert await service.received(BOB) == []
    assert await service.received(NOBODY) == ()
    assert await service.accept(ANN, made.id) == account
    assert await service.accept(ANN, made.id) == account, "again is the same"
    assert await service.invitations(OWNER, account) == []
    assert await service.received(ANN) == []
    (share,) = await service.shares(OWNER, account)
    assert (share.user_id, share.email, share.role) == ("ann", "Ann@Example.test", "admin")
    actions = [(entry.action, entry.user_id, entry.client) for entry in await service.audit(OWNER, account, None)]
    assert actions == [("invitation.accepted", "ann", "192.0.2.2"), ("invitation.created", "owner", "192.0.2.1")]
    assert await one(db, "SELECT count(*) FROM account_access WHERE role = 'admin'") == 1


async def test_who_cannot_be_invited(db: Database, service: SharingService, account: UUID) -> None:
    async def conflict(email: str) -> Conflict:
        with pytest.raises(CannotInvite) as caught:
            await service.invite(OWNER, account, email, "member")
        return caught.value.conflict

    assert await conflict(" Owner@example.test ") is Conflict.ONESELF
    made = await service.invite(OWNER, account, "ann@example.test", "member")
    assert await conflict("ANN@example.test") is Conflict.INVITED
    await service.accept(ANN, made.id)
    assert await conflict("ann@example.test") is Conflict.SHARED
    await execute(db, "UPDATE invitations SET status = 'pending', settled_at = NULL, invitee_normal = 'x' || id")
    for number in range(99):
        await service.invite(OWNER, account, f"guest{number}@example.test", "member")
    assert await conflict("one.too.many@example.test") is Conflict.TOO_MANY


@pytest.mark.parametrize("end", ["declined", "revoked", "expired", "disconnected", "somebody else's", "unknown"])
async def test_an_invitation_that_is_not_open_is_none(
    db: Database, service: SharingService, account: UUID, end: str
) -> None:
    made = await service.invite(OWNER, account, "ann@example.test", "member")
    caller, wanted = ANN, made.id
    if end == "declined":
        await service.decline(ANN, made.id)
    elif end == "revoked":
        await service.revoke_invitation(OWNER, account, made.id)
    elif end == "expired":
        await execute(db, "UPDATE invitations SET created_at = now() - interval '32 d', expires_at = now()")
    elif end == "disconnected":
        await execute(
            db, "UPDATE accounts SET desired = 'removed', removed_at = now(), is_default = false WHERE id = %s", account
        )
    elif end == "unknown":
        wanted = "inv_" + "0" * 32
    else:
        caller = BOB
    for attempt in (service.accept, service.decline):
        with pytest.raises(InvitationNotFound):
            await attempt(caller, wanted)
    assert await one(db, "SELECT count(*) FROM account_access WHERE role <> 'owner'") == 0
    if end not in {"somebody else's", "unknown"}:
        assert await service.received(ANN) == []
    if end in {"declined", "revoked", "expired"}:
        assert await service.invitations(OWNER, account) == []
        again = await service.invite(OWNER, account, "ann@example.test", "member")
        assert await service.accept(ANN, again.id) == account


async def test_a_share_is_taken_back_and_given_back(db: Database, service: SharingService, account: UUID) -> None:
    for caller in (ANN, BOB):
        made = await service.invite(OWNER, account, caller.user.email, "member")
        await service.accept(caller, made.id)
    with pytest.raises(NotAllowed):
        await service.revoke_share(ANN, account, "bob")
    await service.revoke_share(OWNER, account, "ann")
    with pytest.raises(ShareNotFound):
        await service.revoke_share(OWNER, account, "ann")
    with pytest.raises(ShareNotFound):
        await service.revoke_share(OWNER, account, "owner")
    with pytest.raises(AccountNotFound):
        await service.revoke_share(ANN, account, "ann")
    await service.revoke_share(BOB, account, "bob")
    assert await service.shares(OWNER, account) == []
    assert await one(db, "SELECT string_agg(action, ' ' ORDER BY id) FROM audit WHERE action LIKE 'share%%'") == (
        "share.revoked share.left"
    )


@pytest.mark.parametrize("role", ["member", "admin", None])
async def test_only_the_owner_sees_and_gives(
    db: Database, service: SharingService, account: UUID, role: str | None
) -> None:
    if role is not None:
        await execute(db, "INSERT INTO account_access VALUES (%s, 'ann', %s)", account, role)
    expected = NotAllowed if role is not None else AccountNotFound
    for wanted in (account, uuid4()):
        asked: tuple[Callable[[UUID], Awaitable[object]], ...] = (
            lambda of: service.invite(ANN, of, "bob@example.test", "member"),
            lambda of: service.invitations(ANN, of),
            lambda of: service.revoke_invitation(ANN, of, "inv_00000000"),
            lambda of: service.shares(ANN, of),
            lambda of: service.revoke_share(ANN, of, "bob"),
            lambda of: service.audit(ANN, of, None),
        )
        for ask in asked:
            with pytest.raises(expected if wanted == account else AccountNotFound):
                await ask(wanted)


async def test_a_hundred_accept_at_once_and_it_is_one_share(
    db: Database, service: SharingService, account: UUID
) -> None:
    made = await service.invite(OWNER, account, "ann@example.test", "member")
    found = await outcomes(*(lambda: service.accept(ANN, made.id) for _ in range(100)))
    assert found == [account] * 100
    assert await one(db, "SELECT count(*) FROM account_access WHERE user_id = 'ann'") == 1
    assert await one(db, "SELECT count(*) FROM audit WHERE action = 'invitation.accepted'") == 1


async def test_accepted_and_revoked_at_once_it_is_one_of_both(
    db: Database, service: SharingService, account: UUID
) -> None:
    for _ in range(20):
        made = await service.invite(OWNER, account, "ann@example.test", "member")
        accepted, revoked = 0, 0

        async def accept(invitation: str = made.id) -> None:
            nonlocal accepted
            await service.accept(ANN, invitation)
            accepted += 1

        async def revoke(invitation: str = made.id) -> None:
            nonlocal revoked
            await service.revoke_invitation(OWNER, account, invitation)
            revoked += 1

        await outcomes(accept, revoke)
        assert accepted + revoked == 1
        assert await one(db, "SELECT count(*) FROM account_access WHERE user_id = 'ann'") == accepted
        await execute(db, "DELETE FROM account_access WHERE user_id = 'ann'")


async def test_invitations_are_counted(db: Database, account: UUID) -> None:
    limited = SharingService(Requests(db, migrated=lambda: True), Rate("invite.user", 2, 3600.0))
    stood: list[Allowance] = []
    for name in ("a", "b"):
        await limited.invite(OWNER, account, f"{name}@example.test", "member", stood.append)
    assert [each.remaining for each in stood] == [1, 0]
    with pytest.raises(RateExceeded) as caught:
        await limited.invite(OWNER, account, "c@example.test", "member", stood.append)
    allowance = caught.value.allowance
    assert allowance.retry_after == pytest.approx(1800, abs=5)
    with pytest.raises(AccountNotFound):
        await limited.invite(ANN, account, "c@example.test", "member", stood.append)
    assert stood[-1].remaining == 1, "of each caller"
