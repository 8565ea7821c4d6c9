"""Accounts that run in a test: real rows with sealed credentials, real trees, no daemon around them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sized
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any
from uuid import UUID, uuid4

import trio

from daemon.account.pacing import Pacing
from daemon.account.proofs import Proofs
from daemon.account.sync import SyncConfig
from daemon.account.tree import AccountTree, Runtime
from daemon.imap.folder_changes import FolderSyncConfig
from daemon.network import Dialer, Endpoint, Lookout, NetworkPolicy, Resolver, Security
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.storage.fence import Claim
from daemon.vault import KeyRing, Vault
from daemon.vault.secret import Secret
from ops.testservers.tls import Authority
from tests.fix_scripted_imap import On, Say
from tests.stored import make_account, one

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
VAULT = Vault(KeyRing({"tests": b"k" * 32}))

# What a scripted server says, step by step, until it has an empty inbox watched.
GREETING = Say(b"* OK [CAPABILITY IMAP4rev1 IDLE] hi\r\n")
LOGIN = On(rb"LOGIN|AUTH", b"<tag> OK [CAPABILITY IMAP4rev1 IDLE] in\r\n")
EMPTY = On(
    rb"EXAMINE",
    b"* 0 EXISTS\r\n* OK [UIDVALIDITY 7] v\r\n* OK [UIDNEXT 1] n\r\n<tag> OK [READ-ONLY] done\r\n",
)
IDLE = On(rb"IDLE", b"+ idling\r\n")
DONE = On(rb"DONE", b"<tag> OK done\r\n")


async def until(holds: Callable[[], Awaitable[Any]], within: float = 20.0) -> Any:
    """Ask until the answer is true, and give it; TooSlowError when time is up."""
    with trio.fail_after(within):
        while True:
            if answer := await holds():
                return answer
            await trio.sleep(0.02)


async def seen(things: Sized, count: int) -> bool:
    """Whether there are so many by now: for `until`."""
    return len(things) >= count


def make_runtime(db: Database, authority: Authority, *ports: int, **changes: Any) -> Runtime:
    """A node's shared parts, quick in everything that is slow by default."""
    policy = NetworkPolicy(allow=LOOPBACK, ports=frozenset(ports))
    sync = SyncConfig(
        FolderSyncConfig(window=100, max_body=1 << 20), idle_renewal=changes.pop("renewal", 60.0), poll=1.0
    )
    lookout = Lookout()
    trio.lowlevel.spawn_system_task(lookout.run)  # until the test's loop ends
    values: dict[str, Any] = {
        "database": db,
        "proofs": Proofs(db),
        "lookout": lookout,
        "dialer": Dialer(policy, Resolver(), tls=authority.client_context()),
        "vault": VAULT,
        "pacing": Pacing(starting=10, starting_per_host=10, first_syncs=4),
        "sync": sync,
        "retry_first": 0.05,
        "retry_longest": 0.2,
        "faults": lambda kind: None,
    }
    return Runtime(**(values | changes))


async def add_account(db: Database, user: str, port: int, password: str, *, owner: str = "user-1") -> Claim:
    """A connected account whose password the vault can open."""
    account_id = uuid4()
    sealed = VAULT.seal(account_id, {"password": Secret(password)})
    return await make_account(
        db,
        username=user,
        imap=Endpoint("localhost", port, Security.TLS),
        owner=owner,
        data_key=sealed.data_key,
        password_sealed=sealed.fields["password"],
        account_id=account_id,
    )


@asynccontextmanager
async def running(runtime: Runtime, claim: Claim) -> AsyncIterator[AccountTree]:
    """An account's tree for the length of the block; it is asked to end, and must."""
    tree = AccountTree(runtime, claim)
    async with trio.open_nursery() as shared:
        await shared.start(runtime.proofs.run)
        async with trio.open_nursery() as nursery:
            await nursery.start(tree.run)
            yield tree
            tree.request_stop()
            nursery.cancel_scope.deadline = trio.current_time() + 20.0
        shared.cancel_scope.cancel()
    assert not nursery.cancel_scope.cancelled_caught, "the tree did not end in its time"


async def column(db: Database, account_id: UUID, name: str) -> Any:
    """One column of an account's row."""
    return await one(db, f"SELECT {name} FROM accounts WHERE id = %s", account_id)


async def in_state(db: Database, account_id: UUID, state: str, within: float = 20.0) -> None:
    """Wait for a state; tells the one it stayed in."""
    try:
        await until(lambda: _is(db, account_id, state), within)
    except trio.TooSlowError:
        raise AssertionError(
            f"{await column(db, account_id, 'state')}: {await column(db, account_id, 'state_reason')}"
        ) from None


async def _is(db: Database, account_id: UUID, state: str) -> bool:
    return bool(await column(db, account_id, "state") == state)


async def change_password(db: Database, account_id: UUID, password: str) -> None:
    """New credentials, as a PATCH would store them."""
    sealed = VAULT.seal(account_id, {"password": Secret(password)})

    async def work(conn: Conn) -> None:
        await conn.execute(
            "UPDATE accounts SET data_key = %s, password_sealed = %s, credentials_version = credentials_version + 1"
            " WHERE id = %s",
            (sealed.data_key, sealed.fields["password"], account_id),
        )

    await db.run(work)


async def execute(db: Database, statement: str, *parameters: object) -> None:
    """One statement, committed."""

    async def work(conn: Conn) -> None:
        await conn.execute(statement, parameters)

    await db.run(work)
