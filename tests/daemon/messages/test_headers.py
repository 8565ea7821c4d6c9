"""Header fields of real and of hostile messages: never an exception, never long, only what the store can hold."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.messages.headers import (
    MAX_ADDRESSES,
    MAX_HEADER,
    MAX_REFERENCES,
    MAX_TEXT,
    Headers,
    has_attachment,
    read_headers,
)
from ops.testservers.mail import messages
from tests.fix_leaks import StepWatch

ANN = {"name": "Ann", "email": "ann@example.test"}


def read(text: str | bytes) -> Headers:
    return read_headers(text.encode() if isinstance(text, str) else text)


@pytest.mark.parametrize(
    ("field", "subject"),
    [
        (b"Subject: plain", "plain"),
        (b"subject:no space", "no space"),
        (b"Subject : before the colon", "before the colon"),
        (b"Subject: folded\r\n over lines", "folded over lines"),
        (b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
        (b"Subject: =?utf-8?b?R3I=?= =?utf-8?b?w7zDn2U=?=", "Grüße"),
        (b"Subject: =?iso-8859-1?q?caf=E9?= at eight", "café at eight"),
        (b"Subject: =?no-such-charset?q?x=E9?=", "xé"),
        (b"Subject: =?utf-8?b?not base64!?=", "=?utf-8?b?not base64!?="),
        ("Subject: raw ütf-8".encode(), "raw ütf-8"),
        (b"Subject: raw latin-1 \xe9", "raw latin-1 é"),
        (b"Subject: nul\x00 bell\x07 tab\tend", "nul bell tab end"),
        (b"Subject:", ""),
        (b"From: ann@example.test", ""),
        (b"Subject: first\r\nSubject: second", "first"),
        (b"X: a\r\n\r\nSubject: in the body", ""),
        (b"Subject: lf only\nFrom: a@b", "lf only"),
    ],
)
def test_subjects(field: bytes, subject: str) -> None:
    assert read(field).subject == subject
    assert read(field + b"\r\n\r\nbody").subject == subject


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        ("ann@example.test", [{"name": "", "email": "ann@example.test"}]),
        ("Ann <ann@example.test>", [ANN]),
        ('"Ann" <ann@example.test>', [ANN]),
        ('"Archer, Ann" <ann@example.test>', [{"name": "Archer, Ann", "email": "ann@example.test"}]),
        ("=?utf-8?q?=C3=84nn?= <ann@example.test>", [{"name": "Änn", "email": "ann@example.test"}]),
        ("Ann <ann@example.test>, Ann <ann@example.test>", [ANN, ANN]),
        ("", []),
    ],
)
def test_addresses(value: str, addresses: list[dict[str, str]]) -> None:
    assert read(f"To: {value}").to == addresses


def test_a_field_that_is_cut_ends_with_a_whole_address() -> None:
    addresses = [each["email"] for each in read("To: " + ", ".join(["ann@example.test"] * 1000)).to]
    assert addresses
    assert set(addresses) == {"ann@example.test"}


def test_a_whole_message() -> None:
    seen = read(
        "From: Ann <ann@example.test>\r\nCc: c@example.test\r\nReply-To: r@example.test\r\n"
        "Date: Thu, 15 Jan 2026 11:00:00 +0100\r\nMessage-ID: <a@b>\r\nIn-Reply-To: <c@d>\r\n"
        "References: <e@f>\r\n <c@d>\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n"
    )
    assert seen.sender == [ANN]
    assert (seen.cc[0]["email"], seen.reply_to[0]["email"]) == ("c@example.test", "r@example.test")
    assert seen.date == datetime(2026, 1, 15, 10, 0, tzinfo=UTC)
    assert (seen.message_id, seen.in_reply_to, seen.references) == ("a@b", "c@d", ["e@f", "c@d"])
    assert seen.multipart
    assert has_attachment(b"--x\r\nContent-Disposition: ATTACHMENT; filename=a\r\n", seen)
    assert not has_attachment(b"Content-Disposition: attachment", read("Content-Type: text/plain"))


@pytest.mark.parametrize(
    "date", ["", "yesterday", "Thu, 32 Jan 2026 11:00:00 +0000", "Thu, 1 Jan 1900 00:00:00 +0000", "9" * 400,
             "1 Jan 99999 00:00:00 +0000", "1 Jan 2026 00:00:00 +9999999"],
)  # fmt: skip
def test_what_is_no_date(date: str) -> None:
    assert read(f"Date: {date}").date is None


def test_a_date_without_a_zone_is_utc() -> None:
    assert read("Date: Thu, 15 Jan 2026 11:00:00 -0000").date == datetime(2026, 1, 15, 11, 0, tzinfo=UTC)


def test_the_corpus_is_read() -> None:
    seen = [read_headers(mail) for mail in messages(300, seed=31)]
    assert all(each.message_id and each.sender and each.to and each.date for each in seen)
    assert not any("=?" in each.subject for each in seen)
    assert {each.multipart for each in seen} == {True, False}
    check_all(seen)


def check_all(seen: list[Headers]) -> None:
    """What PostgreSQL and JSON can hold, and no more than the bounds."""
    for each in seen:
        lists = [each.sender, each.to, each.cc, each.bcc, each.reply_to]
        texts = [each.subject, each.message_id or "", each.in_reply_to or "", *each.references]
        texts += [value for one in lists for address in one for value in address.values()]
        assert all(len(text) <= MAX_TEXT for text in texts)
        assert "\x00" not in "".join(texts)
        "".join(texts).encode()  # no half surrogates
        assert all(len(one) <= MAX_ADDRESSES for one in lists)
        assert len(each.references) <= MAX_REFERENCES
        json.dumps(lists)


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    check_all([read_headers(data)])


NAMES = st.sampled_from(
    [b"Subject", b"From", b"To", b"Date", b"Message-ID", b"References", b"In-Reply-To", b"Content-Type", b"Cc"]
)
PIECES = st.sampled_from(
    [b"=?", b"?=", b"utf-8", b"?b?", b"?q?", b"<", b">", b"@", b",", b'"', b"(", b")", b"\\", b":", b";", b"[", b"]",
     b"\r\n ", b"\n\t", b"a", b"\xff", b"\x00", b"2026", b"+0000", b"=ED=A0=80", b"\xed\xa0\x80"]
)  # fmt: skip
FIELD = st.builds(lambda name, pieces: name + b": " + b"".join(pieces), NAMES, st.lists(PIECES, max_size=40))


@given(st.lists(FIELD, max_size=5))
def test_any_fields_of_the_words_that_parsers_trip_over(fields: list[bytes]) -> None:
    check_all([read_headers(b"\r\n".join(fields))])


HOSTILE = {
    "parentheses": b"(" * MAX_HEADER,
    "nested comments": b"(a" * (MAX_HEADER // 2),
    "quotes": b'"\\' * (MAX_HEADER // 2),
    "commas": b"," * MAX_HEADER,
    "addresses": b"a@b," * (MAX_HEADER // 4),
    "angles": b"<" * MAX_HEADER,
    "identifiers": b"<a@b> " * (MAX_HEADER // 6),
    "encoded words": b"=?utf-8?q?a?= " * (MAX_HEADER // 14),
    "open encoded words": b"=?utf-8?q?" * (MAX_HEADER // 10),
    "folds": b"\r\n " * (MAX_HEADER // 3),
    "blanks": b" " * MAX_HEADER,
    "brackets": b"[" * MAX_HEADER,
    "colons": b"a:" * (MAX_HEADER // 2),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("name", [b"Subject", b"From", b"Date", b"References", b"Message-ID"])
def test_a_quarter_of_a_megabyte_of_one_thing_holds_nobody_up(kind: str, name: bytes) -> None:
    """Not a speed: the parsers are superlinear, and without the bound on a field some take minutes."""
    watch = StepWatch()
    watch.before_task_step(_TASK)
    check_all([read_headers(name + b": " + HOSTILE[kind])])
    watch.after_task_step(_TASK)
    assert watch.longest < 1.0


class _Task:
    name = "read_headers"


_TASK: object = _Task()
