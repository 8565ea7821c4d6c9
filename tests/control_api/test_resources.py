"""Every operation with every status it can answer, judged by the published document."""

import json
import uuid

import pytest
import structlog

from control_api.app import create_app
from control_api.errors import AWAY_PAUSE
from daemon.account.views import Service, VerificationFailed
from daemon.errors import Fault, FaultKind
from daemon.settings import Settings
from tests.control_api.conftest import MAILBOX, ORIGIN, Caller
from tests.control_api.memory_service import RIGHT_PASSWORD

UNKNOWN = "/mail/accounts/0b9c3f5e-6f0c-4f6b-9a55-6f2d7c1e8a40"  # fixed: it stands in the names of tests
JSON = ("Content-Type", "application/json")


async def connected(call, **fields):
    answer = await call("POST", "/mail/accounts", json=MAILBOX | fields)
    assert answer.status_code == 200
    return (await answer.get_json())["account"]


async def status_and_code(answer):
    body = await answer.get_json()
    assert body["success"] is False
    return answer.status_code, body["code"]


async def test_connect_list_look_disconnect(call, service):
    account = await connected(call)
    assert account == {"id": account["id"], "email": "you@example.com", "sync_status": "pending"}
    listed = await (await call("GET", "/mail/accounts")).get_json()
    assert listed == {"success": True, "accounts": [{
        "id": account["id"], "email": "you@example.com", "name": "you@example.com", "imap_host": "imap.example.com",
        "imap_port": 993, "smtp_host": "smtp.example.com", "smtp_port": 587, "sync_status": "pending",
        "is_default": True, "created_at": "2026-01-15T10:00:00Z", "access": "owner",
    }]}
    detail = (await (await call("GET", f"/mail/accounts/{account['id']}")).get_json())["account"]
    assert detail.items() >= listed["accounts"][0].items()
    assert detail["folders"] == [{"name": "INBOX", "messages_total": 10, "messages_done": 4, "bytes_done": 4096,
                                  "complete": False, "method": "qresync"}]
    assert (detail["last_synced_at"], detail["last_contact_at"]) == (None, "2026-01-15T10:00:00Z")
    assert (detail["desired_state"], detail["state"], detail["retry_at"]) == ("running", "starting", None)
    assert (detail["imap_security"], detail["smtp_security"]) == ("tls", "starttls")
    assert detail["username"] == MAILBOX["username"]
    answer = await call("DELETE", f"/mail/accounts/{account['id']}")
    assert await answer.get_json() == {"success": True}
    assert (await (await call("GET", "/mail/accounts")).get_json())["accounts"] == []
    assert {user.id for user in service.remembered} == {"user-1"}


async def test_connect_conflict_and_quota(call, service):
    await connected(call)
    again = await call("POST", "/mail/accounts", json=MAILBOX | {"email": "YOU@example.com"})
    assert await status_and_code(again) == (409, "already_connected")
    service.quota = 1
    beyond = await call("POST", "/mail/accounts", json=MAILBOX | {"email": "other@example.com"})
    assert await status_and_code(beyond) == (403, "plan_limit_exceeded")
    assert (await beyond.get_json())["upgrade"] == {"feature": "accounts", "current_plan": {"slug": "free"}}


@pytest.mark.parametrize("mail_service", Service)
@pytest.mark.parametrize("kind", FaultKind)
async def test_every_failed_verification(call, service, mail_service, kind):
    service.failure = VerificationFailed(mail_service, Fault(kind, "The server did not answer."))
    status, code = await status_and_code(await call("POST", "/mail/accounts", json=MAILBOX))
    assert status == (503 if kind is FaultKind.DATABASE_AWAY else 400)
    assert code in {"not_ready", "host_not_allowed", "password_login_unsupported"} or code.startswith(mail_service)


async def test_invalid_body(call):
    answer = await call("POST", "/mail/accounts", json=MAILBOX | {"imap_port": "993", "email": "nobody"})
    body = await answer.get_json()
    assert (answer.status_code, body["code"]) == (400, "validation_failed")
    assert set(body["details"]["fieldErrors"]) == {"imap_port", "email"}
    assert body["details"]["formErrors"] == []
    for data in (b"{", b"[]", b"\xff", b""):
        answer = await call("POST", "/mail/accounts", data=data, headers=[JSON])
        assert await status_and_code(answer) == (400, "validation_failed")


