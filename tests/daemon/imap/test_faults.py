"""The table from servers' words to faults, with the words as servers say them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import Disposition, Fault, FaultKind
from daemon.imap.capabilities import MAX_CAPABILITIES, PasswordMethod, parse_capabilities, password_method
from daemon.imap.faults import CODES, MAX_BACKOFF, QUOTA_BACKOFF, Phase, Refused, bye, judge, telling

AUTH, PASSWORD, TLS = FaultKind.AUTH_FAILED, FaultKind.PASSWORD_UNSUPPORTED, FaultKind.TLS_FAILED
BUSY, SLOW, REFUSED, LOST = FaultKind.UNAVAILABLE, FaultKind.THROTTLED, FaultKind.REFUSED, FaultKind.LOST
RETRY, PARK = Disposition.RETRY, Disposition.PARK

LOGIN = [
    # Dovecot, Gmail, Yahoo, iCloud, Microsoft, Yandex, mail.ru, Courier, Cyrus: as they answer a login
    ("NO", b"[AUTHENTICATIONFAILED] Authentication failed.", AUTH, PARK),
    ("NO", b"[AUTHENTICATIONFAILED] Invalid credentials (Failure)", AUTH, PARK),
    ("NO", b"[ALERT] Application-specific password required: https://x.test/1 (Failure)", AUTH, PARK),
    ("NO", b"[ALERT] Please log in via your web browser: https://support.google.com/mail (Failure)", AUTH, PARK),
    ("NO", b"[WEBALERT https://accounts.google.com/signin/continue?x=1] Web login required (Failure)", AUTH, PARK),
    ("NO", b"[ALERT] Your account is not enabled for IMAP use. Please visit your settings.", AUTH, PARK),
    ("NO", b"[AUTHENTICATIONFAILED] LOGIN invalid credentials or IMAP is disabled", AUTH, PARK),
    ("NO", b"[AUTHORIZATIONFAILED] no such mailbox", AUTH, PARK),
    ("NO", b"[EXPIRED] That password isn't valid any more", AUTH, PARK),
    ("NO", b"[CONTACTADMIN] account locked", AUTH, PARK),
    ("NO", b"[PRIVACYREQUIRED] Use TLS", TLS, PARK),
    ("NO", b"AUTHENTICATE failed. BasicAuthBlocked", PASSWORD, PARK),
    ("NO", b"LOGIN failed.", AUTH, RETRY),
    ("NO", b"Login failed, user name or password wrong", AUTH, RETRY),
    ("NO", b"[UNAVAILABLE] Temporary authentication failure. [host:2026-01-01 00:00:00]", BUSY, RETRY),
    ("NO", b"Temporary failure, try again later", BUSY, RETRY),
    ("NO", b"[SERVERBUG] Internal error occurred.", BUSY, RETRY),
    ("NO", b"[INUSE] mailbox locked", BUSY, RETRY),
    ("NO", b"[LIMIT] LOGIN Rate limit hit", SLOW, RETRY),
    ("NO", b"[ALERT] Too many simultaneous connections. (Failure)", SLOW, RETRY),
    ("NO", b"[AUTHENTICATIONFAILED] Too many login failures, slow down", SLOW, RETRY),
    ("NO", b"[OVERQUOTA] Account exceeded command or bandwidth limits.", SLOW, RETRY),
    ("NO", b"[LIMIT] enough", SLOW, RETRY),
    ("BAD", b"Request is throttled. Suggested Backoff Time: 17000 milliseconds", SLOW, RETRY),
    ("BAD", b"User is authenticated but not connected.", REFUSED, RETRY),
    ("BAD", b"Command unknown", REFUSED, RETRY),
    ("NO", b"", AUTH, RETRY),
]


@pytest.mark.parametrize(("status", "text", "kind", "disposition"), LOGIN)
def test_what_an_answer_to_a_login_means(status: str, text: bytes, kind: FaultKind, disposition: Disposition) -> None:
    fault = Refused("AUTHENTICATE", status, text).fault(Phase.LOGIN)
    assert (fault.kind, fault.disposition) == (kind, disposition)


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        ("NO", b"[NONEXISTENT] Mailbox doesn't exist: x", REFUSED),
        ("NO", b"[NOPERM] no", REFUSED),
        ("NO", b"temporarily out of order", REFUSED),
        ("NO", b"[UNAVAILABLE] later", BUSY),
        ("NO", b"[CORRUPTION] index broken", BUSY),
        ("BAD", b"Request is throttled. Suggested Backoff Time: 17000 milliseconds", SLOW),
        ("BAD", b"Error in IMAP command", REFUSED),
        ("NO", b"", REFUSED),
    ],
)
def test_what_an_answer_in_a_session_means(status: str, text: bytes, kind: FaultKind) -> None:
    fault = Refused("SELECT", status, text).fault()
    assert (fault.kind, fault.disposition) == (kind, RETRY)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"Autologout; idle for too long", LOST),
        (b"[UNAVAILABLE] Server shutting down.", BUSY),
        (b"[ALERT] Maximum number of connections from user+IP exceeded", SLOW),
        (b"Too many connections from your address", SLOW),
        (b"[AUTHENTICATIONFAILED] session revoked", LOST),
        (b"", LOST),
    ],
)
def test_a_goodbye_in_a_session_never_judges_the_password(text: bytes, kind: FaultKind) -> None:
    assert (bye(text).kind, bye(text).disposition) == (kind, RETRY)


def test_a_goodbye_to_a_login_may_judge_the_password() -> None:
    assert bye(b"[AUTHENTICATIONFAILED] go away", Phase.LOGIN).disposition is PARK


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Request is throttled. Suggested Backoff Time: 17000 milliseconds", 17.0),
        ("Suggested Backoff Time: 45 seconds", 45.0),
        ("Suggested Backoff Time: 250", 0.25),
        ("Suggested Backoff Time: 999999999999 milliseconds", MAX_BACKOFF),
        ("throttled", None),
    ],
)
def test_the_servers_own_backoff_is_kept_up_to_our_bound(text: str, seconds: float | None) -> None:
    assert judge("BAD", None, text, Phase.SESSION).retry_after == seconds


def test_a_quota_is_left_alone_for_an_hour() -> None:
    assert judge("NO", "OVERQUOTA", "over", Phase.SESSION).retry_after == QUOTA_BACKOFF


@given(
    st.sampled_from(["NO", "BAD", "BYE"]), st.none() | st.sampled_from([*CODES, "CLIENTBUG", "X"]),
    st.text(max_size=80), st.sampled_from(Phase),
)  # fmt: skip
def test_the_table_is_total_and_speaks_in_our_own_words(status: str, code: str | None, text: str, phase: Phase) -> None:
    fault = judge(status, code, f"{text} remote-marker", phase)
    assert isinstance(fault, Fault)
    assert fault.reason.endswith(".")
    assert "remote-marker" not in fault.reason
    assert fault.disposition is not Disposition.ESCALATE


def test_a_refusal_shows_no_remote_text() -> None:
    refused = Refused("LOGIN", "NO", b"[AUTHENTICATIONFAILED] ann@example.test hunter2 is wrong")
    assert str(refused) == "LOGIN was answered NO [AUTHENTICATIONFAILED]"
    assert refused.code == "AUTHENTICATIONFAILED"
    assert len(Refused("X", "NO", b"x" * 100_000).text) < 1000


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("user ann@example.test unknown", "user ... unknown"),
        ("token eyJhbGciOiJIUzI1NiJ9abcdefgh bad", "token ... bad"),
        ("a\x1b[31m\r\nb\x00é", "a [31m b "),
        ("x " * 500, ("x " * 80)),
    ],
)
def test_remote_text_in_a_debug_log_is_short_and_clean(text: str, told: str) -> None:
    assert telling(text) == told


@pytest.mark.parametrize(
    ("capabilities", "method"),
    [
        (b"IMAP4rev1 AUTH=PLAIN", PasswordMethod.PLAIN),
        (b"IMAP4rev1 AUTH=PLAIN LOGINDISABLED", PasswordMethod.PLAIN),
        (b"imap4rev1 auth=plain", PasswordMethod.PLAIN),
        (b"IMAP4rev1", PasswordMethod.LOGIN),
        (b"IMAP4rev1 AUTH=XOAUTH2", PasswordMethod.LOGIN),
    ],
)
def test_how_a_password_travels(capabilities: bytes, method: PasswordMethod) -> None:
    assert password_method(parse_capabilities(capabilities)) is method


@pytest.mark.parametrize("others", [b"", b" AUTH=XOAUTH2 AUTH=OAUTHBEARER", b" AUTH=CRAM-MD5"])
def test_a_server_that_takes_no_passwords_gets_none(others: bytes) -> None:
    with pytest.raises(Fault) as caught:
        password_method(parse_capabilities(b"IMAP4rev1 LOGINDISABLED" + others))
    assert (caught.value.kind, caught.value.disposition) == (PASSWORD, PARK)


def test_equal_capabilities_are_one_object() -> None:
    assert parse_capabilities(b"IMAP4rev1 IDLE") is parse_capabilities(b"IMAP4rev1 IDLE"[:])


def test_an_endless_list_of_capabilities_is_refused() -> None:
    with pytest.raises(Fault) as caught:
        parse_capabilities(b"A " * MAX_CAPABILITIES)
    assert caught.value.kind is FaultKind.PROTOCOL
