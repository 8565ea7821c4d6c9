"""The listener on real sockets: bounds, slowness, stalls, and how it stops."""

import json
import socket

import pytest
import trio

import control_api.guard as guard
from control_api.app import create_app
from control_api.server import MAX_HEAD, Listener, serve_api
from daemon.settings import Settings
from daemon.vault.secret import Secret
from tests.control_api.conftest import MAILBOX, SECRET
from tests.control_api.wire import answer, ask, connection, request, until_closed

JSON = "Content-Type: application/json"


@pytest.fixture
def token(make_session):
    return make_session()


async def serving(nursery, app, **options):
    listener = Listener(app, "127.0.0.1:0", **({"grace": 0.5} | options))
    scope = trio.CancelScope()

    async def run(task_status):
        with scope:
            await listener.serve(task_status=task_status)

    return listener, scope, await nursery.start(lambda task_status: run(task_status))


async def until(condition):
    with trio.fail_after(5):
        while not condition():      # noqa: ASYNC110 - what is waited for is counted in the server, which has no event
            await trio.sleep(0.01)


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


async def test_a_slow_head_and_an_idle_connection_are_closed(listening, token):
    async with connection(listening) as slow, connection(listening) as idle:
        await slow.send_all(b"GET / HTTP/1.1\r\nHost:")
        await idle.send_all(request(token=token))
        assert (await answer(idle))[0] == 200
        assert await until_closed(slow) == b""
        assert await until_closed(idle) == b""


async def test_idle_connections_are_closed_after_refusals_too(app, nursery):
    """The end of a request is settled in a cancelled task: a connection must not be forgotten there."""
    listener, scope, address = await serving(nursery, app, head_timeout=0.3)
    for _ in range(5):
        async with connection(address) as stream:
            await stream.send_all(request("GET", "/x") + request("GET", "/y"))
            assert (await until_closed(stream)).count(b"HTTP/1.1 404") == 2
    await until(lambda: listener.statistics()["open"] == 0)
    scope.cancel()


async def test_connections_beyond_the_bound_are_closed(app, nursery, token, service):
    service.delay = 1.0
    listener, scope, address = await serving(nursery, app, max_connections=3)
    async with connection(address) as one, connection(address) as two, connection(address) as three:
        for stream in (one, two, three):
            await stream.send_all(request(token=token))
        await until(lambda: service.under_way == 3)
        async with connection(address) as beyond:
            assert await until_closed(beyond) == b""
        assert listener.statistics() == {"open": 3, "accepted": 3, "refused": 1, "gave_way": 0}
        for stream in (one, two, three):
            assert (await answer(stream))[0] == 200
    await until(lambda: listener.statistics()["open"] == 0)
    assert (await ask(address, request(token=token)))[0] == 200
    scope.cancel()


async def test_who_only_waits_gives_way_the_longest_waiting_first(app, nursery, token, service):
    """Else a few hundred silent connections would keep everybody out."""
    service.delay = 0.5
    listener, scope, address = await serving(nursery, app, max_connections=3)
    async with connection(address) as busy, connection(address) as silent, connection(address) as idle:
        await busy.send_all(request(token=token))
        await idle.send_all(request("GET", "/x"))
        assert (await answer(idle))[0] == 404
        await until(lambda: service.under_way == 1)
        for _ in range(20):
            async with connection(address) as another:
                await another.send_all(request("GET", "/x"))
                assert (await answer(another))[0] == 404
        assert await until_closed(silent) == b""
        assert (await answer(busy))[0] == 200       # what is under way is never cut
    assert listener.statistics()["refused"] == 0
    assert listener.statistics()["gave_way"] >= 1
    await until(lambda: listener.statistics()["open"] == 0)
    scope.cancel()


