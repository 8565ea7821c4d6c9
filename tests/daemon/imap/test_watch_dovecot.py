"""A watch of a real Dovecot over TLS: what it pushes, and what only the question finds."""

import pytest
import trio

from daemon.imap.selected import Known, SelectedFolder
from daemon.imap.session import Session
from ops.testservers.dovecot import Dovecot
from tests.daemon.imap.accounts import LoginTo
from tests.daemon.imap.scripted import looking_out
from tests.daemon.imap.test_dovecot import LADDER, deliver, message
from tests.daemon.imap.watching import Renewing, Steps
from tests.fix_dovecot import MailUser


def asking(session: Session, before: SelectedFolder, *, times: int) -> Renewing:
    """Renewals that ask whether the folder is as it was."""

    def equal(now: SelectedFolder) -> bool:
        numbers = [(each.uidvalidity, each.uidnext, each.highestmodseq, each.exists) for each in (before, now)]
        return numbers[0] == numbers[1] and not (now.changed or now.vanished or now.overflowed)

    assert before.highestmodseq is not None
    known = Known(before.uidvalidity, before.highestmodseq)
    return Renewing(*[lambda: session.look_again("INBOX", known, equal)] * times)


@pytest.mark.parametrize("dovecot", LADDER[:2], indirect=True, ids=["qresync", "condstore"])
async def test_renewals_then_a_delivery(dovecot: Dovecot, mail_user: MailUser, login_to: LoginTo) -> None:
    dovecot.seed(mail_user.name, [message(n) for n in range(1, 6)])
    async with login_to(dovecot, mail_user) as session, looking_out() as lookout:
        await session.enable(b"QRESYNC", b"CONDSTORE")
        before = await session.select("INBOX")
        renewals = asking(session, before, times=3)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                woken_before: list[int] = []

                async def then_deliver() -> None:
                    await renewals.reaches(1)
                    first = steps.count
                    await renewals.reaches(3)
                    woken_before.append(steps.count - first)
                    await deliver(dovecot, mail_user, message(6))

                with Steps() as steps:
                    nursery.start_soon(then_deliver)
                    news = await session.watch(renewals, lookout)
        assert (renewals.asked, renewals.done) == (3, 3)
        assert woken_before == [0], "the task slept"
        assert news.exists == 6
        assert list(await session.uids()) == [1, 2, 3, 4, 5, 6]
        assert not session.dirty


async def test_a_flag_that_another_sets_is_pushed_or_found(
    dovecot: Dovecot, mail_user: MailUser, login_to: LoginTo
) -> None:
    dovecot.seed(mail_user.name, [message(n) for n in range(1, 4)])
    async with login_to(dovecot, mail_user) as session, looking_out() as lookout:
        await session.enable(b"QRESYNC")
        before = await session.select("INBOX")
        assert before.highestmodseq is not None
        renewals = asking(session, before, times=1000)
        async with trio.open_nursery() as nursery:

            async def then_flag() -> None:
                await renewals.reaches(1)
                await trio.to_thread.run_sync(dovecot.flag, mail_user.name, [2], "\\Flagged")

            nursery.start_soon(then_flag)
            with trio.fail_after(60):
                news = await session.watch(renewals, lookout)
        flags = news.flags or (await session.select("INBOX", Known(before.uidvalidity, before.highestmodseq))).changed
        assert b"\\Flagged" in (flags[2].flags or ())
        assert renewals.done < 1000
        assert not session.dirty


async def test_what_changed_before_the_watch_is_found_by_its_question(
    dovecot: Dovecot, mail_user: MailUser, login_to: LoginTo
) -> None:
    """What the server has told nobody, since the cursor is older than the session."""
    dovecot.seed(mail_user.name, [message(n) for n in range(1, 4)])
    async with login_to(dovecot, mail_user) as session:
        await session.enable(b"QRESYNC")
        before = await session.select("INBOX")
    dovecot.expunge(mail_user.name, [2])
    async with login_to(dovecot, mail_user) as session, looking_out() as lookout:
        await session.enable(b"QRESYNC")
        await session.select("INBOX")
        renewals = asking(session, before, times=1)
        with trio.fail_after(60):
            assert not await session.watch(renewals, lookout)
        assert (renewals.asked, renewals.done) == (1, 0)
        await session.noop()
