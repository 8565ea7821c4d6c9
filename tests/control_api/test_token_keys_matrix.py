"""The issuer's keys in every state, seen by callers over HTTP: 200, 401, or 503 where nothing can be said.

`test_jwks` holds the exact moments against a virtual clock; here the clock is the test's, the endpoint and the listener
are real.
"""

import json
import socket
import struct
from functools import partial

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from control_api.app import ControlApi, create_app
from control_api.jwks import LAST_GOOD, LIFETIME, REFETCH_PAUSE, RETRY_PAUSE, PublishedKeys, fetcher
from control_api.server import Listener
from control_api.tokens import TokenVerifier
from daemon.settings import Settings
from daemon.vault.secret import Secret
from tests.control_api.test_jwks import serve_once
from tests.control_api.wire import ask, connection, request
from tests.fix_jwks import signing_keys

SECRET = "a session secret of at least thirty-two bytes"


class Api:
    """A listener whose key set lives by `now`."""

    def __init__(self, server, service, url=None):
        self.now = 1_000_000.0
        self.server = server
        self.keys = PublishedKeys(fetcher(url or server.url, None), lambda: self.now)
        self.app = ControlApi(Settings(), service, TokenVerifier(self.keys, server.issuer, "free"))
        self.address = ("", 0)

    async def serve(self, nursery):
        listener = Listener(self.app, "127.0.0.1:0", grace=0.5, head_timeout=5.0, send_timeout=5.0)
        self.address = await nursery.start(lambda task_status: listener.serve(task_status=task_status))
        return self

    async def session(self, token=None):
        """The status of a request with this token, a good one by default; refusals are as the contract has them."""
        status, headers, body = await ask(self.address, request(token=token or self.server.make_token()))
        if status == 503:
            said = json.loads(body)
            assert said["code"] == "not_ready"
            assert said["retryAfter"] == int(headers[b"retry-after"]) >= 1
        elif status == 401:
            assert json.loads(body)["code"] == "not_authenticated"
        else:
            assert status == 200
        return status

    def stranger(self, number=0):
        """A token that names a key nobody published."""
        return self.server.make_token(headers={"kid": f"stranger-{number}"})


@pytest.fixture
async def api(jwks_server, service, nursery):
    yield await Api(jwks_server, service).serve(nursery)
    nursery.cancel_scope.cancel()


async def test_down_at_the_start(api):
    """Nothing can be said of a token; it is asked again soon, and not by everybody."""
    api.server.down = True
    assert {await api.session() for _ in range(20)} == {503}
    assert api.server.requests == 1
    api.now += RETRY_PAUSE
    assert await api.session() == 503
    api.server.down = False
    assert await api.session() == 503
    api.now += RETRY_PAUSE
    assert await api.session() == 200
    assert await api.session(api.stranger()) == 401


async def test_down_what_needs_no_key_is_refused_all_the_same(api):
    api.server.down = True
    for token in ("x", "a.b.c", api.server.make_token(alg="HS256"), api.server.make_token(headers={"crit": ["x"]})):
        assert await api.session(token) == 401
    assert (await ask(api.address, request()))[0] == 401
    assert api.server.requests == 0


async def test_down_later(api):
    """The last good set serves who has a key of it, for a day; of any other key nothing can be said."""
    assert await api.session() == 200
    api.server.down = True
    api.now += LIFETIME
    for _ in range(5):
        assert await api.session() == 200
        assert await api.session(api.stranger()) == 503
        assert await api.session(api.server.make_token(lifetime=-60)) == 401
        api.now += LIFETIME
    assert api.server.requests <= 1 + 5 * 2
    api.now += LAST_GOOD
    assert await api.session() == 503
    api.server.down = False
    api.now += REFETCH_PAUSE
    assert await api.session() == 200
    assert await api.session(api.stranger()) == 401


def documents(server):
    """Documents that hold no key which may be used, by what is wrong; the second is what a good token then gets."""
    rsa, curve = (server.keys[alg].public_jwk() for alg in ("RS256", "ES256"))
    private = json.loads(ECAlgorithm.to_jwk(server.keys["ES256"].private)) | curve
    other = json.loads(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key())) | {
        "kid": curve["kid"], "alg": "ES256"}
    many = [{**curve, "kid": f"key-{number}"} for number in range(10_000)]
    whole = {
        "private": ([private], 401), "private twin": ([private, curve], 401), "same kid twice": ([curve, other], 401),
        "same key twice": ([curve, curve], 401), "for encryption": ([curve | {"use": "enc"}], 401),
        "no alg": ([curve | {"alg": None}], 401), "wrong alg": ([curve | {"alg": "RS256"}], 401),
        "no kid": ([{**curve, "kid": None}], 401), "another's kid": ([rsa | {"kid": curve["kid"]}], 401),
        "secret": ([{"kty": "oct", "alg": "HS256", "k": "a" * 43, "kid": curve["kid"]}], 401),
        "no keys at all": ([], 401), "10,000 keys": ([curve, *many], 503), "65 keys": ([curve, *many[:64]], 503),
    }  # fmt: skip
    found = {name: (json.dumps({"keys": keys}).encode(), status) for name, (keys, status) in whole.items()}
    good = json.dumps({"keys": [curve]}).encode()
    return found | {
        "empty": (b"", 503), "HTML": (b"<!doctype html><title>Sign in</title>", 503),
        "array": (json.dumps([curve]).encode(), 503),
        "null": (b"null", 503), "keys no list": (b'{"keys": {"0": {}}}', 503), "cut": (good[:-2], 503),
        "huge": (good[:-1] + b" " * (300 << 10) + b"}", 503), "deep": (b'{"keys":' + b"[" * 100_000, 503),
        "not text": (b"\xff\xfe\0", 503),
    }  # fmt: skip


