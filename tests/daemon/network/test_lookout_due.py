"""When watchers are due.  The clock jumps, so that ticks are exact; the sockets are real."""

import time
from functools import partial
from math import inf

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from daemon.network import Lookout
from daemon.network.lookout import AT_ONCE, TICK

from .loopback import BOUND, background
from .watchers import Noted, Reading, Steady, Waits, looking, nothing_is_left, pairs, ticks


@pytest.fixture
def pair():
    with pairs() as made:
        yield made


@pytest.mark.parametrize("seconds", [0.01, TICK, 0.07, 1.0, 3.33])
async def test_due_is_called_at_its_tick_and_never_before(pair, seconds, autojump_clock):
    ours, _ = pair()
    async with looking() as (lookout, _):
        due_at = trio.current_time() + seconds
        await lookout.wait(ours.fileno(), watcher := Noted(), due_at)
        assert watcher.calls == ["due"]
        assert due_at - 1e-9 <= watcher.times[0] < due_at + TICK + 1e-9
        assert nothing_is_left(lookout)


async def test_a_time_that_has_passed_is_due_at_once(pair, autojump_clock):
    await trio.sleep(100)
    async with looking() as (lookout, _):
        for past in (-5.0, 0.0, 7.0, trio.current_time()):
            ours, _ = pair()
            began = trio.current_time()
            await lookout.wait(ours.fileno(), watcher := Noted(), past)
            assert watcher.calls == ["due"]
            assert watcher.times[0] - began < TICK + 1e-9


async def test_what_is_due_at_once_is_cancelled_as_any_other(pair, autojump_clock):
    """At the very first moment of the clock, too; and `run` finds nobody."""
    lookout = Lookout()
    for past in (-5.0, 0.0):
        with trio.CancelScope() as scope:
            scope.cancel()
            await lookout.wait(pair()[0].fileno(), Noted(), past)
        assert nothing_is_left(lookout)
    async with background() as nursery:
        await nursery.start(lookout.run)
        await wait_all_tasks_blocked()
    lookout.close()


async def test_what_is_never_due_waits_for_what_is_to_be_read(pair, autojump_clock):
    ours, theirs = pair()
    waits, watcher = Waits(), Noted()
    async with looking() as (lookout, nursery):
        nursery.start_soon(waits.wait, lookout, ours.fileno(), watcher, inf)
        await trio.sleep(BOUND / 2)
        assert (waits, lookout.waiting) == ([], 1)
        theirs.send(b"x")
        await wait_all_tasks_blocked()
        assert watcher.calls == ["readable"]


async def test_due_and_not_enough_is_due_when_the_watcher_says_and_else_never(pair, autojump_clock):
    ours, _ = pair()
    fd, waits = ours.fileno(), Waits()
    async with looking() as (lookout, nursery):
        began = trio.current_time()
        watcher = Noted(
            partial(lookout.due_again, fd, began + 2),
            lambda: [lookout.due_again(fd, at) for at in (began + 3, inf, began + 4)] == [],
            False,
        )
        nursery.start_soon(waits.wait, lookout, fd, watcher, began + 1)
        await trio.sleep(8)
        assert watcher.calls == ["due"] * 3
        assert [round(at - began) for at in watcher.times] == [1, 2, 4]
        assert (waits, lookout.waiting, ticks(lookout)) == ([], 1, set())


async def test_due_again_from_what_was_read_moves_the_time(pair, autojump_clock):
    """Both ways, while the lookout sleeps towards the time that was said first."""
    sockets = [pair(), pair()]
    watchers = []
    async with looking() as (lookout, nursery):
        began = trio.current_time()
        for (ours, _), due_at, again_at in zip(sockets, (4, 1), (2, 3), strict=True):
            watchers.append(Reading(ours, partial(lookout.due_again, ours.fileno(), began + again_at)))
            nursery.start_soon(Waits().wait, lookout, ours.fileno(), watchers[-1], began + due_at)
        await trio.sleep(0.5)
        for _, theirs in sockets:
            theirs.send(b"x")
        await trio.sleep(6)
        assert [watcher.calls for watcher in watchers] == [["readable", "due"]] * 2
        assert [round(watcher.times[1] - began, 1) for watcher in watchers] == [2.0, 3.0]


async def test_due_again_at_once_is_not_before_the_next_tick(pair, autojump_clock):
    ours, _ = pair()
    async with looking() as (lookout, _):
        again = partial(lookout.due_again, ours.fileno(), 0.0)
        await lookout.wait(ours.fileno(), watcher := Noted(*[again] * 20), 0.0)
        gaps = [later - sooner for sooner, later in zip(watcher.times, watcher.times[1:], strict=False)]
        assert len(gaps) == 20
        assert min(gaps) > TICK - 1e-9
        assert max(gaps) < 2 * TICK + 1e-9


