"""When keys are fetched, kept and given up: exact times on a virtual clock, then the real endpoint misbehaving."""

import json
from contextlib import suppress

import pytest
import trio

from control_api.jwks import (
    LAST_GOOD,
    LIFETIME,
    MAX_DOCUMENT,
    REFETCH_PAUSE,
    RETRY_PAUSE,
    KeysUnavailable,
    PublishedKeys,
    fetcher,
)
from tests.fix_jwks import signing_keys


class Issuer:
    """Publishes in memory; `down` fails, `delay` takes that many virtual seconds."""

    def __init__(self):
        self.fetches = 0
        self.down = False
        self.delay = 0.0
        self.rotate()

    def rotate(self):
        self.jwk = signing_keys(0)["ES256"].public_jwk()
        self.kid = self.jwk["kid"]

    async def fetch(self):
        self.fetches += 1
        await trio.sleep(self.delay)
        if self.down:
            raise KeysUnavailable("down")
        return json.dumps({"keys": [self.jwk]}).encode()


@pytest.fixture
def issuer():
    return Issuer()


@pytest.fixture
def keys(issuer):
    return PublishedKeys(issuer.fetch)


async def test_a_set_is_used_for_ten_minutes(autojump_clock, issuer, keys):
    assert await keys.find(issuer.kid)
    await trio.sleep(LIFETIME - 1)
    assert await keys.find(issuer.kid)
    assert issuer.fetches == 1
    await trio.sleep(1)
    assert await keys.find(issuer.kid)
    assert issuer.fetches == 2


async def test_a_revoked_key_is_gone_with_the_set(autojump_clock, issuer, keys):
    old = issuer.kid
    assert await keys.find(old)
    issuer.rotate()
    assert await keys.find(old)
    await trio.sleep(LIFETIME)
    assert await keys.find(old) is None


async def test_an_unknown_kid_asks_once_in_thirty_seconds(autojump_clock, issuer, keys):
    await keys.find(issuer.kid)
    for _ in range(100):
        assert await keys.find("stranger") is None
    assert issuer.fetches == 1
    await trio.sleep(REFETCH_PAUSE)
    issuer.rotate()
    assert await keys.find(issuer.kid)
    for _ in range(100):
        assert await keys.find("stranger") is None
    assert issuer.fetches == 2


async def test_one_fetch_serves_all_who_wait(autojump_clock, issuer, keys):
    issuer.delay = 3.0
    found, began = [], trio.current_time()

    async def ask():
        found.append(await keys.find(issuer.kid))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(ask)
    assert (issuer.fetches, len(found), all(found)) == (1, 50, True)
    assert trio.current_time() - began == pytest.approx(3.0)


async def test_a_fetch_outlives_who_began_it(autojump_clock, issuer, keys):
    """Who hangs up neither holds the others off nor makes us ask again."""
    issuer.delay = 3.0
    with trio.move_on_after(1.0):
        await keys.find(issuer.kid)
    assert await keys.find(issuer.kid)
    assert issuer.fetches == 1


async def test_strangers_who_hang_up_make_one_fetch(autojump_clock, issuer, keys):
    await keys.find(issuer.kid)
    await trio.sleep(REFETCH_PAUSE)
    issuer.delay = 3.0
    began = trio.current_time()
    for number in range(50):
        with trio.move_on_after(0.1):
            await keys.find(f"stranger-{number}")
    assert trio.current_time() - began < REFETCH_PAUSE
    assert issuer.fetches == 2
    issuer.rotate()
    await trio.sleep(REFETCH_PAUSE)
    assert await keys.find(issuer.kid)          # nor do they keep a new key out


async def test_during_an_outage_one_caller_waits_and_no_other(autojump_clock, issuer, keys):
    await keys.find(issuer.kid)
    issuer.down = True
    await trio.sleep(LIFETIME)
    await keys.find(issuer.kid)
    await trio.sleep(REFETCH_PAUSE)
    issuer.delay = 3.0
    took = []

    async def ask():
        began = trio.current_time()
        assert await keys.find(issuer.kid)
        took.append(trio.current_time() - began)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask)
    assert sorted(took) == [0.0] * 19 + [pytest.approx(3.0)]


async def test_without_a_set_nothing_can_be_said(autojump_clock, issuer, keys):
    issuer.down = True
    for _ in range(3):
        with pytest.raises(KeysUnavailable):
            await keys.find(issuer.kid)
    assert issuer.fetches == 1
    issuer.down = False
    await trio.sleep(RETRY_PAUSE)
    assert await keys.find(issuer.kid)


