"""First synchronisations of many: small ones are done at once, and nobody waits in a session that dies of silence."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from daemon.account import turns as turns_module
from daemon.account.pacing import BEGINNINGS, MOST_WAITING, Pacing
from daemon.account.states import State
from daemon.imap.session import Session
from daemon.storage.database import Database
from ops.testservers.dovecot import Dovecot
from ops.testservers.mail import messages
from ops.testservers.tls import Authority
from tests.daemon.account.running import add_account, in_state, make_runtime, running, until
from tests.daemon.account.test_tree import has
from tests.fix_dovecot import MailUser

HOSTS = 3


class Newcomers:
    """Accounts that log in within a tenth of a second, and take long to begin."""

    def __init__(self, pacing: Pacing, begins: float) -> None:
        self.pacing = pacing
        self.begins = begins
        self.logged_in = self.most_waiting = self.begun = 0
        self.order: list[int] = []

    @asynccontextmanager
    async def _login(self) -> AsyncIterator[bool]:
        await trio.sleep(0.1)
        yield True

    async def first_sync(self, number: int) -> None:
        async with self.pacing.paced(number % HOSTS, self._login(), number, then=self.pacing.beginnings):
            self.logged_in += 1
            self.most_waiting = max(self.most_waiting, self.logged_in - self.begun)
            async with self.pacing.beginnings():
                self.begun += 1
                self.order.append(number)
                await trio.sleep(self.begins)
            await trio.sleep_forever()

    async def login(self) -> float:
        """Of an account that is up to date: how long it takes."""
        began = trio.current_time()
        async with self.pacing.paced(0, self._login(), -1):
            return trio.current_time() - began


async def test_newcomers_log_in_as_fast_as_others_have_begun(autojump_clock: MockClock) -> None:
    starting = 10
    newcomers = Newcomers(Pacing(starting=starting, starting_per_host=starting, first_syncs=1), begins=2.0)
    async with trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(newcomers.first_sync, number)
        await trio.sleep(60.0)
        assert newcomers.begun == pytest.approx(60.0 / 2.0 * BEGINNINGS, abs=2 * BEGINNINGS), "no turn stays unused"
        assert newcomers.most_waiting <= MOST_WAITING + starting
        assert await newcomers.login() < 0.5, "who is up to date waits for no newcomer"
        await trio.sleep(300.0)
        assert newcomers.begun == 300
        assert sorted(newcomers.order) == list(range(300))
        nursery.cancel_scope.cancel()


async def test_a_newcomer_that_gives_up_holds_nobody_up(autojump_clock: MockClock) -> None:
    newcomers = Newcomers(Pacing(starting=10, starting_per_host=10, first_syncs=1), begins=1.0)
    async with trio.open_nursery() as nursery:
        for number in range(60):
            nursery.start_soon(newcomers.first_sync, number)
        await trio.sleep(1.0)
        async with trio.open_nursery() as impatient:
            impatient.cancel_scope.deadline = trio.current_time() + 3.0
            for number in range(100, 130):
                impatient.start_soon(newcomers.first_sync, number)
        await trio.sleep(120.0)
        assert newcomers.begun >= 60
        nursery.cancel_scope.cancel()


# -- with a real server ------------------------------------------------------------------------------------------------


async def test_a_small_inbox_waits_for_no_large_one(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser
) -> None:
    """As many messages as one FETCH gives: no turn to fetch in bulk is needed."""
    dovecot.seed(mail_user.name, messages(100, seed=1))
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)
    runtime = make_runtime(db, authority, dovecot.imaps_port, pacing=_one_at_a_time())
    async with runtime.pacing.first_syncs(), running(runtime, claim):
        await in_state(db, claim.account_id, "watching")
        assert await has(db, claim.account_id, 100)


async def test_the_newest_mail_comes_at_once_and_the_session_lives_until_the_rest_may(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns_module, "KEEP_ALIVE", 0.05)
    noop, heard = Session.noop, []

    async def noticed(session: Session) -> None:
        await noop(session)
        heard.append(session.heard_at)

    monkeypatch.setattr(Session, "noop", noticed)
    dovecot.seed(mail_user.name, messages(250, seed=1))
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)
    runtime = make_runtime(db, authority, dovecot.imaps_port, pacing=_one_at_a_time())
    async with running(runtime, claim) as tree:
        async with runtime.pacing.first_syncs():
            await until(lambda: has(db, claim.account_id, 100))
            await until(lambda: _more_than(heard, 3))
            assert await has(db, claim.account_id, 100)
            assert tree.state is State.SYNCING
            await in_state(db, claim.account_id, "syncing")
        await in_state(db, claim.account_id, "watching")
        assert await has(db, claim.account_id, 250)


def _one_at_a_time() -> Pacing:
    return Pacing(starting=10, starting_per_host=10, first_syncs=1)


async def _more_than(heard: list[float], count: int) -> bool:
    return len(heard) > count
