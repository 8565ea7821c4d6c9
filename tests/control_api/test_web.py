"""What holds for every address: envelope, headers, methods, CORS, bounds on time and number."""

import pytest
import trio
from quart.testing import WebsocketResponseError
from structlog.testing import capture_logs

from control_api.app import create_app
from control_api.limits import MAX_PER_CALLER
from control_api.web import HEADERS
from daemon.settings import Settings
from daemon.vault.secret import Secret
from tests.control_api.conftest import MAILBOX, ORIGIN, SECRET, Caller

PATHS = ["/", "/mail", "/mail/", "/mail/accounts/", "/MAIL/accounts", "/mail/accounts/x/y", "/static/x",
         "/mail/accounts%2f", "/metrics", "/health/live", "/favicon.ico", "/%00", "/\u00e4", "/mail/docs/../accounts",
         "/mail/sync;x"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
async def test_unknown_paths(call, method, path):
    answer = await call(method, path)
    assert answer.status_code == 404
    assert (await answer.get_json())["code"] == "not_found"


@pytest.mark.parametrize(("path", "allow"), [
    ("/mail/accounts", "GET, HEAD, OPTIONS, POST"), ("/mail/sync", "GET, HEAD, OPTIONS, POST"),
    ("/mail/accounts/550e8400-e29b-41d4-a716-446655440000", "DELETE, GET, HEAD, OPTIONS, PATCH"),
    ("/mail/docs", "GET, HEAD, OPTIONS"),
])
async def test_methods(call, path, allow):
    for method in {"PUT", "PATCH", "TRACE", "CONNECT", "BREW"} - set(allow.split(", ")):
        answer = await call(method, path)
        assert (answer.status_code, answer.headers["Allow"]) == (405, allow)
        assert (await answer.get_json())["code"] == "method_not_allowed"
    answer = await call("OPTIONS", path)
    assert (answer.status_code, answer.headers["Allow"]) == (204, allow)
    assert "Access-Control-Allow-Methods" not in answer.headers


async def test_head_is_get_without_a_body(call):
    got, head = await call("GET", "/mail/accounts"), await call("HEAD", "/mail/accounts")
    assert (head.status_code, head.headers["Content-Length"]) == (200, got.headers["Content-Length"])


async def test_every_answer_has_the_headers(call):
    for path, given in (("/mail/accounts", {}), ("/x", {}), ("/mail/accounts", {"token": None}), ("/mail/docs", {})):
        answer = await call("GET", path, **given)
        for name, value in HEADERS.items():
            if name != "Content-Security-Policy":
                assert answer.headers[name] == value
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Vary"] == "Sec-Fetch-Site, Origin, Cookie"
        assert "Server" not in answer.headers


async def test_preflight(call):
    asked = [("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "content-type")]
    answer = await call("OPTIONS", "/mail/accounts", token=None, headers=[("Origin", ORIGIN), *asked])
    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert answer.headers["Access-Control-Allow-Headers"] == "Content-Type"
    for origin in ("https://evil.example", "null", ORIGIN + ".evil.example", "*"):
        answer = await call("OPTIONS", "/mail/accounts", token=None, headers=[("Origin", origin), *asked])
        assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]


async def test_cors_of_answers_and_refusals(call):
    for path in ("/mail/accounts", "/x"):
        allowed = await call("GET", path, headers=[("Origin", ORIGIN), ("Sec-Fetch-Site", "cross-site")])
        assert allowed.headers["Access-Control-Allow-Origin"] == ORIGIN
        other = await call("GET", path, headers=[("Origin", "https://evil.example")])
        assert "Access-Control-Allow-Origin" not in other.headers


async def test_a_handler_has_its_time(autojump_clock, service, document, make_session):
    settings = Settings.model_validate({"api": {"handler_timeout": 7}})
    call = Caller(create_app(settings, service, Secret(SECRET)), document, make_session())
    service.delay = 6.9
    assert (await call("GET", "/mail/accounts")).status_code == 200
    service.delay = 3600
    began = trio.current_time()
    answer = await call("GET", "/mail/accounts")
    assert (answer.status_code, (await answer.get_json())["code"]) == (503, "timed_out")
    assert trio.current_time() - began == pytest.approx(7)
    assert service.cancelled == 1


async def test_requests_beyond_the_bound_are_refused_at_once(autojump_clock, call, service, settings, make_session):
    service.delay = 5.0
    answers = []

    async def ask(number):
        answers.append((await call("GET", "/mail/accounts", token=make_session(sub=f"u{number}"))).status_code)

    async with trio.open_nursery() as nursery:
        for number in range(settings.api.max_requests + 3):
            nursery.start_soon(ask, number)
    assert sorted(answers) == [200] * settings.api.max_requests + [503] * 3
    assert answers[:3] == [503] * 3                     # at once, while the others were at work
    assert service.most_under_way == settings.api.max_requests
    service.delay = 0.0
    assert (await call("GET", "/mail/accounts")).status_code == 200


async def test_refusals_before_quart_are_counted_and_logged(autojump_clock, app, call, service, settings):
    noted = []
    app.note = lambda method, status, seconds: noted.append((method, status))
    service.delay = 5.0
    with capture_logs() as logged:
        async with trio.open_nursery() as nursery:
            for _ in range(settings.api.max_requests):
                nursery.start_soon(call, "GET", "/mail/accounts")
            await trio.sleep(1)
            assert (await call("POST", "/mail/sync")).status_code == 503
        await call("GET", "//mail/accounts")
    assert noted == [("POST", 503), *[("GET", 200)] * settings.api.max_requests, ("GET", 400)]
    told = [event for event in logged if event["event"] == "api.request"]
    assert (told[0]["route"], told[0]["refused_as"]) == ("/mail/sync", "busy")
    assert len(told) == len(noted)


async def test_one_caller_cannot_take_every_place(autojump_clock, service, document, make_session):
    app = create_app(Settings(), service, Secret(SECRET))
    call = Caller(app, document, make_session(sub="greedy"))
    service.delay = 5.0
    answers = []

    async def ask():
        answers.append((await call("POST", "/mail/accounts", json=MAILBOX)).status_code)

    async with trio.open_nursery() as nursery:
        for _ in range(MAX_PER_CALLER + 5):
            nursery.start_soon(ask)
        await trio.sleep(1.0)
        assert (await call("GET", "/mail/accounts")).status_code == 429
        other = await call("GET", "/mail/accounts", token=make_session(sub="modest"))
        assert other.status_code == 200
    assert answers.count(429) == 5
    assert app.gate.statistics()["under_way"] == 0


async def test_a_websocket_is_not_there(app):
    refused = pytest.RaisesExc(WebsocketResponseError, check=lambda exc: exc.response.status_code == 404)
    with pytest.RaisesGroup(refused, flatten_subgroups=True):
        async with app.test_client().websocket("/mail/ws/inbox") as websocket:
            await websocket.receive()