async def test_documents(jwks_server, service, nursery):
    """At the start none of them lets anybody in; later a document that is none leaves the last good set in use."""
    for name, (document, status) in documents(jwks_server).items():
        api = await Api(jwks_server, service).serve(nursery)
        jwks_server.body = document
        assert await api.session() == status, name
        secret = jwks_server.make_token(alg="HS256", key="a" * 43, headers={"kid": jwks_server.keys["ES256"].kid})
        assert await api.session(secret) == 401, name
        jwks_server.body = None
        api.now += LIFETIME
        assert await api.session() == 200, name
        jwks_server.body = document
        api.now += LIFETIME
        assert await api.session() == (200 if status == 503 else 401), f"{name}, later"
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("head", [
    b"302 Found\r\nLocation: {url}", b"301 Moved\r\nLocation: {url}", b"307 Elsewhere\r\nLocation: {url}",
    b"200 OK\r\nContent-Encoding: gzip", b"204 No Content", b"404 Not Found", b"500 Oops",
    b"200 OK\r\nContent-Length: 9",
])  # fmt: skip
async def test_answers_that_are_no_document(jwks_server, service, nursery, head):
    """A redirect is not followed, though it leads to the very keys."""
    answer = b"HTTP/1.1 " + head.replace(b"{url}", jwks_server.url.encode()) + b"\r\nConnection: close\r\n\r\n"
    api = await Api(jwks_server, service, await serve_once(answer, nursery)).serve(nursery)
    assert await api.session() == 503
    assert jwks_server.requests == 0
    nursery.cancel_scope.cancel()


async def test_slow(api, monkeypatch):
    """All who wait for the first set are answered together, and the issuer is asked once for them."""
    monkeypatch.setattr("control_api.jwks.FETCH_TIMEOUT", 0.3)
    api.server.slow = 30.0
    told = []

    async def ask_once():
        told.append(await api.session())

    async with trio.open_nursery() as callers:
        for _ in range(20):
            callers.start_soon(ask_once)
    assert told == [503] * 20
    assert api.server.requests == 1


async def test_rotation(api):
    old = api.server.make_token()
    assert await api.session(old) == 200
    api.server.rotate()
    assert await api.session(old) == 200
    assert await api.session() == 401, "within the pause after the last fetch"
    api.now += REFETCH_PAUSE
    assert await api.session() == 200, "one refetch for a kid that is not known"
    assert await api.session(old) == 401, "a key that is gone is gone"
    assert api.server.requests == 2


async def test_a_key_that_is_withdrawn_without_a_successor(api):
    leaving = signing_keys(0)["ES256"]
    api.server.body = json.dumps({"keys": [leaving.public_jwk()]}).encode()
    token = api.server.make_token(key=leaving)
    assert await api.session(token) == 200
    api.server.body = None
    api.now += LIFETIME - 1
    assert await api.session(token) == 200
    api.now += 1
    assert await api.session(token) == 401


async def test_a_flood_of_strangers(api):
    """One fetch in a pause, however many names they make up; who is signed in does not notice."""
    assert await api.session() == 200
    for round_ in range(3):
        async with trio.open_nursery() as callers:
            for number in range(60):
                callers.start_soon(partial(api.session, api.stranger(60 * round_ + number)))
        assert await api.session() == 200
        assert api.server.requests == 1 + round_
        api.now += REFETCH_PAUSE


async def test_a_flood_of_strangers_who_hang_up(api):
    """A fetch that was begun is finished: resetting the connection neither repeats it nor keeps a new key out."""
    assert await api.session() == 200
    api.server.rotate()
    api.server.slow = 0.5
    api.now += REFETCH_PAUSE
    for number in range(20):
        async with connection(api.address) as stream:
            await stream.send_all(request(token=api.stranger(number)))
            await trio.sleep(0.03)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert await api.session() == 200
    assert api.server.requests == 2


async def test_with_a_secret_nobody_is_asked(jwks_server, service, nursery):
    """The mode alone decides: a JWKS URL beside it is no second way in."""
    auth = {"mode": "hs256", "issuer": jwks_server.issuer, "jwks_url": jwks_server.url}
    app = create_app(Settings.model_validate({"auth": auth}), service, Secret(SECRET))
    listener = Listener(app, "127.0.0.1:0", grace=0.5, head_timeout=5.0, send_timeout=5.0)
    address = await nursery.start(lambda task_status: listener.serve(task_status=task_status))
    tokens = {"ES256": 401, "RS256": 401, "HS256": 200}
    for alg, expected in tokens.items():
        token = jwks_server.make_token(alg=alg, **({"key": SECRET} if alg == "HS256" else {}))
        assert (await ask(address, request(token=token)))[0] == expected
    assert jwks_server.requests == 0
    nursery.cancel_scope.cancel()
