"""New credentials, and what a session of the former ones still says: where another mailbox begins, and where not."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import pytest
import trio

from daemon.account import access_store, accounts_store, changes_store
from daemon.account.accounts_store import Proof, Trouble
from daemon.account.actor import TELL_AFTER, AccountActor
from daemon.account.commands import Attempting, CaughtUp, Command, LoggedIn, RowChanged, SyncEnded
from daemon.account.proofs import Proofs
from daemon.account.states import State
from daemon.account.tree import AccountTree
from daemon.errors import Fault, FaultKind
from daemon.imap.folder_record import Store
from daemon.network import Endpoint, Security
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.storage.fence import Claim
from daemon.vault.secret import Secret
from ops.testservers.dovecot import Dovecot
from ops.testservers.mail import message, messages
from ops.testservers.tls import Authority
from tests.daemon.account.running import (
    VAULT,
    add_account,
    column,
    execute,
    in_state,
    make_runtime,
    running,
    until,
)
from tests.daemon.account.test_requests import Control
from tests.fix_dovecot import MailUser
from tests.stored import one, stored_messages

SMTP = Endpoint("smtp.a.test", 465, Security.TLS)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
WATCHED = "state = 'watching', first_synced_at = now(), proof_until = now() + interval '1 hour'"


async def set_credentials(
    db: Database, account_id: UUID, *, host: str = "localhost", port: int = 993, username: str = "u@a.test",
    smtp: Endpoint = SMTP, password: str = "pw",
) -> None:  # fmt: skip
    """As a PATCH does."""
    sealed = VAULT.seal(account_id, {"password": Secret(password)})
    imap = Endpoint(host, port, Security.TLS)

    async def work(conn: Conn) -> None:
        await changes_store.set_credentials(
            conn, "user-1", account_id, imap, smtp, username, (sealed.data_key, sealed.fields["password"])
        )

    await db.run(work)


async def watched(db: Database) -> Claim:
    """An account that is up to date, with a folder that is complete."""
    claim = await add_account(db, "u@a.test", 993, "pw")
    await execute(db, f"UPDATE accounts SET {WATCHED}")
    await execute(
        db, "INSERT INTO folders (account_id, name, uidvalidity, uidnext, highestmodseq, backfill_below)"
        " VALUES (%s, 'INBOX', 1, 10, 10, 1)", claim.account_id,
    )  # fmt: skip
    return claim


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        pytest.param({}, False, id="a password"),
        pytest.param({"host": "LocalHost"}, False, id="the same host in other letters"),
        pytest.param({"port": 143}, False, id="a port"),
        pytest.param({"smtp": Endpoint("other.test", 25, Security.STARTTLS)}, False, id="where it sends"),
        pytest.param({"host": "127.0.0.1"}, True, id="a host"),
        pytest.param({"username": "v@a.test"}, True, id="a login"),
        pytest.param({"username": "U@a.test"}, True, id="a login in other letters, which many servers tell apart"),
        pytest.param({"host": "127.0.0.1", "username": "v@a.test"}, True, id="both"),
    ],
)
async def test_which_mailbox_it_is(db: Database, changes: dict[str, str], moved: bool) -> None:
    account_id = (await watched(db)).account_id
    await set_credentials(db, account_id, **changes)  # type: ignore[arg-type]  # varied
    shown = "(mailbox, first_synced_at IS NULL, state, proof_until, credentials_version)::text"
    assert await column(db, account_id, shown) == ("(2,t,new,,2)" if moved else "(1,f,new,,2)")
    view = await db.run(lambda conn: access_store.get_view(conn, "user-1", account_id))
    assert view is not None
    assert [folder.complete for folder in view.folders] == [not moved], "of this mailbox nothing is there yet"
    assert view.sync_status == ("pending" if moved else "syncing")


async def test_a_paused_one_stays_as_paused_ones_are(db: Database) -> None:
    account_id = (await watched(db)).account_id
    await execute(db, "UPDATE accounts SET desired = 'paused', state = 'stopped', proof_until = NULL")
    await set_credentials(db, account_id, host="127.0.0.1")
    assert await column(db, account_id, "(desired, state, state_reason, mailbox)::text") == "(paused,stopped,,2)"


async def test_a_proof_by_former_credentials_proves_nothing(db: Database) -> None:
    claim = await watched(db)
    await set_credentials(db, claim.account_id, host="127.0.0.1")
    store = Store(db, claim)
    shown = "(state, first_synced_at, proof_until, new_messages)::text"
    assert await store.write(accounts_store.set_caught_up, Proof(claim.account_id, "u", 1, 1, 60, None, 1)) is False
    proofs = Proofs(db)
    proofs.renew(claim, 600.0)
    await proofs.store()
    assert await column(db, claim.account_id, shown) == "(new,,,0)"
    assert await one(db, "SELECT count(*) FROM events WHERE type = 'account.synced'") == 0
    assert await store.write(accounts_store.set_caught_up, Proof(claim.account_id, "u", 1, 1, 60, None, 2)) is True
    await proofs.store()
    assert await column(db, claim.account_id, "(state, first_synced_at IS NULL)::text") == "(watching,f)"


async def test_a_proof_that_waits_for_the_change_proves_nothing(db: Database) -> None:
    claim = await watched(db)
    proof = Proof(claim.account_id, "u", 0, 0, 60, None, 1)
    async with db.connection() as changing, trio.open_nursery() as nursery:
        await changing.execute("BEGIN")
        await changing.execute(
            "UPDATE accounts SET credentials_version = 2, state = 'new', first_synced_at = NULL, proof_until = NULL"
        )
        nursery.start_soon(Store(db, claim).write, accounts_store.set_caught_up, proof)
        await trio.sleep(0.2)
        await changing.execute("COMMIT")
    assert await column(db, claim.account_id, "(state, first_synced_at, proof_until)::text") == "(new,,)"


@asynccontextmanager
async def an_actor(db: Database, claim: Claim) -> AsyncIterator[tuple[Callable[..., None], AccountActor, Control]]:
    """A running actor, as the row is now."""
    (row,) = await db.run(lambda conn: accounts_store.load(conn, [claim.account_id]))
    assert row is not None
    control = Control()
    actor = AccountActor(Store(db, claim), Proofs(db), row, control=control, logged_in=lambda: None)

    def tell(*commands: Command) -> None:
        for command in commands:
            actor.tell(command)

    async with trio.open_nursery() as nursery:
        await nursery.start(actor.run)
        yield tell, actor, control
        nursery.cancel_scope.cancel()


async def test_a_request_that_the_former_session_served_is_served_again(db: Database) -> None:
    claim = await watched(db)
    async with an_actor(db, claim) as (tell, _, control):
        await set_credentials(db, claim.account_id, host="127.0.0.1")
        await execute(db, "UPDATE accounts SET sync_requested_at = clock_timestamp()")
        tell(CaughtUp(0, 60.0, NOW, 1), RowChanged())  # before it knows
        await until(lambda: _asked(control, 2))
        assert control.asked == ["restart", "request"]
        tell(CaughtUp(0, 60.0, NOW, 1), CaughtUp(0, 60.0, None, 1))  # and after
        await until(lambda: _asked(control, 3))
        assert control.asked == ["restart", "request", "request"]
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert await column(db, claim.account_id, "(sync_served_at, first_synced_at)::text") == "(,)"


async def test_a_long_first_sync_after_a_move_is_told(db: Database) -> None:
    claim = await watched(db)
    async with an_actor(db, claim) as (tell, actor, _):
        tell(Attempting(), LoggedIn())
        await until(lambda: _is(actor, State.SYNCING), TELL_AFTER + 20)
        await execute(db, "UPDATE accounts SET state = 'syncing'")
        actor._is_stored(State.SYNCING)
        await set_credentials(db, claim.account_id, host="127.0.0.1")
        tell(RowChanged(), Attempting(), LoggedIn())
        await in_state(db, claim.account_id, "syncing")


async def test_a_renewal_by_former_credentials_is_none(db: Database) -> None:
    claim = await watched(db)
    async with an_actor(db, claim) as (tell, actor, control):
        tell(CaughtUp(0, 60.0, None, 1))
        await until(lambda: _is(actor, State.WATCHING))
        await set_credentials(db, claim.account_id, host="127.0.0.1")
        tell(RowChanged())
        await until(lambda: _asked(control, 1))
        actor.renew(600.0, 1)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert await column(db, claim.account_id, "(state, proof_until)::text") == "(new,)"


REFUSED = Fault(FaultKind.AUTH_FAILED, "The server refused the password.")
AFTER = "(state, state_code, state_reason, refused_version, retry_at, trouble_since)::text"


@pytest.mark.parametrize("retry_in", [None, 3.0], ids=["parked", "retrying"])
@pytest.mark.parametrize("known", [False, True], ids=["before it knows", "after"])
async def test_the_end_of_a_former_attempt_says_nothing_of_the_credentials_that_are_new(
    db: Database, known: bool, retry_in: float | None
) -> None:
    claim = await watched(db)
    async with an_actor(db, claim) as (tell, actor, control):
        await set_credentials(db, claim.account_id, password="another")
        tell(*[RowChanged()] * known, SyncEnded(REFUSED, retry_in, 1), *[RowChanged()] * (not known))
        await until(lambda: _asked(control, 1))
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert await column(db, claim.account_id, AFTER) == "(new,,,,,)"
        assert actor.state is not State.PARKED, "what the owner asks for meanwhile is done"
        assert await one(db, "SELECT count(*) FROM events WHERE type = 'account.error'") == 0
        tell(Attempting(), SyncEnded(REFUSED, None, 2))
        await in_state(db, claim.account_id, "parked")
        assert await column(db, claim.account_id, "(state_code, refused_version)::text") == "(auth_failed,2)"
        assert await one(db, "SELECT count(*) FROM events WHERE type = 'account.error'") == 1


async def test_trouble_that_waits_for_the_change_says_nothing(db: Database) -> None:
    claim = await watched(db)
    trouble = Trouble(claim.account_id, State.PARKED, "auth_failed", "No.", None, 1, refused=True)
    written: list[bool] = []

    async def tell() -> None:
        written.append(await Store(db, claim).write(accounts_store.set_trouble, trouble))

    async with db.connection() as changing, trio.open_nursery() as nursery:
        await changing.execute("BEGIN")
        await changing.execute("UPDATE accounts SET credentials_version = 2, state = 'new'")
        nursery.start_soon(tell)
        await trio.sleep(0.2)
        await changing.execute("COMMIT")
    assert written == [False]
    assert await column(db, claim.account_id, "(state, refused_version)::text") == "(new,)"
    assert await one(db, "SELECT count(*) FROM events WHERE type = 'account.error'") == 0


async def test_bugs_with_the_former_credentials_do_not_park_the_account(db: Database, authority: Authority) -> None:
    claim = await watched(db)
    tree = AccountTree(make_runtime(db, authority, 993), claim)
    (row,) = await db.run(lambda conn: accounts_store.load(conn, [claim.account_id]))
    assert row is not None
    tree._actor = AccountActor(Store(db, claim), Proofs(db), row, control=tree, logged_in=lambda: None)
    await set_credentials(db, claim.account_id, password="another")
    await tree._park()
    assert not tree.parked, "the fleet starts it anew"
    assert await column(db, claim.account_id, "(state, state_code)::text") == "(new,)"
    tree._actor = None  # its row could never be read
    await tree._park()
    assert tree.parked
    assert await column(db, claim.account_id, "(state, state_code)::text") == "(parked,internal_error)"


async def _asked(control: Control, count: int) -> bool:
    return len(control.asked) >= count


async def _is(actor: AccountActor, state: State) -> bool:
    return actor.state is state


async def test_the_session_begins_anew_with_the_other_mailbox(
    db: Database, authority: Authority, dovecot: Dovecot, mail_user: MailUser
) -> None:
    other = f"other-{mail_user.name}"
    assert dovecot.uids(mail_user.name) == []
    dovecot.clone(mail_user.name, [other])
    dovecot.seed(mail_user.name, messages(5, seed=41))
    dovecot.seed(other, messages(3, seed=42))
    claim = await add_account(db, mail_user.name, dovecot.imaps_port, mail_user.password)
    account_id = claim.account_id
    async with running(make_runtime(db, authority, dovecot.imaps_port), claim) as tree:
        await in_state(db, account_id, "watching")
        await set_credentials(
            db, account_id, port=dovecot.imaps_port, username=other, password=mail_user.password
        )
        tree.changed()
        await until(lambda: column(db, account_id, "first_synced_at IS NOT NULL"))
        dump = dovecot.dump(other)
        held = await stored_messages(db, account_id)
        assert {uid: message.sha256 for uid, message in held.items()} == {uid: m.sha256 for uid, m in dump.items()}
        dovecot.deliver(other, message("there"))
        await until(lambda: one(db, "SELECT count(*) = 9 FROM messages"))
        dovecot.deliver(mail_user.name, message("here"))
        await trio.sleep(0.3)
        assert await one(db, "SELECT count(*) FROM messages") == 9, "nobody listens there any more"
