"""Sharing as a state machine: whatever several users do in whatever order, the answers are those of the model.

The model is a few dictionaries; nothing in it looks like SQL.  After each step everybody's view is compared: who sees
which account, with which role, and which invitations.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from daemon.identity import User, users_store
from daemon.identity.rates import Rate
from daemon.sharing.rules import (
    AccountNotFound,
    CannotInvite,
    InvitationNotFound,
    NotAllowed,
    ShareNotFound,
)
from daemon.sharing.service import SharingService
from daemon.sharing.views import Caller
from daemon.storage.database import Database
from daemon.storage.requests import Requests
from tests.daemon.account.running import add_account, execute

NAMES = ("owner", "ann", "bob", "eve")
people = st.sampled_from(NAMES)
guests = st.sampled_from(NAMES[1:])
roles = st.sampled_from(("admin", "member"))


class Loop:
    """A Trio loop in a thread, with a database: what a rule asks is run there."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._ready = threading.Event()
        self._end = trio.Event()
        self.database: Database
        self._token: trio.lowlevel.TrioToken
        self._thread = threading.Thread(target=trio.run, args=(self._run,))
        self._thread.start()
        assert self._ready.wait(30)

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with Database(self._dsn, size=2) as self.database, trio.open_nursery() as nursery:
            await nursery.start(self.database.watch)
            await self.database.wait_ready(30)
            self._ready.set()
            await self._end.wait()
            nursery.cancel_scope.cancel()

    def __call__(self, ask: Callable[..., Any], *given: Any) -> Any:
        """The answer, or the name of the refusal."""
        try:
            return trio.from_thread.run(ask, *given, trio_token=self._token)
        except (AccountNotFound, CannotInvite, InvitationNotFound, NotAllowed, ShareNotFound) as exc:
            return type(exc).__name__ if not isinstance(exc, CannotInvite) else exc.conflict.value

    def close(self) -> None:
        self._token.run_sync_soon(self._end.set)
        self._thread.join()


@pytest.fixture
def loop(database_dsn: str) -> Iterator[Loop]:
    made = Loop(database_dsn)
    yield made
    made.close()


