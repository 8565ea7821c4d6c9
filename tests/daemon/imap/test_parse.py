"""The parser gives what imapclient gives, faster, and bears what imapclient does not."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from imapclient.response_parser import parse_fetch_response, parse_response

from daemon.errors import FaultKind
from daemon.imap import fetched as fetched_module
from daemon.imap.fetched import MAX_FLAG, MAX_FLAGS, by_tokens, fetched
from daemon.imap.parse import MAX_MODSEQ, Malformed, internal_date, number, response_code, values
from tests.fix_leaks import StepWatch

PLAIN_STRUCTURE = b'("TEXT" "PLAIN" ("CHARSET" "utf-8") NIL NIL "8BIT" 152 3 NIL NIL NIL NIL)'
ENVELOPE = (
    b'("Mon, 7 Feb 1994 21:52:25 -0800" "Re: \\"quoted\\" [list]" (("A \\\\ B" NIL "a" "x.test")) '
    b'(("A" NIL "a" "x.test")) NIL ((NIL NIL "undisclosed" NIL)(NIL NIL NIL NIL)) NIL NIL "<in@x>" "<id@x>")'
)

# Lines as Dovecot, Gmail, Exchange and Cyrus send them, each as [text] or [(text ending in {n}, literal), ..., text].
CORPUS = [
    [b"(UID 7 FLAGS (\\Seen $Forwarded NonJunk) MODSEQ (12345678901))"],
    [b"(FLAGS () UID 9)"],
    [b'(UID 1 INTERNALDATE "17-Jul-1996 02:44:25 -0700" RFC822.SIZE 4286)'],
    [(b"(UID 1 FLAGS (\\Seen) BODY[HEADER] {5}", b"a: b\r"), b")"],
    [(b"(UID 1 BODY[] {3}", b')"('), (b" BODY[HEADER.FIELDS (FROM TO)] {0}", b""), b" RFC822.SIZE 3)"],
    [b'(UID 3 BODY[TEXT] "short \\"text\\"" BODY[1.MIME] NIL)'],
    [b'(UID 3 BODY[HEADER.FIELDS (DATE)] "" FLAGS (\\Recent))'],
    [b'(UID 3 BODY[]<0> "partial")'],
    [b"(UID 5 BODYSTRUCTURE " + PLAIN_STRUCTURE + b")"],
    [b"(UID 5 BODYSTRUCTURE (" + PLAIN_STRUCTURE + PLAIN_STRUCTURE + b' "ALTERNATIVE" ("BOUNDARY" "x") NIL NIL))'],
    [b"(UID 6 ENVELOPE " + ENVELOPE + b")"],
    [(b'(UID 6 ENVELOPE ("Mon, 7 Feb 1994 21:52:25 -0800" {4}', b"S\r\nT"), b" NIL NIL NIL NIL NIL NIL NIL NIL))"],
    [b"(UID 8 X-GM-MSGID 1278455344230334865 X-GM-THRID 1266894439832287888 X-GM-LABELS (\\Inbox \\Sent foo 12))"],
    [b"(UID 8 EMAILID (M6d99ac3275bb4e) THREADID (T64b478a75b7ea9) SAVEDATE NIL)"],
    [b"(UID 12 FLAGS (\\Seen 0123 12 a+b))  "],
]


def as_imapclient(sequence: int, parts: list[object]) -> dict[bytes, object]:
    first, *rest = parts
    head = (b"%d " % sequence + first[0], first[1]) if isinstance(first, tuple) else b"%d " % sequence + first
    (message,) = parse_fetch_response([head, *rest], normalise_times=False, uid_is_key=False).values()
    return message


@pytest.mark.parametrize("parts", CORPUS)
def test_values_are_those_of_imapclient(parts: list[object]) -> None:
    assert tuple(values(parts)) == parse_response(parts)


@pytest.mark.parametrize("parts", CORPUS)
def test_a_fetch_tells_what_imapclient_reads(parts: list[object]) -> None:
    theirs = as_imapclient(4, parts)
    ours = fetched(4, parts)
    assert ours is not None
    assert (ours.uid, ours.sequence) == (theirs.pop(b"UID"), theirs.pop(b"SEQ"))
    told = {**ours.sections, **ours.extra}
    known = {
        b"FLAGS": ours.flags, b"INTERNALDATE": ours.internal_date, b"RFC822.SIZE": ours.size,
        b"ENVELOPE": ours.envelope, b"BODYSTRUCTURE": ours.structure,
    }  # fmt: skip
    told |= {name: value for name, value in known.items() if value is not None}
    if ours.modseq is not None:
        told[b"MODSEQ"] = (ours.modseq,)
    if b"FLAGS" in theirs:  # keywords are words, also when they look like numbers
        theirs[b"FLAGS"] = tuple(b"%d" % flag if isinstance(flag, int) else flag for flag in theirs[b"FLAGS"])
    assert told == theirs
    assert not ours.unreadable


atoms = st.from_regex(rb"\A[A-Za-z$\\0-9][A-Za-z0-9._-]{0,12}\Z").filter(lambda atom: atom != b"NIL")
strings = st.binary(max_size=12).filter(lambda text: not any(c in text for c in b'\r\n\0"\\'))


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    numbers = st.integers(0, 1 << 63).map(lambda value: b"%d" % value)
    tree = draw(st.recursive(
        atoms | strings.map(lambda text: b'"' + text + b'"') | st.just(b"NIL") | numbers,
        lambda inner: st.lists(inner, max_size=5).map(lambda items: b"(" + b" ".join(items) + b")"), max_leaves=25,
    ))  # fmt: skip
    return b"(" + tree + b")"


@given(responses())
def test_any_sound_response_reads_as_imapclient_reads_it(text: bytes) -> None:
    assert tuple(values([text])) == parse_response([text])


with_literals = st.tuples(st.binary(max_size=20), st.binary(max_size=9))


@given(st.lists(st.binary(max_size=60) | with_literals, min_size=1, max_size=4))
def test_no_bytes_whatever_do_more_than_be_malformed(parts: list[object]) -> None:
    with suppress(Malformed):
        fetched(1, parts)


@given(st.text(alphabet="()[]\"\\ {}1aNIL*", max_size=60))
def test_no_brackets_whatever_do_more_than_be_malformed(text: str) -> None:
    with suppress(Malformed):
        values([text.encode()])


@pytest.mark.parametrize(
    "text",
    [b"(" * 5000, b"(a", b"a)", b'("unterminated', b"(" * 101 + b")" * 101, b'(a "b\\" c)'],
)
def test_what_is_no_response_is_malformed(text: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        values([text])
    assert caught.value.kind is FaultKind.PROTOCOL


def test_an_opening_bracket_may_stand_in_a_keyword() -> None:
    message = fetched(1, [b"(UID 12 FLAGS ([odd a[b] \\Seen))"])
    assert message is not None
    assert message.flags == (b"[odd", b"a[b]", b"\\Seen")


@pytest.mark.parametrize("text", [b"[", b'"', b'\\"', b" ", b'"\\', b"(", b"[]", b'"a" ', b"\\", b"{1}"])
def test_a_hostile_line_takes_linear_time(text: bytes) -> None:
    """A megabyte of each; a tokenizer that backtracks takes hours for some of them, and the run's timeout ends it."""
    with suppress(Malformed):
        values([text * (1_000_000 // len(text))])


def test_a_literal_stands_where_it_was_announced() -> None:
    assert values([(b"({3}", b"a b"), (b" {2+}", b"()"), b" c)"]) == [(b"a b", b"()", b"c")]
    with pytest.raises(Malformed):
        values([(b"(", b"stray"), b")"])


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (b"17-Jul-1996 02:44:25 -0700", datetime(1996, 7, 17, 2, 44, 25, tzinfo=timezone(timedelta(hours=-7)))),
        (b" 1-jan-2024 00:00:00 +0530", datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30)))),
        (b"01-Jan-2024 23:59:60 +0000", datetime(2024, 1, 1, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_dates_keep_their_offset(text: bytes, moment: datetime) -> None:
    assert internal_date(text) == moment
    assert internal_date(text).utcoffset() == moment.utcoffset()


@pytest.mark.parametrize(
    "date",
    [b'"35-Foo-1996 02:44:25 -0700"', b'"31-Feb-2024 00:00:00 +0000"', b'"17-Jul-0000 02:44:25 +0000"',
     b'"17-Jul-1996 02:44:25 +9999"', b'""', b"12", b"(a)"],
)  # fmt: skip
def test_an_invalid_date_costs_the_date_and_not_the_message(date: bytes) -> None:
    message = fetched(1, [b"(UID 7 INTERNALDATE " + date + b" RFC822.SIZE 5)"])
    assert message is not None
    assert (message.uid, message.internal_date, message.size) == (7, None, 5)
    assert message.unreadable.keys() == {b"INTERNALDATE"}
    if date == b'"35-Foo-1996 02:44:25 -0700"':
        assert message.unreadable[b"INTERNALDATE"] == date.strip(b'"')


@pytest.mark.parametrize(
    ("item", "name"),
    [
        (b"ENVELOPE (NIL)", b"ENVELOPE"), (b"ENVELOPE 5", b"ENVELOPE"),
        (b"ENVELOPE (NIL NIL ((1)) NIL NIL NIL NIL NIL NIL NIL)", b"ENVELOPE"),
        (b"BODYSTRUCTURE ()", b"BODYSTRUCTURE"), (b"BODYSTRUCTURE NIL", b"BODYSTRUCTURE"),
        (b"BODYSTRUCTURE ((()))", b"BODYSTRUCTURE"), (b"RFC822.SIZE big", b"RFC822.SIZE"),
        (b"RFC822.SIZE -5", b"RFC822.SIZE"), (b"MODSEQ 5", b"MODSEQ"), (b"MODSEQ (a)", b"MODSEQ"),
        (b"FLAGS NIL", b"FLAGS"), (b"BODY[] 5", b"BODY[]"), (b"BODY[] (a)", b"BODY[]"),
    ],
)  # fmt: skip
def test_one_unreadable_value_does_not_cost_the_message(item: bytes, name: bytes) -> None:
    message = fetched(1, [b"(" + item + b" UID 7 X ok)"])
    assert message is not None
    assert message.uid == 7
    assert message.extra == {b"X": b"ok"}
    assert message.unreadable.keys() == {name}


@pytest.mark.parametrize(("said", "modseq"), [(0, None), (1, 1), (MAX_MODSEQ, MAX_MODSEQ), (MAX_MODSEQ + 1, None)])
def test_a_modseq_is_63_bits_and_never_0(said: int, modseq: int | None) -> None:
    message = fetched(1, [b"(UID 7 MODSEQ (%d))" % said])
    assert message is not None
    assert message.modseq == modseq


@pytest.mark.parametrize("uid", [b"0", b"-1", b"4294967296", b"NIL", b"(1)", b"1.5", b"9" * 5000])
def test_what_is_no_uid_makes_the_response_malformed(uid: bytes) -> None:
    with pytest.raises(Malformed):
        fetched(1, [b"(FLAGS () UID " + uid + b")"])


def test_a_fetch_without_a_uid_is_of_nobody_knows_which_message() -> None:
    assert fetched(7, [b"(FLAGS (\\Seen))"]) is None


def test_a_malformed_response_tells_its_uid_where_it_can_be_seen() -> None:
    with pytest.raises(Malformed) as caught:
        fetched(1, [b"(UID 7 BODYSTRUCTURE (((( FLAGS ())"])
    assert caught.value.uid == 7
    assert "BODYSTRUCTURE" not in caught.value.reason


def test_flags_are_bounded() -> None:
    many = b" ".join(b"k%d" % n for n in range(1000)) + b" " + b"x" * 5000
    message = fetched(1, [b"(UID 7 FLAGS (" + many + b"))"])
    assert message is not None
    assert message.flags is not None
    assert len(message.flags) == MAX_FLAGS
    assert max(map(len, message.flags)) <= MAX_FLAG


def test_a_section_is_found_whole_or_from_its_first_byte() -> None:
    message = fetched(1, [b'(UID 7 body[]<0> "abc" BODY[HEADER] "h")'])
    assert message is not None
    assert message.section(b"BODY[]") == b"abc"
    assert message.section(b"BODY[HEADER]") == b"h"
    assert message.section(b"BODY[TEXT]") is None


@pytest.mark.parametrize(
    ("text", "name", "argument"),
    [
        (b"[UIDNEXT 5] next", b"UIDNEXT", b"5"),
        (b"[read-only] done", b"READ-ONLY", b""),
        (b"[PERMANENTFLAGS (\\Seen \\*)] yes", b"PERMANENTFLAGS", b"(\\Seen \\*)"),
        (b"[ALERT]", b"ALERT", b""),
    ],
)
def test_response_codes(text: bytes, name: bytes, argument: bytes) -> None:
    assert response_code(text) == (name, argument)


@pytest.mark.parametrize("text", [b"", b"plain", b"[", b"[]", b"[UNCLOSED 5", b" [LATE] x", b"[" + b"A" * 99 + b"]"])
def test_what_is_no_response_code(text: bytes) -> None:
    assert response_code(text) is None


@pytest.mark.parametrize(("text", "value"), [(b"5", 5), (b"-5", None), (b"", None), (b"11", None), (b"9" * 99, None)])
def test_numbers_are_bounded(text: bytes, value: int | None) -> None:
    assert number(text, 10) == value


# -- the quick way ----------------------------------------------------------------------------------------------------

ITEM = st.sampled_from([
    b"UID 7", b"UID 0", b"UID 4294967295", b"UID 4294967296", b"uid 9", b"UID 07", b"UID (7)", b"FLAGS ()",
    b"FLAGS (\\Seen $Junk)", b"FLAGS (NIL)", b"FLAGS (0123 12 a+b  x)", b'FLAGS ("a")', b"FLAGS (" + b"a" * 65 + b")",
    b"FLAGS (" + b" ".join(b"f%d" % n for n in range(70)) + b")", b"FLAGS NIL",
    b'INTERNALDATE "17-Jul-1996 02:44:25 -0700"',
    b'INTERNALDATE " 7-Jul-1996 02:44:25 +0000"', b'INTERNALDATE "35-Foo-1996 02:44:25 -0700"', b"INTERNALDATE NIL",
    b"RFC822.SIZE 4286", b"RFC822.SIZE 0", b"RFC822.SIZE 01", b"RFC822.SIZE 1099511627777", b"MODSEQ (12345678901)",
    b"MODSEQ (0)", b"MODSEQ (9223372036854775808)", b"MODSEQ 5", b"X-GM-MSGID 12", b"BODY[] NIL", b'BODY[] "x"',
    b"BODY[]", b"BODY[] {3}", b"ENVELOPE NIL", b")", b"(", b"", b" ",
])  # fmt: skip
LITERALS = st.sampled_from([None, b"BODY[]", b"BODY[]<0>", b"body[]", b"BODY[TEXT]", b"X", b"FLAGS", b"UID 7 BODY[]"])


def read_by(reader: Callable[[int, list[object]], object], parts: list[object]) -> object:
    try:
        return reader(4, list(parts))
    except Malformed as exc:
        return (exc.detail, exc.uid)


ENDS = st.sampled_from([b")", b"", b" )", b" UID 8)", b") "])


@given(st.lists(ITEM, max_size=6), LITERALS, st.binary(max_size=4), ENDS)
@example([b"UID 4294967296", b"RFC822.SIZE 10", b"UID 7"], None, b"", b")")
@example([b"UID 5", b"UID 4294967296", b"UID 7"], b"BODY[]", b"x", b")")
def test_the_quick_way_reads_what_the_tokenizer_reads(
    items: list[bytes], literal: bytes | None, data: bytes, end: bytes
) -> None:
    text = b"(" + b" ".join(items)
    parts: list[object] = [text + end]
    if literal is not None:
        parts = [(text + b" " * bool(items) + literal + b" {%d}" % len(data), data), end]
    assert read_by(fetched, parts) == read_by(by_tokens, parts)


def test_what_servers_send_to_a_sync_is_read_the_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetched_module, "by_tokens", None)
    date = b'INTERNALDATE "17-Jul-1996 02:44:25 -0700"'
    for head in (
        b"UID 7 FLAGS (\\Seen) " + date + b" RFC822.SIZE 5 MODSEQ (9)",  # Dovecot
        b"UID 7 RFC822.SIZE 5 " + date + b" FLAGS (\\Seen)",  # Gmail
        b"FLAGS (\\Seen $Label1) " + date + b" RFC822.SIZE 5 UID 7",  # Cyrus, Exchange
    ):
        seen = fetched(4, [(b"(" + head + b" BODY[]<0> {5}", b"abcde"), b")"])
        assert seen is not None
        assert (seen.uid, seen.size, seen.section(b"BODY[]")) == (7, 5, b"abcde")
    assert fetched(4, [b"(UID 7 FLAGS (\\Seen) MODSEQ (9))"]) is not None


def test_a_hostile_head_is_left_in_one_pass() -> None:
    watch = StepWatch()
    watch.before_task_step(_TASK)
    for item in (b"UID 1 ", b"FLAGS ( ", b'INTERNALDATE "', b"BODY[] {1} ", b"MODSEQ (1) ", b"FLAGS () "):
        with suppress(Malformed):
            fetched(4, [b"(" + item * ((1 << 20) // len(item)) + b"!)"])
    watch.after_task_step(_TASK)
    assert watch.longest < 10.0  # not a speed: what backtracks takes hours


class _Task:
    name = "fetched"


_TASK: object = _Task()
