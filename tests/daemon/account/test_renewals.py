"""Renewals of IDLE: what they find, what they cost, and when they come."""

import pytest
import trio

from daemon.account import sync as sync_module
from daemon.account.actor import AccountActor
from daemon.account.commands import Command
from daemon.account.sync import LIGHT
from daemon.imap import folder_sync as folder_sync_module
from daemon.imap.folder_sync import FolderSync
from daemon.imap.news import NewsBox
from daemon.imap.plan import Method
from daemon.imap.responses import Response
from daemon.imap.session import Session
from daemon.imap.watch import Question, Renewals
from daemon.network import Lookout
from daemon.storage.database import Database
from ops.testservers.dovecot import Dovecot
from ops.testservers.mail import message
from ops.testservers.tls import Authority
from tests.daemon.account.running import add_account, in_state, make_runtime, running, until
from tests.fix_dovecot import MailUser
from tests.fix_proxy import OpenProxy
from tests.stored import stored_messages


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done for an account, in order: run, wait, ask NOOP, ask EXAMINE, ask nothing, renewed."""
    done: list[str] = []
    run, watch, question, renewed = FolderSync.run, Session.watch, FolderSync.question, sync_module._Renewals.renewed

    async def noted_run(folder: FolderSync) -> object:
        done.append("run")
        return await run(folder)

    async def noted_watch(session: Session, renewals: Renewals, lookout: Lookout | None = None) -> object:
        done.append("wait")
        return await watch(session, renewals, lookout)

    def noted_question(folder: FolderSync) -> Question | None:
        asked = question(folder)
        done.append(f"ask {asked.command.split()[0].decode() if asked is not None else 'nothing'}")
        return asked

    def noted_renewed(renewals: sync_module._Renewals) -> None:
        done.append("renewed")
        renewed(renewals)

    monkeypatch.setattr(FolderSync, "run", noted_run)
    monkeypatch.setattr(Session, "watch", noted_watch)
    monkeypatch.setattr(FolderSync, "question", noted_question)
    monkeypatch.setattr(sync_module._Renewals, "renewed", noted_renewed)
    return done


async def _so_many(told: list[str], count: int) -> list[str]:
    with trio.fail_after(30):
        while len(told) < count:  # noqa: ASYNC110  # nobody tells
            await trio.sleep(0.02)
    return told[:count]


async def test_each_renewal_compares_and_no_task_wakes_up_for_it(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser, told: list[str]
) -> None:
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)
    runtime = make_runtime(db, authority, dovecot.imaps_port, renewal=0.2)
    async with running(runtime, claim) as tree:
        done = await _so_many(told, 10)
        assert runtime.lookout.waiting == 1
        assert tree.state == "watching"
    assert done == ["run", "wait", *["ask EXAMINE", "renewed"] * 4]


async def test_without_mod_sequences_every_third_renewal_is_a_run(
    db: Database,
    authority: Authority,
    dovecot: Dovecot,
    mail_user: MailUser,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(folder_sync_module, "best_method", lambda *_: Method.UID_DIFF)
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)
    async with running(make_runtime(db, authority, dovecot.imaps_port, renewal=0.2), claim):
        done = await _so_many(told, 14)
    assert done == ["run", "wait", *["ask NOOP", "renewed"] * LIGHT, "ask NOOP"] * 2


async def test_after_news_the_next_renewal_is_a_run(
    db: Database,
    authority: Authority,
    dovecot: Dovecot,
    mail_user: MailUser,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sync_module, "FIRST_JITTER", 0.0)
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)
    async with running(make_runtime(db, authority, dovecot.imaps_port, renewal=2.0), claim):
        await in_state(db, claim.account_id, "watching")
        await trio.to_thread.run_sync(dovecot.deliver, mail_user.name, message("news"))
        await until(lambda: stored_messages(db, claim.account_id))
        done = await _so_many(told, 8)
    assert done == ["run", "wait", "wait", "ask nothing", "run", "wait", "ask EXAMINE", "renewed"]


async def test_a_count_that_differs_is_looked_into(
    db: Database,
    authority: Authority,
    dovecot: Dovecot,
    mail_user: MailUser,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However it came about."""
    monkeypatch.setattr(sync_module, "FIRST_JITTER", 0.0)
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)
    async with running(make_runtime(db, authority, dovecot.imaps_port, renewal=1.0), claim) as tree:
        await in_state(db, claim.account_id, "watching")
        session = tree._sync._session
        assert session is not None
        session.newsbox.messages += 1
        done = await _so_many(told, 4)
    assert done == ["run", "wait", "ask nothing", "run"]


async def test_a_comparison_finds_what_nothing_told(
    db: Database,
    authority: Authority,
    dovecot: Dovecot,
    mail_user: MailUser,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that pushes nothing."""
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)

    def deaf(box: NewsBox, response: Response) -> None:
        del box, response

    async with running(make_runtime(db, authority, dovecot.imaps_port, renewal=1.0), claim):
        await in_state(db, claim.account_id, "watching")
        monkeypatch.setattr(NewsBox, "file", deaf)
        await trio.to_thread.run_sync(dovecot.deliver, mail_user.name, message("untold"))
        await until(lambda: stored_messages(db, claim.account_id))
    at = told.index("ask EXAMINE")
    assert [word for word in told[at:] if word != "renewed"][1] == "run"


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


@pytest.mark.parametrize("jitter", [sync_module.FIRST_JITTER, sync_module.RENEWAL_JITTER])
async def test_long_renewals_come_at_whole_seconds(jitter: float) -> None:
    """Those of many accounts come together, for less of the processor."""
    due_at = sync_module._next(100.0, jitter)
    assert due_at == pytest.approx(round(due_at), abs=1e-6)
    assert 100.0 * (1 - jitter) - 1.0 <= due_at - trio.current_time() <= 100.0


async def test_what_a_session_first_proves_is_told_in_order(
    db: Database,
    authority: Authority,
    dovecot: Dovecot,
    mail_user: MailUser,
    proxy: OpenProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The actor may have the end of the session before it still to hear, and a state that is not true any more."""
    told: list[str] = []
    tell, renew = AccountActor.tell, AccountActor.renew

    def noted(actor: AccountActor, command: Command) -> None:
        told.append(type(command).__name__)
        tell(actor, command)

    def renewed(actor: AccountActor, seconds: float) -> None:
        told.append("renewed")
        renew(actor, seconds)

    monkeypatch.setattr(AccountActor, "tell", noted)
    monkeypatch.setattr(AccountActor, "renew", renewed)
    link = await proxy(dovecot.imaps_port)
    claim = await add_account(db, mail_user.name, link.port, mail_user.password)
    async with running(make_runtime(db, authority, link.port), claim):
        await in_state(db, claim.account_id, "watching")
        link.cut()
        await _so_many(told, 7)
    assert told[:7] == ["Attempting", "LoggedIn", "CaughtUp", "SyncEnded", "Attempting", "LoggedIn", "CaughtUp"]
