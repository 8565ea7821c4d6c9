"""The listener on real sockets: requests of every shape, and what is too large, too slow or too much."""

import json
import socket

import pytest
import trio

from control_api.app import create_app
from control_api.server import MAX_HEAD, serve_api
from daemon.settings import Settings
from daemon.vault.secret import Secret
from tests.control_api.conftest import MAILBOX, SECRET, serving
from tests.control_api.wire import JSON, answer, ask, connection, request, until, until_closed


async def test_a_child_function_reports_its_address(app, nursery, token):
    address = await nursery.start(lambda task_status: serve_api(app, "127.0.0.1:0", task_status=task_status))
    status, headers, body = await ask(address, request(token=token))
    assert (status, json.loads(body)) == (200, {"success": True, "accounts": []})
    assert b"server" not in headers
    nursery.cancel_scope.cancel()


async def test_an_address_in_use_is_an_oserror(app):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        await serve_api(app, f"127.0.0.1:{taken.getsockname()[1]}")


async def test_many_requests_on_one_connection(listening, token):
    async with connection(listening) as stream:
        for _ in range(20):
            await stream.send_all(request(token=token))
            assert (await answer(stream))[0] == 200
        await stream.send_all(request(token=token) * 5)
        got = b""
        with trio.fail_after(5):
            while got.count(b"HTTP/1.1 200") < 5:
                got += await stream.receive_some(65536)


async def test_a_head_leaves_with_its_body_and_alone_when_there_is_none(listening, token):
    async with connection(listening) as stream:
        for _ in range(2):
            await stream.send_all(request("GET", "/mail/accounts", token=token))
            with trio.fail_after(5):
                whole = await stream.receive_some(65536)
            assert whole.startswith(b"HTTP/1.1 200")
            assert whole.endswith(b'"accounts":[]}')
            await stream.send_all(request("HEAD", "/mail/accounts", token=token))
            with trio.fail_after(5):
                head = await stream.receive_some(65536)
            assert head.endswith(b"\r\n\r\n")
            assert b"content-length: 30\r\n" in head


async def test_connecting_over_the_wire(listening, token, service):
    body = json.dumps(MAILBOX).encode()
    assert (await ask(listening, request("POST", body=body, token=token)))[0] == 200
    chunked = (request("POST", "/mail/accounts", "Transfer-Encoding: chunked", JSON, token=token)
               + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
    assert (await ask(listening, chunked))[0] == 409
    assert (await ask(listening, request("GET", "//mail/accounts", token=token)))[0] == 400


async def test_large_heads_are_refused_in_the_envelope(listening):
    for head in (request("GET", "/" + "x" * 2 * MAX_HEAD), request("GET", "/", "X: " + "y" * 2 * MAX_HEAD),
        b"G" * 2 * MAX_HEAD):
        status, headers, body = await ask(listening, head)
        assert status in {400, 413, 414, 431}
        assert headers[b"content-type"] == b"application/json"
        assert json.loads(body)["success"] is False


@pytest.mark.parametrize("coding", ["length", "chunked"])
async def test_a_large_body_is_refused_and_the_refusal_is_heard(listening, token, settings, coding):
    """Also by a client that sends all of it before it reads: the rest is taken in and thrown away."""
    for _ in range(5):
        async with connection(listening) as stream:
            data = b"x" * (1 << 20)
            if coding == "length":
                sent = request("POST", "/mail/accounts", f"Content-Length: {len(data)}", JSON, token=token) + data
            else:
                sent = request("POST", "/mail/accounts", "Transfer-Encoding: chunked", JSON, token=token)
                sent += b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)
            with trio.fail_after(5):
                await stream.send_all(sent)
            status, _, body = await answer(stream)
            assert (status, json.loads(body)["code"]) == (413, "body_too_large")


async def test_a_refusal_before_the_body_ends_the_connection(listening):
    async with connection(listening) as stream:
        await stream.send_all(request("POST", "/mail/accounts", "Content-Length: 1000", JSON))
        status, headers, _ = await answer(stream)
        assert (status, headers[b"connection"]) == (401, b"close")
        assert await until_closed(stream) == b""


async def test_a_slow_body(app, nursery, token):
    app.config["BODY_TIMEOUT"] = 0.3
    _, scope, address = await serving(nursery, app)
    async with connection(address) as stream:
        await stream.send_all(request("POST", "/mail/accounts", "Content-Length: 100", JSON, token=token))
        await stream.send_all(b"{")
        status, _, body = await answer(stream)
        assert (status, json.loads(body)["code"]) == (408, "request_timeout")
    scope.cancel()