async def test_the_last_good_set_outlives_an_outage_but_not_for_ever(autojump_clock, issuer, keys):
    await keys.find(issuer.kid)
    began = trio.current_time()
    issuer.down = True
    while trio.current_time() - began < LAST_GOOD - LIFETIME:
        await trio.sleep(LIFETIME)
        assert await keys.find(issuer.kid)
        with pytest.raises(KeysUnavailable):        # it may be a new key: not to be said before the issuer answers
            await keys.find("newer")
    await trio.sleep(LIFETIME + 1)
    with pytest.raises(KeysUnavailable):
        await keys.find(issuer.kid)
    issuer.down = False
    await trio.sleep(REFETCH_PAUSE)
    assert await keys.find(issuer.kid)
    assert await keys.find("stranger") is None


async def test_an_outage_is_asked_about_once_in_thirty_seconds(autojump_clock, issuer, keys):
    await keys.find(issuer.kid)
    issuer.down = True
    await trio.sleep(LIFETIME)
    for _ in range(100):
        await keys.find(issuer.kid)
    assert keys.statistics() == {"keys": 1, "age": LIFETIME, "fetches": 2, "failures": 1}


async def test_no_kid_no_fetch(issuer, keys):
    assert await keys.find(None) is None
    assert issuer.fetches == 0


@pytest.mark.parametrize(("body", "reason"), [
    (b"x" * (MAX_DOCUMENT + 1), "document_too_large"), (b"{}", None), (b"", None),
])
async def test_documents_that_are_none(jwks_server, body, reason):
    jwks_server.body = body
    with pytest.raises(KeysUnavailable):
        await PublishedKeys(fetcher(jwks_server.url, None)).find("any")
    if reason:
        with pytest.raises(KeysUnavailable, match=reason):
            await fetcher(jwks_server.url, None)()


async def test_an_endpoint_that_is_down_or_not_there(jwks_server):
    jwks_server.down = True
    with pytest.raises(KeysUnavailable, match="status_503"):
        await fetcher(jwks_server.url, None)()
    with pytest.raises(KeysUnavailable, match="ConnectError"):
        await fetcher("http://127.0.0.1:1/jwks.json", None)()


async def test_a_slow_endpoint_is_given_up(jwks_server, monkeypatch):
    monkeypatch.setattr("control_api.jwks.FETCH_TIMEOUT", 0.3)
    jwks_server.slow = 60.0
    with pytest.raises(KeysUnavailable, match=r"timed_out|ReadTimeout"):
        await fetcher(jwks_server.url, None)()


async def serve_once(answer, nursery):
    """A server that answers any request with these bytes; its address."""
    async def handle(stream):
        await stream.receive_some(4096)
        await stream.send_all(answer)
        await stream.aclose()

    listeners = await nursery.start(trio.serve_tcp, handle, 0)
    return f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/jwks.json"


@pytest.mark.parametrize(("head", "reason"), [
    (b"302 Found\r\nLocation: http://127.0.0.1:1/", "status_302"),
    (b"200 OK\r\nContent-Encoding: gzip", "compressed_although_not_asked"),
    (b"200 OK\r\nContent-Length: 100", "RemoteProtocolError"),
])
async def test_answers_that_are_not_followed(nursery, head, reason):
    url = await serve_once(b"HTTP/1.1 " + head + b"\r\nConnection: close\r\n\r\n", nursery)
    with pytest.raises(KeysUnavailable, match=reason):
        await fetcher(url, None)()
    nursery.cancel_scope.cancel()


async def test_an_endless_document_is_left_at_its_bound(nursery):
    sent = 0

    async def flood(stream):
        nonlocal sent
        await stream.receive_some(4096)
        with suppress(trio.BrokenResourceError):
            await stream.send_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            while True:
                await stream.send_all(b" " * 65536)
                sent += 65536
        await stream.aclose()

    listeners = await nursery.start(trio.serve_tcp, flood, 0)
    url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/"
    with pytest.raises(KeysUnavailable, match="document_too_large"):
        await fetcher(url, None)()
    assert sent < 50 * MAX_DOCUMENT     # what loopback's socket buffers swallow beyond it is not ours to bound
    nursery.cancel_scope.cancel()


async def test_rotation_is_noticed_at_the_real_endpoint(jwks_server):
    now = 0.0
    keys = PublishedKeys(fetcher(jwks_server.url, None), lambda: now)
    old = jwks_server.keys["RS256"].kid
    assert await keys.find(old)
    jwks_server.rotate()
    now = REFETCH_PAUSE
    assert await keys.find(jwks_server.keys["RS256"].kid)
    assert await keys.find(old) is None
    assert jwks_server.requests == 2
