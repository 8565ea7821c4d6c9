"""What accounts have sent, from a mailbox at a real server to the API's answer.

The daemon synchronises the inbox alone, so a second hand does it here for the Sent folder: with the daemon's own
session, LIST and folder synchronisation, under the claim of the node that runs the account.
"""

import ipaddress
import time
from email.utils import formatdate
from uuid import UUID

import httpx
import trio

from daemon.imap.folder_changes import FolderSyncConfig
from daemon.imap.folder_record import FolderRecord, Store
from daemon.imap.folder_sync import FolderSync
from daemon.imap.folders import list_folders
from daemon.imap.open import open_session
from daemon.network import Dialer, Endpoint, NetworkPolicy, Resolver, Security
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.storage.fence import Claim
from daemon.vault.secret import Secret
from ops.testservers.mailbox import Seed
from ops.testservers.tls import Authority
from tests.fix_daemon import PASSWORD, DaemonProcess, MailServers, connect

PATH = "/mail/accounts/reputation"
DAY = 86_400.0


def letter(name: str, fields: str, *, date: float | None = None, kept: float | None = None) -> Seed:
    """What a client leaves in its Sent folder; `date` is in its header, `kept` INTERNALDATE."""
    head = f"From: me@example.test\r\n{fields}Date: {formatdate(date)}\r\nMessage-ID: <{name}@example.test>\r\n"
    return Seed(f"{head}Subject: {name}\r\n\r\nHello.\r\n".encode(), internal_date=kept)


def synchronise_sent(daemon: DaemonProcess, account_id: str, mail: MailServers, user: str, ca: Authority) -> None:
    """Bring the store up to the server's Sent folder."""
    ((owner, epoch),) = daemon.query("SELECT owner, epoch FROM claims WHERE account_id = %s", account_id)
    policy = NetworkPolicy(
        allow=(ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")),
        ports=frozenset({mail.imap.imaps_port}),
    )
    dialer = Dialer(policy, Resolver(), tls=ca.client_context())
    endpoint = Endpoint("localhost", mail.imap.imaps_port, Security.TLS)

    async def run(db: Database) -> None:
        store = Store(db, Claim(UUID(account_id), owner, epoch))
        async with open_session(dialer, endpoint, user, Secret(PASSWORD)) as session:
            await session.enable(b"QRESYNC", b"CONDSTORE")
            listed = (await list_folders(session)).folders
            (sent,) = [folder for folder in listed if b"\\Sent" in folder.attributes]
            sync = FolderSync(
                session,
                await FolderRecord.open(store, sent.name),
                FolderSyncConfig(window=50, max_body=1 << 20),
                verify=lambda: open_session(dialer, endpoint, user, Secret(PASSWORD)),
                large_bodies=trio.Semaphore(1),
            )
            await sync.run()

        async def note(conn: Conn) -> None:
            await conn.execute(
                "UPDATE folders SET special_use = %s WHERE account_id = %s AND name = %s",
                ("\\Sent", account_id, sent.name),
            )

        await store.run(note)

    async def main() -> None:
        with trio.fail_after(30):
            async with Database(daemon.dsn, size=2) as db, trio.open_nursery() as nursery:
                await nursery.start(db.watch)
                await db.wait_ready(10)
                await run(db)
                nursery.cancel_scope.cancel()

    trio.run(main)


def test_what_another_client_sent_counts(
    shared_daemon: DaemonProcess, mail: MailServers, new_user: str, authority: Authority
) -> None:
    guest, now = f"guest|{new_user}", time.time()
    with shared_daemon.client(new_user) as http, shared_daemon.client(guest, email=f"g-{new_user}") as member:
        assert http.get(PATH).json() == {"success": True, "data": []}
        account_id = connect(http, mail.mailbox(new_user))
        mail.imap.seed(new_user, [
            letter("one", "To: A <a@example.net>, b@example.net\r\nCc: A@example.net\r\nBcc: c@example.net\r\n"),
            letter("two", "To: undisclosed-recipients:;\r\n"),
            letter("before", "To: a@example.net\r\n", date=now, kept=now - DAY - 600),
            letter("said to be old", "To: a@example.net\r\n", date=now - 9 * DAY, kept=now - DAY + 600),
        ], "Sent")  # fmt: skip
        shared_daemon.wait_synced(http, account_id)
        expected = {
            "account_id": account_id, "email": new_user, "reputation_score": None, "warmup_status": "inactive",
            "daily_limit": 500, "sent_today": 0, "blacklist_status": "unknown", "last_checked_at": None,
        }  # fmt: skip
        assert http.get(PATH).json() == {"success": True, "data": [expected]}, "nobody has looked into Sent"

        synchronise_sent(shared_daemon, account_id, mail, new_user, authority)
        assert http.get(PATH).json()["data"] == [expected | {"sent_today": 5}]
        assert http.patch(f"/mail/accounts/{account_id}", json={"daily_limit": 4}).status_code == 200
        expected |= {"daily_limit": 4, "sent_today": 5}
        assert http.get(PATH).json()["data"] == [expected]

        assert member.get(PATH).json()["data"] == []
        share(http, member, account_id, f"g-{new_user}")
        assert member.get(PATH).json()["data"] == [expected]

        mail.imap.expunge(new_user, [1], "Sent")
        synchronise_sent(shared_daemon, account_id, mail, new_user, authority)
        assert http.get(PATH).json()["data"] == [expected | {"sent_today": 2}]
        assert http.delete(f"/mail/accounts/{account_id}").status_code == 200
        assert http.get(PATH).json()["data"] == member.get(PATH).json()["data"] == []


def share(owner: httpx.Client, guest: httpx.Client, account_id: str, email: str) -> None:
    made = owner.post(f"/mail/accounts/{account_id}/invitations", json={"email": email})
    assert made.status_code == 200, made.text
    accepted = guest.post("/mail/invitations/accept", json={"invitation_id": made.json()["invitation"]["id"]})
    assert accepted.status_code == 200, accepted.text
