"""The lookout over real socket pairs: what is to be read, and what goes wrong."""

import gc
import socket
import weakref
from contextvars import ContextVar
from math import inf

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from daemon.network import Lookout
from daemon.network.lookout import AT_ONCE, TICK

from .loopback import BOUND, background
from .watchers import Noted, Reading, Steady, Waits, known, looking, nothing_is_left, pairs, ticks

WHO = ContextVar("WHO", default="nobody")


@pytest.fixture
def pair():
    with pairs() as made:
        yield made


async def test_what_is_readable_is_judged_and_enough_lets_the_task_go_on(pair):
    ours, theirs = pair()
    watcher, waits = Noted(True), Waits()
    async with looking() as (lookout, nursery):
        nursery.start_soon(waits.wait, lookout, ours.fileno(), watcher)
        await wait_all_tasks_blocked()
        assert (watcher.calls, lookout.waiting, lookout.seen) == ([], 1, 0)
        assert known(lookout) == {ours.fileno()}
        theirs.send(b"x")
        await wait_all_tasks_blocked()
        assert (watcher.calls, lookout.seen) == (["readable"], 1)
        assert waits == [(ours.fileno(), None)]
        assert nothing_is_left(lookout)
        assert ours.recv(10) == b"x", "it is the watcher's to read"


async def test_what_is_here_before_the_wait_is_seen(pair):
    ours, theirs = pair()
    theirs.send(b"x")
    async with looking() as (lookout, _):
        await lookout.wait(ours.fileno(), watcher := Noted(True), inf)
        assert watcher.calls == ["readable"]


async def test_not_enough_waits_on_and_is_asked_again(pair):
    ours, theirs = pair()
    watcher, waits = Reading(ours, False, False, True), Waits()
    async with looking() as (lookout, nursery):
        nursery.start_soon(waits.wait, lookout, ours.fileno(), watcher)
        for said in (b"a", b"b"):
            theirs.send(said)
            await wait_all_tasks_blocked()
            assert (waits, lookout.waiting) == ([], 1)
        assert watcher.read == b"ab"
        theirs.send(b"c")
        await wait_all_tasks_blocked()
        assert (watcher.read, waits) == (b"abc", [(ours.fileno(), None)])


async def test_what_a_watcher_left_unread_is_told_of_again(pair):
    ours, theirs = pair()
    theirs.send(b"abc")
    async with looking() as (lookout, _):
        await lookout.wait(ours.fileno(), watcher := Reading(ours, False, False, True), inf)
        assert watcher.read == b"abc"


async def test_one_lookout_serves_wait_after_wait(pair):
    ours, theirs = pair()
    async with looking() as (lookout, _):
        for _ in range(3):
            theirs.send(b"x")
            await lookout.wait(ours.fileno(), watcher := Reading(ours), inf)
            assert (watcher.read, watcher.calls) == (b"x", ["readable"])
        assert nothing_is_left(lookout)


@pytest.mark.parametrize("hang_up", [socket.socket.close, lambda sock: sock.shutdown(socket.SHUT_WR)])
async def test_a_hang_up_is_to_be_read(pair, hang_up):
    ours, theirs = pair()
    watcher = Noted(lambda: ours.recv(10) == b"")
    async with looking() as (lookout, nursery):
        nursery.start_soon(Waits().wait, lookout, ours.fileno(), watcher)
        await wait_all_tasks_blocked()
        hang_up(theirs)
        await wait_all_tasks_blocked()
        assert (watcher.calls, lookout.waiting) == (["readable"], 0)


