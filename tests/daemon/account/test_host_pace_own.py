"""What accounts over a limit of their own must not teach of their host, nor do to the others at it."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from daemon.account.host_pace import FLOOR, OF_ONE_OWNER, OWN_TROUBLE, PAUSE_LONGEST, HostPace
from daemon.account.pacing import Pacing
from daemon.errors import Fault, FaultKind
from tests.daemon.account.test_host_pace import attempts


def test_an_account_that_is_refused_while_others_get_in_is_soon_no_witness():
    pace, convictions = HostPace(), 0
    for number in range(100):
        now = float(number)
        for account in ("its own limit", "another's own limit"):
            pace.begin(now)
            convictions += pace.throttled(now, account, now)
        pace.begin(now + 0.5)
        pace.answered(now + 0.6, f"well {number}")
    assert convictions <= OWN_TROUBLE
    pace.answered(100.0, "its own limit")
    assert not pace.turned_away("its own limit")
    assert pace.turned_away("another's own limit")


def test_slow_attempts_convict_nobody_for_no_pace_would_be_slow_enough():
    pace = HostPace()
    for number in range(200):
        now = number / FLOOR
        pace.begin(now)
        assert not pace.throttled(now, number, now)
    assert pace.rate is None


def test_few_accounts_of_one_owner_do_not_convict_but_a_host_where_all_are_one_owners_is_heeded():
    pace = HostPace()
    attempts(pace, 20, since=0.0, until=1.0)
    verdicts = [pace.throttled(1.0, number, 0.9, owner="one") for number in range(OF_ONE_OWNER)]
    assert verdicts == [False] * (OF_ONE_OWNER - 1) + [True]


def test_the_fewer_are_turned_away_the_less_is_the_rate_cut():
    pace = HostPace()
    attempts(pace, 100, since=0.0, until=1.0)
    for number in range(14):
        pace.answered(0.5, number)
    pace.throttled(1.0, "a", 0.9)
    assert pace.throttled(1.0, "b", 0.9)
    assert pace.rate == pytest.approx(85.0, abs=1.5), "two of sixteen: half of the cut"
    assert pace.wait(1.0) == 0.0, "and no pause"


# -- with the limiters around it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("chronic", "every"), [(60, 600.0), (200, 600.0), (30, 30.0)])
async def test_accounts_over_their_own_limit_do_not_shut_out_the_others(
    chronic: int, every: float, autojump_clock: MockClock
):
    pacing, chance = Pacing(starting=40, starting_per_host=10, first_syncs=4), random.Random(7)

    @asynccontextmanager
    async def login(*, fails: bool) -> AsyncIterator[None]:
        await trio.sleep(0.3)
        if fails:
            raise Fault(FaultKind.THROTTLED, "Too many simultaneous connections.")
        yield

    async def over_its_limit(number: int) -> None:
        await trio.sleep(chance.uniform(0.0, every))
        while True:
            with suppress(Fault):
                async with pacing.paced("host.test", login(fails=True), account=number):
                    pass
            await trio.sleep(every * chance.uniform(0.8, 1.0))

    waits = []
    async with trio.open_nursery() as nursery:
        for number in range(chronic):
            nursery.start_soon(over_its_limit, number)
        await trio.sleep(1800.0)  # the host is quiet: nobody else asks it for anything
        for number in range(30):
            began = trio.current_time()
            async with pacing.paced("host.test", login(fails=False), account=f"well {number}"):
                waits.append(trio.current_time() - began)
            await trio.sleep(chance.uniform(20.0, 60.0))
        nursery.cancel_scope.cancel()
    assert max(waits) <= PAUSE_LONGEST + 2 / FLOOR
    assert sorted(waits)[15] <= 1.0


async def test_who_was_turned_away_goes_behind_the_others(autojump_clock: MockClock):
    pacing, order = Pacing(starting=40, starting_per_host=4, first_syncs=4), []

    @asynccontextmanager
    async def login(name: str, *, fails: bool = False) -> AsyncIterator[None]:
        order.append(name)
        await trio.sleep(0.05)
        if fails:
            raise Fault(FaultKind.THROTTLED, "Too many simultaneous connections.")
        yield

    async def attempt(name: str, *, fails: bool = False) -> None:
        with suppress(Fault):
            async with pacing.paced("host.test", login(name, fails=fails), account=name):
                pass

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(partial(attempt, f"over {number}", fails=True))
    assert pacing.statistics().slowed == 1
    order.clear()
    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(attempt, f"over {number}")
        await trio.sleep(0.01)
        for number in range(8):
            nursery.start_soon(attempt, f"well {number}")
    assert all(name.startswith("well") for name in order[:7]), order