async def test_slow_heads_stalled_readers_and_lingering_connections_give_way(app_with_much_to_say, nursery):
    listener, scope, address = await serving(nursery, app_with_much_to_say, max_connections=3, send_timeout=60)
    stalled = Stalled(address)
    stalled.ask(request("GET", "/much"))
    await trio.sleep(0.2)
    async with connection(address) as slow, connection(address) as lingering:
        await slow.send_all(b"GET / HTTP/1.1\r\nHost: ")
        await lingering.send_all(request("POST", "/mail/accounts", "Content-Length: 100000", JSON))
        assert (await answer(lingering))[0] == 401
        async with connection(address) as one, connection(address) as two, connection(address) as three:
            for stream in (one, two, three):
                await stream.send_all(request("GET", "/x"))
                assert (await answer(stream))[0] == 404
    assert listener.statistics()["refused"] == 0
    stalled.socket.close()
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
    service.delay = 0.5
    statuses = []

    async def one(number):
        statuses.append((await ask(listening, request(token=make_session(sub=f"u{number}"))))[0])

    async with trio.open_nursery() as nursery:
        for number in range(settings.api.max_requests):
            nursery.start_soon(one, number)
        await until(lambda: service.under_way == settings.api.max_requests)
        status, headers, body = await ask(listening, request(token=make_session()))
        assert (status, json.loads(body)["code"], headers[b"retry-after"]) == (503, "busy", b"1")
    assert statuses == [200] * settings.api.max_requests


async def test_stopping_lets_requests_end_within_the_grace(app, nursery, token, service):
    service.delay = 0.3
    _, scope, address = await serving(nursery, app, grace=5.0, head_timeout=60.0)
    async with connection(address) as busy, connection(address) as idle:
        await idle.send_all(request("GET", "/x"))
        assert (await answer(idle))[0] == 404
        await busy.send_all(request(token=token))
        await until(lambda: service.under_way == 1)
        scope.cancel()
        assert await until_closed(idle) == b""
        assert (await answer(busy))[0] == 200
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream(*address)
    assert service.cancelled == 0


async def test_stopping_cuts_what_outlasts_the_grace(app, token, service):
    service.delay = 60
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            _, _, address = await serving(nursery, app, grace=0.2)
            async with connection(address) as stream:
                await stream.send_all(request(token=token))
                await until(lambda: service.under_way == 1)
                nursery.cancel_scope.cancel()
    assert service.cancelled == 1


class Stalled:
    """A client with a small window that asks for much and reads nothing."""

    def __init__(self, address):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect(address)
        self.socket.setblocking(False)

    def ask(self, data):
        self.socket.send(data)


@pytest.fixture
def app_with_much_to_say(app):
    async def much():
        return b"x" * (64 << 20)

    app.add_url_rule("/much", "much", much, methods=["GET"])
    return app


async def test_a_client_that_does_not_read_is_given_up(app_with_much_to_say, nursery):
    listener, scope, address = await serving(nursery, app_with_much_to_say, send_timeout=0.5)
    client = Stalled(address)
    client.ask(request("GET", "/much"))
    await until(lambda: listener.statistics()["open"] == 1)
    await until(lambda: listener.statistics()["open"] == 0)
    client.socket.close()
    scope.cancel()


async def test_a_client_that_does_not_read_does_not_hold_the_stop(app_with_much_to_say):
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            listener, _, address = await serving(nursery, app_with_much_to_say, grace=0.2, send_timeout=3600)
            client = Stalled(address)
            client.ask(request("GET", "/much"))
            await until(lambda: listener.statistics()["open"] == 1)
            await trio.sleep(0.2)
            nursery.cancel_scope.cancel()
    client.socket.close()


async def test_what_nobody_reads_is_discarded_for_a_bounded_time_only(app, nursery, monkeypatch):
    monkeypatch.setattr(guard, "LINGER", 0.3)
    listener, scope, address = await serving(nursery, app)
    async with connection(address) as stream:
        await stream.send_all(request("POST", "/mail/accounts", "Content-Length: 100000", JSON))
        assert (await answer(stream))[0] == 401
        await until(lambda: listener.statistics()["open"] == 0)      # although the client never closes
    scope.cancel()


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
