"""News of one account: paced, and borne only so often where there is nothing behind."""

import pytest
import trio
from trio.testing import MockClock

from daemon.account.rounds import ROUNDS, ROUNDS_RATE, UNFOUNDED, Rounds
from daemon.account.turns import Turn, Turns
from daemon.errors import Fault, FaultKind
from daemon.imap.folder_record import Tally


async def acted_on(rounds: Rounds, tally: Tally) -> None:
    await trio.sleep(rounds.due_in())
    rounds.done(tally)


async def test_a_burst_of_mail_is_not_held_back(autojump_clock: MockClock):
    rounds, began = Rounds(), trio.current_time()
    for _ in range(ROUNDS):
        await acted_on(rounds, Tally(new=1))
    assert trio.current_time() == began


async def test_mail_without_an_end_is_acted_on_at_a_steady_rate(autojump_clock: MockClock):
    rounds, began = Rounds(), trio.current_time()
    for _ in range(ROUNDS + 100):
        await acted_on(rounds, Tally(new=1))
    assert trio.current_time() - began == pytest.approx(100 / ROUNDS_RATE, rel=0.02)


async def test_news_that_there_are_none_of_end_the_session(autojump_clock: MockClock):
    rounds = Rounds()

    async def all_of_them() -> None:
        for _ in range(2 * UNFOUNDED):
            await acted_on(rounds, Tally())

    with pytest.raises(Fault, match="none of") as caught:
        await all_of_them()
    assert caught.value.kind is FaultKind.PROTOCOL


async def test_a_server_that_repeats_itself_every_minute_is_borne(autojump_clock: MockClock):
    rounds = Rounds()
    for _ in range(1000):
        await trio.sleep(60)
        await acted_on(rounds, Tally())


async def test_turns_are_lent_but_no_more_than_the_most_are_inside(autojump_clock: MockClock):
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


async def test_one_task_takes_turns_again_and_again(autojump_clock: MockClock):
    turns = Turns(1, lent=5.0)
    turn = Turn(turns)
    for _ in range(3):
        async with turn:
            assert turns.taken == 1
    with pytest.raises(ValueError, match="inside"):
        async with turn:
            raise ValueError("inside")
    assert turns.taken == 0
