"""What is read quickly is exactly what the slow and thorough readers say: encoded words, dates, rows of COPY."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from email.errors import HeaderParseError
from email.header import Header
from email.utils import format_datetime
from uuid import UUID, uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg._copy_base import BinaryFormatter  # a private name; psycopg is pinned exactly
from psycopg.adapt import Transformer

from daemon.messages import copy_rows, dates, words
from daemon.messages.headers import _FIELDS, MAX_HEADER, Headers, _block, read_headers
from daemon.messages.incoming import IncomingMessage
from ops.testservers.mail import messages

# -- encoded words -----------------------------------------------------------------------------------------------------

WORD = st.sampled_from([
    "=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "=?UTF-8?B?w7w=?=", "=?utf-8?b?w7w?=", "=?iso-8859-1?q?caf=E9?=",
    "=?utf-8?q?=C3?=", "=?utf-8?q?=BC?=", "=?utf-8?q??=", "=?utf-8?b??=", "=?x?q?_?=", "=?no-such?q?a?=",
    "=?utf-8*de?q?a?=", "=?hex?q?41?=",
    "=?utf-8?b?=?=", "=?utf-8?b?a?=", "=?utf-8?b?ab=c?=", "=?utf-8?q?a b?=", "=?utf-8?q?=4?=", "=?utf-8?q?a?b?=",
    "=?rot13?q?a?=", "=?utf-7?q?+AGE-?=", "=?utf-16?b?AGE=?=", "=?unicode_escape?q?=5Cx?=", "=?idna?q?xn--?=",
])  # fmt: skip
BETWEEN = st.sampled_from(
    ["", " ", "  ", "\t", " Re: ", "plain", "=", "=?", "?=", "a=b", "é", "\x0b", "\x85", "<a@b>", '"']
)
PHRASE = st.lists(st.one_of(WORD, BETWEEN), max_size=7).map("".join)


@given(st.one_of(PHRASE, st.text(max_size=60), st.text(alphabet="=?_bqQButf-8 4C3z+/", max_size=40)))
@example("=?utf-8?b?Zg?= =?utf-8?q?oo?= bar =?utf-8?q?baz?= ")
@example("?=\x0b")
def test_encoded_words_are_those_of_the_standard_library(text: str) -> None:
    assert words.decoded(text) == words.by_library(text)


@given(st.text(max_size=80), st.sampled_from(["utf-8", "iso-8859-1", "koi8-r", "iso-2022-jp"]))
def test_what_the_standard_library_writes_is_read_alike(text: str, charset: str) -> None:
    try:
        field = re.sub(r"\r?\n[ \t]", " ", Header(text, charset, errors="replace").encode())
    except UnicodeError:
        return
    assert words.decoded(field) == words.by_library(field)


OPEN = st.sampled_from(["", " ", " Re: ", "=?", "?=", "=?a?q?", "=?a?q?b", "a=b"])


@given(st.lists(st.one_of(WORD, OPEN), max_size=7).map("".join))
def test_what_stands_behind_the_last_word_is_read_as_by_the_library(text: str) -> None:
    try:
        parts = words.decode_header(text)
    except (HeaderParseError, ValueError):
        return
    whole = "".join(part if isinstance(part, str) else words._in_charset(part, charset or "latin-1")
                    for part, charset in parts)
    assert words.by_library(text) == whole


@pytest.mark.parametrize("unit", ["=?a?q?a", "=?a?q? ", "=?a?q?", "=?", "=?a?q?a\x85", "=?a?b?A\x0b"])
def test_words_without_an_end_are_not_looked_at_again_and_again(monkeypatch: pytest.MonkeyPatch, unit: str) -> None:
    """The library's expression looks for each one's end to the end of the line: 190 ms for a subject of 16 KiB."""
    library, shown = words.decode_header, []

    def decode_header(text: str) -> list[tuple[bytes | str, str | None]]:
        shown.append(text)
        return library(text)

    monkeypatch.setattr(words, "decode_header", decode_header)
    for text in (unit * 2000, "=?utf-8?q?caf=C3=A9?=" + unit * 2000, unit * 2000 + "?=" + unit * 2000):
        words.by_library(text)
    assert len(shown) >= 2
    assert all(text.endswith("?=") and len(text.splitlines()) == 1 for text in shown)


def test_the_corpus_needs_the_library_for_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the quick reader may be as right as it will: nobody uses it."""
    monkeypatch.setattr(words, "decode_header", None)
    monkeypatch.setattr(dates, "parsedate_to_datetime", None)
    for mail in messages(200, seed=7):
        read_headers(mail)


