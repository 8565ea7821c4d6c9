"""POST /mail/accounts from outside: every answer of the contract, from real servers that say what they say."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fix_daemon import PASSWORD, DaemonProcess, MailServers, connect, make_token

PATH = "/mail/accounts"


@pytest.fixture
def http(shared_daemon: DaemonProcess, new_user: str) -> Iterator[httpx.Client]:
    with shared_daemon.client(new_user) as client:
        yield client


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The envelope of a failure, with this status and code."""
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
    said: dict[str, Any] = answer.json()
    assert said["success"] is False
    assert said["error"].strip()
    assert PASSWORD not in answer.text
    return said


def test_an_accepted_mailbox_is_pending_and_listed(http: httpx.Client, mail: MailServers, new_user: str) -> None:
    answer = http.post(PATH, json=mail.mailbox(new_user, name="Ann"))
    assert answer.status_code == 200
    account = answer.json()["account"]
    assert answer.json() == {
        "success": True, "account": {"id": account["id"], "email": new_user, "sync_status": "pending"},
    }  # fmt: skip
    (listed,) = http.get(PATH).json()["accounts"]
    assert listed["id"] == account["id"]
    assert (listed["name"], listed["imap_port"], listed["is_default"]) == ("Ann", mail.imap.imaps_port, True)
    assert {"email", "imap_host", "smtp_host", "smtp_port", "sync_status", "created_at"} <= set(listed)
    assert "password" not in answer.text
    assert PASSWORD not in http.get(PATH).text


def test_starttls_for_imap_and_tls_for_smtp(http: httpx.Client, mail: MailServers, new_user: str) -> None:
    body = mail.mailbox(
        new_user, imap_port=mail.imap.imap_port, imap_security="starttls", smtp_port=mail.smtp.tls_port,
        smtp_security="tls",
    )  # fmt: skip
    connect(http, body)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"password": "wrong"}, "imap_auth_failed"),
        ({"imap_port": "closed"}, "imap_connect_failed"),
        ({"imap_port": "starttls"}, "imap_tls_failed"),
        ({"username": "say-535-5.7.8@example.test"}, "smtp_auth_failed"),
        ({"smtp_port": "closed"}, "smtp_connect_failed"),
        ({"smtp_port": "smtp starttls", "smtp_security": "tls"}, "smtp_tls_failed"),
        ({"imap_host": "127.0.0.3"}, "imap_connect_failed"),
        ({"imap_host": "10.0.0.1"}, "host_not_allowed"),
        ({"smtp_host": "169.254.169.254"}, "host_not_allowed"),
        ({"imap_port": 22}, "host_not_allowed"),
        ({"username": "say-534-5.7.9@example.test"}, "password_login_unsupported"),
        ({"username": "say-454-4.7.0@example.test"}, "smtp_connect_failed"),
    ],
)
def test_what_the_servers_do_not_accept(
    http: httpx.Client, mail: MailServers, new_user: str, closed_port: int, changes: dict[str, Any], code: str
) -> None:
    ports = {"closed": closed_port, "starttls": mail.imap.imap_port, "smtp starttls": mail.smtp.starttls_port}
    changes = {name: ports.get(value, value) for name, value in changes.items()}
    refused(http.post(PATH, json=mail.mailbox(new_user, **changes)), 400, code)
    assert http.get(PATH).json()["accounts"] == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"email": None}, "email"),
        ({"email": "nobody"}, "email"),
        ({"imap_host": "127.1"}, "imap_host"),
        ({"imap_port": "993"}, "imap_port"),
        ({"smtp_port": 0}, "smtp_port"),
        ({"smtp_security": "plain"}, "smtp_security"),
        ({"username": "a\r\nLOGOUT"}, "username"),
        ({"password": f"{PASSWORD}\n"}, "password"),
    ],
)
def test_an_invalid_body_names_its_field(
    http: httpx.Client, mail: MailServers, new_user: str, changes: dict[str, Any], field: str
) -> None:
    said = refused(http.post(PATH, json=mail.mailbox(new_user, **changes)), 400, "validation_failed")
    assert set(said["details"]["fieldErrors"]) == {field}
    assert said["details"]["formErrors"] == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object(http: httpx.Client, body: bytes) -> None:
    answer = http.post(PATH, content=body, headers={"Content-Type": "application/json"})
    refused(answer, 400, "validation_failed")


def test_who_is_not_signed_in(shared_daemon: DaemonProcess, mail: MailServers, new_user: str) -> None:
    body = mail.mailbox(new_user)
    with shared_daemon.client(None) as stranger:
        refused(stranger.post(PATH, json=body), 401, "not_authenticated")
        refused(stranger.get(PATH), 401, "not_authenticated")
    wrong = [
        make_token(new_user, secret="x" * 40),
        make_token(new_user, lifetime=-3600),
        make_token(new_user, role="anon"),
        make_token(new_user, aud="other"),
        make_token(new_user, iss="somebody"),
        "no.token.atall",
    ]
    for token in wrong:
        with shared_daemon.client(None, token=token) as forged:
            refused(forged.post(PATH, json=body), 401, "not_authenticated")


def test_the_plan_is_full(shared_daemon: DaemonProcess, mail: MailServers, new_user: str) -> None:
    with shared_daemon.client(new_user, plan="one") as http:
        connect(http, mail.mailbox(new_user))
        said = refused(http.post(PATH, json=mail.mailbox(f"b{new_user}")), 403, "plan_limit_exceeded")
        assert said["upgrade"]["current_plan"] == {"slug": "one"}
        assert said["upgrade"]["feature"]


def test_ones_own_duplicate_is_told_before_any_server_is_asked(
    http: httpx.Client, mail: MailServers, new_user: str
) -> None:
    connect(http, mail.mailbox(new_user))
    again = mail.mailbox(new_user.upper(), password="wrong", imap_port=1)
    refused(http.post(PATH, json=again), 409, "already_connected")


def test_anothers_mailbox_is_told_only_to_who_has_its_password(
    shared_daemon: DaemonProcess, http: httpx.Client, mail: MailServers, new_user: str
) -> None:
    connect(http, mail.mailbox(new_user))
    with shared_daemon.client(f"other-{new_user}") as other:
        refused(other.post(PATH, json=mail.mailbox(new_user, password="wrong")), 400, "imap_auth_failed")
        refused(other.post(PATH, json=mail.mailbox(new_user)), 409, "already_connected")
        # The address alone squats nothing: another mailbox may call itself so.
        connect(other, mail.mailbox(new_user, username=f"other-{new_user}"))


def test_too_large_not_json_no_such_method(http: httpx.Client, mail: MailServers, new_user: str) -> None:
    huge = mail.mailbox(new_user, name="x" * (2 << 20))
    refused(http.post(PATH, json=huge), 413, "body_too_large")
    refused(http.post(PATH, content=b"a=b", headers={"Content-Type": "text/plain"}), 415, "unsupported_media_type")
    for method in ("PUT", "PATCH", "DELETE"):
        refused(http.request(method, PATH), 405, "method_not_allowed")
    refused(http.get("/mail/nothing"), 404, "not_found")


def test_another_site_cannot_make_the_browser_ask(http: httpx.Client, mail: MailServers, new_user: str) -> None:
    body = mail.mailbox(new_user)
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.test"}):
        refused(http.post(PATH, json=body, headers=headers), 403, "cross_site_request")
    listed = {"Sec-Fetch-Site": "cross-site", "Origin": "https://app.example.test"}
    assert http.post(PATH, json=body, headers=listed).status_code == 200
