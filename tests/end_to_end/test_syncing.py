"""A mailbox from outside: its first sync, mail as it comes, a sync on request, and where its password is not."""

from pathlib import Path
from uuid import uuid4

import psutil

from ops.testservers.mail import message, messages, seeds
from tests.end_to_end.comparing import assert_equal, wait_stored
from tests.fix_daemon import PASSWORD, SECRET, DaemonProcess, MailServers, connect, eventually


def test_first_sync_then_mail_as_it_comes(shared_daemon: DaemonProcess, mail: MailServers, new_user: str) -> None:
    mail.imap.seed(new_user, seeds(150, seed=11))
    with shared_daemon.client(new_user) as http:
        account_id = connect(http, mail.mailbox(new_user))
        shared_daemon.wait_synced(http, account_id)
        account = http.get(f"/mail/accounts/{account_id}").json()["account"]
        assert (account["state"], account["state_reason"], account["retry_at"]) == ("watching", None, None)
        assert account["last_synced_at"].endswith("Z")
        assert account["last_contact_at"] >= account["created_at"]
        (folder,) = account["folders"]
        assert (folder["name"], folder["messages_total"], folder["messages_done"]) == ("INBOX", 150, 150)
        assert (folder["complete"], folder["method"]) == (True, "qresync")
        assert_equal(shared_daemon, account_id, mail.imap, new_user)

        mail.imap.deliver(new_user, message("arrived"))
        wait_stored(shared_daemon, account_id, 151)
        mail.imap.flag(new_user, [3], "\\Flagged")
        mail.imap.expunge(new_user, [5, 6])
        changed = "SELECT count(*) FROM placements p JOIN folders f ON f.id = p.folder_id WHERE f.account_id = %s AND"
        eventually(
            lambda: shared_daemon.query(f"{changed} vanished_at IS NOT NULL", account_id) == [(2,)]
            and shared_daemon.query(f"{changed} uid = 3 AND '\\Flagged' = ANY(flags)", account_id) == [(1,)]
        )
        assert_equal(shared_daemon, account_id, mail.imap, new_user)
        told = shared_daemon.query("SELECT type, data FROM events WHERE account_id = %s ORDER BY xid, id", account_id)
        assert [kind for kind, _ in told] == ["account.connected", "account.synced", "email.received"]
        assert (told[2][1]["subject"], told[2][1]["folder"]) == ("arrived", "INBOX")


def test_sync_on_request(shared_daemon: DaemonProcess, mail: MailServers, new_user: str) -> None:
    with shared_daemon.client(new_user) as http:
        assert http.post("/mail/sync", json={}).status_code == 404
        account_id = connect(http, mail.mailbox(new_user))
        shared_daemon.wait_synced(http, account_id)
        answer = http.post("/mail/sync")  # the default account; a body may be missing
        assert answer.status_code == 200, answer.text
        said = answer.json()
        assert (said["success"], said["accountId"], said["status"]) == (True, account_id, "synced")
        assert (said["newMessages"], said["syncedAt"][-1]) == (0, "Z")
        again = http.post("/mail/sync", json={"account_id": account_id}).json()
        assert (again["status"], again["newMessages"]) == ("queued", 0)
        mail.imap.deliver(new_user, message("one"))
        wait_stored(shared_daemon, account_id, 1)

        def counted() -> bool:
            (state,) = http.get("/mail/sync").json()["accounts"]
            assert (state["id"], state["email"], state["syncStatus"]) == (account_id, new_user, "idle")
            assert state["lastSyncAt"].endswith("Z")
            return bool(state["newMessageCount"] == 1)

        eventually(counted)
        with shared_daemon.client("stranger") as stranger:
            for wrong in (str(uuid4()), account_id):
                assert stranger.post("/mail/sync", json={"account_id": wrong}).status_code == 404
        assert http.post("/mail/sync", json={"account_id": "1"}).json()["code"] == "validation_failed"
        # Half a minute later another run is allowed: the request is moved back instead of waiting.
        shared_daemon.query(
            "UPDATE accounts SET sync_requested_at = sync_requested_at - interval '30 s',"
            " sync_served_at = sync_served_at - interval '30 s' WHERE id = %s RETURNING 1", account_id,
        )  # fmt: skip
        assert http.post("/mail/sync").json()["status"] == "synced"
    with shared_daemon.client(None) as nobody:
        assert {nobody.get("/mail/sync").status_code, nobody.post("/mail/sync").status_code} == {401}


def test_a_refused_password_parks_and_new_ones_are_taken(
    shared_daemon: DaemonProcess, mail: MailServers, new_user: str
) -> None:
    with shared_daemon.client(new_user) as http:
        account_id = connect(http, mail.mailbox(new_user))
        shared_daemon.wait_synced(http, account_id)
        mail.imap.refuse(new_user)
        _drop_sessions(shared_daemon, account_id)
        eventually(lambda: shared_daemon.status(http, account_id) == "error")
        account = http.get(f"/mail/accounts/{account_id}").json()["account"]
        assert (account["state"], account["state_code"]) == ("parked", "auth_failed")
        assert PASSWORD not in account["state_reason"]
        told = "SELECT data->>'code' FROM events WHERE account_id = %s AND type = 'account.error'"
        assert shared_daemon.query(told, account_id) == [("auth_failed",)]
        # Disconnecting and connecting again is how new credentials come in, until there is a PATCH.
        mail.imap.accept(new_user)
        assert http.delete(f"/mail/accounts/{account_id}").status_code == 200
        assert connect(http, mail.mailbox(new_user)) == account_id
        shared_daemon.wait_synced(http, account_id)


def _drop_sessions(daemon: DaemonProcess, account_id: str) -> None:
    """Make the daemon log in anew: its claim passes to a later epoch of the same node."""
    daemon.query("UPDATE claims SET epoch = epoch + 1 WHERE account_id = %s RETURNING 1", account_id)


def test_the_password_is_nowhere(shared_daemon: DaemonProcess, mail: MailServers, new_user: str) -> None:
    answers = []
    with shared_daemon.client(new_user) as http:
        mail.imap.seed(new_user, messages(5, seed=12))
        account_id = connect(http, mail.mailbox(new_user))
        shared_daemon.wait_synced(http, account_id)
        answers += [http.post("/mail/accounts", json=mail.mailbox(new_user)).text]
        answers += [http.post("/mail/accounts", json=mail.mailbox("x", imap_port=PASSWORD)).text]
        answers += [http.get(path).text for path in ("/mail/accounts", f"/mail/accounts/{account_id}", "/mail/sync")]
    (sealed,) = shared_daemon.query("SELECT password_sealed, data_key FROM accounts WHERE id = %s", account_id)
    process = psutil.Process(shared_daemon.pid)
    seen = "\n".join([
        *answers, shared_daemon.log_text(), shared_daemon.metrics(), " ".join(process.cmdline()),
        Path(f"/proc/{shared_daemon.pid}/environ").read_text(), repr(sealed),
        str(shared_daemon.query("SELECT * FROM events")),
    ])  # fmt: skip
    assert PASSWORD not in seen
    assert SECRET not in seen
    assert new_user not in shared_daemon.metrics()
    assert shared_daemon.log_text()
