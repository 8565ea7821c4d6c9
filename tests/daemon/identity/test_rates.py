"""Rates: so many in a window and not one more, whoever counts at the same time; and what is told of it."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from daemon.identity import rates_store
from daemon.identity.rates import Allowance, Rate, RateExceeded, stands, subject
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from tests.daemon.account.running import execute
from tests.stored import one

TEN = Rate("test", 10, 3600.0)
TWO = Rate("other", 2, 3600.0)


async def take(db: Database, *wanted: tuple[Rate, str]) -> list[Allowance]:
    async def work(conn: Conn) -> list[Allowance]:
        return await rates_store.take(conn, [(rate, subject(name)) for rate, name in wanted])

    return await db.run(work)


async def test_so_many_and_not_one_more(db: Database) -> None:
    left = [(await take(db, (TEN, "ann")))[0].remaining for _ in range(10)]
    assert left == list(range(9, -1, -1))
    with pytest.raises(RateExceeded) as caught:
        await take(db, (TEN, "ann"))
    allowance = caught.value.allowance
    assert (allowance.remaining, allowance.rate) == (0, TEN)
    assert allowance.retry_after == pytest.approx(360.0, abs=5.0)
    assert allowance.reset_at - await one(db, "SELECT extract(epoch FROM now())::float8") == pytest.approx(3600, abs=5)
    assert (await take(db, (TEN, "bob")))[0].remaining == 9, "each subject has its own"
    assert (await take(db, (TWO, "ann")))[0].remaining == 1, "and each rate"


async def test_many_at_once_are_counted_one_by_one(db: Database) -> None:
    passed, refused = 0, 0

    async def try_it(number: int) -> None:
        nonlocal passed, refused
        try:
            await take(db, (TEN, "ann"), (TWO, f"host {number % 25}"))
            passed += 1
        except RateExceeded:
            refused += 1

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(try_it, number)
    assert (passed, refused) == (10, 40)


async def test_one_that_is_too_many_for_one_rate_counts_for_none(db: Database) -> None:
    for _ in range(2):
        await take(db, (TWO, "host"), (TEN, "ann"))
    for _ in range(3):
        with pytest.raises(RateExceeded):
            await take(db, (TWO, "host"), (TEN, "ann"))
    assert (await take(db, (TEN, "ann")))[0].remaining == 7


async def test_after_a_while_one_may_again(db: Database) -> None:
    for _ in range(10):
        await take(db, (TEN, "ann"))
    await execute(db, "UPDATE rates SET rest_at = rest_at - interval '361 s'")
    assert (await take(db, (TEN, "ann")))[0].remaining == 0
    with pytest.raises(RateExceeded):
        await take(db, (TEN, "ann"))


@pytest.mark.parametrize("ago", ["300 s", "3 hours"])
async def test_who_has_rested_long_has_the_whole_and_no_more(db: Database, ago: str) -> None:
    often = Rate("often", 30, 3600.0)  # a deed takes less of the window than anybody rested here
    await take(db, (often, "ann"))
    await execute(db, f"UPDATE rates SET rest_at = clock_timestamp() - interval '{ago}'")
    assert (await take(db, (often, "ann")))[0].remaining == 29


@pytest.mark.parametrize("ahead", ["1 year", "1 day", "2 hours 5 seconds"])
async def test_what_a_wrong_clock_wrote_is_forgotten(db: Database, ahead: str) -> None:
    """It went ahead when it was counted, and is right again: nobody waits for it to come to that time."""
    await take(db, (TEN, "ann"))
    await execute(db, f"UPDATE rates SET rest_at = clock_timestamp() + interval '{ahead}'")
    assert [(await take(db, (TEN, "ann")))[0].remaining for _ in range(10)] == list(range(9, -1, -1))
    with pytest.raises(RateExceeded):
        await take(db, (TEN, "ann"))


async def test_a_clock_that_was_a_little_ahead_costs_one_window_at_most(db: Database) -> None:
    for _ in range(10):
        await take(db, (TEN, "ann"))
    await execute(db, "UPDATE rates SET rest_at = rest_at + interval '50 minutes'")  # it steps back by so much
    with pytest.raises(RateExceeded) as caught:
        await take(db, (TEN, "ann"))
    retry_after = caught.value.allowance.retry_after
    assert retry_after == pytest.approx(3000 + 360, abs=5)
    await execute(db, "UPDATE rates SET rest_at = rest_at - make_interval(secs => %s)", retry_after)
    assert (await take(db, (TEN, "ann")))[0].remaining == 0, "what is told is so"


async def test_what_is_at_rest_is_forgotten(db: Database) -> None:
    await take(db, (TEN, "ann"))
    await take(db, (TEN, "bob"))
    await execute(db, "UPDATE rates SET rest_at = now() - interval '1 s' WHERE subject = %s", subject("ann"))
    await db.run(rates_store.forget_rested)
    assert await one(db, "SELECT count(*) FROM rates") == 1
    assert (await take(db, (TEN, "ann")))[0].remaining == 9


def test_a_subject_is_no_address() -> None:
    assert len(subject("Ann@Example.test")) == 32
    assert subject("Ann") != subject("ann"), "ids of users are told apart as they are"
    assert subject("a", "b") != subject("ab")
    assert len(subject("\ud800")) == 32, "what is no text is counted, too"


@given(limit=st.integers(1, 1000), window=st.floats(1, 1e6), rest=st.floats(-10, 2), refused=st.booleans())
def test_what_is_told_is_within_the_rate(limit: int, window: float, rest: float, refused: bool) -> None:
    allowance = stands(Rate("r", limit, window), rest * window, 1e9, refused=refused)
    assert 0 <= allowance.remaining <= limit
    assert (allowance.retry_after is None) == (not refused)
    assert allowance.reset_at >= 1e9 - 1
