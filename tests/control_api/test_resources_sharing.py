"""The operations of sharing with every status they can answer, judged by the published document."""

import uuid

import pytest

from daemon.account.changing import ChangedMeanwhile, Unset
from daemon.account.views import AlreadyConnected
from daemon.errors import Disposition, Fault, FaultKind
from daemon.identity.rates import Allowance, Rate, RateExceeded
from daemon.sharing.rules import CannotInvite, Conflict, NotAllowed
from tests.control_api.memory_service import MemorySharing
from tests.control_api.test_resources import UNKNOWN, connected, status_and_code

INVITATION = MemorySharing.invitation.id
ANSWER = {"invitation_id": INVITATION}


@pytest.fixture
async def item(call):
    return f"/mail/accounts/{(await connected(call))['id']}"


async def test_invite_list_take_back(call, item):
    answer = await call("POST", f"{item}/invitations", json={"email": "ann@example.com", "role": "admin"})
    assert answer.status_code == 200
    assert answer.headers["X-RateLimit-Limit"] == "50"
    assert answer.headers["X-RateLimit-Remaining"] == "49"
    assert answer.headers["X-RateLimit-Reset"] == "1800000000"
    made = (await answer.get_json())["invitation"]
    assert made == {
        "id": INVITATION, "invitee_email": "ann@example.com", "role": "admin", "status": "pending",
        "created_at": "2026-01-15T10:00:00Z", "expires_at": "2026-01-15T10:00:00Z",
    }  # fmt: skip
    listed = await (await call("GET", f"{item}/invitations")).get_json()
    assert listed["invitations"] == [made | {"role": "member"}]
    assert (await call("DELETE", f"{item}/invitations/{INVITATION}")).status_code == 200
    assert await status_and_code(await call("DELETE", f"{item}/invitations/inv_none")) == (404, "not_found")


async def test_shares(call, item):
    listed = await (await call("GET", f"{item}/shares")).get_json()
    assert listed == {"success": True, "shares": [
        {"user_id": "auth0|bob/1", "email": "bob@example.com", "role": "admin", "shared_at": "2026-01-15T10:00:00Z"}
    ]}  # fmt: skip
    assert (await call("DELETE", f"{item}/shares/auth0|bob/1")).status_code == 200
    assert await status_and_code(await call("DELETE", f"{item}/shares/nobody")) == (404, "not_found")


async def test_what_one_has_received(call):
    listed = await (await call("GET", "/mail/invitations/pending")).get_json()
    assert listed == {"success": True, "invitations": [{
        "id": INVITATION, "account_email": "you@example.com", "inviter_name": "You", "role": "member",
        "created_at": "2026-01-15T10:00:00Z", "expires_at": "2026-01-15T10:00:00Z",
    }]}  # fmt: skip
    accepted = await (await call("POST", "/mail/invitations/accept", json=ANSWER)).get_json()
    assert accepted == {"success": True, "account_id": str(uuid.UUID(int=1))}
    assert await (await call("POST", "/mail/invitations/decline", json=ANSWER)).get_json() == {"success": True}
    for path in ("accept", "decline"):
        answer = await call("POST", f"/mail/invitations/{path}", json={"invitation_id": "inv_other"})
        assert await status_and_code(answer) == (404, "not_found")


async def test_the_audit(call, item):
    entries = (await (await call("GET", f"{item}/audit")).get_json())["entries"]
    assert [entry["action"] for entry in entries] == ["account.changed"]
    assert (await (await call("GET", f"{item}/audit?before=7")).get_json())["entries"] == []
    for wrong in ("0", "-1", "x", "1e3", "9" * 30, "%C2%B2"):
        assert await status_and_code(await call("GET", f"{item}/audit?before={wrong}")) == (400, "validation_failed")


@pytest.mark.parametrize(("method", "path", "body"), [
    ("GET", "/invitations", None), ("POST", "/invitations", {"email": "ann@example.com"}),
    ("DELETE", "/invitations/inv_0", None), ("GET", "/shares", None), ("DELETE", "/shares/bob", None),
    ("GET", "/audit", None), ("PATCH", "", {"name": "x"}),
])  # fmt: skip
async def test_unknown_and_not_allowed(call, service, item, method, path, body):
    given = {} if body is None else {"json": body}
    assert await status_and_code(await call(method, UNKNOWN + path, **given)) == (404, "not_found")
    service.failure = NotAllowed()
    assert await status_and_code(await call(method, item + path, **given)) == (403, "not_allowed")


@pytest.mark.parametrize("conflict", Conflict)
async def test_who_cannot_be_invited(call, service, item, conflict):
    service.failure = CannotInvite(conflict)
    answer = await call("POST", f"{item}/invitations", json={"email": "ann@example.com"})
    assert await status_and_code(answer) == (409, conflict.value)


async def test_too_many_invitations(call, item, monkeypatch):
    async def invite(*_):
        raise RateExceeded(Allowance(Rate("invite.user", 50, 86400.0), 0, 1_800_000_000, 100.2))

    monkeypatch.setattr(MemorySharing, "invite", invite)
    answer = await call("POST", f"{item}/invitations", json={"email": "ann@example.com"})
    assert await status_and_code(answer) == (429, "rate_limited")
    assert answer.headers["Retry-After"] == "101"
    assert answer.headers["X-RateLimit-Remaining"] == "0"


