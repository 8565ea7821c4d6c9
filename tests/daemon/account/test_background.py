"""Accounts whose last attempt failed go one behind the other, and those whose hosts are dead hold none of them up."""

from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import trio

from daemon.account.pacing import BACKGROUND, Pacing
from daemon.account.sync import Mailbox, SyncChild
from daemon.network import Endpoint, Security
from daemon.vault.secret import Secret

SILENT = 30


class BlackHole:
    """A dialer of hosts that swallow every packet."""

    def __init__(self) -> None:
        self.dialling = 0

    async def dial(self, *_: object, **__: object) -> None:
        self.dialling += 1
        await trio.sleep_forever()


async def test_hosts_that_do_not_answer_take_no_turn_from_accounts_that_recover() -> None:
    pacing = Pacing(starting=2 * SILENT, starting_per_host=10, first_syncs=4)
    dialer: Any = BlackHole()
    unused: Any = None
    async with trio.open_nursery() as nursery:
        for number in range(SILENT):
            endpoint = Endpoint(f"h{number}.example.test", 993, Security.TLS)
            mailbox = Mailbox(
                endpoint, "you", Secret("pw"), "ann", newcomer=False, number=1, credentials_version=1
            )
            store: Any = SimpleNamespace(claim=SimpleNamespace(account_id=uuid4()))
            child = SyncChild(
                mailbox=lambda mailbox=mailbox: mailbox,  # type: ignore[misc]  # mypy: lambda
                store=store,
                dialer=dialer,
                lookout=unused,
                pacing=pacing,
                config=unused,
                tell=lambda _: None,
                renew=lambda _: None,
            )
            child._failed = True
            nursery.start_soon(child.run)
        await trio.testing.wait_all_tasks_blocked()
        assert dialer.dialling == SILENT > BACKGROUND
        assert pacing.background.taken == pacing.background.waiting == 0
        nursery.cancel_scope.cancel()
