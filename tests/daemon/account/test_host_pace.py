"""What a host's refusals teach of its pace, and what one owner's troubles must not teach; then a thousand at once."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from daemon.account.host_pace import CEILING, FLOOR, FORGET, MEMORY, PAUSE_FIRST, PAUSE_LONGEST, REMEMBERED, HostPace
from daemon.account.pacing import Pacing
from daemon.errors import Disposition, Fault, FaultKind


def attempts(pace: HostPace, count: int, *, since: float, until: float) -> None:
    for number in range(count):
        pace.begin(since + (until - since) * number / count)


def convicted(rate: int = 20, now: float = 1.0) -> HostPace:
    """A host that turned two accounts away when it was asked `rate` times a second."""
    pace = HostPace()
    attempts(pace, rate, since=now - 0.9, until=now)
    assert not pace.throttled(now, "a", now - 0.1)
    assert pace.throttled(now, "b", now - 0.1)
    return pace


def test_nothing_is_held_back_before_a_host_complains():
    pace = HostPace()
    for number in range(1000):
        assert pace.wait(number / 1000) == 0.0
        pace.begin(number / 1000)
        pace.answered(1.0)
    assert pace.rate is None
    assert pace.forgettable(1.0)


def test_two_accounts_convict_a_host_to_less_than_it_was_asked_for():
    pace = convicted(20)
    assert pace.rate == pytest.approx(14.0)
    assert pace.wait(1.0) == PAUSE_FIRST
    pace.begin(2.0)
    assert pace.wait(2.0) == pytest.approx(1 / 14)


def test_one_account_alone_never_convicts():
    pace = HostPace()
    for number in range(100):
        pace.begin(float(number))
        assert not pace.throttled(float(number), "its own limit", float(number))
    assert pace.wait(100.0) == 0.0


def test_a_few_accounts_among_many_that_get_in_do_not_convict():
    pace = HostPace()
    for number in range(1000):
        pace.begin(number / 100)
        if number % MEMORY == 0:
            assert not pace.throttled(number / 100, f"limited {number % 3}", number / 100)
        else:
            pace.answered(1.0)
    assert pace.rate is None


def test_attempts_under_way_at_a_conviction_do_not_count_again():
    pace = convicted(20)
    for number in range(10):
        assert not pace.throttled(1.2, f"under way {number}", 0.99)
    assert pace.rate == pytest.approx(14.0)


def test_pauses_double_until_somebody_gets_in_and_never_grow_beyond_the_longest():
    pace, now, pauses = convicted(), 1.0, []
    for _ in range(8):
        now += pace.wait(now)
        attempts(pace, 2, since=now, until=now)
        for account in ("a", "b"):
            pace.throttled(now, account, now)
        pauses.append(pace.wait(now))
    assert pauses == [2, 4, 8, 16, PAUSE_LONGEST, PAUSE_LONGEST, PAUSE_LONGEST, PAUSE_LONGEST]
    assert pace.rate is not None
    assert pace.rate >= FLOOR
    pace.answered(1.0)
    for account in ("a", "b"):
        pace.throttled(now, account, now)
    assert pace.wait(now) == PAUSE_FIRST


@pytest.mark.parametrize(("hint", "pause"), [(None, 1.0), (0.2, 1.0), (17.0, 17.0), (300.0, PAUSE_LONGEST)])
def test_the_hosts_own_hint_counts_within_bounds(hint: float | None, pause: float):
    pace = HostPace()
    attempts(pace, 2, since=1.0, until=1.0)
    pace.throttled(1.0, "a", 1.0, hint)
    pace.throttled(1.0, "b", 1.0, hint)
    assert pace.wait(1.0) == pause


def test_answers_quicken_it_doubling_at_first_and_then_by_one_a_second():
    pace = HostPace()
    pace.rate, pace._threshold = 1.0, 8.0
    for _ in range(7):
        pace.answered(1.0)
    assert pace.rate == 8.0
    for _ in range(8):  # a second's worth
        pace.answered(1.0)
    assert pace.rate == pytest.approx(9.0, abs=0.1)


def test_a_limit_beyond_the_ceiling_is_none_and_an_old_one_is_forgotten():
    pace = convicted()
    pace.rate = CEILING
    pace.answered(1.0)
    assert pace.rate is None
    pace = convicted()
    assert pace.limited(1.0 + FORGET)
    assert not pace.limited(1.1 + FORGET)
    assert not pace.forgettable(1.1 + FORGET), "who was turned away is still known"
    assert pace.forgettable(1.1 + REMEMBERED)


# -- with the limiters around it -----------------------------------------------------------------------------------


class Provider:
    """Lets `rate` logins a second in, with a burst of a second's worth, and turns the others away."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.tokens = rate
        self.at = trio.current_time()
        self.attempts: list[float] = []
        self.refused = 0
        self.synced: set[int] = set()

    @asynccontextmanager
    async def login(self, account: int, takes: float = 0.1) -> AsyncIterator[None]:
        now = trio.current_time()
        self.attempts.append(now)
        self.tokens = min(self.rate, self.tokens + (now - self.at) * self.rate)
        self.at = now
        await trio.sleep(takes)
        if self.tokens < 1.0:
            self.refused += 1
            raise Fault(FaultKind.THROTTLED, "The mail server asks us to slow down.")
        self.tokens -= 1.0
        self.synced.add(account)
        yield

    def most_in_a_second(self, since: float) -> int:
        times = [at for at in self.attempts if at >= since]
        return max(sum(1 for other in times if at <= other < at + 1.0) for at in times)