class Sharing(RuleBasedStateMachine):
    """One account of `owner`'s, connected or not; three who may be invited to it."""

    loop: Loop

    @initialize()
    def begin(self) -> None:
        mark = uuid4().hex[:8]
        self.callers = {
            name: Caller(User(f"{name}-{mark}", f"{name}.{mark}@Example.test", name, "free"), "") for name in NAMES
        }
        database = self.loop.database
        for caller in self.callers.values():
            self.loop(database.run, lambda conn, user=caller.user: users_store.remember(conn, user))
        self.service = SharingService(Requests(database, migrated=lambda: True), Rate("invite.user", 10**6, 86400.0))
        claim = self.loop(_account, database, f"box.{mark}@example.test", self.callers["owner"].user.id)
        self.account: UUID = claim
        self.connected = True
        self.shared: dict[str, str] = {}
        self.open: dict[str, tuple[str, str]] = {}
        """Open invitations: to whom, as what."""
        self.accepted: dict[str, str] = {}
        self.known: list[str] = ["inv_" + "0" * 32]

    def access(self, who: str) -> str | None:
        if not self.connected:
            return None
        return "owner" if who == "owner" else self.shared.get(who)

    def refused(self, who: str) -> str | None:
        """How an owner's own business is refused to somebody."""
        access = self.access(who)
        return "AccountNotFound" if access is None else None if access == "owner" else "NotAllowed"

    @rule(who=people, whom=people, role=roles, shout=st.booleans())
    def invite(self, who: str, whom: str, role: str, shout: bool) -> None:
        email = self.callers[whom].user.email
        answer = self.loop(
            self.service.invite, self.callers[who], self.account, email.upper() if shout else email, role
        )
        expected = self.refused(who)
        if expected is None and whom == who:
            expected = "own_address"
        elif expected is None and whom in self.shared:
            expected = "already_shared"
        elif expected is None and whom in {invitee for invitee, _ in self.open.values()}:
            expected = "already_invited"
        if expected is not None:
            assert answer == expected
            return
        self.open[answer.id] = (whom, role)
        self.known.append(answer.id)

    @rule(who=people, data=st.data())
    def accept(self, who: str, data: st.DataObject) -> None:
        invitation = data.draw(st.sampled_from(self.known))
        answer = self.loop(self.service.accept, self.callers[who], invitation)
        if self.connected and self.open.get(invitation, ("", ""))[0] == who:
            assert answer == self.account
            self.shared[who] = self.open.pop(invitation)[1]
            self.accepted[invitation] = who
        elif self.connected and self.accepted.get(invitation) == who and who in self.shared:
            assert answer == self.account, "again is the same"
        else:
            assert answer == "InvitationNotFound"

    @rule(who=people, data=st.data())
    def decline(self, who: str, data: st.DataObject) -> None:
        invitation = data.draw(st.sampled_from(self.known))
        answer = self.loop(self.service.decline, self.callers[who], invitation)
        if self.connected and self.open.get(invitation, ("", ""))[0] == who:
            assert answer is None
            del self.open[invitation]
        else:
            assert answer == "InvitationNotFound"

    @rule(who=people, data=st.data())
    def take_back(self, who: str, data: st.DataObject) -> None:
        invitation = data.draw(st.sampled_from(self.known))
        answer = self.loop(self.service.revoke_invitation, self.callers[who], self.account, invitation)
        expected = self.refused(who)
        if expected is None and self.open.pop(invitation, None) is None:
            expected = "InvitationNotFound"
        assert answer == expected

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def time_passes_over(self, data: st.DataObject) -> None:
        invitation = data.draw(st.sampled_from(sorted(self.open)))
        statement = "UPDATE invitations SET created_at = now() - interval '32 d', expires_at = now() WHERE id = %s"
        self.loop(execute, self.loop.database, statement, invitation)
        del self.open[invitation]

    @rule(who=people, whom=people)
    def revoke(self, who: str, whom: str) -> None:
        answer = self.loop(
            self.service.revoke_share, self.callers[who], self.account, self.callers[whom].user.id
        )
        access = self.access(who)
        if access is None:
            assert answer == "AccountNotFound"
        elif who == whom and access != "owner":
            assert answer is None
            del self.shared[who]
        elif access != "owner":
            assert answer == "NotAllowed"
        elif self.shared.pop(whom, None) is None:
            assert answer == "ShareNotFound"
        else:
            assert answer is None

    @precondition(lambda self: self.connected)
    @rule()
    def disconnect(self) -> None:
        self.loop(_disconnect, self.loop.database, self.account)
        self.connected = False
        self.shared.clear()
        self.open.clear()
        self.accepted.clear()

    @precondition(lambda self: not self.connected)
    @rule()
    def connect_again(self) -> None:
        statement = "UPDATE accounts SET desired = 'running', removed_at = NULL, is_default = true, data_key = 'x',"
        statement += " password_sealed = 'x' WHERE id = %s"
        self.loop(execute, self.loop.database, statement, self.account)
        self.connected = True

    @invariant()
    def everybody_sees_what_is_theirs(self) -> None:
        if not hasattr(self, "account"):
            return
        for name, caller in self.callers.items():
            received = self.loop(self.service.received, caller)
            mine = {each for each, (invitee, _) in self.open.items() if invitee == name}
            assert {each.id for each in received} == (mine if self.connected else set())
            refusal = self.refused(name)
            shares = self.loop(self.service.shares, caller, self.account)
            invitations = self.loop(self.service.invitations, caller, self.account)
            if refusal is not None:
                assert shares == invitations == refusal
                continue
            assert {each.user_id.split("-")[0]: each.role for each in shares} == self.shared
            assert {each.id: each.role for each in invitations} == {each: role for each, (_, role) in self.open.items()}


async def _account(database: Database, email: str, owner: str) -> UUID:
    return (await add_account(database, email, 993, "pw", owner=owner)).account_id


async def _disconnect(database: Database, account_id: UUID) -> None:
    """As disconnecting does it."""
    for statement in (
        "UPDATE accounts SET desired = 'removed', removed_at = now(), is_default = false WHERE id = %s",
        "DELETE FROM account_access WHERE account_id = %s AND role <> 'owner'",
        "DELETE FROM invitations WHERE account_id = %s",
    ):
        await execute(database, statement, account_id)


def test_the_answers_are_those_of_the_model(loop: Loop) -> None:
    Sharing.loop = loop
    chosen = settings(
        max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    run_state_machine_as_test(Sharing, settings=chosen)  # type: ignore[no-untyped-call]