async def test_a_sooner_time_while_it_sleeps_towards_a_later_one(pair, autojump_clock):
    sockets = [pair()[0] for _ in range(3)]
    waits, watchers = Waits(), [Noted() for _ in sockets]
    async with looking() as (lookout, nursery):
        began = trio.current_time()
        for sock, watcher, due_at in zip(sockets, watchers, (8, 1, 5), strict=True):
            nursery.start_soon(waits.wait, lookout, sock.fileno(), watcher, began + due_at)
            await wait_all_tasks_blocked()
        await trio.sleep(9)
        assert [fd for fd, _ in waits] == [sockets[n].fileno() for n in (1, 2, 0)]
        assert [round(watcher.times[0] - began, 1) for watcher in watchers] == [8.0, 1.0, 5.0]


async def test_those_of_one_tick_are_called_in_one_step(pair, autojump_clock):
    sockets, watchers, waits = [pair()[0] for _ in range(AT_ONCE - 1)], [], Waits()
    async with looking() as (lookout, nursery):
        for number, sock in enumerate(sockets):
            watchers.append(Noted())
            due_at = 2 * TICK - (number + 1) * TICK / AT_ONCE
            nursery.start_soon(waits.wait, lookout, sock.fileno(), watchers[-1], due_at)
        await trio.sleep(1)
        assert len({watcher.times[0] for watcher in watchers}) == 1
        assert len(waits) == len(sockets)


async def test_many_that_are_due_together_are_all_called_and_let_others_have_their_turns(pair, autojump_clock):
    called, most, done = 0, 0, False

    def counted():
        nonlocal called
        called += 1
        return True

    async def others():
        nonlocal most
        before = called
        while not done:
            await trio.lowlevel.checkpoint()
            most, before = max(most, called - before), called

    waits, now = Waits(), trio.current_time()
    async with looking() as (lookout, nursery):
        for number in range(200):
            nursery.start_soon(waits.wait, lookout, pair()[0].fileno(), Noted(counted), now + 1 + number % 3 * TICK)
        await wait_all_tasks_blocked()
        autojump_clock.jump(2)
        nursery.start_soon(others)
        while len(waits) < 200:
            await trio.lowlevel.checkpoint()
        done = True
        assert called == 200
        assert most <= 2 * AT_ONCE, "a step before our last turn, and one after it"
        assert nothing_is_left(lookout)
        assert not lookout._ticks
        assert not lookout._order


async def test_run_that_is_cancelled_in_the_midst_of_a_tick_loses_none(pair, autojump_clock):
    waits, lookout = Waits(), Lookout()
    async with background() as nursery:
        for _ in range(16 * AT_ONCE):
            nursery.start_soon(waits.wait, lookout, pair()[0].fileno(), Noted(), 1.0)
        await wait_all_tasks_blocked()
        autojump_clock.jump(1.5)
        async with background() as running:
            await running.start(lookout.run)
            while not waits:
                await trio.lowlevel.checkpoint()
            assert len(waits) < 16 * AT_ONCE, "in the midst of them"
        await nursery.start(lookout.run)
        await wait_all_tasks_blocked()
        assert len(waits) == 16 * AT_ONCE
        assert nothing_is_left(lookout)
    lookout.close()


async def test_one_that_joins_or_leaves_a_tick_that_is_gone_through(pair, autojump_clock):
    """Between two turns of those who are due: one is cancelled before it was called, another begins to wait."""
    waits, late = Waits(), Noted()
    watchers = {pair()[0].fileno(): Noted() for _ in range(16 * AT_ONCE)}
    async with looking() as (lookout, nursery):
        async with background() as leaving:
            due_at = trio.current_time() + 1
            for fd, watcher in watchers.items():
                leaving.start_soon(waits.wait, lookout, fd, watcher, due_at)
            await wait_all_tasks_blocked()
            autojump_clock.jump(1.5)
            while not waits:
                await trio.lowlevel.checkpoint()
            nursery.start_soon(waits.wait, lookout, joins := pair()[0].fileno(), late, due_at)
        called = sum(len(watcher.calls) for watcher in watchers.values())
        assert AT_ONCE <= called < len(watchers), "it was in the midst of them"
        await wait_all_tasks_blocked()
        assert late.calls == ["due"]
        assert waits[-1] == (joins, None)
        assert nothing_is_left(lookout)
        await lookout.wait(joins, again := Noted(), trio.current_time() + 1)
        assert again.calls == ["due"]


async def test_a_node_that_lags_behind_its_ticks_still_sees_what_is_to_be_read(pair):
    """Each step of the loop takes longer than a tick, and at each there is more due than is called at once."""
    quiet, theirs = pair()
    waits, lagging = Waits(), True

    async def lag():
        while lagging:
            time.sleep(TICK)  # noqa: ASYNC251 - it is what holds the loop up
            await trio.lowlevel.checkpoint()

    async with looking() as (lookout, nursery):
        for _ in range(2 * AT_ONCE):
            fd = pair()[0].fileno()
            again = Steady(partial(lookout.due_again, fd, 0.0))
            nursery.start_soon(Waits().wait, lookout, fd, again, 0.0)
        nursery.start_soon(waits.wait, lookout, quiet.fileno(), Noted())
        nursery.start_soon(lag)
        await trio.sleep(2 * TICK)
        theirs.send(b"x")
        for _ in range(8):
            await trio.lowlevel.checkpoint()
        lagging = False
        assert waits == [(quiet.fileno(), None)]
