"""The model of sharing: what an order of requests makes, that no order makes what must not be, and what may be lost."""

from collections.abc import Collection
from typing import Any

import pytest
import trio

from ops.soak.sharing_client import Users
from ops.soak.sharing_model import (
    Accept,
    Action,
    Answer,
    Change,
    Connect,
    Decline,
    Disconnect,
    Expire,
    Invite,
    TakeBack,
    Unshare,
    World,
    apply,
    world,
)
from ops.soak.sharing_play import PEOPLE, Differs, Play
from ops.soak.sharing_seen import Seen, name, orders, seen

OWNERS = {"one": "ann", "two": "ann", "three": "bob"}
OK, GONE = Answer(200), Answer(404, "not_found")


def made(*actions: Action) -> World:
    """A world in which this was done, each of which the model allows; invitations are `inv1` and so on."""
    found = world(OWNERS)
    for number, action in enumerate(actions):
        assert apply(found, action, f"inv{number}").status == 200, action
    return found


def asked(now: World, *told: tuple[Action, Answer | None]) -> list[World]:
    found: list[World] = []
    for each in orders(now, told):
        if each not in found:
            found.append(each)
    return found


INVITED = (Invite("ann", "one", "cid", "member"),)
ACCEPT, TAKE_BACK = Accept("cid", "inv0"), TakeBack("ann", "one", "inv0")


@pytest.mark.parametrize(("accepted", "taken", "worlds"), [
    (Answer(200, "one"), GONE, 1), (GONE, OK, 1), (Answer(200, "one"), OK, 0), (GONE, GONE, 0),
    (None, OK, 1), (None, GONE, 1), (None, None, 3),
])  # fmt: skip
def test_one_of_two_takes_the_invitation(accepted: Answer | None, taken: Answer | None, worlds: int) -> None:
    found = asked(made(*INVITED), (ACCEPT, accepted), (TAKE_BACK, taken))
    assert len(found) == worlds
    if accepted is not None and accepted.status == 200:
        assert all(seen(each, "cid", OWNERS).listed == [("one", ("member", False, "one"))] for each in found)
    if taken == OK:
        assert all(seen(each, "cid", OWNERS).listed == [] == list(seen(each, "cid", OWNERS).pending) for each in found)


def test_the_default_goes_to_the_oldest_and_does_not_come_back() -> None:
    now = made(Disconnect("ann", "one"), Connect("ann", "one"))
    assert [(key, shown[1]) for key, shown in seen(now, "ann", OWNERS).listed] == [("one", False), ("two", True)]
    assert apply(now, Change("ann", "one", default=True)) == Answer(200, ("owner", True, "one"))
    assert not now.accounts["two"].is_default
    assert now.accounts["three"].is_default


def test_a_default_that_moves_is_noted_at_both() -> None:
    now = made(Change("ann", "two", "Mine", default=True), Change("ann", "two", "Mine", default=True))
    connected = ("account.connected", "ann", {"revived": False})
    assert now.accounts["one"].audit == [connected, ("account.changed", "ann", {"is_default": False})]
    assert now.accounts["two"].audit == [connected, ("account.changed", "ann", {"name": "Mine", "is_default": True})]
    apply(now, Disconnect("ann", "two"))
    assert now.accounts["one"].audit[-1] == ("account.changed", "ann", {"is_default": True})
    assert now.accounts["two"].audit[-1] == ("account.disconnected", "ann", {"shares": 0, "invitations": 0})
    apply(now, Connect("ann", "two"))
    assert now.accounts["two"].audit[-1] == ("account.connected", "ann", {"revived": True})
    assert now.accounts["two"].shown("ann") == ("owner", False, "Mine")
    assert len(now.accounts["three"].audit) == 1


