"""What is kept from one request to the next: a verified signature, a connection's timer; and heads that wait."""

import math
import time

import jwt
import pytest
import trio
import trio.testing

from control_api import tokens
from control_api.claims import TokenRefused
from control_api.idle import IdleTimer
from control_api.keys import VerifyingKey
from control_api.tokens import TokenVerifier

ISSUER = "https://issuer.test"


class Keys:
    """One key, as the issuer has it at the moment."""

    algorithms = frozenset({"HS256"})

    def __init__(self, secret):
        self.key = VerifyingKey("HS256", secret)
        self.asked = 0

    async def find(self, kid, /):
        self.asked += 1
        return self.key


@pytest.fixture
def clock():
    return [time.time()]


@pytest.fixture
def keys():
    return Keys(b"a" * 32)


@pytest.fixture
def verifier(keys, clock):
    return TokenVerifier(keys, ISSUER, "free", lambda: clock[0])


@pytest.fixture
def verified(monkeypatch):
    """How often a signature was verified."""
    count, plain = [0], tokens._verified_claims

    def counting(token, key):
        count[0] += 1
        return plain(token, key)

    monkeypatch.setattr(tokens, "_verified_claims", counting)
    return count


def make_token(clock, key=b"a" * 32, **claims):
    said = {"iss": ISSUER, "aud": "authenticated", "role": "authenticated", "sub": "user-1", "exp": int(clock[0]) + 60}
    return jwt.encode(said | claims, key, algorithm="HS256")


async def test_a_signature_is_verified_once_and_its_key_asked_for_each_time(verifier, keys, clock, verified):
    token = make_token(clock)
    users = [await verifier.verify(token) for _ in range(5)]
    assert {user.id for user in users} == {"user-1"}
    assert (verified[0], keys.asked) == (1, 5)


async def test_time_is_judged_at_each_use(verifier, clock):
    token = make_token(clock, nbf=int(clock[0]))
    await verifier.verify(token)
    began = clock[0]
    for moment, reason in ((began + 91, "expired"), (began - 40, "not_yet_valid")):
        clock[0] = moment
        with pytest.raises(TokenRefused) as caught:
            await verifier.verify(token)
        assert caught.value.reason == reason
    clock[0] = began
    assert (await verifier.verify(token)).id == "user-1"


async def test_another_key_forgets_what_the_former_one_signed(verifier, keys, clock, verified):
    token = make_token(clock)
    await verifier.verify(token)
    keys.key = VerifyingKey("HS256", b"b" * 32)
    with pytest.raises(TokenRefused) as caught:
        await verifier.verify(token)
    assert caught.value.reason == "signature"
    keys.key = None
    with pytest.raises(TokenRefused) as caught:
        await verifier.verify(token)
    assert caught.value.reason == "unknown_key"
    keys.key = VerifyingKey("HS256", b"a" * 32)  # the same key, loaded again: its signature is verified again
    await verifier.verify(token)
    assert verified[0] == 3


async def test_the_bytes_are_what_is_known(verifier, clock, verified):
    token = make_token(clock)
    await verifier.verify(token)
    head, claims, signature = token.split(".")
    for other in (f"{head}.{claims}.{signature[:-4]}AAAA", f"{head}.{claims}.", token + "=", "\udcff" + token):
        with pytest.raises(TokenRefused):
            await verifier.verify(other)
    assert (await verifier.verify(make_token(clock, sub="user-2"))).id == "user-2"


async def test_refusals_are_not_kept_and_what_is_kept_is_bounded(verifier, clock, monkeypatch):
    monkeypatch.setattr(tokens, "REMEMBERED", 3)
    for number in range(9):
        with pytest.raises(TokenRefused):
            await verifier.verify(make_token(clock, key=b"x" * 32, sub=f"user-{number}"))
    assert not verifier._verified
    for number in range(9):
        await verifier.verify(make_token(clock, sub=f"user-{number}"))
    assert len(verifier._verified) == 3


@pytest.fixture
def never():
    return trio.Event()


async def test_an_idle_connection_is_timed_from_its_last_request(never, autojump_clock):
    timer, began = IdleTimer(10.0), trio.current_time()
    async with trio.open_nursery() as nursery:

        async def requests():
            for _ in range(3):
                await trio.sleep(8)
                timer.stop()
                await trio.sleep(100)
                timer.restart()

        nursery.start_soon(requests)
        assert await timer.expired(never.wait)
    assert trio.current_time() - began == pytest.approx(3 * 108 + 10)


async def test_termination_closes_the_idle_and_leaves_the_busy(never, autojump_clock):
    idle, busy, ended = IdleTimer(10.0), IdleTimer(10.0), IdleTimer(10.0)
    busy.stop()
    said = {}

    async def watch(name, timer):
        said[name] = await timer.expired(never.wait)

    async with trio.open_nursery() as nursery:
        for name, timer in (("idle", idle), ("busy", busy), ("ended", ended)):
            nursery.start_soon(watch, name, timer)
        await trio.testing.wait_all_tasks_blocked()
        ended.end()
        await trio.testing.wait_all_tasks_blocked()
        never.set()
    assert said == {"idle": True, "busy": False, "ended": False}


async def test_a_request_that_comes_as_time_runs_out_keeps_the_connection(never, autojump_clock):
    timer, said = IdleTimer(10.0), []

    async def watch():
        said.append(await timer.expired(never.wait))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        timer._scope.deadline = -math.inf
        timer.stop()
        await trio.sleep(50)
        assert said == []
        timer.restart()
    assert said == [True]
