"""Several users of one daemon over HTTP: what they ask, in the words of `sharing_model`, and all that each is shown.

An answer that did not come, or says that the database is away, is lost: the request may have been carried out or not.
Where nothing fails that is a fault of the daemon's; where it is killed again and again it is to be expected.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final, Self

import httpx
import trio

from .sharing_model import (
    TOLD,
    Accept,
    Action,
    Answer,
    Change,
    Connect,
    Decline,
    Disconnect,
    Expire,
    Invite,
    Noted,
    TakeBack,
    Unshare,
)
from .sharing_seen import Looked, Seen

ANSWERS_WITHIN: Final = 60.0
"""Seconds for one request: to connect takes two servers' answers, on a machine that others use too."""

LOOKS_WITHIN: Final = 60.0
"""Seconds until a look has every answer after something was killed."""

AGAIN: Final = 0.1
"""Seconds between two tries of it."""


class Wrong(Exception):
    """An answer that no request may get."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who signs in."""

    id: str
    email: str
    cookie: str


@dataclass
class Users:
    """What users do.

    Attributes:
        url: where the API is now.
        people: by the model's name.
        mailboxes: bodies that connect accounts, by their address.
        expire: moves the end of an invitation, by its id, into the past.
        lossy: whether answers may be lost.
    """

    url: str
    people: Mapping[str, Person]
    mailboxes: Mapping[str, Mapping[str, object]]
    expire: Callable[[str], Awaitable[None]]
    lossy: bool = False
    ids: dict[str, str] = field(default_factory=dict)
    """Of accounts, by their address."""
    requests: int = 0
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _clients: dict[str, httpx.AsyncClient] = field(default_factory=dict)

    async def __aenter__(self) -> Self:
        for who, person in self.people.items():
            client = httpx.AsyncClient(headers={"Cookie": person.cookie}, timeout=ANSWERS_WITHIN)
            self._clients[who] = await self._stack.enter_async_context(client)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    # -- what they do ----------------------------------------------------------------------------------------------

    async def connect_first(self, owners: Mapping[str, str]) -> None:
        """Connect accounts that nobody has had before.

        Raises:
            Wrong: one was not accepted.
        """
        for account, owner in owners.items():
            answer = await self._ask(owner, "POST", "/mail/accounts", self.mailboxes[account])
            if answer is None or answer.status_code != httpx.codes.OK:
                raise Wrong(f"{account} cannot be connected: {answer and answer.text}")
            self.ids[account] = answer.json()["account"]["id"]

    async def do(self, action: Action) -> Answer | None:
        """Ask for something; None when the answer was lost.

        Raises:
            Wrong: an answer that no request may get.
        """
        if isinstance(action, Expire):
            await self.expire(action.invitation)
            return Answer(200)
        method, path, body = self._request(action)
        given = await self._ask(action.who, method, path, body)
        if given is None:
            return None
        if given.status_code != httpx.codes.OK:
            return Answer(given.status_code, _document(given).get("code"))
        return self._told(action, _document(given))

    def _request(self, action: Action) -> tuple[str, str, Mapping[str, object] | None]:
        """Method, path and body."""
        match action:
            case Invite(_, account, whom, role, shout):
                email = self.people[whom].email
                body = {"email": email.upper() if shout else email, "role": role}
                return "POST", f"{self._item(account)}/invitations", body
            case Accept(_, invitation):
                return "POST", "/mail/invitations/accept", {"invitation_id": invitation}
            case Decline(_, invitation):
                return "POST", "/mail/invitations/decline", {"invitation_id": invitation}
            case TakeBack(_, account, invitation):
                return "DELETE", f"{self._item(account)}/invitations/{invitation}", None
            case Unshare(_, account, whom):
                return "DELETE", f"{self._item(account)}/shares/{self.people[whom].id}", None
            case Disconnect(_, account):
                return "DELETE", self._item(account), None
            case Connect(_, account):
                return "POST", "/mail/accounts", self.mailboxes[account]
            case Change(_, account, name, default):
                changes: dict[str, object] = {} if name is None else {"name": name}
                return "PATCH", self._item(account), changes | ({"is_default": True} if default else {})
            case Expire():
                raise AssertionError("no request")

    def _told(self, action: Action, said: Mapping[str, Any]) -> Answer:
        """What an answer says of what was done."""
        match action:
            case Invite():
                made = said["invitation"]
                return Answer(200, (self._who(made["invitee_email"]), made["role"]), made["id"])
            case Accept():
                return Answer(200, self._account(said["account_id"]))
            case Connect():
                return Answer(200, (self._account(said["account"]["id"]), said["account"]["sync_status"]))
            case Change():
                return Answer(200, _shown(said["account"]))
            case _:
                return Answer(200)

    # -- what they see ---------------------------------------------------------------------------------------------

    async def look(self, who: str, accounts: Collection[str]) -> Seen:
        """All lists that one user is shown, and what is said of some accounts one by one.

        Raises:
            Wrong: something cannot be had.
        """
        with trio.move_on_after(LOOKS_WITHIN):
            while True:
                listed = await self._get(who, "/mail/accounts")
                pending = await self._get(who, "/mail/invitations/pending")
                overview = await self._get(who, "/mail/sync")
                looked = {account: await self._look_at(who, account) for account in accounts}
                if all(isinstance(each, dict) for each in (listed, pending, overview)) and None not in looked.values():
                    break
                await trio.sleep(AGAIN)
            return Seen(
                listed=[(self._account(each["id"]), _shown(each)) for each in listed["accounts"]],
                pending={each["id"]: (each["account_email"], each["role"]) for each in pending["invitations"]},
                overview=[self._account(each["id"]) for each in overview["accounts"]],
                accounts={account: each for account, each in looked.items() if each is not None},
            )
        raise Wrong(f"{who} is shown nothing within {LOOKS_WITHIN:g} s")

    async def _look_at(self, who: str, account: str) -> Looked | None:
        item = self._item(account)
        one = await self._get(who, item)
        invitations = await self._get(who, f"{item}/invitations")
        shares = await self._get(who, f"{item}/shares")
        audit = await self._get(who, f"{item}/audit")
        if None in (one, invitations, shares, audit):
            return None
        if not isinstance(invitations, int):
            invitations = {
                each["id"]: (self._who(each["invitee_email"]), each["role"]) for each in invitations["invitations"]
            }
        if not isinstance(shares, int):
            shares = {self._by_id(each["user_id"]): each["role"] for each in shares["shares"]}
        if not isinstance(audit, int):
            audit = [self._noted(each) for each in audit["entries"]]
        return Looked(one if isinstance(one, int) else _shown(one["account"]), invitations, shares, audit)

    async def _get(self, who: str, path: str) -> Any:  # noqa: ANN401  # JSON
        """A document, the status of a refusal, or None when the answer was lost."""
        answer = await self._ask(who, "GET", path)
        if answer is None or answer.status_code == httpx.codes.OK:
            return answer and _document(answer)
        return answer.status_code

    # -- how they ask ----------------------------------------------------------------------------------------------

    async def _ask(
        self, who: str, method: str, path: str, body: Mapping[str, object] | None = None
    ) -> httpx.Response | None:
        self.requests += 1
        try:
            answer = await self._clients[who].request(method, f"{self.url}{path}", json=body)
        except httpx.TransportError as exc:
            if self.lossy:
                return None
            raise Wrong(f"{who}: {method} {path}: {exc!r}") from exc
        lost = answer.status_code == httpx.codes.SERVICE_UNAVAILABLE and self.lossy
        if not lost and (answer.status_code >= 500 or answer.status_code == httpx.codes.TOO_MANY_REQUESTS):
            raise Wrong(f"{who}: {method} {path}: {answer.status_code} {answer.text}")
        return None if lost else answer

    def _item(self, account: str) -> str:
        return f"/mail/accounts/{self.ids[account]}"

    def _account(self, account_id: str) -> str:
        """An account's address; of one that is not of this play its id, which the model never says."""
        return next((account for account, known in self.ids.items() if known == account_id), account_id)

    def _noted(self, entry: Mapping[str, Any]) -> Noted:
        action, told = entry["action"], entry["detail"]
        return action, self._by_id(entry["user_id"]), {key: told[key] for key in TOLD.get(action, ()) if key in told}

    def _who(self, email: str) -> str:
        return next((who for who, each in self.people.items() if each.email.casefold() == email.casefold()), email)

    def _by_id(self, user_id: str) -> str:
        return next((who for who, each in self.people.items() if each.id == user_id), user_id)


def _shown(account: Mapping[str, Any]) -> tuple[str, bool, str]:
    return account["access"], account["is_default"], account["name"]


def _document(answer: httpx.Response) -> dict[str, Any]:
    """The JSON of an answer.

    Raises:
        Wrong: it is none, or does not say whether it is a success.
    """
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("success", True) is not (answer.status_code == httpx.codes.OK):
        raise Wrong(f"{answer.status_code} with {answer.text[:300]!r}")
    return found
