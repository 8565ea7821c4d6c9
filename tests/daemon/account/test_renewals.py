"""Renewals of IDLE: what they find, what they cost, and when they come."""

import pytest
import trio

from daemon.account import sync as sync_module
from daemon.account.sync import LIGHT
from daemon.imap.folder_sync import FolderSync
from daemon.imap.news import News
from daemon.imap.session import Session
from daemon.storage.database import Database
from ops.testservers.dovecot import Dovecot
from ops.testservers.mail import message
from ops.testservers.tls import Authority
from tests.daemon.account.running import add_account, in_state, make_runtime, running, until
from tests.fix_dovecot import MailUser
from tests.stored import stored_messages


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What sessions do, in order: compare, idle, ask (and idle)."""
    done: list[str] = []
    run, idle = FolderSync.run, Session.idle

    async def noted_run(folder: FolderSync) -> object:
        done.append("compare")
        return await run(folder)

    async def noted_idle(session: Session, seconds: float, *, ask: bool = False) -> News:
        done.append("ask" if ask else "idle")
        return await idle(session, seconds, ask=ask)

    monkeypatch.setattr(FolderSync, "run", noted_run)
    monkeypatch.setattr(Session, "idle", noted_idle)
    return done


async def _so_many(told: list[str], count: int) -> list[str]:
    with trio.fail_after(30):
        while len(told) < count:  # noqa: ASYNC110  # nobody tells
            await trio.sleep(0.02)
    return told[:count]


async def test_a_quiet_folder_is_compared_at_every_third_renewal(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser, told: list[str]
) -> None:
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)
    async with running(make_runtime(db, authority, dovecot.imaps_port, renewal=0.2), claim):
        done = await _so_many(told, 9)
    assert done == ["compare", "idle", *["ask"] * LIGHT] * 2 + ["compare"]


async def test_after_news_the_next_renewal_compares(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser, told: list[str]
) -> None:
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)
    async with running(make_runtime(db, authority, dovecot.imaps_port, renewal=2.0), claim):
        await in_state(db, claim.account_id, "watching")
        await trio.to_thread.run_sync(dovecot.deliver, mail_user.name, message("news"))
        await until(lambda: stored_messages(db, claim.account_id))
        done = await _so_many(told, 5)
    assert done[:4] == ["compare", "idle", "idle", "compare"]


async def test_a_count_that_differs_is_looked_into(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser, told: list[str]
) -> None:
    """However it came about."""
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)
    async with running(make_runtime(db, authority, dovecot.imaps_port, renewal=1.0), claim) as tree:
        await in_state(db, claim.account_id, "watching")
        session = tree._sync._session
        assert session is not None
        session.newsbox.messages += 1
        done = await _so_many(told, 3)
    assert done == ["compare", "idle", "compare"]


async def test_a_renewal_asks_for_what_no_push_told(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server whose IDLE says nothing, and does not look at the folder when it ends."""
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)
    asked = 0

    async def deaf(session: Session, seconds: float, *, ask: bool = False) -> News:
        nonlocal asked
        if ask:
            asked += 1
            await session.noop()
        if not session.newsbox.any:
            await trio.sleep(seconds)
        return session.take_news()

    compared = FolderSync.run
    runs = 0

    async def counted(folder: FolderSync) -> object:
        nonlocal runs
        runs += 1
        return await compared(folder)

    monkeypatch.setattr(Session, "idle", deaf)
    monkeypatch.setattr(FolderSync, "run", counted)
    async with running(make_runtime(db, authority, dovecot.imaps_port, renewal=1.0), claim):
        await in_state(db, claim.account_id, "watching")
        await trio.to_thread.run_sync(dovecot.deliver, mail_user.name, message("untold"))
        await until(lambda: stored_messages(db, claim.account_id))
    assert (asked, runs) == (1, 1)


async def test_a_comparison_finds_what_nothing_told(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither IDLE nor NOOP."""
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)

    async def deaf(session: Session, seconds: float, *, ask: bool = False) -> News:
        del session, ask
        await trio.sleep(seconds)
        return News()

    monkeypatch.setattr(Session, "idle", deaf)
    async with running(make_runtime(db, authority, dovecot.imaps_port, renewal=0.5), claim):
        await in_state(db, claim.account_id, "watching")
        await trio.to_thread.run_sync(dovecot.deliver, mail_user.name, message("untold"))
        await until(lambda: stored_messages(db, claim.account_id))


async def test_sessions_begun_together_do_not_renew_together(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)
    shares: list[tuple[float, float]] = []

    def uniform(least: float, most: float) -> float:
        shares.append((least, most))
        return least

    monkeypatch.setattr(sync_module.random, "uniform", uniform)
    async with running(make_runtime(db, authority, dovecot.imaps_port, renewal=0.5), claim):
        with trio.fail_after(30):
            while len(shares) < 3:  # noqa: ASYNC110  # nobody tells of a third
                await trio.sleep(0.02)
    assert [round(least, 3) for least, _ in shares[:3]] == [0.2, 0.9, 0.9]


async def test_long_renewals_come_at_whole_seconds(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of many accounts come together, for less of the processor."""
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)
    ends: list[float] = []

    async def noted(session: Session, seconds: float, *, ask: bool = False) -> News:
        del session, ask
        ends.append(trio.current_time() + seconds)
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(Session, "idle", noted)
    async with running(make_runtime(db, authority, dovecot.imaps_port, renewal=100.0), claim):
        await in_state(db, claim.account_id, "watching")
    assert ends[0] == pytest.approx(round(ends[0]), abs=1e-3)
