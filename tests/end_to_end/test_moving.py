"""An account moved to another mail server, and back, from outside: one login, one UIDVALIDITY, other mail."""

from typing import Any

import httpx
import pytest

from ops.testservers import mailbox
from ops.testservers.dovecot import Dovecot
from ops.testservers.dovecot_conf import DovecotOptions
from ops.testservers.mail import message, seeds
from tests.end_to_end.comparing import assert_equal, wait_stored
from tests.fix_daemon import PASSWORD, DaemonProcess, MailServers, StartDaemon, connect, eventually
from tests.fix_dovecot import DovecotFarm

MAILS = list(seeds(1200, seed=51))
_IDS = (
    "SELECT m.message_id, m.id::text FROM messages m JOIN placements p ON p.message_id = m.id"
    " WHERE m.account_id = %s AND p.vanished_at IS NULL"
)
_KEPT = (
    "SELECT count(*) FROM former_placements o JOIN folders f ON f.id = o.folder_id WHERE f.account_id = %s AND o.kept"
)
_HERE = (
    "SELECT count(*) FROM placements p JOIN folders f ON f.id = p.folder_id WHERE f.account_id = %s AND f.mailbox = %s"
)
_MESSAGES = "SELECT count(*) FROM messages WHERE account_id = %s"


@pytest.fixture
def other(dovecot_farm: DovecotFarm, mail: MailServers, new_user: str) -> Dovecot:
    """A second server; the user's INBOX, empty yet, has the same UIDVALIDITY at both."""
    server = dovecot_farm.get(DovecotOptions(password=PASSWORD, without=frozenset({"QRESYNC"})))
    assert mail.imap.uids(new_user) == []
    mail.imap.clone(new_user, [new_user], at=server)
    numbers = []
    for each in (mail.imap, server):
        with each.client(new_user) as client:
            numbers.append(mailbox.uidvalidity(client, "INBOX"))
    assert numbers[0] == numbers[1]
    return server


class Moved:
    """An account that is moved between two servers."""

    def __init__(self, daemon: DaemonProcess, account_id: str, mail: MailServers, other: Dovecot) -> None:
        self.daemon, self.account_id = daemon, account_id
        self.places = {"localhost": mail.imap, "127.0.0.2": other}

    def to(self, http: httpx.Client, host: str) -> None:
        """Move it there; it is not up to date with that server by what it knew of the other."""
        body = {"imap_host": host, "imap_port": self.places[host].imaps_port, "imap_security": "tls"}
        answer = http.patch(f"/mail/accounts/{self.account_id}", json=body | {"password": PASSWORD})
        assert answer.status_code == 200, answer.text
        assert answer.json()["account"]["sync_status"] in ("pending", "syncing")

    def query(self, query: str, *more: object) -> Any:
        return self.daemon.query(query, self.account_id, *more)

    def ids(self) -> dict[str, str]:
        """Our ids of what lies in the inbox, by Message-ID."""
        return dict(self.query(_IDS))


def test_to_another_server_and_back(
    start_daemon: StartDaemon, mail: MailServers, other: Dovecot, new_user: str
) -> None:
    mail.imap.seed(new_user, MAILS[:60])
    other.seed(new_user, MAILS[100:140] + MAILS[40:60])
    daemon = start_daemon(*mail.ports, other.imaps_port)
    with daemon.client(new_user) as http:
        moved = Moved(daemon, connect(http, mail.mailbox(new_user)), mail, other)
        account_id = moved.account_id
        daemon.wait_synced(http, account_id)
        first = moved.ids()

        moved.to(http, "127.0.0.2")
        daemon.wait_synced(http, account_id)
        assert_equal(daemon, account_id, other, new_user)
        there = moved.ids()
        assert {name: there[name] for name in there.keys() & first.keys()} == dict(
            item for item in first.items() if item[0] in there
        )
        assert len(there.keys() & first.keys()) == 20
        assert (moved.query(_KEPT), moved.query(_MESSAGES)) == ([(40,)], [(100,)])
        (folder,) = http.get(f"/mail/accounts/{account_id}").json()["account"]["folders"]
        assert (folder["messages_done"], folder["complete"], folder["method"]) == (60, True, "condstore")
        other.deliver(new_user, message("at the new one"))
        wait_stored(daemon, account_id, 101)
        mail.imap.deliver(new_user, message("at the former one"))
        told = "SELECT data->>'subject' FROM events WHERE account_id = %s AND type = 'email.received'"
        assert moved.query(told) == [("at the new one",)]

        moved.to(http, "localhost")
        daemon.wait_synced(http, account_id)
        assert_equal(daemon, account_id, mail.imap, new_user)
        back = moved.ids()
        assert {name: back[name] for name in first} == first
        assert len(back) == 61
        assert (moved.query(_KEPT), moved.query(_MESSAGES)) == ([(41,)], [(102,)])

        # The same mailbox by other words: nothing begins anew.
        body = {"imap_host": "LOCALHOST", "imap_port": mail.imap.imap_port, "imap_security": "starttls"}
        answer = http.patch(f"/mail/accounts/{account_id}", json=body | {"password": PASSWORD})
        assert answer.status_code == 200, answer.text
        daemon.wait_synced(http, account_id)
        resets = "SELECT data->>'reason' FROM events WHERE account_id = %s AND type = 'folder.reset'"
        assert moved.query(resets) == [("moved",), ("moved",)]
        assert moved.ids() == back
        actions = [entry["action"] for entry in http.get(f"/mail/accounts/{account_id}/audit").json()["entries"]]
        assert actions == ["account.changed"] * 3 + ["account.connected"]


def test_moved_in_the_first_sync_and_killed_in_the_next(
    start_daemon: StartDaemon, mail: MailServers, other: Dovecot, new_user: str
) -> None:
    mail.imap.seed(new_user, MAILS[:700])
    other.seed(new_user, MAILS[500:])
    daemon = start_daemon(*mail.ports, other.imaps_port, sync={"window": 20})
    with daemon.client(new_user) as http:
        moved = Moved(daemon, connect(http, mail.mailbox(new_user)), mail, other)
        wait_stored(daemon, moved.account_id, 100)
        moved.to(http, "127.0.0.2")
    (known,) = moved.query(_MESSAGES)
    assert 100 <= known[0] < 700, "it was to be moved in the middle of the first sync"
    for stored in (60, 250):
        eventually(lambda least=stored: moved.query(_HERE, 2)[0][0] >= least)  # type: ignore[misc]
        daemon.kill()
        assert moved.query(_HERE, 2)[0][0] < 700, "it was to be killed half way"
        daemon.start()
    with daemon.client(new_user) as http:
        daemon.wait_synced(http, moved.account_id)
        assert_equal(daemon, moved.account_id, other, new_user)
        (kept,), (total,) = moved.query(_KEPT), moved.query(_MESSAGES)
        assert kept[0] == total[0] - 700, "what had been synced of the former one is there still"
        moved.to(http, "localhost")
        daemon.wait_synced(http, moved.account_id)
        assert_equal(daemon, moved.account_id, mail.imap, new_user)
        assert moved.query(_MESSAGES) == [(1200,)], "each message once, wherever it lay"
