"""The rules of sharing, whole: every role and every act, and who can be invited."""

import pytest

from daemon.sharing.rules import (
    ALLOWED,
    MOST_PENDING,
    Access,
    AccountNotFound,
    Act,
    CannotInvite,
    Conflict,
    NotAllowed,
    demand,
    judge_invitation,
)

ROLES: tuple[Access, ...] = ("owner", "admin", "member")


def outcome(act: Act, access: Access | None) -> str:
    try:
        demand(act, access)
    except AccountNotFound:
        return "404"
    except NotAllowed:
        return "403"
    return "yes"


def test_every_act_has_its_rule() -> None:
    assert set(ALLOWED) == set(Act)
    assert all(ALLOWED[act] <= set(ROLES) and ALLOWED[act] for act in Act)


@pytest.mark.parametrize("act", Act)
def test_a_stranger_finds_nothing(act: Act) -> None:
    assert outcome(act, None) == "404"


@pytest.mark.parametrize(
    ("act", "owner", "admin", "member"),
    [
        (Act.SEE, "yes", "yes", "yes"),
        (Act.SYNC, "yes", "yes", "403"),
        (Act.CHANGE, "yes", "yes", "403"),
        (Act.CHANGE_CREDENTIALS, "yes", "403", "403"),
        (Act.MAKE_DEFAULT, "yes", "403", "403"),
        (Act.INVITE, "yes", "403", "403"),
        (Act.LIST_INVITATIONS, "yes", "403", "403"),
        (Act.REVOKE_INVITATION, "yes", "403", "403"),
        (Act.LIST_SHARES, "yes", "403", "403"),
        (Act.REVOKE_SHARE, "yes", "403", "403"),
        (Act.LEAVE, "404", "yes", "yes"),
        (Act.AUDIT, "yes", "403", "403"),
        (Act.CAMPAIGN, "yes", "yes", "yes"),
        (Act.DISCONNECT, "yes", "404", "404"),
    ],
)
def test_what_each_role_may(act: Act, owner: str, admin: str, member: str) -> None:
    assert [outcome(act, role) for role in ROLES] == [owner, admin, member]


@pytest.mark.parametrize(
    ("invitee", "has_access", "pending", "open_invitations", "conflict"),
    [
        ("me", False, False, 0, Conflict.ONESELF),
        ("you", True, True, 0, Conflict.SHARED),
        ("you", False, True, MOST_PENDING, Conflict.INVITED),
        ("you", False, False, MOST_PENDING, Conflict.TOO_MANY),
        ("you", False, False, MOST_PENDING - 1, None),
    ],
)
def test_who_can_be_invited(
    invitee: str, has_access: bool, pending: bool, open_invitations: int, conflict: Conflict | None
) -> None:
    def judge() -> None:
        judge_invitation(invitee, "me", has_access=has_access, pending=pending, open_invitations=open_invitations)

    if conflict is None:
        judge()
        return
    with pytest.raises(CannotInvite) as caught:
        judge()
    assert caught.value.conflict is conflict
