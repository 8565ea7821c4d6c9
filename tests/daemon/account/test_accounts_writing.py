"""What is written of many accounts at once: each its own, of those that are to run, and of no other."""

from typing import Any

import pytest

from daemon.account import accounts_store
from daemon.account.accounts_store import Proof, Step, Trouble
from daemon.account.states import State
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.storage.together import Left, Locked
from tests.daemon.account.running import add_account, column, execute

WRITINGS = [
    pytest.param(accounts_store.set_progress, lambda key, n: Step(key, State.SYNCING), None, id="progress"),
    pytest.param(
        accounts_store.set_trouble, lambda key, n: Trouble(key, State.RETRYING, f"code{n}", f"Reason {n}.", n, 1),
        False, id="trouble",
    ),
    pytest.param(
        accounts_store.set_caught_up, lambda key, n: Proof(key, "u@a.test", n, n, 60.0, None, 1), False, id="proof"
    ),
]  # fmt: skip


@pytest.mark.parametrize(("work", "make", "unwanted"), WRITINGS)
async def test_who_is_written_and_what_is_told_of_others(db: Database, work: Any, make: Any, unwanted: object) -> None:
    runs, locked, paused = [(await add_account(db, f"u{n}@a.test", 993, "pw")).account_id for n in range(3)]
    await execute(db, "UPDATE accounts SET desired = 'paused', state = 'stopped' WHERE id = %s", paused)
    values = [make(key, n) for n, key in enumerate((locked, paused, runs), 1)]

    async def skipping(conn: Conn) -> Any:
        return await work(conn, values, Locked.SKIP)

    async def waiting(conn: Conn) -> Any:
        return await work(conn, values[1:], Locked.WAIT)

    async with db.connection() as holder:
        await holder.execute("BEGIN")
        await holder.execute("SELECT FROM accounts WHERE id = %s FOR UPDATE", (locked,))
        found = await db.run(skipping)
        await holder.execute("ROLLBACK")
    assert found[:2] == [Left.OUT, Left.OUT]
    assert found[2] is not Left.OUT
    assert [await column(db, key, "state") for key in (locked, paused)] == ["new", "stopped"]
    assert await column(db, runs, "state") != "new"
    assert (await db.run(waiting))[0] is unwanted, "nothing is left to be done of an account that its owner stopped"


async def test_each_account_gets_values_of_its_own(db: Database) -> None:
    keys = [(await add_account(db, f"u{n}@a.test", 993, "pw")).account_id for n in range(3)]
    troubles = [Trouble(key, State.RETRYING, f"code{n}", f"Reason {n}.", 10.0 * n, 1) for n, key in enumerate(keys)]
    troubles[0] = Trouble(keys[0], State.PARKED, "code0", "Reason 0.", None, 1, refused=True)
    await db.run(lambda conn: accounts_store.set_trouble(conn, troubles))
    shown = "(state, state_code, state_reason, refused_version, extract(epoch FROM retry_at - state_since)::int)::text"
    assert [await column(db, key, shown) for key in keys] == [
        '(parked,code0,"Reason 0.",1,)', '(retrying,code1,"Reason 1.",,10)', '(retrying,code2,"Reason 2.",,20)',
    ]  # fmt: skip
    proofs = [Proof(key, "u@a.test", n, 10 + n, 60.0, None, 1) for n, key in enumerate(keys)]
    assert await db.run(lambda conn: accounts_store.set_caught_up(conn, proofs)) == [True, True, True]
    assert await db.run(lambda conn: accounts_store.set_caught_up(conn, proofs)) == [False, False, False]
    assert [await column(db, key, "new_messages") for key in keys] == [10, 11, 12]
    assert [await column(db, key, "(state, state_code, refused_version)::text") for key in keys] == ["(watching,,)"] * 3
