import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.smtp.replies import MAX_LINE, MAX_REPLY, MAX_TEXT, MalformedReply, Reply, reply, take_reply


def taken(data: bytes):
    buffer = bytearray(data)
    raw = take_reply(buffer)
    return raw and (raw.code, raw.lines), bytes(buffer)


@pytest.mark.parametrize(("data", "code", "lines", "rest"), [
    (b"250 ok\r\n", 250, (b"ok",), b""),
    (b"250 ok\n", 250, (b"ok",), b""),
    (b"250\r\n", 250, (b"",), b""),
    (b"250 \r\n", 250, (b"",), b""),
    (b"250-a\r\n250-b c\r\n250 d\r\n", 250, (b"a", b"b c", b"d"), b""),
    (b"250-a\r\n250\r\n", 250, (b"a", b""), b""),
    (b"220 x\r\n250 y\r\n", 220, (b"x",), b"250 y\r\n"),
    (b"354 go\r\nrest", 354, (b"go",), b"rest"),
])
def test_whole_replies(data, code, lines, rest):
    assert taken(data) == ((code, lines), rest)


@pytest.mark.parametrize("data", [b"", b"2", b"250", b"250 ok", b"250 ok\r", b"250-a\r\n", b"250-a\r\n250-b\r\n250"])
def test_partial_replies_wait(data):
    assert taken(data) == (None, data)


@pytest.mark.parametrize("data", [
    b"\r\n", b"25 ok\r\n", b"2500 ok\r\n", b"abc ok\r\n", b"+25 ok\r\n", b"-25 ok\r\n", b" 25 ok\r\n", b"2_5 ok\r\n",
    b"150 ok\r\n", b"600 ok\r\n", b"099 ok\r\n", b"250_ok\r\n", b"250-a\r\n251 b\r\n", b"250-a\r\nb\r\n",
    b"* OK IMAP\r\n", b"HTTP/1.1 400 Bad Request\r\n", b"\xd9\xa2\xd9\xa5\xd9\xa0 ok\r\n",
    b"250 " + b"x" * MAX_LINE + b"\r\n", b"x" * (MAX_LINE + 1), b"250-a\r\n" * MAX_REPLY,
    b"250-a\r\n" * (MAX_REPLY // 7 + 1),
])
def test_nonsense_and_endless_replies_are_malformed(data):
    with pytest.raises(MalformedReply):
        taken(data)


@given(st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line and not line.endswith(b"\r")), min_size=1),
       st.integers(200, 599), st.data())
def test_where_the_packets_are_cut_does_not_matter(lines, code, data):
    wire = b"".join(b"%d-%s\r\n" % (code, line) for line in lines[:-1]) + b"%d %s\r\n" % (code, lines[-1])
    cut = data.draw(st.integers(0, len(wire) - 1))
    buffer = bytearray(wire[:cut])
    assert take_reply(buffer) is None
    buffer += wire[cut:]
    raw = take_reply(buffer)
    assert (raw.code, raw.lines) == (code, tuple(lines))
    assert not buffer


@given(st.binary(max_size=2000))
def test_any_bytes_are_a_reply_or_malformed(data):
    buffer = bytearray(data)
    try:
        raw = take_reply(buffer)
    except MalformedReply:
        return
    assert raw is None or 200 <= raw.code <= 599


@pytest.mark.parametrize(("code", "message", "expected"), [
    (250, "2.1.0 Sender OK", Reply(250, "2.1.0", "Sender OK")),
    (550, "5.7.1 a\n5.7.1 b", Reply(550, "5.7.1", "a b")),
    (550, "5.7.501 x", Reply(550, "5.7.501", "x")),
    (550, "4.7.1 x", Reply(550, None, "4.7.1 x")),
    (550, "no such user", Reply(550, None, "no such user")),
    (535, "5.7.8", Reply(535, "5.7.8", "")),
    (550, "5.7.1.2 x", Reply(550, None, "5.7.1.2 x")),
    (550, "", Reply(550, None, "")),
    (550, "a\x00b\x1b[31m\u202ec\ud800", Reply(550, None, "a b [31m c?")),
])
def test_a_reply_to_keep(code, message, expected):
    assert reply(code, message) == expected


def test_a_long_text_is_cut():
    assert reply(550, "x" * 100_000).text == "x" * MAX_TEXT
