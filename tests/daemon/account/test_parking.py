"""That an account went down is told once, also when nobody heard whether it was stored."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from daemon.account import accounts_store
from daemon.account.accounts_store import Trouble
from daemon.account.actor import AccountActor
from daemon.account.commands import SyncEnded
from daemon.account.proofs import Proofs
from daemon.account.states import State
from daemon.account.tree import AccountTree
from daemon.errors import Fault, FaultKind
from daemon.imap.folder_record import Store
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.storage.fence import Claim
from ops.testservers.tls import Authority
from tests.daemon.account.running import add_account, change_password, column, execute, make_runtime
from tests.stored import one

TOLD = "SELECT count(*) FROM events WHERE type = 'account.error'"
REFUSED = Fault(FaultKind.AUTH_FAILED, "The server refused the password.")
UNREADABLE = Fault(FaultKind.UNREADABLE, "The stored credentials cannot be read.")


class Cut(Database):
    """A database whose connections break between a COMMIT and its answer, as often as is asked for."""

    cuts = 0

    @asynccontextmanager
    async def transaction(self, claim: Claim | None = None) -> AsyncIterator[Conn]:
        async with super().transaction(claim) as conn:
            yield conn
            if self.cuts:
                self.cuts -= 1
                with socket.socket(fileno=conn.pgconn.socket) as ours:
                    ours.shutdown(socket.SHUT_RD)  # what we send still arrives; no answer does
                    ours.detach()


@pytest.fixture
async def cut(database_dsn: str) -> AsyncIterator[Cut]:
    async with Cut(database_dsn) as database, trio.open_nursery() as nursery:
        await nursery.start(database.watch)
        await database.wait_ready(30)
        yield database
        nursery.cancel_scope.cancel()


class NoSync:
    def request(self) -> None:
        """Nothing is asked for here."""

    def restart(self) -> None:
        """Likewise."""


async def actor_of(db: Database, claim: Claim) -> AccountActor:
    """A new life of the account's actor."""
    row = (await db.run(lambda conn: accounts_store.load(conn, [claim.account_id])))[0]
    assert row is not None
    return AccountActor(Store(db, claim), Proofs(db), row, control=NoSync(), logged_in=lambda: None)


async def end(actor: AccountActor, fault: Fault) -> None:
    """An attempt ends for good."""
    await actor._handle(SyncEnded(fault, None, actor.row.credentials_version))
    assert actor.state is State.PARKED


async def end_in(db: Database, claim: Claim, fault: Fault) -> None:
    """A new life of the account's actor, in which an attempt ends for good."""
    await end(await actor_of(db, claim), fault)


@pytest.mark.parametrize("fault", [REFUSED, UNREADABLE], ids=["refused", "unreadable"])
async def test_an_account_is_parked_once_although_the_answers_are_lost(cut: Cut, fault: Fault) -> None:
    claim = await add_account(cut, "u@a.test", 993, "pw")
    actor = await actor_of(cut, claim)
    shut, cut.cuts = cut.statistics().times_shut, 2
    with trio.fail_after(20):
        await end(actor, fault)
    assert (cut.cuts, cut.statistics().times_shut - shut) == (0, 2), "it was cut twice"
    assert await column(cut, claim.account_id, "(state, state_code)::text") == f"(parked,{fault.kind.value})"
    assert await one(cut, TOLD) == 1
    data = await one(cut, "SELECT data FROM events WHERE type = 'account.error'")
    assert data == {"email": "u@a.test", "code": fault.kind.value, "reason": fault.reason}


async def test_a_spent_intensity_is_told_once_although_the_answer_is_lost(cut: Cut, authority: Authority) -> None:
    claim = await add_account(cut, "u@a.test", 993, "pw")
    tree = AccountTree(make_runtime(cut, authority, 993), claim)
    cut.cuts = 1
    with trio.fail_after(20):
        await tree._park()
    assert (tree.parked, cut.cuts) == (True, 0)
    assert await one(cut, "SELECT data->>'code' FROM events WHERE type = 'account.error'") == "internal_error"
    assert await one(cut, TOLD) == 1


async def test_each_time_that_an_account_goes_down_is_told(db: Database) -> None:
    claim = await add_account(db, "u@a.test", 993, "pw")
    await end_in(db, claim, REFUSED)
    await end_in(db, claim, REFUSED)  # another start finds it as it was
    assert await one(db, TOLD) == 1
    await change_password(db, claim.account_id, "another")
    await end_in(db, claim, REFUSED)
    assert await one(db, TOLD) == 2
    await end_in(db, claim, UNREADABLE)
    assert await one(db, TOLD) == 3
    await execute(db, "UPDATE accounts SET state = 'watching', state_code = NULL, state_reason = NULL")
    await end_in(db, claim, UNREADABLE)
    assert await one(db, TOLD) == 4


async def test_nothing_is_told_of_trouble_that_passes_nor_of_an_account_that_its_owner_stopped(db: Database) -> None:
    passing, stopped = [await add_account(db, f"u{n}@a.test", 993, "pw") for n in range(2)]
    await execute(db, "UPDATE accounts SET desired = 'paused', state = 'stopped' WHERE id = %s", stopped.account_id)
    retry = Trouble(passing.account_id, State.RETRYING, "connection_lost", "It was lost.", 3.0, 1)
    down = Trouble(stopped.account_id, State.PARKED, "auth_failed", "No.", None, 1, refused=True)
    await db.together.write(accounts_store.set_trouble, retry, passing)
    await db.together.write(accounts_store.set_trouble, down, stopped)
    assert await one(db, TOLD) == 0
    assert await column(db, stopped.account_id, "state") == "stopped"


async def test_a_long_reason_is_told_as_it_is_stored(db: Database) -> None:
    claim = await add_account(db, "u@a.test", 993, "pw")
    await end_in(db, claim, Fault(FaultKind.PROTOCOL, "x" * 2000))
    assert await column(db, claim.account_id, "length(state_reason)") == 500
    assert await one(db, "SELECT length(data->>'reason') FROM events WHERE type = 'account.error'") == 500
