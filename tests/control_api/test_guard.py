"""Hundreds of malformed conversations: each connection ends, the server lives, and what it says is in the envelope."""

import json
import random

import pytest
import trio
from structlog.testing import capture_logs

from control_api.server import Listener
from control_api.web import HEADERS
from tests.control_api.wire import answer, ask, connection, request, until_closed

UPGRADE = ("Upgrade: websocket", "Connection: Upgrade")
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
VERSION = "Sec-WebSocket-Version: 13"

MALFORMED = {
    "upgrade without key": request("GET", "/x", *UPGRADE),
    "upgrade with a body": request("GET", "/x", *UPGRADE, KEY, VERSION, body=b"hello"),
    "upgrade then garbage": request("GET", "/x", *UPGRADE, KEY, VERSION) + b"\xff" * 500,
    "bad upgrade then bytes": request("GET", "/x", *UPGRADE, "Sec-WebSocket-Version: 7") + b"\x81\x05hello" * 20,
    "upgrade by POST": request("POST", "/x", *UPGRADE, KEY, VERSION),
    "upgrade, key not base64": request("GET", "/x", *UPGRADE, "Sec-WebSocket-Key: \xe4", VERSION),
    "upgrade, protocols": request("GET", "/x", *UPGRADE, KEY, VERSION, "Sec-WebSocket-Protocol: ,,,\x80"),
    "h2c": request("GET", "/x", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings",
        "HTTP2-Settings: AAMAAABkAAQAoAAA"),
    "h2c, settings not base64": request("GET", "/x", "Upgrade: h2c", "Connection: Upgrade", "HTTP2-Settings: !!!!"),
    "h2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "tls": bytes.fromhex("16030100c8010000c40303") + b"\x00" * 200,
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "two lengths": request("POST", "/x", "Content-Length: 1", "Content-Length: 2"),
    "length and chunks": request("POST", "/x", "Content-Length: 5",
        "Transfer-Encoding: chunked") + b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    "negative length": request("POST", "/x", "Content-Length: -1"),
    "length of words": request("POST", "/x", "Content-Length: many"),
    "length beyond": request("POST", "/x", "Content-Length: " + "9" * 300),
    "coding": request("POST", "/x", "Transfer-Encoding: gzip, chunked"),
    "bad chunk": request("POST", "/x", "Transfer-Encoding: chunked") + b"zz\r\nhello\r\n",
    "endless chunk size": request("POST", "/x", "Transfer-Encoding: chunked") + b"1" * 40_000,
    "chunk extension": request("POST", "/x", "Transfer-Encoding: chunked") + b"1;" + b"x" * 40_000,
    "space before colon": b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "folded header": b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
    "nul in header": b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
    "bytes in header": b"GET / HTTP/1.1\r\nHost: a\r\nCookie: \xff\xfe\xc3\x28\r\n\r\n",
    "bytes in content type": b"POST /mail/sync HTTP/1.1\r\nHost:a\r\nContent-Type: \xff\r\nContent-Length: 2\r\n\r\n{}",
    "bytes in target": b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
    "escapes in target": request("GET", "/%ff%fe%00%0d%0a/%2e%2e/%c0%ae"),
    "broken escapes": request("GET", "/%/%z/%%%/%1"),
    "absolute target": request("GET", "http://evil.example/mail/accounts"),
    "absolute, no path": request("GET", "http://evil.example"),
    "broken authority": request("GET", "http://["),
    "empty authority": request("GET", "http://"),
    "authority": request("CONNECT", "evil.example:443"),
    "asterisk": request("OPTIONS", "*"),
    "query only": request("GET", "?x"),
    "fragment": request("GET", "/x#y"),
    "long query": request("GET", "/mail/accounts?" + "&".join(f"a{n}=b" for n in range(3000))),
    "bytes in query": request("GET", "/mail/accounts?%ff=%00&&&==&%"),
    "method of signs": request("!#$%&'*+-.^_`|~", "/"),
    "method in small": request("get", "/mail/accounts"),
    "long method": request("A" * 5000, "/"),
    "http/0.9": b"GET /\r\n\r\n",
    "http/1.0": b"GET / HTTP/1.0\r\n\r\n",
    "http/1.0 kept": b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2,
    "http/3": b"GET / HTTP/3.0\r\nHost: a\r\n\r\n",
    "http/9.9": b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    "bare newlines": b"GET / HTTP/1.1\nHost: a\n\n",
    "bare returns": b"GET / HTTP/1.1\rHost: a\r\r",
    "empty lines first": b"\r\n\r\n\r\n\r\n" + request("GET", "/"),
    "many headers": request("GET", "/", *[f"X{n}: y" for n in range(2000)]),
    "expect": request("POST", "/mail/sync", "Expect: 100-continue", "Content-Length: 2",
        "Content-Type: application/json") + b"{}",
    "unknown expect": request("POST", "/mail/sync", "Expect: the-moon"),
    "many cookies": request("GET", "/mail/accounts", *["Cookie: a=b; sb-access-token=x"] * 100),
    "pipelined after close": request("GET", "/", "Connection: close") + request("GET", "/") * 50,
    "pipelined rubbish": request("GET", "/x") + b"\x00" * 5000,
    "body after get": request("GET", "/mail/accounts", body=b"{}" * 100),
    "smuggled": request("POST", "/mail/sync", "Transfer-Encoding: chunked",
        "Transfer-Encoding: identity") + b"0\r\n\r\n",
    "nothing": b"",
    "one byte": b"G",
    "zeros": b"\0" * 3000,
    "json": json.dumps({"a": 1}).encode() * 100,
}


