"""Bodies: what is taken, what is refused, and that refusals repeat nothing."""

import json
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_api.errors import InvalidBody
from control_api.schemas import ConnectBody, SyncBody, parse_body
from daemon.network import Security
from tests.control_api.conftest import MAILBOX


def connect(**fields):
    given = {name: value for name, value in (MAILBOX | fields).items() if value is not ...}
    return parse_body(ConnectBody, json.dumps(given).encode()).to_request()


def wrong_fields(**fields):
    with pytest.raises(InvalidBody) as caught:
        connect(**fields)
    return caught.value.fields


def test_a_mailbox():
    request = connect(name="  Work ")
    assert (request.name, request.imap.host, request.imap.port) == ("Work", "imap.example.com", 993)
    assert request.password.reveal() == MAILBOX["password"]
    assert MAILBOX["password"] not in repr(request)


@pytest.mark.parametrize("name", [..., None, "", "   "])
def test_a_name_of_nothing_is_none(name):
    assert connect(name=name).name is None


@pytest.mark.parametrize(("port", "security", "expected"), [
    (993, ..., "tls"), (465, ..., "tls"), (143, ..., "starttls"), (587, ..., "starttls"), (25, ..., "starttls"),
    (2525, None, "starttls"), (10993, ..., "tls"), (993, "starttls", "starttls"), (143, "tls", "tls"),
])
def test_security_follows_the_port_unless_given(port, security, expected):
    request = connect(imap_port=port, imap_security=security, smtp_port=port, smtp_security=security)
    assert request.imap.security == request.smtp.security == Security(expected)


@pytest.mark.parametrize(("field", "value"), [
    *[("email", value) for value in (
        ..., None, 7, "", "a", "@", "a@", "@b.c", "a@b@c", "a b@example.com", "a@example..com", "a@-x.com",
        "a\n@example.com",
        "a@example.com\r\nX: y", "a@example.com\0", "<a@example.com>", "a@[127.0.0.1]", '"a b"@example.com',
        ".a@example.com",
        "a..b@example.com", "ä@example.com", "x" * 65 + "@example.com", "x@" + "y" * 63 + "." + "z" * 200, "a@1.2.3",
        "a@exa_mple.com", "a@example.com ", " a@example.com")],
    *[("imap_port", value) for value in (..., None, "993", True, 993.0, 993.5, 0, -1, 65536, 10**30, [993])],
    *[("imap_host", value) for value in (
        ..., "", "127.1", "0x7f000001", "2130706433", "a b", "user@host", "host:993", "http://host", "[::1]", "h\0",
        "h\r\n",
        "x" * 300, "fe80::1%eth0", 7)],
    *[("username", value) for value in (..., "", "a\rb", "a\0", "x" * 321, "a\u2028b", None)],
    *[("password", value) for value in (..., "", "a\nb", "a\rb", "a\0b", "x" * 1025, 12345678, None, ["x"])],
    *[("name", value) for value in ("a\nb", "x" * 201, 7, "\x1b[31m", "\x85")],
    *[("imap_security", value) for value in ("plain", "TLS", "none", True, 1)],
])
def test_refused(field, value):
    assert set(wrong_fields(**{field: value})) == {field}


@pytest.mark.parametrize(("field", "value", "sentence"), [
    ("email", ..., "This is required."), ("email", 7, "This must be a text."),
    ("email", "a", "This must have at least 3 characters."),
    ("password", "", "This must not be empty."), ("username", "", "This must not be empty."),
    ("password", "x" * 1025, "This must have at most 1024 characters."),
    ("name", "x" * 201, "This must have at most 200 characters."),
    ("imap_port", "993", "This must be a whole number."), ("imap_port", 993.5, "This must be a whole number."),
    ("imap_port", 0, "This must be at least 1."), ("imap_port", 65536, "This must be at most 65535."),
    ("imap_security", "plain", "This must be 'tls' or 'starttls'."),
    ("email", "nobody", "This is not an email address."),
])
def test_what_is_wrong_is_a_plain_sentence(field, value, sentence):
    assert wrong_fields(**{field: value}) == {field: [sentence]}


def test_an_id_that_is_none():
    with pytest.raises(InvalidBody) as caught:
        parse_body(SyncBody, b'{"account_id": "x"}')
    assert caught.value.fields == {"account_id": ["This must be a UUID."]}


@pytest.mark.parametrize("email", [
    "you@localhost", "a+b.c@sub.example.co.uk", "me@müller.example", "!#$%&'*+/=?^_`{|}~-@example.com",
    "x" * 64 + "@example.com",
])
def test_addresses_in_use(email):
    assert connect(email=email).email == email


def test_hosts_become_canonical():
    request = connect(imap_host="IMAP.Bücher.example", smtp_host="2001:DB8:0:0::1")
    assert (request.imap.host, request.smtp.host) == ("imap.xn--bcher-kva.example", "2001:db8::1")


def test_unknown_fields_are_ignored():
    assert connect(provider="gmail", imap={"x": 1}).email == "you@example.com"


@pytest.mark.parametrize("body", [
    b"", b"{", b"\xff\xfe{}", b"[" * 100_000, b"NaN", b'{"email": "\\ud800"}', b"{} {}",
    b'\xef\xbb\xbf{}', b"[]", b"null", b'"text"', b"7",
])
def test_no_json_object(body):
    with pytest.raises(InvalidBody) as caught:
        parse_body(SyncBody, body)
    assert len(caught.value.form) == 1
    assert not caught.value.fields


def test_sync_body():
    assert parse_body(SyncBody, b"{}").account_id is None
    wanted = "550e8400-e29b-41d4-a716-446655440000"
    assert parse_body(SyncBody, json.dumps({"account_id": wanted}).encode()).account_id == UUID(wanted)
    for wrong in ('"x"', "7", "[]", "true"):
        with pytest.raises(InvalidBody):
            parse_body(SyncBody, f'{{"account_id": {wrong}}}'.encode())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*MAILBOX, "name", "imap_security", "smtp_security"]), json_values))
def test_whatever_comes_is_taken_or_refused(fields):
    """Never another exception; and what was given for the password is in no message."""
    marked = MAILBOX | fields | {"password": "hunter2\n"}
    with pytest.raises(InvalidBody) as caught:
        parse_body(ConnectBody, json.dumps(marked).encode())
    assert "hunter2" not in f"{caught.value.fields} {caught.value.form}"
    assert "password" in caught.value.fields


@given(st.binary(max_size=200))
def test_any_bytes(data):
    with pytest.raises(InvalidBody) as caught:     # two hundred bytes hold no valid mailbox by chance
        parse_body(ConnectBody, data)
    assert caught.value.fields or caught.value.form