async def account(pacing: Pacing, provider: Provider, number: int, chance: random.Random) -> None:
    """As the supervisor does it: retry, paced by the account's own back-off."""
    pause = 2.0
    while True:
        try:
            async with pacing.paced(("host.test", 993), provider.login(number), account=number):
                return
        except Fault:
            await trio.sleep(pause * (1 - 0.2 * chance.random()))
            pause = min(600.0, 2 * pause)


@pytest.mark.parametrize("rate", [5, 20, 60])
async def test_a_thousand_accounts_of_a_provider_that_throttles_are_paced(rate: int, autojump_clock: MockClock):
    pacing, provider = Pacing(starting=40, starting_per_host=10, first_syncs=4), Provider(rate)
    chance = random.Random(7)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(1000):
            nursery.start_soon(account, pacing, provider, number, chance)
    took = trio.current_time() - began
    assert len(provider.synced) == 1000
    assert took <= 1.6 * 1000 / rate + 30
    assert provider.refused <= 0.1 * len(provider.attempts) + 20
    assert provider.most_in_a_second(began + 10) <= 1.5 * rate + 2


async def test_a_host_that_is_down_is_spared_and_comes_back_quickly(autojump_clock: MockClock):
    pacing, provider = Pacing(starting=40, starting_per_host=10, first_syncs=4), Provider(1e9)
    chance = random.Random(7)
    down = True

    @asynccontextmanager
    async def login(number: int) -> AsyncIterator[None]:
        if down:
            provider.attempts.append(trio.current_time())
            await trio.sleep(0.01)
            raise Fault(FaultKind.CONNECT_FAILED, "No server answers at that host and port.")
        async with provider.login(number):
            yield

    async def one(number: int) -> None:
        while number not in provider.synced:
            try:
                async with pacing.paced(("host.test", 993), login(number), account=number):
                    pass
            except Fault:
                await trio.sleep(2.0 + chance.random())

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(one, number)
        await trio.sleep(300.0)
        assert len(provider.attempts) < 100, "two hundred accounts, five minutes"
        assert pacing.statistics().slowed == 1
        down, up_at = False, trio.current_time()
    assert trio.current_time() - up_at <= PAUSE_LONGEST + 60.0


async def test_another_port_of_a_host_has_its_own_places(autojump_clock: MockClock):
    pacing = Pacing(starting=40, starting_per_host=2, first_syncs=4)

    @asynccontextmanager
    async def deaf() -> AsyncIterator[None]:
        await trio.sleep_forever()
        yield

    @asynccontextmanager
    async def healthy() -> AsyncIterator[None]:
        await trio.sleep(0.1)
        yield

    async def hold() -> None:
        async with pacing.paced(("host.test", 143), deaf(), account="x"):
            pass

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(hold)
        await trio.sleep(1)
        with trio.fail_after(1.0):
            async with pacing.paced(("host.test", 993), healthy(), account="y"):
                pass
        nursery.cancel_scope.cancel()


async def test_hosts_that_taught_nothing_are_forgotten(autojump_clock: MockClock):
    pacing = Pacing(starting=40, starting_per_host=2, first_syncs=4)

    @asynccontextmanager
    async def throttled() -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        raise Fault(FaultKind.THROTTLED, "The mail server asks us to slow down.")
        yield

    for number in range(2500):
        for account in ("a", "b")[: 1 + number % 2]:
            with pytest.raises(Fault):
                async with pacing.paced((f"h{number}.test", 993), throttled(), account=account):
                    pass
        await trio.sleep(FORGET / 100)
    assert len(pacing._hosts) <= 1100


@pytest.mark.parametrize(("kind", "disposition", "slowed"), [
    (FaultKind.THROTTLED, Disposition.RETRY, 1),
    (FaultKind.TLS_FAILED, Disposition.RETRY, 1),
    (FaultKind.TLS_FAILED, Disposition.PARK, 0),
    (FaultKind.AUTH_FAILED, Disposition.PARK, 0),
])  # fmt: skip
async def test_a_connection_cut_in_the_handshake_turns_away_as_words_do(
    kind: FaultKind, disposition: Disposition, slowed: int, autojump_clock: MockClock
):
    pacing = Pacing(starting=40, starting_per_host=2, first_syncs=4)

    @asynccontextmanager
    async def failing() -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        raise Fault(kind, "It did not work.", disposition=disposition)
        yield

    for account in ("a", "b"):
        with pytest.raises(Fault):
            async with pacing.paced(("host.test", 993), failing(), account=account):
                pass
    assert pacing.statistics().slowed == slowed
