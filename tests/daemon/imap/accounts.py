"""An account whose mailbox is at a real Dovecot, for the tests of synchronisation."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import trio

from daemon.imap.folder_changes import FolderSyncConfig
from daemon.imap.folder_record import FolderRecord, Store, Tally
from daemon.imap.folder_sync import FolderSync
from daemon.imap.session import Session
from daemon.storage.database import Database
from ops.testservers.dovecot import Dovecot
from tests.fix_dovecot import MailUser
from tests.stored import StoredMessage, one, stored_messages

LoginTo = Callable[..., AbstractAsyncContextManager[Session]]
Act = Callable[[FolderSync, Session], Awaitable[None]]


class Account:
    """One mailbox and its store; `sync` is one session's work."""

    def __init__(self, db: Database, store: Store, server: Dovecot, user: MailUser, login_to: LoginTo) -> None:
        self.db, self.store, self.server, self.user, self.login_to = db, store, server, user, login_to
        self.config = FolderSyncConfig(window=50, max_body=50 << 20)
        self.name = "INBOX"
        self.mailbox = 1

    async def sync(self, act: Act | None = None) -> Tally:
        async with self.login_to(self.server, self.user) as session:
            await session.enable(b"QRESYNC", b"CONDSTORE")
            sync = FolderSync(
                session,
                await FolderRecord.open(self.store, self.name, self.mailbox),
                self.config,
                verify=lambda: self.login_to(self.server, self.user),
                large_bodies=trio.Semaphore(1),
            )
            tally = await sync.run()
            if act is not None:
                await act(sync, session)
            return tally

    async def compare(self) -> None:
        dump = await trio.to_thread.run_sync(self.server.dump, self.user.name, self.name)
        expected = {
            uid: StoredMessage(frozenset(flag for flag in m.flags if flag != "\\Recent"), m.size, m.sha256)
            for uid, m in dump.items()
        }
        assert await stored_messages(self.db, self.store.claim.account_id, self.name) == expected

    async def folder(self, column: str) -> object:
        return await one(self.db, f"SELECT {column} FROM folders WHERE account_id = %s", self.store.claim.account_id)

    async def do(self, operation: Callable[..., object], *arguments: object) -> None:
        await trio.to_thread.run_sync(operation, self.user.name, *arguments)