async def test_what_is_not_ones_own_is_unknown(call, make_session):
    mine = await connected(call)
    strange = await call("GET", UNKNOWN)
    for method in ("GET", "DELETE"):
        answer = await call(method, f"/mail/accounts/{mine['id']}", token=make_session(sub="user-2"))
        assert answer.status_code == 404
        assert await answer.get_data() == await strange.get_data()
    assert (await call("DELETE", UNKNOWN)).status_code == 404


@pytest.mark.parametrize("wrong", ["1", "acc_1", "550e8400e29b41d4a716446655440000", "%7B550e8400%7D", "reputations",
    "..", "%00"])
async def test_ids_that_are_no_uuids(call, wrong):
    for method in ("GET", "DELETE"):
        assert (await call(method, f"/mail/accounts/{wrong}")).status_code == 404


async def test_the_last_default_account_of_active_campaigns(call, service):
    account = await connected(call)
    service.campaigns_active = True
    answer = await call("DELETE", f"/mail/accounts/{account['id']}")
    assert await status_and_code(answer) == (403, "campaigns_active")


async def test_sync(call, service):
    assert (await call("POST", "/mail/sync")).status_code == 404         # no default account yet
    account = await connected(call)
    expected = {"success": True, "accountId": account["id"], "status": "queued", "newMessages": 3,
                "syncedAt": "2026-01-15T10:00:00Z"}
    for given in ({}, {"json": {}}, {"json": {"account_id": account["id"]}}, {"json": {"account_id": None}}):
        assert await (await call("POST", "/mail/sync", **given)).get_json() == expected
    states = await (await call("GET", "/mail/sync")).get_json()
    assert states == {"success": True, "accounts": [{"id": account["id"], "email": "you@example.com",
        "lastSyncAt": None,
                                                     "syncStatus": "syncing", "newMessageCount": 0}]}
    assert (await call("POST", "/mail/sync", json={"account_id": str(uuid.uuid4())})).status_code == 404
    assert (await call("POST", "/mail/sync", json={"account_id": "1"})).status_code == 400


OPERATIONS = [("GET", "/mail/accounts"), ("POST", "/mail/accounts"), ("GET", UNKNOWN), ("DELETE", UNKNOWN),
              ("GET", "/mail/sync"), ("POST", "/mail/sync")]


def body_of(method, path):
    return {"json": MAILBOX} if (method, path) == ("POST", "/mail/accounts") else {}


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
async def test_without_a_session(call, make_session, method, path):
    good = make_session()
    cookies = ["", "sb-access-token=", "sb-access-token=x.y.z", "other=1",
        f"sb-access-token={good}; sb-access-token={good}",
               f"sb-access-token={make_session(role='anon')}", f"sb-access-token={make_session(exp=1)}",
               "sb-access-token=" + "x" * 100_000]
    for cookie in cookies:
        answer = await call(method, path, cookie=cookie, **({"json": MAILBOX} if method == "POST" else {}))
        assert await status_and_code(answer) == (401, "not_authenticated")
        assert "sb-access-token" in answer.headers["WWW-Authenticate"]
    bearer = await call(method, path, token=None, headers=[("Authorization", f"Bearer {good}")])
    assert bearer.status_code == 401


@pytest.mark.parametrize(("method", "path"), [one for one in OPERATIONS if one[0] != "GET"])
async def test_from_another_site(call, service, method, path):
    evil = [[("Sec-Fetch-Site", "cross-site")], [("Origin", "https://evil.example")], [("Origin", "null")],
            [("Sec-Fetch-Site", "same-site"), ("Origin", "https://evil.example")]]
    for headers in evil:
        answer = await call(method, path, headers=headers, json=MAILBOX)
        assert await status_and_code(answer) == (403, "cross_site_request")
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert service.requests == []
    fine = await call(method, path, headers=[("Sec-Fetch-Site", "cross-site"), ("Origin", ORIGIN)], json=MAILBOX)
    assert fine.status_code != 403
    assert fine.headers["Access-Control-Allow-Origin"] == ORIGIN


@pytest.mark.parametrize(("method", "path"), [one for one in OPERATIONS if one[0] != "GET"])
@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_a_body_that_is_not_json(call, method, path, media_type):
    headers = [("Content-Type", media_type)] if media_type else []
    answer = await call(method, path, data=json.dumps(MAILBOX).encode(), headers=headers)
    assert await status_and_code(answer) == (415, "unsupported_media_type")


