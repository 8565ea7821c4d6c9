"""The resource /mail/accounts/reputation, judged by the published document."""

from uuid import UUID

from daemon.account.views import ReputationView
from daemon.errors import Disposition, Fault, FaultKind
from tests.control_api.memory_service import SYNCED_AT, MemoryService
from tests.control_api.test_resources import connected, status_and_code

PATH = "/mail/accounts/reputation"


async def test_what_is_not_known_is_null(call, make_session):
    assert await (await call("GET", PATH)).get_json() == {"success": True, "data": []}
    account = await connected(call)
    answer = await call("GET", PATH)
    assert await answer.get_json() == {"success": True, "data": [{
        "account_id": account["id"], "email": "you@example.com", "reputation_score": None, "warmup_status": "inactive",
        "daily_limit": 500, "sent_today": 3, "blacklist_status": "unknown", "last_checked_at": None,
    }]}  # fmt: skip
    strange = await call("GET", PATH, token=make_session(sub="user-2"))
    assert (await strange.get_json())["data"] == []


async def test_the_references_own_example(call, monkeypatch):
    async def known(*_):
        account_id = UUID("550e8400-e29b-41d4-a716-446655440000")
        return [ReputationView(account_id, "you@example.com", 5000, 412, 92, "active", "clean", SYNCED_AT)]

    monkeypatch.setattr(MemoryService, "reputations", known)
    (shown,) = (await (await call("GET", PATH)).get_json())["data"]
    assert shown == {
        "account_id": "550e8400-e29b-41d4-a716-446655440000", "email": "you@example.com", "reputation_score": 92,
        "warmup_status": "active", "daily_limit": 5000, "sent_today": 412, "blacklist_status": "clean",
        "last_checked_at": "2026-01-15T10:00:00Z",
    }  # fmt: skip


async def test_it_is_no_account_and_stands_beside_them(call):
    account = await connected(call)
    assert (await call("GET", f"/mail/accounts/{account['id']}")).status_code == 200
    assert (await call("HEAD", PATH)).status_code == 200
    for method in ("DELETE", "POST", "PATCH", "PUT"):
        answer = await call(method, PATH)
        assert await status_and_code(answer) == (405, "method_not_allowed")
        assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    assert await status_and_code(await call("GET", f"{PATH}/")) == (404, "not_found")


async def test_refusals(call, service):
    assert await status_and_code(await call("GET", PATH, token=None)) == (401, "not_authenticated")
    service.failure = Fault(FaultKind.DATABASE_AWAY, "The database is away.", disposition=Disposition.RETRY)
    assert await status_and_code(await call("GET", PATH)) == (503, "not_ready")