def test_what_each_may_see() -> None:
    now = made(*INVITED, ACCEPT, Invite("ann", "one", "bob", "admin"))
    member, stranger, owner = (seen(now, who, OWNERS).accounts["one"] for who in ("cid", "eve", "ann"))
    assert (member.shares, member.invitations, member.audit) == (403, 403, 403)
    assert (stranger.one, stranger.shares, stranger.invitations, stranger.audit) == (404,) * 4
    assert (owner.shares, owner.invitations) == ({"cid": "member"}, {"inv2": ("bob", "admin")})
    assert seen(now, "bob", OWNERS).pending == {"inv2": ("one", "admin")}
    apply(now, Disconnect("ann", "one"))
    assert seen(now, "cid", OWNERS) == Seen([], {}, [], dict.fromkeys(OWNERS, stranger))
    gone = seen(now, "ann", OWNERS).accounts["one"]
    assert (gone.one, gone.shares) == (404, 404)
    assert not isinstance(gone.audit, int)
    assert gone.audit[0] == ("account.disconnected", "ann", {"shares": 1, "invitations": 1})


@pytest.mark.parametrize(("done", "action", "answer"), [
    ((), Invite("ann", "one", "ann", "member"), Answer(409, "own_address")),
    (INVITED, INVITED[0], Answer(409, "already_invited")),
    ((*INVITED, Expire("inv0")), ACCEPT, GONE),
    ((*INVITED, ACCEPT), INVITED[0], Answer(409, "already_shared")),
    ((*INVITED, ACCEPT), ACCEPT, Answer(200, "one")),
    ((*INVITED, ACCEPT), Decline("cid", "inv0"), GONE),
    ((*INVITED, ACCEPT), Change("cid", "one", "Mine"), Answer(403, "not_allowed")),
    ((*INVITED, ACCEPT, Unshare("cid", "one", "cid")), ACCEPT, GONE),
    ((*INVITED, ACCEPT), Unshare("cid", "one", "eve"), Answer(403, "not_allowed")),
    ((), Unshare("ann", "one", "ann"), GONE),
    ((), Connect("ann", "one"), Answer(409, "already_connected")),
])  # fmt: skip
def test_single_answers(done: tuple[Action, ...], action: Action, answer: Answer) -> None:
    assert apply(made(*done), action) == answer


def test_an_invitation_whose_answer_was_lost_gets_its_name_where_it_is_seen() -> None:
    without, there = asked(world(OWNERS), (INVITED[0], None))
    assert (without.invitations, len(there.invitations)) == ({}, 1)
    for each in (without, there):
        name(each, {"inv7": ("cid", "member")}, "one")
    assert without.invitations == {}
    assert list(there.invitations) == ["inv7"]


class Script(Users):
    """A daemon that answers from a list, and shows what a world says."""

    def __init__(self, shown: World, *answers: Answer) -> None:
        super().__init__("", dict.fromkeys(PEOPLE), {}, trio.sleep)  # type: ignore[arg-type]
        self.shown, self.answers = shown, list(answers)

    async def do(self, action: Action) -> Answer | None:
        return self.answers.pop(0)

    async def look(self, who: str, accounts: Collection[str]) -> Seen:
        return seen(self.shown, who, accounts)


@pytest.mark.parametrize(("shown", "answer", "told"), [
    (made(*INVITED), Answer(200, ("cid", "member"), "inv0"), None),
    (made(*INVITED), Answer(403, "not_allowed"), "No order gives these answers"),
    (made(), Answer(200, ("cid", "member"), "inv0"), "ann is shown"),
    (made(*INVITED, ACCEPT), Answer(200, ("cid", "member"), "inv0"), "cid is shown"),
])  # fmt: skip
async def test_a_daemon_that_differs_is_told_of(shown: World, answer: Answer, told: str | None) -> None:
    play: Any = Play(Script(shown, answer), OWNERS)
    if told is None:
        await play.step(INVITED)
        assert play.known == ["inv0"]
        return
    with pytest.raises(Differs, match=told):
        await play.step(INVITED)
