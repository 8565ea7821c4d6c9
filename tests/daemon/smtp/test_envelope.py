import pytest
from aiosmtplib.protocol import PERIOD_REGEX, normalize_message_line_endings
from hypothesis import given
from hypothesis import strategies as st

from daemon.smtp import envelope
from daemon.smtp.envelope import mail_options, mailbox, payload, refuse, size_limit


@pytest.mark.parametrize(("message", "wire"), [
    (b"", b"\r\n"),
    (b"a", b"a\r\n"),
    (b"a\nb\rc\r\nd", b"a\r\nb\r\nc\r\nd\r\n"),
    (b".\r\n", b"..\r\n"),
    (b"..a\r\n.", b"...a\r\n..\r\n"),
    (b"a\r\n.\r\nMAIL FROM:<x>\r\n", b"a\r\n..\r\nMAIL FROM:<x>\r\n"),
    # smuggling: half line ends around a dot
    (b"a\n.\nb", b"a\r\n..\r\nb\r\n"),
    (b"a\r.\rb", b"a\r\n..\r\nb\r\n"),
    (b"a\r\n.\nb", b"a\r\n..\r\nb\r\n"),
    (b"a\n.\r\nb", b"a\r\n..\r\nb\r\n"),
    (b"a\r\n.\rb", b"a\r\n..\r\nb\r\n"),
])
def test_the_wire_form(message, wire):
    assert payload(message).data == wire


MESSAGES = st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\r\n", b"\xff"]), max_size=30).map(b"".join)


@given(MESSAGES, st.sampled_from([1, 2, 3, 7, envelope.PIECE]))
def test_a_message_in_pieces_is_what_the_library_makes_of_the_whole(message, size):
    plain = normalize_message_line_endings(message)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envelope, "PIECE", size)
        content = payload(message)
    assert content.data == PERIOD_REGEX.sub(b"..", plain)
    assert content.size == len(plain)
    header = plain.partition(b"\r\n\r\n")[0]
    assert (content.eight_bit, content.utf8_header) == (not plain.isascii(), not header.isascii())


