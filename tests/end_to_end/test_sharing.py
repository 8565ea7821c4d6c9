"""Sharing and changing an account from outside, with real mail servers behind it."""

import pytest

from ops.testservers.mail import message
from tests.fix_daemon import DaemonProcess, MailServers, connect, eventually


def test_shared_seen_and_taken_back(shared_daemon: DaemonProcess, mail: MailServers, new_user: str) -> None:
    guest, email = f"guest|{new_user}", f"guest-{new_user}"
    with shared_daemon.client(new_user) as owner, shared_daemon.client(guest, email=email) as http:
        account_id = connect(owner, mail.mailbox(new_user))
        item = f"/mail/accounts/{account_id}"
        assert http.get("/mail/accounts").json()["accounts"] == []
        made = owner.post(f"{item}/invitations", json={"email": email.upper(), "role": "admin"})
        assert made.status_code == 200, made.text
        (pending,) = http.get("/mail/invitations/pending").json()["invitations"]
        assert pending["id"] == made.json()["invitation"]["id"]
        assert http.get(item).status_code == 404
        answer = http.post("/mail/invitations/accept", json={"invitation_id": pending["id"]})
        assert answer.json() == {"success": True, "account_id": account_id}
        (seen,) = http.get("/mail/accounts").json()["accounts"]
        assert (seen["id"], seen["access"], seen["is_default"]) == (account_id, "admin", False)
        assert http.patch(item, json={"name": "Ours"}).json()["account"]["name"] == "Ours"
        assert http.patch(item, json={"is_default": True}).status_code == 403
        assert http.patch(item, json={"password": "x"}).status_code == 403
        assert http.get(f"{item}/shares").status_code == 403
        assert http.delete(item).status_code == 404
        assert owner.delete(f"{item}/shares/{guest}").status_code == 200
        assert http.get(item).status_code == 404
        assert http.get("/mail/accounts").json()["accounts"] == []
        actions = [entry["action"] for entry in owner.get(f"{item}/audit").json()["entries"]]
        assert actions == [
            "share.revoked", "account.changed", "invitation.accepted", "invitation.created", "account.connected",
        ]  # fmt: skip


def test_paused_nothing_comes_and_resumed_all_of_it(
    shared_daemon: DaemonProcess, mail: MailServers, new_user: str
) -> None:
    with shared_daemon.client(new_user) as http:
        account_id = connect(http, mail.mailbox(new_user))
        shared_daemon.wait_synced(http, account_id)
        item = f"/mail/accounts/{account_id}"
        assert http.patch(item, json={"paused": True}).json()["account"]["desired_state"] == "paused"
        eventually(lambda: http.get(item).json()["account"]["state"] == "stopped")
        mail.imap.deliver(new_user, message("meanwhile"))
        assert http.get(item).json()["account"]["sync_status"] == "pending"
        assert http.patch(item, json={"paused": False}).json()["account"]["desired_state"] == "running"
        eventually(
            lambda: shared_daemon.query("SELECT subject FROM messages WHERE account_id = %s", account_id)
            == [("meanwhile",)]
        )


def test_credentials_are_verified_before_they_replace_the_old_ones(
    shared_daemon: DaemonProcess, mail: MailServers, new_user: str
) -> None:
    with shared_daemon.client(new_user) as http:
        account_id = connect(http, mail.mailbox(new_user))
        shared_daemon.wait_synced(http, account_id)
        item = f"/mail/accounts/{account_id}"
        version = "SELECT credentials_version FROM accounts WHERE id = %s"
        wrong = http.patch(item, json={"password": "not it"})
        assert (wrong.status_code, wrong.json()["code"]) == (400, "imap_auth_failed")
        assert shared_daemon.query(version, account_id) == [(1,)]
        body = mail.mailbox(new_user)
        right = http.patch(
            item, json={"password": body["password"], "imap_port": mail.imap.imap_port, "imap_security": "starttls"}
        )
        assert right.status_code == 200, right.text
        assert right.json()["account"]["imap_port"] == mail.imap.imap_port
        assert shared_daemon.query(version, account_id) == [(2,)]
        shared_daemon.wait_synced(http, account_id)
        mail.imap.deliver(new_user, message("by another port"))
        eventually(
            lambda: shared_daemon.query("SELECT subject FROM messages WHERE account_id = %s", account_id)
            == [("by another port",)]
        )
        (entry, *_) = http.get(f"{item}/audit").json()["entries"]
        assert entry["detail"]["password"] == "changed"
        assert body["password"] not in str(entry)


def test_the_default_moves(shared_daemon: DaemonProcess, mail: MailServers, new_user: str) -> None:
    with shared_daemon.client(new_user) as http:
        first, second = connect(http, mail.mailbox(new_user)), connect(http, mail.mailbox(f"b{new_user}"))
        assert http.patch(f"/mail/accounts/{second}", json={"is_default": True}).status_code == 200
        listed = {each["id"]: each["is_default"] for each in http.get("/mail/accounts").json()["accounts"]}
        assert listed == {first: False, second: True}


@pytest.mark.parametrize("status", ["active", "completed"])
def test_the_registry_of_campaigns(
    shared_daemon: DaemonProcess, mail: MailServers, new_user: str, status: str
) -> None:
    with shared_daemon.client(new_user) as http:
        account_id = connect(http, mail.mailbox(new_user))
        told = http.put("/mail/campaign-registry/c1", json={"account_id": account_id, "status": status})
        assert told.json() == {"success": True}
        expected = 403 if status == "active" else 200
        assert http.delete(f"/mail/accounts/{account_id}").status_code == expected
