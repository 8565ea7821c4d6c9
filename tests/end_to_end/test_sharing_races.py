"""Many at once over HTTP: accepts of one invitation, changes of the default account, connects of one address."""

import itertools
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Self
from uuid import uuid4

import httpx
import pytest
import trio

from control_api.limits import MAX_PER_CALLER
from tests.fix_daemon import COOKIE, DaemonProcess, MailServers, StartDaemon, make_token

LONG = 90.0

Answers = list[httpx.Response]


class Callers:
    """Signed-in callers of one daemon or of several, asynchronous."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def __call__(self, daemon: DaemonProcess, sub: str, **claims: Any) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None)
        cookies = {COOKIE: make_token(sub, **claims)}
        client = httpx.AsyncClient(base_url=daemon.api, cookies=cookies, timeout=LONG, limits=limits)
        return await self._stack.enter_async_context(client)


async def at_once(calls: Sequence[tuple[httpx.AsyncClient, str, str, Any]]) -> Answers:
    """All requests at the same time, as far as a caller may have them; the answers in the order of the calls."""
    answers: dict[int, httpx.Response] = {}
    places = {id(client): trio.CapacityLimiter(MAX_PER_CALLER) for client, *_ in calls}

    async def one(number: int, client: httpx.AsyncClient, method: str, path: str, body: Any) -> None:
        async with places[id(client)]:
            answers[number] = await client.request(method, path, json=body)

    async with trio.open_nursery() as nursery:
        for number, call in enumerate(calls):
            nursery.start_soon(one, number, *call)
    return [answers[number] for number in range(len(calls))]


def statuses(answers: Answers) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


async def connected(client: httpx.AsyncClient, body: dict[str, Any]) -> str:
    answer = await client.post("/mail/accounts", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["account"]["id"])


async def audited(client: httpx.AsyncClient, account_id: str) -> Counter[str]:
    """How often what was done."""
    answer = await client.get(f"/mail/accounts/{account_id}/audit")
    return Counter(entry["action"] for entry in answer.json()["entries"])


@pytest.fixture
def two_nodes(start_daemon: StartDaemon, mail: MailServers) -> tuple[DaemonProcess, DaemonProcess]:
    """Two daemons on one database."""
    plans = {"plans.free": {"accounts": 100}}
    return start_daemon(*mail.ports, **plans), start_daemon(*mail.ports, **plans)


# -- invitations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sessions", [1, 4])
async def test_a_hundred_accepts_of_one_invitation_make_one_share(
    shared_daemon: DaemonProcess, mail: MailServers, new_user: str, sessions: int
) -> None:
    """By one user; or by four whose tokens carry the address, of whom the first one has it."""
    async with Callers() as callers:
        owner = await callers(shared_daemon, new_user)
        account_id = await connected(owner, mail.mailbox(new_user))
        item, email = f"/mail/accounts/{account_id}", f"guest.{new_user}"
        made = await owner.post(f"{item}/invitations", json={"email": email, "role": "admin"})
        body = {"invitation_id": made.json()["invitation"]["id"]}
        guests = [await callers(shared_daemon, f"guest{n}-{new_user}", email=email) for n in range(sessions)]
        calls = [(guest, "POST", "/mail/invitations/accept", body) for guest in guests * (100 // sessions)]
        answers = await at_once(calls)
        assert statuses(answers) == Counter({200: 100 // sessions, 404: 100 - 100 // sessions}) - Counter()
        done = {"success": True, "account_id": account_id}
        assert all(answer.json() == done for answer in answers if answer.status_code == 200)
        (winner,) = {calls[n][0] for n, answer in enumerate(answers) if answer.status_code == 200}
        for guest in guests:
            listed = (await guest.get("/mail/accounts")).json()["accounts"]
            assert [(each["id"], each["access"]) for each in listed] == [(account_id, "admin")] * (guest is winner)
            assert (await guest.get("/mail/invitations/pending")).json()["invitations"] == []
        assert len((await owner.get(f"{item}/shares")).json()["shares"]) == 1
        assert (await owner.get(f"{item}/invitations")).json()["invitations"] == []
        assert await audited(owner, account_id) == {
            "account.connected": 1, "invitation.created": 1, "invitation.accepted": 1,
        }  # fmt: skip
    rows = shared_daemon.query("SELECT role FROM account_access WHERE account_id = %s ORDER BY role", account_id)
    assert rows == [("admin",), ("owner",)]


async def test_thirty_invitations_of_one_address_make_one(
    shared_daemon: DaemonProcess, mail: MailServers, new_user: str
) -> None:
    async with Callers() as callers:
        owner = await callers(shared_daemon, new_user)
        account_id = await connected(owner, mail.mailbox(new_user))
        path, email = f"/mail/accounts/{account_id}/invitations", f"guest.{new_user}"
        answers = await at_once(
            [(owner, "POST", path, {"email": email.upper() if n % 2 else email}) for n in range(30)]
        )
        assert statuses(answers) == {200: 1, 409: 29}
        assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"already_invited"}
        assert len((await owner.get(path)).json()["invitations"]) == 1
        assert await audited(owner, account_id) == {"account.connected": 1, "invitation.created": 1}


async def test_of_many_takes_of_one_share_one_has_it(
    shared_daemon: DaemonProcess, mail: MailServers, new_user: str
) -> None:
    """The owner takes it back while its holder gives it back and accepts again: in the end nobody has it."""
    guest, email = f"guest-{new_user}", f"guest.{new_user}"
    async with Callers() as callers:
        owner, http = await callers(shared_daemon, new_user), await callers(shared_daemon, guest, email=email)
        account_id = await connected(owner, mail.mailbox(new_user))
        item = f"/mail/accounts/{account_id}"
        made = await owner.post(f"{item}/invitations", json={"email": email})
        body = {"invitation_id": made.json()["invitation"]["id"]}
        assert (await http.post("/mail/invitations/accept", json=body)).status_code == 200
        takes = [(who, "DELETE", f"{item}/shares/{guest}", None) for who in (owner, http) for _ in range(10)]
        accepts = [(http, "POST", "/mail/invitations/accept", body)] * 10
        answers = await at_once([*takes, *accepts])
        assert statuses(answers[:20]) == {200: 1, 404: 19}
        assert set(statuses(answers[20:])) <= {200, 404}
        assert (await http.get("/mail/accounts")).json()["accounts"] == []
        assert (await http.get(item)).status_code == 404
        done = await audited(owner, account_id)
        assert (done["share.left"] + done["share.revoked"], done["invitation.accepted"]) == (1, 1)


# -- the default account -----------------------------------------------------------------------------------------------


async def test_there_is_one_default_at_every_look(
    shared_daemon: DaemonProcess, mail: MailServers, new_user: str
) -> None:
    """40 changes of it, beside connects and disconnects of two of the accounts."""
    async with Callers() as callers:
        http = await callers(shared_daemon, new_user)
        bodies = [mail.mailbox(f"{n}-{new_user}") for n in range(5)]
        ids = [await connected(http, body) for body in bodies]
        looks = 0
        over = trio.Event()

        async def look() -> None:
            nonlocal looks
            while not over.is_set():
                listed = (await http.get("/mail/accounts")).json()["accounts"]
                assert [each["is_default"] for each in listed].count(True) == 1, listed
                looks += 1

        async def come_and_go(number: int) -> None:
            for _ in range(4):
                gone = await http.delete(f"/mail/accounts/{ids[number]}")
                assert gone.status_code == 200, gone.text
                assert await connected(http, bodies[number]) == ids[number]

        async def change() -> None:
            calls = [(http, "PATCH", f"/mail/accounts/{each}", {"is_default": True}) for each in ids * 8]
            for some in (calls[start : start + 20] for start in range(0, len(calls), 20)):
                answers = await at_once(some)
                for (*_, path, _), answer in zip(some, answers, strict=True):
                    stays = path.rpartition("/")[2] in ids[:3]
                    assert answer.status_code in ({200} if stays else {200, 404}), answer.text
                    if answer.status_code == 200:
                        assert answer.json()["account"]["is_default"] is True, "as this change left it"

        async with trio.open_nursery() as whole:
            whole.start_soon(look)
            async with trio.open_nursery() as busy:
                busy.start_soon(change)
                for number in (3, 4):
                    busy.start_soon(come_and_go, number)
            over.set()
        assert looks >= 3
        for each in ids[1:]:
            assert (await http.delete(f"/mail/accounts/{each}")).status_code == 200
        (last,) = (await http.get("/mail/accounts")).json()["accounts"]
        assert (last["id"], last["is_default"]) == (ids[0], True)


# -- connecting --------------------------------------------------------------------------------------------------------


async def test_of_thirty_connects_of_one_address_one_is_saved(
    two_nodes: tuple[DaemonProcess, DaemonProcess], mail: MailServers, new_user: str
) -> None:
    """Half of them through each of two nodes; then again, when it was disconnected: it comes back as it was."""
    one, other = two_nodes
    async with Callers() as callers:
        nodes = [await callers(each, new_user) for each in two_nodes]
        bodies = itertools.cycle([mail.mailbox(new_user), mail.mailbox(new_user, email=new_user.upper())])
        ids = set()
        for _ in range(2):
            answers = await at_once([(nodes[n % 2], "POST", "/mail/accounts", next(bodies)) for n in range(30)])
            assert statuses(answers) == {200: 1, 409: 29}, [answer.text for answer in answers]
            assert {each.json()["code"] for each in answers if each.status_code == 409} == {"already_connected"}
            (made,) = [each.json()["account"] for each in answers if each.status_code == 200]
            ids.add(made["id"])
            for http in nodes:
                (listed,) = (await http.get("/mail/accounts")).json()["accounts"]
                assert (listed["id"], listed["is_default"]) == (made["id"], True)
            assert (await nodes[1].delete(f"/mail/accounts/{made['id']}")).status_code == 200
        assert len(ids) == 1
        assert await audited(nodes[0], ids.pop()) == {"account.connected": 2, "account.disconnected": 2}
    assert one.query("SELECT count(*) FROM accounts") == other.query("SELECT count(*) FROM accounts") == [(1,)]


async def test_a_mailbox_that_several_connect_at_once_is_one_of_theirs(
    shared_daemon: DaemonProcess, mail: MailServers, new_user: str
) -> None:
    async with Callers() as callers:
        users = [await callers(shared_daemon, f"{uuid4()}") for _ in range(5)]
        body = mail.mailbox(new_user)
        answers = await at_once([(user, "POST", "/mail/accounts", body) for user in users * 6])
        assert statuses(answers) == {200: 1, 409: 29}, [answer.text for answer in answers]
        assert {each.json()["code"] for each in answers if each.status_code == 409} == {"already_connected"}
        listed = [(await user.get("/mail/accounts")).json()["accounts"] for user in users]
        assert sorted(map(len, listed)) == [0, 0, 0, 0, 1]
    assert shared_daemon.query("SELECT count(*) FROM accounts WHERE username = %s", new_user) == [(1,)]