async def test_one_that_floods_leaves_the_others_their_turns(pair):
    """More of them than are called at once, each readable without end, and one that says a single byte."""
    floods = [pair() for _ in range(3 * AT_ONCE)]
    quiet, speaks = pair()
    ended, turns = Waits(), 0
    async with looking() as (lookout, nursery):
        for ours, theirs in floods:
            theirs.send(b"x")
            nursery.start_soon(Waits().wait, lookout, ours.fileno(), Steady(lambda: False))
        nursery.start_soon(ended.wait, lookout, quiet.fileno(), Noted())
        while lookout.seen < 10 * len(floods):
            before, turns = lookout.seen, turns + 1
            await trio.lowlevel.checkpoint()
            assert lookout.seen - before <= 2 * AT_ONCE, "a step before our last turn, and one after it"
        assert ended == []
        speaks.send(b"x")
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        assert ended == [(quiet.fileno(), None)]
        assert turns > 20


async def test_a_watcher_sees_the_context_of_the_task_that_waits(pair):
    seen = {"one": [], "other": []}

    async def waiting(lookout, name, sock):
        WHO.set(name)
        watcher = Reading(sock, lambda: seen[name].append(WHO.get()), lambda: seen[name].append(WHO.get()) or True)
        await lookout.wait(sock.fileno(), watcher, trio.current_time() + TICK)

    async with looking() as (lookout, nursery):
        for name in ("one", "other"):
            ours, theirs = pair()
            nursery.start_soon(waiting, lookout, name, ours)
            await wait_all_tasks_blocked()
            theirs.send(b"x")
        with trio.fail_after(BOUND):
            while lookout.waiting:
                await trio.lowlevel.checkpoint()
    assert seen == {"one": ["one", "one"], "other": ["other", "other"]}
    assert WHO.get() == "nobody"


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["readable", "due"])
async def test_what_a_watcher_raises_is_raised_where_it_is_waited_for(pair, call):
    (first, speaks), (second, _) = pair(), pair()
    failure, waits, others = ValueError(call), Waits(), Waits()
    watcher = Noted(failure)
    async with looking() as (lookout, nursery):
        nursery.start_soon(others.wait, lookout, second.fileno(), Noted())
        if call == "readable":
            speaks.send(b"x")
        with pytest.raises(ValueError, match=call) as caught:
            await lookout.wait(first.fileno(), watcher, trio.current_time() + TICK if call == "due" else inf)
        assert caught.value is failure
        assert watcher.calls == [call]
        assert (others, lookout.waiting, known(lookout)) == ([], 1, {second.fileno()})
        lookout.wake(second.fileno())  # and it still looks
        await wait_all_tasks_blocked()
        assert others == [(second.fileno(), None)]
        assert waits == []


@pytest.mark.parametrize("call", ["readable", "due"])
@pytest.mark.parametrize("answer", [True, False, ValueError("mine")])
async def test_a_watcher_may_wake_its_own_task(pair, call, answer):
    ours, theirs = pair()
    waits = Waits()
    async with looking() as (lookout, nursery):

        def woken():
            lookout.wake(ours.fileno())
            if isinstance(answer, Exception):
                raise answer
            return answer

        if call == "readable":
            theirs.send(b"x")
        due_at = trio.current_time() if call == "due" else inf
        nursery.start_soon(waits.wait, lookout, ours.fileno(), Noted(woken), due_at)
        await trio.sleep(2 * TICK)
        assert waits == [(ours.fileno(), answer if isinstance(answer, Exception) else None)]
        await lookout.wait(ours.fileno(), Noted(), trio.current_time())  # it is looked out as before


async def test_a_failure_leaves_no_cycle(pair):
    """The daemon's collector does not look at old objects: a session that is lost must go by itself."""

    class Failing:
        def readable(self):
            raise ValueError("mine")

    ours, theirs = pair()
    theirs.send(b"x")
    watcher = Failing()
    gone = weakref.ref(watcher)
    gc.disable()
    try:
        async with looking() as (lookout, _):
            try:
                await lookout.wait(ours.fileno(), watcher, inf)
            except ValueError:
                pass
            else:
                pytest.fail("it was not raised")
            del watcher
            assert gone() is None
    finally:
        gc.enable()