def answers_of(got):
    """Each JSON document in what came; an interim answer has none."""
    for part in got.split(b"HTTP/1.1 ")[1:]:
        head, _, body = part.partition(b"\r\n\r\n")
        if not head.startswith((b"1", b"204")):
            yield int(head[:3]), json.loads(body) if body else None


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed(listening, name):
    async with connection(listening) as stream:
        with trio.fail_after(5):
            try:
                await stream.send_all(MALFORMED[name])
                await stream.send_eof()
            except trio.BrokenResourceError:
                pass        # refused before it was all sent
        for status, body in answers_of(await until_closed(stream)):
            assert 400 <= status < 500 or status in {501, 505}
            assert body is None or body["success"] is False
    assert (await ask(listening, request("GET", "/mail/openapi.json")))[0] == 200


@pytest.mark.parametrize("name", ["upgrade without key", "bad upgrade then bytes", "h2c", "h2 preface", "two lengths"])
async def test_connections_end_also_when_the_client_stays(listening, name):
    async with connection(listening) as stream:
        await stream.send_all(MALFORMED[name])
        await until_closed(stream)


REFUSED = {
    "length and chunks": (MALFORMED["length and chunks"], 400),
    "h2 preface": (MALFORMED["h2 preface"], 505),
    "http/3": (MALFORMED["http/3"], 505),
    "no key": (request("GET", "/x", *UPGRADE, VERSION), 400),
    "no version": (request("GET", "/x", *UPGRADE, KEY), 400),
    "version 99": (request("GET", "/x", *UPGRADE, KEY, "Sec-WebSocket-Version: 99"), 400),
    "no ascii, connection": (request("GET", "/x", UPGRADE[0], "Connection: Upgrade, \xe4", KEY, VERSION), 400),
    "no ascii, space": (request("GET", "/x", *UPGRADE, KEY, VERSION).replace(b"n: Up", b"n: \xa0Up"), 400),
    "no ascii, extensions": (request("GET", "/x", *UPGRADE, KEY, VERSION, "Sec-WebSocket-Extensions: \xff"), 400),
    "no ascii, protocol": (request("GET", "/x", *UPGRADE, KEY, VERSION, "Sec-WebSocket-Protocol: \xff"), 400),
    "websocket by http/1.0": (b"GET /x HTTP/1.0\r\n" + "\r\n".join((*UPGRADE, KEY, VERSION, "", "")).encode(), 400),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refused_in_the_envelope_without_a_failure_in_the_log(listening, name):
    data, expected = REFUSED[name]
    with capture_logs() as logged:
        async with connection(listening) as stream:
            await stream.send_all(data)
            status, headers, body = await answer(stream)
            assert await until_closed(stream) == b""
    assert (status, json.loads(body)["success"]) == (expected, False)
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"connection"] == b"close"
    assert {name.lower().encode() for name in HEADERS} <= headers.keys()
    assert not [event for event in logged if event["log_level"] in {"warning", "error"}]


