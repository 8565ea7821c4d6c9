"""Turns: who has one and for how long, who must make room, and what who waits says meanwhile."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from daemon.account.pacing import BULK, Pacing
from daemon.account.turns import KEEP_ALIVE, Turn, Turns, kept_alive
from daemon.errors import Fault, FaultKind


class Holders:
    """Who had a turn from when."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.began: dict[str, float] = {}
        self.start = trio.current_time()

    async def hold(self, name: str, seconds: float) -> None:
        async with self.turns():
            self.began[name] = trio.current_time() - self.start
            await trio.sleep(seconds)


async def test_a_turn_is_lent_and_no_longer(autojump_clock: MockClock) -> None:
    holders = Holders(Turns(2, lent=60.0))
    async with trio.open_nursery() as nursery:
        for name, seconds in [("drips", 1e6), ("quick", 5.0), ("third", 1e6), ("fourth", 1.0), ("fifth", 1.0)]:
            nursery.start_soon(holders.hold, name, seconds)
            await trio.sleep(0.0)
            await wait_all_tasks_blocked()
        await trio.sleep(1000.0)
        assert holders.began == {"drips": 0.0, "quick": 0.0, "third": 5.0, "fourth": 60.0, "fifth": 61.0}
        assert holders.turns.taken == 2, "those that drip go on without one"
        nursery.cancel_scope.cancel()
    assert holders.turns.taken == 0


async def test_who_gives_up_waiting_for_a_turn_holds_nobody_up(autojump_clock: MockClock) -> None:
    holders = Holders(Turns(1, lent=60.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(holders.hold, "first", 10.0)
        await trio.sleep(1.0)
        with trio.move_on_after(2.0):
            await holders.hold("impatient", 1.0)
        nursery.start_soon(holders.hold, "next", 1.0)
    assert holders.began == {"first": 0.0, "next": 10.0}


async def test_many_slow_holders_delay_the_last_by_their_turns_only(autojump_clock: MockClock) -> None:
    holders = Holders(Pacing(starting=1, starting_per_host=1, first_syncs=4).first_syncs)
    async with trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(holders.hold, str(number), 1e6)
        await trio.sleep(1000.0)
        assert sorted(holders.began.values()) == [0.0] * 4 + [BULK] * 4 + [2 * BULK] * 4
        nursery.cancel_scope.cancel()


async def test_turns_are_lent_but_no_more_than_the_most_are_inside(autojump_clock: MockClock) -> None:
    turns, begun = Turns(2, lent=5.0, most=4), []

    async def hold() -> None:
        async with turns():
            begun.append(trio.current_time())
            await trio.sleep(60)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(hold)
    assert [at - began for at in begun] == [0, 0, 5, 5, 60, 60]


async def test_one_task_takes_turns_again_and_again(autojump_clock: MockClock) -> None:
    turns = Turns(1, lent=5.0)
    turn = Turn(turns)
    for _ in range(3):
        async with turn:
            assert turns.taken == 1
    with pytest.raises(ValueError, match="inside"):
        async with turn:
            raise ValueError("inside")
    assert turns.taken == 0


# -- making room -------------------------------------------------------------------------------------------------------


class Dripping:
    """Holders of turns that never come to an end by themselves."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.made_to_leave: list[float] = []

    async def hold(self) -> None:
        with pytest.raises(Fault, match="so slow") as caught:
            async with self.turns():
                await trio.sleep_forever()
        assert caught.value.kind is FaultKind.UNAVAILABLE
        self.made_to_leave.append(trio.current_time())


async def test_those_who_drip_make_room_when_others_wait(autojump_clock: MockClock) -> None:
    dripping = Dripping(Turns(2, lent=5.0, most=4, patience=60.0))
    began, done = trio.current_time(), []

    async def first_sync() -> None:
        async with dripping.turns():
            await trio.sleep(1.0)
        done.append(trio.current_time() - began)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(dripping.hold)
        await trio.sleep(30.0)
        assert dripping.turns.taken == 4
        for _ in range(3):
            nursery.start_soon(first_sync)
        await trio.sleep(100.0)
        assert len(done) == 3
        assert max(done) < 75.0, "once the first has had its time"
        assert len(dripping.made_to_leave) == 1, "one place is enough for those who are quick"
        nursery.cancel_scope.cancel()


async def test_who_drips_may_go_on_while_nobody_waits(autojump_clock: MockClock) -> None:
    dripping = Dripping(Turns(2, lent=5.0, most=2, patience=60.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dripping.hold)
        nursery.start_soon(dripping.hold)
        await trio.sleep(1000.0)
        assert not dripping.made_to_leave
        nursery.cancel_scope.cancel()
    assert dripping.turns.taken == 0


async def test_who_waits_and_gives_up_makes_nobody_leave_later(autojump_clock: MockClock) -> None:
    dripping = Dripping(Turns(1, lent=5.0, most=1, patience=60.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dripping.hold)
        await trio.sleep(1.0)
        with trio.move_on_after(30.0):
            async with dripping.turns():
                raise AssertionError("there is no room")
        await trio.sleep(1000.0)
        assert not dripping.made_to_leave
        nursery.cancel_scope.cancel()


# -- waiting in a session ----------------------------------------------------------------------------------------------


async def test_who_waits_for_a_turn_says_something_now_and_then(autojump_clock: MockClock) -> None:
    turns, said = Turns(1, lent=1e6), []

    async def alive() -> None:
        await trio.sleep(1.0)
        said.append(trio.current_time() - began)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def hold() -> None:
            async with turns():
                await trio.sleep(3 * KEEP_ALIVE + 2.5)

        nursery.start_soon(hold)
        await wait_all_tasks_blocked()
        async with kept_alive(turns, alive):
            # The third word was being said: a turn does not cut it short.
            assert trio.current_time() - began == pytest.approx(3 * KEEP_ALIVE + 3.0)
            assert said == pytest.approx([KEEP_ALIVE + 1.0, 2 * KEEP_ALIVE + 2.0, 3 * KEEP_ALIVE + 3.0])
            assert turns.taken == 1
            await trio.sleep(10 * KEEP_ALIVE)
            assert len(said) == 3, "who has a turn has other things to say"
    assert turns.taken == turns.waiting == 0


async def test_a_session_that_dies_while_waiting_gives_up_its_place(autojump_clock: MockClock) -> None:
    turns = Turns(1, lent=1e6)

    async def alive() -> None:
        raise ConnectionResetError

    async with turns():
        with pytest.raises(ConnectionResetError):
            async with kept_alive(turns, alive):
                pytest.fail("there was no turn")
        assert (turns.taken, turns.waiting) == (1, 0)
    async with kept_alive(turns, alive):
        assert turns.taken == 1
    with trio.move_on_after(1.0) as scope:
        async with turns(), kept_alive(turns, alive):
            pytest.fail("there was no turn")
    assert scope.cancelled_caught
    assert turns.taken == turns.waiting == 0
