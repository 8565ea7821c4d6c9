"""Sharing and changing an account from outside, with real mail servers behind it."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from ops.testservers.mail import message
from tests.fix_daemon import DaemonProcess, MailServers, connect, eventually


def last_noted(http: httpx.Client, account_id: str) -> tuple[str, dict[str, Any]]:
    """What was done last, and what the audit tells of it."""
    (entry, *_) = http.get(f"/mail/accounts/{account_id}/audit").json()["entries"]
    return entry["action"], entry["detail"]


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
        imap = f"localhost:{mail.imap.imap_port} starttls"
        assert entry["detail"] == {"password": "changed", "imap": imap}  # what is as it was is not told
        assert body["password"] not in str(entry)


def test_the_default_moves(shared_daemon: DaemonProcess, mail: MailServers, new_user: str) -> None:
    with shared_daemon.client(new_user) as http:
        first, second = connect(http, mail.mailbox(new_user)), connect(http, mail.mailbox(f"b{new_user}"))
        assert http.patch(f"/mail/accounts/{second}", json={"is_default": True}).status_code == 200
        listed = {each["id"]: each["is_default"] for each in http.get("/mail/accounts").json()["accounts"]}
        assert listed == {first: False, second: True}
        assert last_noted(http, second) == ("account.changed", {"is_default": True})
        assert last_noted(http, first) == ("account.changed", {"is_default": False})
        assert http.delete(f"/mail/accounts/{second}").status_code == 200
        assert last_noted(http, first) == ("account.changed", {"is_default": True})


def test_what_goes_with_an_account_and_comes_back_with_it(
    shared_daemon: DaemonProcess, mail: MailServers, new_user: str
) -> None:
    """Its name comes back, no share; the audit of what went stays its owner's to read."""
    guest, email = f"guest|{new_user}", f"guest-{new_user}"
    with shared_daemon.client(new_user) as owner, shared_daemon.client(guest, email=email) as http:
        account_id = connect(owner, mail.mailbox(new_user, name="Books"))
        item = f"/mail/accounts/{account_id}"
        for address in (email, f"nobody-{new_user}"):
            assert owner.post(f"{item}/invitations", json={"email": address}).status_code == 200
        (received,) = http.get("/mail/invitations/pending").json()["invitations"]
        (one, _) = owner.get(f"{item}/invitations").json()["invitations"]
        assert received["expires_at"] == one["expires_at"]
        assert http.post("/mail/invitations/accept", json={"invitation_id": received["id"]}).status_code == 200
        assert owner.delete(item).status_code == 200
        assert last_noted(owner, account_id) == ("account.disconnected", {"shares": 1, "invitations": 1})
        assert connect(owner, mail.mailbox(new_user)) == account_id
        assert owner.get(item).json()["account"]["name"] == "Books"
        assert http.get(item).status_code == 404
        assert owner.get(f"{item}/invitations").json()["invitations"] == []
        assert owner.delete(item).status_code == 200
        assert connect(owner, mail.mailbox(new_user, name="Letters")) == account_id
        assert owner.get(item).json()["account"]["name"] == "Letters"


def test_an_owner_whose_address_is_invited_has_no_use_for_it(
    shared_daemon: DaemonProcess, mail: MailServers, new_user: str
) -> None:
    """Their address became that one later; it stays an invitation for whoever has the address and not the account."""
    later = f"later-{new_user}"
    with shared_daemon.client(new_user) as owner:
        account_id = connect(owner, mail.mailbox(new_user))
        item = f"/mail/accounts/{account_id}"
        made = owner.post(f"{item}/invitations", json={"email": later, "role": "admin"}).json()["invitation"]
    with shared_daemon.client(new_user, email=later) as owner, shared_daemon.client(f"x|{later}", email=later) as http:
        assert owner.get("/mail/invitations/pending").json()["invitations"] == []
        for answer in ("accept", "decline"):
            refused = owner.post(f"/mail/invitations/{answer}", json={"invitation_id": made["id"]})
            assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
        assert owner.get(item).json()["account"]["access"] == "owner"
        assert [each["id"] for each in http.get("/mail/invitations/pending").json()["invitations"]] == [made["id"]]


@pytest.mark.parametrize("status", ["active", "completed"])
def test_the_registry_of_campaigns(
    shared_daemon: DaemonProcess, mail: MailServers, new_user: str, status: str
) -> None:
    with shared_daemon.client(new_user) as http:
        account_id = connect(http, mail.mailbox(new_user))
        told = http.put("/mail/campaign-registry/c1", json={"account_id": account_id, "status": status})
        assert told.json() == {"success": True}
        listed = http.get("/mail/campaign-registry").json()["campaigns"]
        shown = [(each["id"], each["account_id"], each["status"]) for each in listed]
        assert shown == [("c1", account_id, "active")] * (status == "active")
        expected = 403 if status == "active" else 200
        assert http.delete(f"/mail/accounts/{account_id}").status_code == expected


def test_a_campaign_is_completed_by_its_id_alone(
    shared_daemon: DaemonProcess, mail: MailServers, new_user: str
) -> None:
    """Whoever completes it may have forgotten of which account it was; another account that is named stays as it is."""
    with shared_daemon.client(new_user) as http:
        account_id = connect(http, mail.mailbox(new_user))
        body = {"account_id": account_id, "status": "active"}
        assert http.put("/mail/campaign-registry/c1", json=body).status_code == 200
        nobodys = {"account_id": str(uuid4()), "status": "completed"}
        assert http.put("/mail/campaign-registry/c1", json=nobodys).json() == {"success": True}
        assert http.get("/mail/campaign-registry").json() == {"success": True, "campaigns": []}
        noted = last_noted(http, account_id)
        assert noted == ("campaign.registered", {"campaign_id": "c1", "status": "completed"})
        assert http.put("/mail/campaign-registry/c2", json=nobodys).status_code == 404
        assert http.delete(f"/mail/accounts/{account_id}").status_code == 200
