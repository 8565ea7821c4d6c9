"""Who may connect when, with exact times: bounded for a host, bounded for the node, and nobody waits for the dead."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from daemon.account.pacing import SLOW, Pacing


class Attempts:
    """Connection attempts that take as long as they are told."""

    def __init__(self, pacing: Pacing) -> None:
        self.pacing = pacing
        self.under_way: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.opened_at: dict[str, float] = {}

    @asynccontextmanager
    async def opening(self, host: str, seconds: float, fails: bool) -> AsyncIterator[str]:
        self.under_way.update([host, "all"])
        self.most |= self.under_way
        try:
            await trio.sleep(seconds)
        finally:
            self.under_way.subtract([host, "all"])
        if fails:
            raise ConnectionRefusedError
        yield host

    async def attempt(self, name: str, host: str, seconds: float, hold: float = 0.0, *, fails: bool = False) -> None:
        try:
            async with self.pacing.paced(host, self.opening(host, seconds, fails)):
                self.opened_at[name] = trio.current_time()
                await trio.sleep(hold)
        except ConnectionRefusedError:
            self.opened_at[name] = trio.current_time()


def make(starting: int = 40, per_host: int = 10) -> Attempts:
    return Attempts(Pacing(starting=starting, starting_per_host=per_host, first_syncs=4))


async def test_a_host_meets_no_more_than_its_bound(autojump_clock: MockClock) -> None:
    attempts = make(starting=100, per_host=10)
    async with trio.open_nursery() as nursery:
        for number in range(35):
            nursery.start_soon(attempts.attempt, f"a{number}", "a.test", 1.0, 1000.0)
        for number in range(5):
            nursery.start_soon(attempts.attempt, f"b{number}", "b.test", 1.0, 1000.0)
        await trio.sleep(100)
        times = Counter(round(at, 6) for at in attempts.opened_at.values())
        assert sorted(times.values()) == [5, 10, 10, 15], "ten at a time, a second each; the other host at once"
        nursery.cancel_scope.cancel()
    assert (attempts.most["a.test"], attempts.most["b.test"]) == (10, 5)


async def test_the_node_begins_no_more_than_its_bound(autojump_clock: MockClock) -> None:
    attempts = make(starting=5, per_host=5)
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(attempts.attempt, str(number), f"{number}.test", 0.5)
    assert attempts.most["all"] == 5
    assert trio.current_time() - begun == pytest.approx(2.0)


async def test_a_hundred_dead_hosts_delay_a_healthy_one_by_one_slow_at_most(autojump_clock: MockClock) -> None:
    attempts = make(starting=40)
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(attempts.attempt, f"dead{number}", f"dead{number}.test", 60.0)
        await trio.sleep(3 * SLOW)
        begun = trio.current_time()
        nursery.start_soon(attempts.attempt, "healthy", "healthy.test", 0.1)
        await trio.sleep(10.0)
        assert attempts.opened_at["healthy"] - begun <= SLOW + 0.1
        nursery.cancel_scope.cancel()


async def test_a_queue_of_dead_hosts_moves_a_whole_step_every_slow(autojump_clock: MockClock) -> None:
    attempts = make(starting=40)
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(attempts.attempt, f"dead{number}", f"dead{number}.test", 60.0)
        await trio.sleep(0.001)
        nursery.start_soon(attempts.attempt, "healthy", "healthy.test", 0.1)
        await trio.sleep(10.0)
        # The hundred begin at 0, SLOW and 2 SLOW seconds; the healthy one is in the third step.
        assert attempts.opened_at["healthy"] - begun == pytest.approx(2 * SLOW + 0.1, abs=0.01)
        nursery.cancel_scope.cancel()


async def test_places_come_back_however_an_attempt_ends(autojump_clock: MockClock) -> None:
    attempts = make(starting=2, per_host=2)
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(attempts.attempt, f"hanging{number}", "a.test", 1000.0)
        await trio.sleep(1)
        seen = attempts.pacing.statistics()
        assert (seen.connecting, seen.waiting, seen.hosts) == (2, 8, 1)
        nursery.cancel_scope.cancel()
    seen = attempts.pacing.statistics()
    assert (seen.connecting, seen.waiting, seen.hosts) == (0, 0, 0)
    begun = trio.current_time()
    await attempts.attempt("failing", "a.test", 0.1, fails=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(attempts.attempt, "one", "a.test", 0.1)
        nursery.start_soon(attempts.attempt, "two", "a.test", 0.1)
    assert trio.current_time() - begun == pytest.approx(0.2), "nothing was left behind to wait for"
    assert attempts.pacing.statistics().hosts == 0


async def test_cancelled_in_the_queue_others_go_on(autojump_clock: MockClock) -> None:
    attempts = make(starting=1, per_host=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(attempts.attempt, "first", "a.test", 1.0)
        await trio.sleep(0.1)
        with trio.move_on_after(0.2):
            await attempts.attempt("given up", "b.test", 1.0)
        nursery.start_soon(attempts.attempt, "third", "b.test", 1.0)
    assert "given up" not in attempts.opened_at
    assert attempts.opened_at["third"] - attempts.opened_at["first"] == pytest.approx(1.0)


async def test_an_open_connection_holds_no_place(autojump_clock: MockClock) -> None:
    attempts = make(starting=1, per_host=1)
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(attempts.attempt, str(number), "a.test", 0.1, 1000.0)
        await trio.sleep(1.0)
        assert len(attempts.opened_at) == 5
        nursery.cancel_scope.cancel()


async def test_where_there_is_room_all_begin_at_once() -> None:
    """Not one in a round of the loop: a round takes ten milliseconds on a busy machine, and forty of them a second."""
    pacing = Pacing(starting=40, starting_per_host=40, first_syncs=1)

    async def attempt() -> None:
        async with pacing.paced("mail.a.test", login()):
            await trio.sleep_forever()

    @asynccontextmanager
    async def login() -> AsyncIterator[None]:
        await trio.sleep_forever()
        yield

    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(attempt)
        for _ in range(6):
            await trio.lowlevel.checkpoint()
        assert pacing.statistics().connecting == 40
        nursery.cancel_scope.cancel()
