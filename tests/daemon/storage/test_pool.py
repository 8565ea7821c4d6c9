"""The pool against a real server: its limit, what it takes back, and what it throws away."""

from __future__ import annotations

import psycopg
import pytest
import trio
import trio.testing

from daemon.storage.connection import Conn
from daemon.storage.pool import Pool, PoolClosed

DEADLINE = 20.0


async def pid(conn: Conn) -> int:
    row = await (await conn.execute("SELECT pg_backend_pid()")).fetchone()
    assert row is not None
    return int(row[0])


async def test_no_more_connections_than_its_size_and_waiters_are_served_in_turn(database_dsn: str) -> None:
    held, most = 0, 0
    order = []
    full = trio.Event()

    async def use(number: int) -> None:
        nonlocal held, most
        async with pool.connection() as conn:
            held, most = held + 1, max(most, held + 1)
            if held == 3:
                full.set()
            await full.wait()
            await pid(conn)
            order.append(number)
            held -= 1

    with trio.fail_after(DEADLINE):
        async with Pool(database_dsn, size=3) as pool:
            async with trio.open_nursery() as nursery:
                for number in range(30):
                    nursery.start_soon(use, number)
            assert most == 3
            assert sorted(order) == list(range(30))
            statistics = pool.statistics()
            assert (statistics.size, statistics.open, statistics.idle, statistics.waiting) == (3, 3, 3, 0)
            assert statistics.opened == 3
        assert pool.statistics().open == 0


async def test_the_most_recently_used_comes_first(database_dsn: str) -> None:
    with trio.fail_after(DEADLINE):
        async with Pool(database_dsn, size=2) as pool:
            async with pool.connection() as first, pool.connection() as second:
                last = await pid(first)
                assert await pid(second) != last
            for _ in range(3):
                async with pool.connection() as conn:
                    assert await pid(conn) == last


async def test_connections_end_with_their_lifetime_and_with_idleness(database_dsn: str) -> None:
    with trio.fail_after(DEADLINE):
        for limits in ({"max_lifetime": 0.0}, {"max_idle": 0.0}):
            async with Pool(database_dsn, **limits) as pool:
                pids = set()
                for _ in range(3):
                    async with pool.connection() as conn:
                        pids.add(await pid(conn))
                    await trio.sleep(0.001)
                assert len(pids) == 3
                assert pool.statistics().open == 1


async def test_idle_ones_that_nobody_takes_are_closed_by_the_next_return(database_dsn: str) -> None:
    with trio.fail_after(DEADLINE):
        async with Pool(database_dsn, max_idle=0.05) as pool:
            async with pool.connection(), pool.connection(), pool.connection():
                pass
            await trio.sleep(0.06)
            async with pool.connection():
                pass
            assert pool.statistics().open == 1


async def test_a_connection_that_died_while_idle_is_replaced_unseen(database_dsn: str) -> None:
    with trio.fail_after(DEADLINE):
        async with Pool(database_dsn, check_after=0.0) as pool:
            async with pool.connection() as conn:
                dead = await pid(conn)
            with psycopg.connect(database_dsn, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s)", (dead,))
            await trio.sleep(0.01)
            async with pool.connection() as conn:
                assert await pid(conn) != dead


@pytest.mark.parametrize("how", ["open transaction", "failed transaction", "closed", "cancelled query"])
async def test_what_comes_back_unfit_is_thrown_away_and_its_permit_is_free(database_dsn: str, how: str) -> None:
    with trio.fail_after(DEADLINE):
        async with Pool(database_dsn, size=1) as pool:
            with trio.CancelScope() as scope:
                async with pool.connection() as conn:
                    first = await pid(conn)
                    if how == "closed":
                        await conn.close()
                    elif how == "cancelled query":
                        scope.deadline = trio.current_time() + 0.05
                        await conn.execute("SELECT pg_sleep(30)")
                    else:
                        await conn.execute("BEGIN")
                        if how == "failed transaction":
                            with pytest.raises(psycopg.errors.UndefinedTable):
                                await conn.execute("SELECT * FROM nowhere")
            async with pool.connection() as conn:
                # A query that was cancelled leaves a good connection behind.
                assert (await pid(conn) == first) is (how == "cancelled query")
            assert pool.statistics().open == 1


async def test_cancelled_waiters_take_nothing_with_them(database_dsn: str) -> None:
    with trio.fail_after(DEADLINE):
        async with Pool(database_dsn, size=1) as pool:
            async with pool.connection(), trio.open_nursery() as nursery:

                async def wait() -> None:
                    async with pool.connection():
                        raise AssertionError

                for _ in range(5):
                    nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                assert pool.statistics().waiting == 5
                nursery.cancel_scope.cancel()
            assert pool.statistics().waiting == 0
            async with pool.connection() as conn:
                assert await pid(conn)


async def test_drained_connections_do_not_come_back(database_dsn: str) -> None:
    with trio.fail_after(DEADLINE):
        async with Pool(database_dsn) as pool:
            async with pool.connection() as conn:
                before = await pid(conn)
                await pool.drain()
            assert pool.statistics().open == 0
            async with pool.connection() as conn:
                assert await pid(conn) != before


async def test_closed_pool_refuses_and_closes_what_is_given_back(database_dsn: str) -> None:
    with trio.fail_after(DEADLINE):
        async with Pool(database_dsn) as pool, pool.connection() as conn:
            await pool.aclose()
        assert conn.closed
        assert pool.statistics().open == 0
        with pytest.raises(PoolClosed):
            async with pool.connection():
                pass


async def test_failing_configuration_leaves_no_connection(database_dsn: str) -> None:
    seen = []

    async def configure(conn: Conn) -> None:
        seen.append(conn)
        await conn.execute("SELECT * FROM nowhere")

    with trio.fail_after(DEADLINE):
        async with Pool(database_dsn, configure=configure) as pool:
            with pytest.raises(psycopg.errors.UndefinedTable):
                async with pool.connection():
                    pass
            assert pool.statistics().open == 0
    assert all(conn.closed for conn in seen)