@pytest.mark.parametrize("unit", [b"text\r\n", b"\n", b"\r", b"\r\n", b".\n", b"a"])
def test_no_more_than_a_piece_is_worked_on_without_a_pause(unit):
    message = unit * (3 * envelope.PIECE // len(unit) + 1)
    spans = list(envelope._spans(message))
    assert b"".join(message[begin:end] for begin, end in spans) == message
    assert all(0 < end - begin <= envelope.PIECE + 1 for begin, end in spans)
    assert len(spans) > 3


@given(MESSAGES)
def test_no_message_ends_itself(message):
    content = payload(message)
    assert content.data.endswith(b"\r\n")
    assert b"\r\n.\r\n" not in b"\r\n" + content.data
    for half in (b"\r", b"\n"):
        assert half not in content.data.replace(b"\r\n", b"")
    undone = b"\r\n".join(line.removeprefix(b".") for line in content.data.split(b"\r\n"))
    assert len(undone) == content.size


def test_what_a_message_asks_for():
    assert not payload(b"A: b\n\nc").eight_bit
    body = payload("A: b\n\nü".encode())
    assert (body.eight_bit, body.utf8_header) == (True, False)
    header = payload("A: ü\n\nc".encode())
    assert (header.eight_bit, header.utf8_header) == (True, True)
    assert payload("A: ü".encode()).utf8_header


@pytest.mark.parametrize(("address", "path"), [
    ("ann@example.com", "ann@example.com"),
    ("Ann.O'Neil+tag@Example.COM", "Ann.O'Neil+tag@Example.COM"),
    ("ann@[192.0.2.1]", "ann@[192.0.2.1]"),
    ('"ann"@example.com', '"ann"@example.com'),
    ("ann@bücher.example", "ann@xn--bcher-kva.example"),
    ("änn@bücher.example", "änn@bücher.example"),
    ("ann@[IPv6:2001:db8::1]", "ann@[IPv6:2001:db8::1]"),
    ('"a,b"@example.com', '"a,b"@example.com'),
    ('"a@b\\"c\\\\"@example.com', '"a@b\\"c\\\\"@example.com'),
    ("ann.@example.com", "ann.@example.com"),
    ("a..b@example.com", "a..b@example.com"),
    ("ann@localhost", "ann@localhost"),
])
def test_addresses(address, path):
    assert mailbox(address) == path


@pytest.mark.parametrize("address", [
    "", "@", "ann", "ann@", "@example.com", "a b@example.com", "ann(x)@example.com",
    "a,b@example.com", "a:b;@example.com", "ann@example.com,bob@example.com",
    "<ann@example.com>", "Ann <ann@example.com>",
    "ann@example.com\r\nDATA", "ann@example.com\0", "ann@example.com> SIZE=1", "ann@example.com (comment)",
    "ann@example.com, bob@example.com", "ann@exa mple.com", "a" * 65 + "@example.com", "a@" + "b" * 260,
    "ann\u00a0x@example.com", "ann\u0085@example.com", "ann@\ud800.example", "\ud800@example.com",
    "ann@b\u00fc..example", "ann@bob@example.com", "ann)bob@example.com", "ann@example.com)bob", "ann@a..b", "ann@a.",
    "ann@-a.b", "ann@a_b.c", "ann@a,b", "ann@a:25", "a\\b@c.example", '"a\\b"@c.example', '"a b"@c.example', '"a"b@c.d',
    '"a@c.example', '""@c.example', "@route.example:ann@c.example", "ann@[1.2.3]", "ann@[192.0.2.1", "ann@192.0.2.1]",
    "ann@[IPv6:fe80::1%eth0]", "ann@[IPv6:1]", "ann@[[192.0.2.1]]", "ann@[x:y]", "ann@[]",
    "a\u2028b@c.example", "\u00e4@b\u00fc..example", "a@" + "\u00fc" * 250,
])
def test_no_addresses(address):
    assert mailbox(address) is None


PARTS = st.sampled_from([*"ab.,;:@<>()[]\"\\ -_!%\u00fc\u3000\u2028\0\r\n", "example", ".com", '\\"', "[192.0.2.1]"])


@given(st.lists(PARTS, max_size=12).map("".join))
def test_what_is_taken_does_not_hang_on_the_standard_library(address):
    """The grammar alone decides: aiosmtplib's parser, whatever Python it runs on, changes nothing that passed."""
    taken = mailbox(address)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envelope, "parse_address", str)
        assert mailbox(address) == taken


@given(st.from_regex(r"[a-c.!]{1,9}|\"([!#-;=?-\[\]-~]|\\[\"\\]){1,9}\"", fullmatch=True))
def test_every_local_part_of_the_grammar_is_taken(local):
    assert mailbox(f"{local}@example.com") == f"{local}@example.com"


def test_what_the_server_cannot_take():
    plain, eight = payload(b"A: b\n\nc"), payload("A: b\n\nü".encode())
    header = payload("A: ü\n\nc".encode())
    assert refuse("a@b.example", plain, {}) is None
    assert refuse("a@b.example", plain, {"size": "5"}) is envelope.TOO_LARGE
    assert refuse("a@b.example", plain, {"size": str(plain.size)}) is None
    assert refuse("a@b.example", eight, {}) is envelope.NO_EIGHT_BIT
    assert refuse("a@b.example", eight, {"8bitmime": ""}) is None
    assert refuse("a@b.example", header, {"8bitmime": ""}) is envelope.NO_UTF8
    assert refuse("ä@b.example", plain, {"8bitmime": ""}) is envelope.NO_UTF8
    assert refuse("ä@b.example", header, {"smtputf8": ""}) is None


def test_the_parameters_of_mail():
    eight = payload("A: b\n\nü".encode())
    all_of_them = {"size": "0", "8bitmime": "", "smtputf8": ""}
    assert mail_options(["a@b"], eight, {}) == []
    assert mail_options(["a@b"], eight, all_of_them) == [f"SIZE={eight.size}", "BODY=8BITMIME"]
    assert mail_options(["a@b", "ä@b"], eight, all_of_them)[-1] == "SMTPUTF8"


@pytest.mark.parametrize(("text", "limit"), [
    ("35882577", 35882577), ("", None), ("0", None), ("-1", None), ("many", None), ("1" * 21, None), ("\u0662", None)])
def test_size_limits(text, limit):
    assert size_limit({"size": text}) == limit
    assert size_limit({}) is None
