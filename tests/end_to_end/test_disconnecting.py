"""DELETE and GET /mail/accounts/:id from outside: every answer of the contract, and what is left afterwards."""

from uuid import uuid4

import psycopg
import pytest

from ops.testservers.mail import message
from tests.fix_daemon import DaemonProcess, MailServers, connect, eventually


def set_campaign(daemon: DaemonProcess, user: str, account_id: str, status: str) -> None:
    """What the campaign system would say."""
    with psycopg.connect(daemon.dsn, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO campaigns (user_id, id, account_id, status) VALUES (%s, 'c1', %s, %s)"
            " ON CONFLICT (user_id, id) DO UPDATE SET status = excluded.status",
            (user, account_id, status),
        )


def test_disconnected_and_connected_again(shared_daemon: DaemonProcess, mail: MailServers, new_user: str) -> None:
    mail.imap.seed(new_user, [message("kept")])
    with shared_daemon.client(new_user) as http:
        account_id = connect(http, mail.mailbox(new_user))
        shared_daemon.wait_synced(http, account_id)
        answer = http.delete(f"/mail/accounts/{account_id}")
        assert (answer.status_code, answer.json()) == (200, {"success": True})
        assert http.get(f"/mail/accounts/{account_id}").status_code == 404
        assert http.delete(f"/mail/accounts/{account_id}").status_code == 404
        assert http.get("/mail/accounts").json()["accounts"] == []
        eventually(lambda: _columns(shared_daemon, account_id, "state") == ("stopped",))
        stored = _columns(shared_daemon, account_id, "data_key, password_sealed, desired")
        assert stored == (None, None, "removed")
        assert shared_daemon.query("SELECT count(*) FROM messages WHERE account_id = %s", account_id) == [(1,)]

        mail.imap.deliver(new_user, message("came meanwhile"))
        assert connect(http, mail.mailbox(new_user)) == account_id
        shared_daemon.wait_synced(http, account_id)
        subjects = shared_daemon.query("SELECT subject FROM messages WHERE account_id = %s ORDER BY 1", account_id)
        assert subjects == [("came meanwhile",), ("kept",)]


def _columns(daemon: DaemonProcess, account_id: str, columns: str) -> tuple[object, ...]:
    return daemon.query(f"SELECT {columns} FROM accounts WHERE id = %s", account_id)[0]


def test_the_only_default_stays_while_campaigns_run(
    shared_daemon: DaemonProcess, mail: MailServers, new_user: str
) -> None:
    with shared_daemon.client(new_user) as http:
        first = connect(http, mail.mailbox(new_user))
        set_campaign(shared_daemon, new_user, first, "active")
        answer = http.delete(f"/mail/accounts/{first}")
        assert (answer.status_code, answer.json()["code"]) == (403, "campaigns_active")
        second = connect(http, mail.mailbox(f"b{new_user}"))
        assert http.delete(f"/mail/accounts/{first}").status_code == 200
        (left,) = http.get("/mail/accounts").json()["accounts"]
        assert (left["id"], left["is_default"]) == (second, True)
        assert http.delete(f"/mail/accounts/{second}").status_code == 403
        set_campaign(shared_daemon, new_user, first, "completed")
        assert http.delete(f"/mail/accounts/{second}").status_code == 200


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_not_there_and_not_yours_are_one_answer(
    shared_daemon: DaemonProcess, mail: MailServers, new_user: str, method: str
) -> None:
    with shared_daemon.client(new_user) as http, shared_daemon.client("stranger") as stranger:
        account_id = connect(http, mail.mailbox(new_user))
        answers = [
            stranger.request(method, f"/mail/accounts/{account_id}"),
            stranger.request(method, f"/mail/accounts/{uuid4()}"),
            stranger.request(method, "/mail/accounts/1"),
            stranger.request(method, f"/mail/accounts/{account_id}x"),
        ]
        assert {answer.status_code for answer in answers} == {404}
        assert answers[0].json() == answers[1].json()
        assert http.get(f"/mail/accounts/{account_id}").status_code == 200
        with shared_daemon.client(None) as nobody:
            assert nobody.request(method, f"/mail/accounts/{account_id}").status_code == 401
    with shared_daemon.client(new_user) as http:
        forged = http.delete(f"/mail/accounts/{account_id}", headers={"Sec-Fetch-Site": "cross-site"})
        assert (forged.status_code, forged.json()["code"]) == (403, "cross_site_request")
        assert http.post(f"/mail/accounts/{account_id}", json={}).status_code == 405
