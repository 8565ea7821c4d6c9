"""The operator's listener."""

import pytest
import trio
from structlog.testing import capture_logs

from control_api.operations import create_operations_app
from control_api.server import Listener
from tests.control_api.wire import answer as wire_answer


class Part:
    is_ready = True
    failure = None
    delay = 0.0

    def metrics(self):
        if self.failure:
            raise self.failure
        return b"accounts 3\n", "text/plain; version=0.0.4; charset=utf-8"

    async def live(self):
        await trio.sleep(self.delay)
        return {"uptime": 5}

    async def ready(self):
        return self.is_ready, {"database": "away" if not self.is_ready else "ok"}


@pytest.fixture
def part():
    return Part()


@pytest.fixture
def client(part):
    return create_operations_app(part).test_client()


async def test_metrics(client):
    answer = await client.get("/metrics")
    assert (answer.status_code, await answer.get_data()) == (200, b"accounts 3\n")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_health(client, part):
    assert await (await client.get("/health/live")).get_json() == {"status": "live", "uptime": 5}
    answer = await client.get("/health/ready")
    assert (answer.status_code, await answer.get_json()) == (200, {"status": "ready", "database": "ok"})
    part.is_ready = False
    answer = await client.get("/health/ready")
    assert (answer.status_code, await answer.get_json()) == (503, {"status": "not_ready", "database": "away"})


@pytest.mark.parametrize("path", ["/", "/mail/accounts", "/mail/openapi.json", "/health", "/metrics/"])
async def test_nothing_else(client, path):
    answer = await client.get(path)
    assert (answer.status_code, (await answer.get_json())["code"]) == (404, "not_found")
    assert (await client.post("/metrics")).status_code == 405


async def test_success_is_told_at_debug_and_the_rest_at_info(client, part):
    part.is_ready = False
    with capture_logs() as logged:
        for path in ("/metrics", "/health/live", "/health/ready", "/nowhere"):
            await client.get(path)
    assert [(event["status"], event["log_level"]) for event in logged] == [
        (200, "debug"), (200, "debug"), (503, "info"), (404, "info")]


async def test_failures(client, part, autojump_clock):
    part.failure = RuntimeError("secret")
    answer = await client.get("/metrics")
    assert (answer.status_code, (await answer.get_json())["code"]) == (500, "internal_error")
    part.delay = 60
    answer = await client.get("/health/live")
    assert (answer.status_code, (await answer.get_json())["code"]) == (503, "timed_out")


async def test_on_a_real_socket(part, nursery):
    listener = Listener(create_operations_app(part), "[::1]:0")
    host, port = await nursery.start(lambda task_status: listener.serve(task_status=task_status))
    assert host == "::1"
    stream = await trio.open_tcp_stream(host, port)
    await stream.send_all(b"OPTIONS /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    status, headers, _ = await wire_answer(stream)
    assert (status, headers[b"allow"]) == (204, b"get, head, options")
    assert not {b"content-type", b"content-length"} & headers.keys()
    await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = b""
    with trio.fail_after(5):
        while chunk := await stream.receive_some():
            answer += chunk
    await stream.aclose()
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"accounts 3\n")
    nursery.cancel_scope.cancel()