async def test_a_cancelled_wait_leaves_nothing_behind(pair):
    ours, theirs = pair()
    async with looking() as (lookout, _):
        watcher = Noted()
        with trio.move_on_after(0.01) as scope:
            await lookout.wait(ours.fileno(), watcher, trio.current_time() + 2 * TICK)
        assert scope.cancelled_caught
        assert nothing_is_left(lookout)
        theirs.send(b"x")
        await trio.sleep(4 * TICK)
        assert (watcher.calls, lookout.seen) == ([], 0)
        await lookout.wait(ours.fileno(), again := Noted(), inf)
        assert again.calls == ["readable"]


async def test_a_wait_that_cannot_begin_leaves_nothing_behind(pair):
    ours, _ = pair()
    async with looking() as (lookout, _):
        fd = ours.fileno()
        ours.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            await lookout.wait(fd, Noted(), inf)
        assert nothing_is_left(lookout)


async def test_wake_lets_the_task_go_on_and_is_harmless_where_nobody_waits(pair):
    (ours, _), (free, _) = pair(), pair()
    watcher, waits = Noted(), Waits()
    async with looking() as (lookout, nursery):
        nursery.start_soon(waits.wait, lookout, ours.fileno(), watcher)
        await wait_all_tasks_blocked()
        for nobody in (free.fileno(), -1, 1 << 20):
            lookout.wake(nobody)
        await wait_all_tasks_blocked()
        assert (waits, lookout.waiting) == ([], 1)
        lookout.wake(ours.fileno())
        lookout.wake(ours.fileno())
        await wait_all_tasks_blocked()
        assert (waits, watcher.calls) == ([(ours.fileno(), None)], [])
        assert nothing_is_left(lookout)


async def test_a_number_that_another_connection_has_got_is_looked_out_for_that_one(pair):
    old, _ = pair()
    fd = old.fileno()
    first, second, waits = Noted(), Noted(), Waits()
    async with looking() as (lookout, nursery):
        nursery.start_soon(waits.wait, lookout, fd, first, trio.current_time() + 2 * TICK)
        await wait_all_tasks_blocked()
        old.close()
        assert known(lookout) == set(), "the kernel forgets what is closed"
        new, speaks = pair()
        assert fd in (new.fileno(), speaks.fileno()), "the lowest free number"
        other = speaks if new.fileno() == fd else new
        nursery.start_soon(waits.wait, lookout, fd, second)
        await wait_all_tasks_blocked()
        [(_, failure)] = waits
        assert isinstance(failure, trio.ClosedResourceError)
        assert (lookout.waiting, known(lookout), ticks(lookout)) == (1, {fd}, set())
        await trio.sleep(4 * TICK)  # the time of the old one
        assert len(waits) == 1
        other.send(b"x")
        await wait_all_tasks_blocked()
        assert waits[1:] == [(fd, None)]
        assert (first.calls, second.calls) == ([], ["readable"])
        assert nothing_is_left(lookout)


async def test_run_may_be_cancelled_and_run_again(pair):
    (first, speaks), (second, _) = pair(), pair()
    reads, dues, waits = Noted(), Noted(), Waits()
    lookout = Lookout()
    async with background() as nursery:
        async with background() as running:
            await running.start(lookout.run)
            nursery.start_soon(waits.wait, lookout, first.fileno(), reads)
            nursery.start_soon(waits.wait, lookout, second.fileno(), dues, trio.current_time() + TICK)
            await wait_all_tasks_blocked()
        speaks.send(b"x")
        await trio.sleep(3 * TICK)
        assert (waits, lookout.waiting) == ([], 2)
        await nursery.start(lookout.run)
        await wait_all_tasks_blocked()
        assert sorted(waits) == sorted([(first.fileno(), None), (second.fileno(), None)])
        assert (reads.calls, dues.calls) == (["readable"], ["due"])
    lookout.close()


async def test_closed_before_the_last_of_its_tasks(pair):
    ours, _ = pair()
    lookout = Lookout()
    async with background() as nursery:
        nursery.start_soon(Waits().wait, lookout, ours.fileno(), Noted())
        await wait_all_tasks_blocked()
        lookout.close()
    assert lookout.waiting == 0