@pytest.mark.parametrize("more", [(), ("Connection: close",)])
async def test_a_client_that_sends_no_more_still_hears_its_answer(listening, token, service, more):
    service.delay = 0.2
    async with connection(listening) as stream:
        await stream.send_all(request("GET", "/mail/accounts", *more, token=token))
        await stream.send_eof()
        status, _, body = await answer(stream)
        assert (status, json.loads(body)) == (200, {"success": True, "accounts": []})
        assert await until_closed(stream) == b""


async def test_a_client_that_sends_no_more_hears_all_answers_to_its_pipeline(listening, token):
    async with connection(listening) as stream:
        await stream.send_all(request(token=token) * 7)
        await stream.send_eof()
        assert (await until_closed(stream)).count(b'{"success":true,"accounts":[]}') == 7


async def test_a_client_that_hangs_up_cancels_its_request(listening, token, service):
    service.delay = 60
    async with connection(listening) as stream:
        await stream.send_all(request(token=token))
        await until(lambda: service.under_way == 1)
    await until(lambda: service.cancelled == 1)


async def test_a_handler_timeout_over_the_wire(service, nursery, token):
    service.delay = 60
    app = create_app(Settings.model_validate({"api": {"handler_timeout": 0.2}}), service, Secret(SECRET))
    _, scope, address = await serving(nursery, app)
    async with connection(address) as stream:
        for _ in range(2):      # the connection is good for another request
            await stream.send_all(request(token=token))
            status, headers, body = await answer(stream)
            assert (status, json.loads(body)["code"], headers[b"retry-after"]) == (503, "timed_out", b"1")
    scope.cancel()


async def test_the_bound_on_requests_over_the_wire(listening, service, settings, make_session):
    service.gate = trio.Event()
    statuses = []

    async def one(number):
        statuses.append((await ask(listening, request(token=make_session(sub=f"u{number}"))))[0])

    async with trio.open_nursery() as nursery:
        for number in range(settings.api.max_requests):
            nursery.start_soon(one, number)
        await until(lambda: service.under_way == settings.api.max_requests)
        status, headers, body = await ask(listening, request(token=make_session()))
        assert (status, json.loads(body)["code"], headers[b"retry-after"]) == (503, "busy", b"1")
        service.gate.set()
    assert statuses == [200] * settings.api.max_requests


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_the_last_request_is_answered_whatever_comes_behind_it(listening, token, version):
    """RFC 9112 section 9.6: after `Connection: close`, and after any request of HTTP/1.0, nothing is a request."""
    last = request("GET", "/mail/accounts", "Connection: close", token=token)
    last = last.replace(b"HTTP/1.1", b"HTTP/" + version.encode())
    for behind in (request(token=token), b"\0" * 100_000, b"G"):
        async with connection(listening) as stream:
            await stream.send_all(last + behind)
            status, _, body = await answer(stream)
            assert (status, json.loads(body)) == (200, {"success": True, "accounts": []})
            assert await until_closed(stream) == b""


BROKEN_BEHIND = {
    "trailers": (("Transfer-Encoding: chunked",), b"2\r\n{}\r\n0\r\n" + b": y\r\n" * 2000 + b"\r\n"),
    "chunk size": (("Transfer-Encoding: chunked",), b"zz\r\n"),
    "early end": (("Content-Length: 100",), b"{}"),
}


@pytest.mark.parametrize("name", BROKEN_BEHIND)
@pytest.mark.parametrize("signed", [True, False])
async def test_an_answer_that_has_begun_is_whole(listening, token, name, signed):
    """The rest of the request turns out to be malformed while the answer is being sent."""
    headers, rest = BROKEN_BEHIND[name]
    head = request("POST", "/mail/sync", JSON, *headers, token=token if signed else None)
    for pause in (0, 0, 0, 0.001, 0.002, 0.003, 0.005, 0.01):
        async with connection(listening) as stream:
            await stream.send_all(head)
            if pause:
                await trio.sleep(pause)
            await stream.send_all(rest)
            await stream.send_eof()
            status, _, body = await answer(stream)
            assert status in {400, 401, 404}
            assert json.loads(body)["success"] is False
            assert await until_closed(stream) == b""