@pytest.mark.parametrize("body", [
    {}, {"email": "no"}, {"email": "ann@example.com", "role": "owner"}, {"email": "a\r\nb@example.com"}, [],
])  # fmt: skip
async def test_bad_invitations(call, item, body):
    assert await status_and_code(await call("POST", f"{item}/invitations", json=body)) == (400, "validation_failed")


async def test_a_change(call, service, item):
    answer = await call("PATCH", item, json={"name": "Work", "paused": True, "daily_limit": None})
    account = (await answer.get_json())["account"]
    assert (account["name"], account["desired_state"]) == ("Work", "paused")
    request = service.requests[-1]
    assert (request.name, request.paused, request.daily_limit, request.credentials) == ("Work", True, None, None)
    await call("PATCH", item, json={"name": None})
    assert (service.requests[-1].name, type(service.requests[-1].daily_limit)) == ("", Unset)
    answer = await call("PATCH", item, json={"password": "another", "imap_port": 143})
    assert answer.headers["X-RateLimit-Remaining"] == "28"
    assert service.requests[-1].credentials is not None


@pytest.mark.parametrize("body", [
    {"is_default": False}, {"paused": "yes"}, {"daily_limit": -1}, {"daily_limit": 1.5}, {"imap_host": "other.test"},
    {"username": "x"}, {"smtp_security": "tls"}, {"password": ""}, {"name": "a\nb"}, {"Name": "x"}, [],
])  # fmt: skip
async def test_bad_changes(call, item, body):
    answer = await call("PATCH", item, json=body)
    assert await status_and_code(answer) == (400, "validation_failed")


@pytest.mark.parametrize(("failure", "code"), [
    (AlreadyConnected(), "already_connected"), (ChangedMeanwhile(), "changed_meanwhile"),
])  # fmt: skip
async def test_changes_that_conflict(call, service, item, failure, code):
    service.failure = failure
    assert await status_and_code(await call("PATCH", item, json={"password": "x"})) == (409, code)


async def test_a_campaign(call, service, item):
    path, account_id = "/mail/campaign-registry/spring%202026", item.rpartition("/")[2]
    assert (await call("PUT", path, json={"account_id": account_id, "status": "active"})).status_code == 200
    assert service.requests[-1] == ("spring 2026", uuid.UUID(account_id), "active")
    unknown = UNKNOWN.rpartition("/")[2]
    answer = await call("PUT", path, json={"account_id": unknown, "status": "active"})
    assert await status_and_code(answer) == (404, "not_found")
    answer = await call("PUT", path, json={"account_id": account_id, "status": "gone"})
    assert await status_and_code(answer) == (400, "validation_failed")
    assert (await answer.get_json())["details"]["fieldErrors"] == {
        "status": ["This must be 'active', 'paused' or 'completed'."]
    }
    assert (await call("PUT", "/mail/campaign-registry/" + "x" * 256, json={})).status_code == 404


async def test_ones_own_campaigns(call, service, item, make_session):
    listed = await (await call("GET", "/mail/campaign-registry")).get_json()
    assert listed == {"success": True, "campaigns": [{
        "id": "spring 2026", "account_id": item.rpartition("/")[2], "status": "active",
        "updated_at": "2026-01-15T10:00:00Z",
    }]}  # fmt: skip
    strange = await call("GET", "/mail/campaign-registry", token=make_session(sub="user-2"))
    assert await strange.get_json() == {"success": True, "campaigns": []}
    assert await status_and_code(await call("GET", "/mail/campaign-registry", token=None)) == (401, "not_authenticated")
    service.failure = Fault(FaultKind.DATABASE_AWAY, "The database is away.", disposition=Disposition.RETRY)
    assert await status_and_code(await call("GET", "/mail/campaign-registry")) == (503, "not_ready")


async def test_what_is_misspelt_is_refused_and_changes_nothing(call, service, item):
    """In operations that are ours: a client of the product's sends more than it should to others, and is served."""
    campaign = {"account_id": item.rpartition("/")[2], "status": "active"}
    for method, path, body, known in (
        ("PATCH", item, {"name": "Work", "daily-limit": 7, "hunter2": 1}, ("name", "is_default", "daily_limit")),
        ("PUT", "/mail/campaign-registry/c1", campaign | {"hunter2": 1}, ("account_id", "status")),
    ):
        asked = len(service.requests)
        answer = await call(method, path, json=body)
        text, details = await answer.get_data(as_text=True), (await answer.get_json())["details"]
        assert await status_and_code(answer) == (400, "validation_failed")
        assert details["fieldErrors"] == {}
        (sentence,) = details["formErrors"]
        assert sentence.startswith(f"There are unknown fields; known are {', '.join(known)}")
        assert "hunter2" not in text
        assert len(service.requests) == asked
    lenient = await call("POST", f"{item}/invitations", json={"email": "ann@example.com", "note": "Hello"})
    assert lenient.status_code == 200


async def test_a_default_is_not_taken_away(call, item):
    answer = await call("PATCH", item, json={"is_default": False})
    assert (await answer.get_json())["details"]["fieldErrors"] == {
        "is_default": ["Make another account the default one: it moves there."]
    }
    answer = await call("PATCH", item, json={"is_default": "true"})
    assert (await answer.get_json())["details"]["fieldErrors"] == {"is_default": ["This must be true or false."]}
