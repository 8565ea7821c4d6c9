"""What a daemon stored against a plain dump of the server, from synchronous tests."""

import trio

from daemon.storage.database import Database
from ops.testservers.dovecot import Dovecot
from tests.fix_daemon import DaemonProcess, eventually
from tests.stored import StoredMessage, stored_messages


def stored(daemon: DaemonProcess, account_id: str) -> dict[int, StoredMessage]:
    """Live messages of the account's inbox by UID."""

    async def read() -> dict[int, StoredMessage]:
        async with Database(daemon.dsn, size=1) as db:
            return await stored_messages(db, account_id)

    return trio.run(read)


def on_server(server: Dovecot, user: str) -> dict[int, StoredMessage]:
    """The same of the server."""
    return {uid: StoredMessage(m.flags, m.size, m.sha256) for uid, m in server.dump(user).items()}


def assert_equal(daemon: DaemonProcess, account_id: str, server: Dovecot, user: str) -> None:
    """The store has exactly what the server has: UIDs, flags, sizes, hashes; and each message once."""
    held, there = stored(daemon, account_id), on_server(server, user)
    assert held.keys() == there.keys()
    assert {uid: (held[uid], there[uid]) for uid in held if held[uid] != there[uid]} == {}
    assert daemon.query(
        "SELECT count(*) - count(DISTINCT message_id) FROM placements p JOIN folders f ON f.id = p.folder_id"
        " WHERE f.account_id = %s", account_id,
    ) == [(0,)]  # fmt: skip


def wait_stored(daemon: DaemonProcess, account_id: str, count: int, within: float = 20.0) -> None:
    """Until so many messages are stored."""
    query = "SELECT count(*) FROM messages WHERE account_id = %s"
    eventually(lambda: daemon.query(query, account_id)[0][0] >= count, within)
