"""Sharing as a state machine over HTTP: whatever several users do, in whatever order or at the same time, the daemon
answers as the model does, and shows everybody what is theirs and nothing else.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest
import trio
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from ops.soak import sharing_store
from ops.soak.sharing_client import Person, Users
from ops.soak.sharing_model import Disconnect
from ops.soak.sharing_play import OWNERS, PEOPLE, Play, choose, what_next
from tests.fix_daemon import COOKIE, DaemonProcess, MailServers, make_token

EXAMPLES, STEPS = 8, 24


class Loop:
    """A Trio loop in a thread, where a test that is none runs what is asynchronous."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._end = trio.Event()
        self._token: trio.lowlevel.TrioToken
        self._thread = threading.Thread(target=trio.run, args=(self._run,))
        self._thread.start()
        assert self._ready.wait(30)

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._ready.set()
        await self._end.wait()

    def __call__(self, ask: Callable[..., Any], *given: Any) -> Any:
        return trio.from_thread.run(ask, *given, trio_token=self._token)

    def close(self) -> None:
        self._token.run_sync_soon(self._end.set)
        self._thread.join()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def people(mark: str) -> dict[str, Person]:
    """Everybody, of this play alone."""
    found = {}
    for who in PEOPLE:
        user, email = f"{who}-{mark}", f"{who}.{mark}@Example.test"
        found[who] = Person(user, email, f"{COOKIE}={make_token(user, email=email)}")
    return found


def users_of(daemon: DaemonProcess, mail: MailServers, mark: str) -> tuple[Users, Mapping[str, str]]:
    """The users of one play, and whose each account is."""
    owners = {
        f"{owner}{number}.{mark}@example.test": owner for owner, count in OWNERS.items() for number in range(count)
    }

    async def expire(invitation: str) -> None:
        await trio.to_thread.run_sync(sharing_store.expire, daemon.dsn, invitation)

    mailboxes = {account: mail.mailbox(account) for account in owners}
    return Users(daemon.api, people(mark), mailboxes, expire), owners


class Sharing(RuleBasedStateMachine):
    """Three accounts of two owners, four users."""

    loop: Loop
    daemon: DaemonProcess
    mail: MailServers

    @initialize()
    def begin(self) -> None:
        self.stack = AsyncExitStack()
        users, owners = users_of(self.daemon, self.mail, uuid4().hex[:8])
        self.play = Play(users, owners)
        self.loop(self.stack.enter_async_context, users)
        self.loop(self.play.begin)

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        def pick(of: Sequence[Any]) -> Any:
            return data.draw(st.sampled_from(of))

        now = self.play.now
        self.loop(self.play.step, choose(what_next(now, pick), now, self.play.known, pick))

    def teardown(self) -> None:
        if hasattr(self, "play"):
            try:
                for key, account in self.play.now.accounts.items():
                    if account.connected and key in self.play.users.ids:
                        self.loop(self.play.users.do, Disconnect(account.owner, key))
            finally:
                self.loop(self.stack.aclose)


@pytest.mark.slow
def test_the_answers_are_those_of_the_model(shared_daemon: DaemonProcess, mail: MailServers, loop: Loop) -> None:
    sharing_store.slow_down(shared_daemon.dsn)
    Sharing.loop, Sharing.daemon, Sharing.mail = loop, shared_daemon, mail
    chosen = settings(
        max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck),
        database=None, phases=[Phase.generate],  # requests at once cannot be replayed; the play tells what it did
    )  # fmt: skip
    run_state_machine_as_test(Sharing, settings=chosen)  # type: ignore[no-untyped-call]
