"""A play of several users: what they do, chosen by chance, and the daemon held against the model after each step.

    choose ──actions, one or several at once──► Users (HTTP) ──answers──► the worlds that they may have made
                                                     └──── what everybody is shown ────► those of them that are so

None left is a fault of the daemon's.  Whatever chooses is given as `Pick`: a random generator, or Hypothesis.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from copy import deepcopy
from enum import StrEnum
from functools import partial
from pprint import pformat
from typing import Any, Final, TypeVar

import trio

from .sharing_client import Users, Wrong
from .sharing_model import (
    Accept,
    Action,
    Change,
    Connect,
    Decline,
    Disconnect,
    Expire,
    Invite,
    TakeBack,
    Unshare,
    World,
    world,
)
from .sharing_seen import Seen, name, orders, seen, touched

T = TypeVar("T")
R = TypeVar("R")

Pick = Callable[[Sequence[Any]], Any]
"""Chooses one of several."""

OWNERS: Final = {"ann": 2, "bob": 1}
"""Who has how many accounts: with two of them the default one has where to go."""

PEOPLE: Final = ("ann", "bob", "cid", "eve")
"""Owners are invited, too, to each other's accounts."""

NOBODYS: Final = "inv_" + "0" * 32
"""An invitation that there never was."""

NAMES: Final = ("Ours", "Théo's ✉")
"""What accounts are called besides their address."""

WHOLE_EVERY: Final = 5
"""Steps after which everybody looks at every account one by one."""

REMEMBERED: Final = 40
"""Steps that are told when something is wrong."""


RECENT: Final = 10
"""Invitations that are answered whatever has become of them."""


class Differs(Exception):
    """The daemon does not do what the model does."""


class Kind(StrEnum):
    """What can be done."""

    INVITE = "invite"
    ACCEPT = "accept"
    DECLINE = "decline"
    TAKE_BACK = "take_back"
    UNSHARE = "unshare"
    DISCONNECT = "disconnect"
    CONNECT = "connect"
    CHANGE = "change"
    EXPIRE = "expire"


OFTEN: Final[Mapping[Kind, int]] = {
    Kind.INVITE: 6, Kind.ACCEPT: 6, Kind.DECLINE: 1, Kind.TAKE_BACK: 2, Kind.UNSHARE: 3, Kind.DISCONNECT: 1,
    Kind.CONNECT: 2, Kind.CHANGE: 3, Kind.EXPIRE: 1,
}  # fmt: skip
"""How often each is chosen, relative to its fellows: more is given than taken, so that there is something to take."""

KINDS: Final = tuple(kind for kind, often in OFTEN.items() for _ in range(often))

def _each(*several: str) -> tuple[tuple[Kind, ...], ...]:
    return tuple(tuple(map(Kind, words.split())) for words in several)


DUELS: Final = _each(
    "accept take_back", "accept disconnect", "accept accept", "accept decline", "accept unshare", "accept change",
    "invite invite", "invite disconnect", "invite accept", "take_back disconnect", "take_back decline",
    "unshare unshare", "unshare disconnect", "unshare invite", "change change", "change disconnect", "change unshare",
    "disconnect disconnect", "accept take_back disconnect", "accept accept unshare", "change change disconnect",
    "invite accept disconnect",
)  # fmt: skip
"""What may meet: one takes what the other needs, or both want the same."""

REVIVALS: Final = _each("connect", "connect connect", "connect change", "connect invite", "connect disconnect")
"""How a disconnected account comes back."""

_ANSWERS: Final = frozenset({Kind.ACCEPT, Kind.DECLINE, Kind.TAKE_BACK, Kind.EXPIRE})


def what_next(now: World, pick: Pick) -> Sequence[Kind]:
    """Kinds of what is done next, at the same time when there are several; what there is not comes to be, half of
    the time, so that there is something to take away.
    """
    accounts = now.accounts.values()
    if not all(each.connected for each in accounts) and pick((True, False)):
        return _picked(pick, REVIVALS)
    if not any(each.is_open for each in now.invitations.values()) and pick((True, False)):
        return (Kind.INVITE,)
    if not any(each.shares for each in accounts) and pick((True, False)):
        return (Kind.ACCEPT,)
    return (pick(KINDS),) if pick((True, False)) else _picked(pick, DUELS)


def _picked(pick: Pick, of: Sequence[Sequence[Kind]]) -> Sequence[Kind]:
    found: Sequence[Kind] = pick(of)
    return found


def choose(kinds: Sequence[Kind], now: World, known: Sequence[str], pick: Pick) -> list[Action]:
    """One thing of each kind, all about one account and one invitation (changes: about the owner's others, too, for the
    default moves between them); mostly by who may do it.
    """
    accounts = list(now.accounts)
    account = pick([each for each in accounts if _apt(kinds, now, each)] * 8 + accounts)
    about = [key for key, each in now.invitations.items() if each.account == account]
    invitation = pick([*now.open_to(account)] * 12 + about * 4 + [*known[-RECENT:], NOBODYS])
    return [_choose(kind, now, account, invitation, pick) for kind in kinds]


def _apt(kinds: Sequence[Kind], now: World, account: str) -> bool:
    """Whether such things are likely to succeed with an account."""
    if Kind.CONNECT in kinds:
        return not now.accounts[account].connected
    if _ANSWERS.intersection(kinds):
        return bool(now.open_to(account))
    return bool(now.accounts[account].shares) if Kind.UNSHARE in kinds else now.accounts[account].connected