@pytest.mark.parametrize("host", ["..", ".a", "a" * 5000])
async def test_a_host_that_is_no_name_is_no_failure_of_ours(listening, host):
    """The router finds it before there is a request: the log must not tell of an error that anybody can make."""
    with capture_logs() as logged:
        status, _, body = await ask(listening, f"GET /mail/accounts HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert (status, json.loads(body)["code"]) == (400, "bad_request")
    assert not [event for event in logged if event["log_level"] in {"warning", "error"}]
    assert [event["status"] for event in logged if event["event"] == "api.request"] == [400]


async def test_a_right_handshake_finds_no_websocket_and_is_told_so(listening):
    status, headers, body = await ask(listening, request("GET", "/x", *UPGRADE, KEY, VERSION))
    assert (status, json.loads(body)["code"]) == (404, "not_found")
    assert headers[b"content-type"] == b"application/json"


async def test_options_have_neither_type_nor_length(listening):
    status, headers, _ = await ask(listening, request("OPTIONS", "/mail/accounts"))
    assert status == 204
    assert not {b"content-type", b"content-length"} & headers.keys()


async def test_bytes_before_the_handshake_is_accepted_are_refused_in_the_envelope(app, nursery, service):
    """The handler has not answered yet: Hypercorn refuses by itself, with nothing in it."""
    async def slow():
        await trio.sleep_forever()

    app.add_websocket("/slow", "slow", slow)
    address = await nursery.start(lambda task_status: Listener(app, "127.0.0.1:0", grace=0.2).serve(
        task_status=task_status))
    async with connection(address) as stream:
        await stream.send_all(request("GET", "/slow", *UPGRADE, KEY, VERSION) + b"\x81\x05hello")
        status, headers, body = await answer(stream)
        assert (status, json.loads(body)["code"]) == (400, "bad_request")
        assert headers[b"x-content-type-options"] == b"nosniff"
        assert await until_closed(stream) == b""
    nursery.cancel_scope.cancel()


async def test_bytes_during_the_answer_to_a_handshake_neither_cut_nor_fail_it(app, nursery, service):
    """Hypercorn refuses them with a second head while the first answer is still on its way."""
    size = 16 << 20  # more than the kernel takes for a client that does not read

    async def large():
        return b"x" * size, 404

    app.add_websocket("/large", "large", large)
    address = await nursery.start(lambda task_status: Listener(app, "127.0.0.1:0", grace=0.2).serve(
        task_status=task_status))
    with capture_logs() as logged:
        async with connection(address) as stream:
            await stream.send_all(request("GET", "/large", *UPGRADE, KEY, VERSION))
            head = await stream.receive_some(1000)
            await stream.send_all(b"\x81\x05hello")
            await trio.sleep(0.1)
            _, _, body = (head + await until_closed(stream)).partition(b"\r\n\r\n")
    assert len(body) == size
    assert not [event for event in logged if event["log_level"] in {"warning", "error"}]
    nursery.cancel_scope.cancel()


async def test_an_absolute_target_is_the_path_in_it(listening, make_session):
    for prefix in ("http://any.example", "HTTPS://u@any.example:99"):
        status, _, body = await ask(listening, request("GET", f"{prefix}/mail/accounts?x", token=make_session()))
        assert (status, json.loads(body)["accounts"]) == (200, [])
    assert (await ask(listening, request("GET", "http://any.example//mail/accounts")))[0] == 400


def mutated(rng, data):
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                data = data[:place] + rng.randbytes(rng.randint(1, 8)) + data[place:]
            case 1:
                data = data[:place] + data[place + rng.randint(1, 20):]
            case 2:
                data = data[:place] + rng.choice([b"\r\n", b"\0", b":", b" ", b"\r\n\r\n", b"0\r\n\r\n"]) + data[place:]
            case 3:
                data = data[:place] + data[:rng.randint(0, 60)] + data[place:]
    return data


async def test_hundreds_of_mutations(listening, make_session):
    """Seeded, so that what fails once fails again."""
    rng = random.Random(20260115)
    seeds = [data for data in MALFORMED.values() if data] + [
        request(token=make_session()), request("POST", "/mail/sync", token=make_session(), body=b"{}")]
    limiter = trio.CapacityLimiter(8)

    async def one(data):
        async with limiter, connection(listening) as stream:
            try:
                for begin in range(0, len(data), size := rng.choice([50_000, 50_000, 997])):
                    await stream.send_all(data[begin:begin + size])
                await stream.send_eof()
            except trio.BrokenResourceError:
                pass
            got = await until_closed(stream, 10)
            assert b"HTTP/1.1 500" not in got, data

    async with trio.open_nursery() as nursery:
        for _ in range(600):
            nursery.start_soon(one, mutated(rng, rng.choice(seeds)))
    assert (await ask(listening, request("GET", "/mail/openapi.json")))[0] == 200
