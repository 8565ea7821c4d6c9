"""News of one account: paced, and borne only so often where there is nothing behind."""

import pytest
import trio
from trio.testing import MockClock

from daemon.account.rounds import ROUNDS, ROUNDS_RATE, UNFOUNDED, Rounds
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