def _choose(kind: Kind, now: World, account: str, invitation: str, pick: Pick) -> Action:
    found, owner = now.invitations.get(invitation), now.accounts[account].owner
    owners = (owner,) * 16 + PEOPLE
    invitees = ((found.whom,) * 16 if found is not None else ()) + PEOPLE
    sharers = list(now.accounts[account].shares)
    match kind:
        case Kind.INVITE:
            whom = found.whom if found is not None and pick((True, False)) else pick(PEOPLE)
            return Invite(pick(owners), account, whom, pick(("admin", "member")), pick((False, True)))
        case Kind.ACCEPT:
            return Accept(pick(invitees), invitation)
        case Kind.DECLINE:
            return Decline(pick(invitees), invitation)
        case Kind.TAKE_BACK:
            return TakeBack(pick(owners), account, invitation)
        case Kind.UNSHARE:
            whom = pick(sharers * 6 + [*PEOPLE])
            return Unshare(pick((owner,) * 4 + (whom,) * 4 + PEOPLE), account, whom)
        case Kind.DISCONNECT:
            return Disconnect(pick(owners), account)
        case Kind.CONNECT:
            return Connect(owner, account)
        case Kind.CHANGE:
            new_name = pick((None, account, *NAMES))
            default = pick((True, False)) if new_name is not None else True
            of = pick([account, *(key for key, each in now.accounts.items() if each.owner == owner)])
            return Change(pick([owner, owner, *sharers * 2, *PEOPLE]), of, new_name, default)
        case Kind.EXPIRE:
            return Expire(invitation)


class Play:
    """One daemon, its users, and what the model knows of them."""

    def __init__(self, users: Users, owners: Mapping[str, str]) -> None:
        """*owners*: whose each account is, by its address in the order in which they are connected."""
        self.users = users
        self.worlds = [world(owners)]
        self.known: list[str] = []
        """All invitations whose id anybody was ever told."""
        self.counted: Counter[str] = Counter()
        self.steps = 0
        self._owners = owners
        self._past: deque[str] = deque(maxlen=REMEMBERED)

    @property
    def now(self) -> World:
        """What is so: one of the worlds that there may be."""
        return self.worlds[0]

    async def begin(self) -> None:
        """Connect the accounts.

        Raises:
            Wrong, Differs: something is not as it must be.
        """
        for who in self.users.people:  # who was never seen is known to nobody: their share would have no address
            await self.users.do(Accept(who, NOBODYS))
        await self.users.connect_first(self._owners)
        await self.look()

    async def ask(self, actions: Sequence[Action]) -> None:
        """Do things at the same time, and see which worlds that may have made.

        Raises:
            Wrong, Differs: something is not as it must be.
        """
        told = list(zip(actions, await _at_once(self.users.do, actions), strict=True))
        self._past.append("\n    at the same time ".join(f"{action} -> {answer}" for action, answer in told))
        for action, answer in told:
            self.counted[f"{type(action).__name__} {answer.status if answer is not None else 'lost'}"] += 1
            if answer is not None and answer.made:
                self.known.append(answer.made)
        before = self.worlds
        self.worlds = [after for each in before for after in orders(each, told)]
        if not self.worlds:
            raise Differs(self._wrong("No order gives these answers", pformat(before[0], width=118)))

    async def look(self, accounts: Collection[str] | None = None) -> None:
        """See what everybody is shown, and keep the worlds in which that is so.

        All lists are looked at; *accounts* one by one, all of them when there are none given.

        Raises:
            Wrong, Differs: something is not as it must be.
        """
        everybody = list(self.users.people)
        chosen = self._owners if accounts is None else accounts
        shown = dict(zip(everybody, await _at_once(partial(self.users.look, accounts=chosen), everybody), strict=True))
        holding: list[World] = []
        for each in map(deepcopy, self.worlds):
            self._name(each, shown)
            if each not in holding and all(seen(each, who, chosen) == found for who, found in shown.items()):
                holding.append(each)
        if not holding:
            first = self.worlds[0]
            expected = {who: seen(first, who, chosen) for who in everybody}
            differences = [
                f"{who} is shown\n{pformat(found, width=118)}\nand should be\n{pformat(expected[who], width=118)}"
                for who, found in shown.items()
                if found != expected[who]
            ]
            raise Differs(self._wrong("Somebody is shown what is not so", "\n".join(differences)))
        self.worlds = holding
        self.known += [key for key in holding[0].invitations if key not in self.known]

    async def step(self, actions: Sequence[Action]) -> None:
        """`ask`, then `look`: at all accounts now and then, else at those that it was about.

        Raises:
            Wrong, Differs: something is not as it must be.
        """
        self.steps += 1
        about = {touched(each, action) for each in self.worlds for action in actions} - {None}
        await self.ask(actions)
        await self.look(None if self.steps % WHOLE_EVERY == 0 else [each for each in about if each is not None])

    def _name(self, each: World, shown: Mapping[str, Seen]) -> None:
        for account, owner in self._owners.items():
            looked = shown[owner].accounts.get(account)
            if looked is not None and not isinstance(looked.invitations, int):
                name(each, looked.invitations, account)

    def _wrong(self, what: str, more: str) -> str:
        past = "\n  ".join(self._past)
        return f"{what}:\n{more}\nafter\n  {past}"  # in this order: a report keeps the beginning


async def _at_once(do: Callable[[T], Awaitable[R]], given: Sequence[T]) -> list[R]:
    """All of it at the same time; the first thing that was wrong, once all have ended."""
    done: dict[int, R] = {}
    wrong: list[Wrong] = []

    async def one(number: int, each: T) -> None:
        try:
            done[number] = await do(each)
        except Wrong as exc:
            wrong.append(exc)

    async with trio.open_nursery() as nursery:
        for number, each in enumerate(given):
            nursery.start_soon(one, number, each)
    if wrong:
        raise wrong[0]
    return [done[number] for number in range(len(given))]
