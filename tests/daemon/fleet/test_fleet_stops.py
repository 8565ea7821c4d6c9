"""Accounts that stop leave connections of the database to those that run."""

from uuid import UUID

import pytest
import trio

from daemon.account.tree import Runtime
from daemon.fleet import claims_store
from daemon.fleet.fleet import RELEASE_AT_ONCE
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from ops.testservers.dovecot import Dovecot
from tests.daemon.account.running import execute, until
from tests.daemon.fleet.test_fleet import add_accounts, all_watching, fleet, runs
from tests.daemon.fleet.test_fleet import runtime as runtime  # noqa: PLC0414  # a fixture
from tests.fix_dovecot import MailUser

COUNT = 12


async def test_many_that_are_paused_take_few_connections(
    db: Database, runtime: Runtime, dovecot: Dovecot, mail_user: MailUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = most = ended = 0
    met = trio.Event()
    mark_stopped = claims_store.mark_stopped

    async def counted(conn: Conn, account_id: UUID) -> None:
        nonlocal now, most, ended
        now += 1
        most = max(most, now)
        try:
            if most >= RELEASE_AT_ONCE:
                met.set()
            await met.wait()
            await trio.sleep(0.05)  # so that more of them meet if more may
            await mark_stopped(conn, account_id)
        finally:
            now -= 1
        ended += 1

    monkeypatch.setattr(claims_store, "mark_stopped", counted)
    await add_accounts(db, dovecot, mail_user, COUNT)
    async with fleet(runtime) as node:
        await until(lambda: all_watching(db, COUNT))
        await execute(db, "UPDATE accounts SET desired = 'paused'")
        node.nudge()
        await until(lambda: runs(node, 0))
    assert ended == COUNT
    assert most == RELEASE_AT_ONCE