async def test_a_body_beyond_the_bound(call, settings):
    answer = await call("POST", "/mail/accounts", data=b" " * (settings.api.max_body + 1), headers=[JSON])
    assert await status_and_code(answer) == (413, "body_too_large")


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
async def test_the_database_being_away(call, service, method, path):
    service.failure = Fault(FaultKind.DATABASE_AWAY, "PostgreSQL does not answer.")
    answer = await call(method, path, **body_of(method, path))
    assert await status_and_code(answer) == (503, "not_ready")
    assert answer.headers["Retry-After"] == str(AWAY_PAUSE)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
async def test_being_throttled(call, service, method, path):
    service.failure = Fault(FaultKind.THROTTLED, "You try too often.", retry_after=12.5)
    answer = await call(method, path, **body_of(method, path))
    assert await status_and_code(answer) == (429, "rate_limited")
    assert (answer.headers["Retry-After"], (await answer.get_json())["retryAfter"]) == ("13", 13)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
@pytest.mark.parametrize("bug", [RuntimeError("hunter2"), ExceptionGroup("", [KeyError("hunter2")]), AssertionError()])
async def test_a_bug_of_ours(call, service, method, path, bug):
    service.failure = bug
    with structlog.testing.capture_logs() as logs:
        answer = await call(method, path, **body_of(method, path))
    assert await status_and_code(answer) == (500, "internal_error")
    assert b"hunter2" not in await answer.get_data()
    assert [one["exc_info"] for one in logs if one["event"] == "api.unhandled"] == [bug]


async def test_the_issuers_keys_being_away(service, jwks_server, document):
    auth = {"mode": "jwks", "issuer": jwks_server.issuer}
    app = create_app(Settings.model_validate({"auth": auth}), service, None)
    jwks_server.down = True
    call = Caller(app, document, jwks_server.make_token())
    assert await status_and_code(await call("GET", "/mail/accounts")) == (503, "not_ready")


async def test_a_session_of_the_published_keys(service, jwks_server, document):
    auth = {"mode": "jwks", "issuer": jwks_server.issuer}
    app = create_app(Settings.model_validate({"auth": auth}), service, None)
    call = Caller(app, document, jwks_server.make_token(sub="u", email="u@example.com", app_metadata={"plan": "pro"}))
    assert (await call("GET", "/mail/accounts")).status_code == 200
    assert [(user.id, user.email, user.plan) for user in service.remembered] == [("u", "u@example.com", "pro")]


async def test_a_password_is_in_no_answer_and_no_log(call, service):
    words = {}
    with structlog.testing.capture_logs() as logs:
        for name, failure, fields in [
            ("taken", None, {}), ("again", None, {}),
            ("refused", None, {"email": "b@example.com", "password": "hunter2"}),
            ("bug", RuntimeError("a bug"), {"email": "c@example.com"}),
            ("invalid", None, {"password": "hunter2\r\n", "email": 1}),
            ("typed", None, {"password": ["hunter2"]}), ("long", None, {"password": "hunter2" * 300}),
        ]:
            service.failure = failure
            answer = await call("POST", "/mail/accounts", json=MAILBOX | fields)
            words[name] = (await answer.get_data()).decode()
        for data in (b'{"password": "hunter2"', b'{"password": "hunter2\\ud800"}', b'"hunter2"'):
            answer = await call("POST", "/mail/accounts", data=data, headers=[JSON])
            words[str(data)] = (await answer.get_data()).decode()
    for text in (*words.values(), repr(logs), repr(service.requests)):
        assert RIGHT_PASSWORD not in text
        assert "hunter2" not in text
    assert len(service.requests) == 4


async def test_the_log_says_who_and_what_but_no_token(call, make_session):
    with structlog.testing.capture_logs() as logs:
        await call("GET", f"{UNKNOWN}?password=hunter2", headers=[("X-Forwarded-For", "6.6.6.6, 203.0.113.9")])
        await call("GET", "/mail/accounts", token=make_session(exp=1))
    first, second = (one for one in logs if one["event"] == "api.request")
    assert (first["method"], first["route"]) == ("GET", "/mail/accounts/<uuid:account_id>")
    assert (first["status"], first["user"]) == (404, "user-1")
    assert second["refused_as"] == "expired"
    assert call.token not in repr(logs)
    assert "hunter2" not in repr(logs)