# -- dates -------------------------------------------------------------------------------------------------------------

ZONE = st.one_of(
    st.sampled_from(["GMT", "-0000", "+0000", "+2359", "-2360", "+2400", "EST", "UT", "Z", "", "+1", "+9999", "(UTC)"]),
    st.from_regex(r"[+-]\d{4}", fullmatch=True),
)
DATE = st.builds(
    "{}{} {} {} {}:{}:{} {}".format,
    st.sampled_from(["", "Mon, ", "Sun, ", "mon, ", "Mon ", "Xyz, ", "Monday, "]),
    st.integers(0, 33), st.sampled_from(["Jan", "Feb", "Dec", "dec", "Foo", "Sept"]),
    st.sampled_from([0, 1, 26, 99, 1000, 1899, 1969, 1970, 1971, 2024, 9000, 9001, 9999, 12345]),
    *(st.sampled_from(["00", "7", "12", "24", "59", "60", "99"]) for _ in range(3)), ZONE,
)  # fmt: skip


@given(st.one_of(DATE, st.text(max_size=40)))
@example("Thu, 1 Jan 1970 00:00:00 +0001")
@example("Sat, 31 Dec 9000 23:59:59 -0001")
@example("1 Jan 1000 00:00:00 +2359")
def test_dates_are_those_of_the_standard_library(text: str) -> None:
    assert dates.date_of(text) == (dates.by_library(text) if text else None)


@given(st.datetimes(datetime(1970, 1, 2), datetime(8999, 12, 30)), st.integers(-1439, 1439))  # noqa: DTZ001 - its zone follows
def test_dates_as_the_rfc_writes_them_are_read_without_the_library(moment: datetime, offset: int) -> None:
    moment = moment.replace(microsecond=0, tzinfo=timezone(timedelta(minutes=offset)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dates, "parsedate_to_datetime", None)
        assert dates.date_of(format_datetime(moment)) == moment


# -- the header block --------------------------------------------------------------------------------------------------

LINES = st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"From: x", b" ", b"To:y"]), max_size=14).map(b"".join)


@given(LINES)
def test_the_block_ends_at_the_first_empty_line(message: bytes) -> None:
    end = re.search(rb"\r?\n\r?\n", message[:MAX_HEADER])
    assert _block(message).rstrip(b"\r") == (message[: end.start()] if end else message).rstrip(b"\r")


BY_LINES = re.compile(
    rb"^(subject|from|to|cc|bcc|reply-to|date|message-id|in-reply-to|references|content-type)[ \t]*:[ \t]*"
    rb"([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)",
    re.IGNORECASE | re.MULTILINE,
)


@given(st.lists(st.sampled_from([
    b"Subject: a", b"subject :b", b"From: x@y", b"\r\n", b"\n", b"\r", b" folded", b"\tTo: in a fold", b"To:",
    b"X-To: no", b"Date:\n", b"Cc: z@y\r",
]), max_size=12).map(b"".join))  # fmt: skip
def test_fields_are_found_as_line_by_line(block: bytes) -> None:
    assert [m.groups() for m in _FIELDS.finditer(b"\n" + block)] == [m.groups() for m in BY_LINES.finditer(block)]


# -- rows of COPY ------------------------------------------------------------------------------------------------------

MESSAGE_TYPES = (
    *("uuid", "uuid", "text", "text", "text[]", "text", "jsonb", "jsonb", "timestamptz"),
    *("timestamptz", "int8", "bool", "text"),
)
TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
ADDRESSES = st.lists(st.builds(lambda name, email: {"name": name, "email": email}, TEXT, TEXT), max_size=3)
MOMENT = st.none() | st.datetimes(
    datetime(1970, 1, 2), datetime(8999, 12, 30),  # noqa: DTZ001 - zones are given
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=-7)), timezone(timedelta(hours=14))]),
)  # fmt: skip
HEADERS = st.builds(
    Headers, TEXT, ADDRESSES, ADDRESSES, ADDRESSES, ADDRESSES, ADDRESSES, MOMENT, st.none() | TEXT, st.none() | TEXT,
    st.lists(TEXT, max_size=3), st.booleans(),
)  # fmt: skip
MESSAGE = st.builds(
    IncomingMessage, st.integers(1, (1 << 32) - 1), st.lists(TEXT, max_size=4).map(tuple),
    st.none() | st.integers(1, (1 << 63) - 1), MOMENT, st.integers(0, 1 << 40), st.just(()),
    st.sampled_from(["stored", "too_large", "unreadable"]),
)  # fmt: skip


def by_psycopg(types: tuple[str, ...], row: tuple[object, ...]) -> bytes:
    transformer = Transformer()
    transformer.set_dumper_types([transformer.adapters.types[name.removesuffix("[]")].oid if "[]" not in name
                                  else transformer.adapters.types[name.removesuffix("[]")].array_oid
                                  for name in types], BinaryFormatter.format)  # fmt: skip
    formatter = BinaryFormatter(transformer)
    return bytes(formatter.write_row(row)) + bytes(formatter.end())


def framed(*pieces: bytes) -> bytes:
    return copy_rows.SIGNATURE + b"".join(pieces) + copy_rows.TRAILER


@given(HEADERS, MESSAGE, st.booleans())
def test_a_row_of_messages_is_psycopgs(headers: Headers, message: IncomingMessage, attached: bool) -> None:
    id_, account_id = uuid4(), uuid4()
    lists = {"to": headers.to, "cc": headers.cc, "bcc": headers.bcc, "reply_to": headers.reply_to}
    row = (
        id_, account_id, headers.message_id, headers.in_reply_to, headers.references, headers.subject, headers.sender,
        {name: value for name, value in lists.items() if value}, headers.date, message.received_at, message.size,
        attached, message.body_state,
    )  # fmt: skip
    assert len(copy_rows.MESSAGE_COLUMNS.split(",")) == len(MESSAGE_TYPES) == len(row)
    ours = framed(copy_rows.message_row(id_, account_id, headers, message, attached=attached))
    assert ours == by_psycopg(MESSAGE_TYPES, row)


@given(st.integers(1, 1 << 40), MESSAGE)
def test_a_row_of_placements_is_psycopgs(folder_id: int, message: IncomingMessage) -> None:
    id_ = uuid4()
    row = (folder_id, message.uid, id_, list(message.flags), message.modseq)
    ours = framed(copy_rows.placement_row(folder_id, message.uid, id_, message.flags, message.modseq))
    assert ours == by_psycopg(("int8", "int8", "uuid", "text[]", "int8"), row)


@given(st.integers(0, 1000), st.binary(max_size=300))
def test_a_row_of_bodies_is_psycopgs(part: int, data: bytes) -> None:
    id_ = uuid4()
    assert framed(*copy_rows.body_row(id_, part, data)) == by_psycopg(("uuid", "int4", "bytea"), (id_, part, data))


def test_blocks_are_all_and_bounded() -> None:
    pieces = [bytes([n % 251]) * 10_000 for n in range(40)]
    made = list(copy_rows.blocks(pieces))
    assert b"".join(made) == framed(*pieces)
    assert len(made) > 3
    assert max(map(len, made)) < copy_rows.BLOCK + 10_000 + 64
    assert list(copy_rows.blocks([])) == [framed()]


@pytest.mark.parametrize("poison", [{"size": 1 << 63}, {"body_state": "\ud800"}])
def test_what_fits_no_column_is_refused(poison: dict[str, object]) -> None:
    message = replace(IncomingMessage(1, (), None, None, 1, (), "stored"), **poison)  # type: ignore[arg-type]  # varied
    with pytest.raises((copy_rows.struct.error, UnicodeError)):
        copy_rows.message_row(UUID(int=1), UUID(int=2), read_headers(b""), message, attached=False)


def test_the_json_is_the_standard_librarys() -> None:
    seen = [read_headers(mail).sender for mail in messages(50, seed=3)]
    assert [copy_rows._addresses(each) for each in seen] == [json.dumps(each) for each in seen]
