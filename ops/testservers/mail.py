"""Realistic messages, the same for the same seed, made fast enough for tens of thousands.

Put together by hand from pre-encoded pieces: the standard library's `email` takes about a millisecond a message.
The mixture follows what an ordinary inbox holds: half plain text, a third with an HTML alternative, newsletters,
a few attachments, threads of any length, and the charsets that old clients still send.
"""

import base64
import hashlib
import quopri
import random
from collections.abc import Iterator
from dataclasses import dataclass
from email.header import Header
from email.utils import formatdate

from .mailbox import Seed

_PEOPLE = (
    ("Ann Archer", "ann@example.org"), ("Bjørn Ås", "bjorn@example.net"), ("Chloé Dubois", "chloe@example.com"),
    ("Δημήτρης Νικολάου", "dimitris@example.gr"), ("Ева Орлова", "eva@example.ru"), ("藤本 健", "ken@example.jp"),
    ("Li Wei 李伟", "liwei@example.cn"), ("O'Brien, Pat", "pat@example.ie"), ("Zoë \U0001f4ec", "zoe@example.org"),
    ("Build Server", "no-reply@ci.example.org"), ("Weekly News", "news@letters.example.com"),
)
_SUBJECTS = (
    "Minutes of the meeting", "Invoice {n}", "Your order {n} has shipped", "Lunch on Thursday?", "Crème brûlée",
    "Отчёт за месяц", "会議の件", "Build {n} failed", "Holiday pictures", "Re-reading chapter {n}", "Grüße aus Köln",
)
_PROSE = (
    "the report was sent to everyone who asked for it and nobody has answered yet so please look at the numbers again "
    "before we meet on friday since the budget must be agreed by then and the printers want their files a day earlier "
    "than usual because of the holidays thanks for your patience with all of this kind regards and see you soon"
)
_WORDS = _PROSE.split()
_LEGACY = (
    ("iso-8859-1", "Déjà vu à Malmö: größer, schöner, señor."),
    ("windows-1252", "“Quoted” – it costs 5 €…"),
    ("koi8-r", "Привет из старой программы."),
    ("shift_jis", "古いメールソフトからこんにちは。"),
    ("iso-2022-jp", "件名と本文を確認してください。"),
    ("gb18030", "请查收附件。"),
)
_MIXED = b'Content-Type: multipart/mixed; boundary="%s"\r\n\r\n'
_ALTERNATIVE = b'Content-Type: multipart/alternative; boundary="%s"\r\n\r\n'
_START = 1_700_000_000
"""Date of the first message, seconds since 1970 (November 2023): a fixed one, so that runs are alike."""


@dataclass(frozen=True, slots=True)
class _Parent:
    message_id: str
    references: tuple[str, ...]
    subject: str


def messages(count: int, *, seed: int = 0, to: str = "you@example.test") -> Iterator[bytes]:
    """`count` messages, oldest first, lines ended by CRLF. The first ones are the same whatever the count."""
    return (each.content for each in seeds(count, seed=seed, to=to))


def seeds(count: int, *, seed: int = 0, to: str = "you@example.test") -> Iterator[Seed]:
    """The same with flags and internal dates, for `Dovecot.seed`."""
    rng = random.Random(seed)  # noqa: S311  # repeatable, not secret
    parents: list[_Parent] = []
    date = float(_START)
    for number in range(count):
        date += rng.expovariate(1 / 1800)
        parent = rng.choice(parents) if parents and rng.random() < 0.4 else None
        message_id = f"<{seed}.{number}.{rng.getrandbits(48):012x}@example.test>"
        subject = f"Re: {parent.subject}" if parent else rng.choice(_SUBJECTS).format(n=rng.randrange(1000, 9999))
        head = _headers(rng, message_id, subject, parent, to, date)
        references = (*parent.references, parent.message_id)[-20:] if parent else ()
        # The last 30 may be answered; now and then one conversation becomes very long.
        parents[:-30] = []
        parents.append(_Parent(message_id, references, parent.subject if parent else subject))
        yield Seed(head + _content(rng, number), _flags(rng), date)


def message(subject: str, *, sender: str = "ann@example.org", to: str = "you@example.test", body: str = "",
            date: float = _START, message_id: str | None = None) -> bytes:
    """One plain message with just these features; the Message-ID follows from the subject where none is given."""
    if message_id is None:
        message_id = f"<{hashlib.sha256(subject.encode()).hexdigest()[:24]}@example.test>"
    head = (f"From: {sender}\r\nTo: {to}\r\nSubject: {_encoded(subject)}\r\nDate: {formatdate(date)}\r\n"
            f"Message-ID: {message_id}\r\nMIME-Version: 1.0\r\n")
    return head.encode() + _text(body, "utf-8")


def _headers(rng: random.Random, message_id: str, subject: str, parent: _Parent | None, to: str, date: float) -> bytes:
    name, address = rng.choice(_PEOPLE)
    lines = [
        f"Return-Path: <{address}>",
        f"Received: from mail.{address.partition('@')[2]} by mx.example.test with ESMTPS; {formatdate(date)}",
        f"From: {_phrase(name)} <{address}>",
        f"To: {to}",
        f"Subject: {_encoded(subject)}",
        f"Date: {formatdate(date - rng.randrange(60))}",
        f"Message-ID: {message_id}",
        "MIME-Version: 1.0",
    ]
    if rng.random() < 0.2:
        other, its = rng.choice(_PEOPLE)
        lines.append(f"Cc: {_phrase(other)} <{its}>")
    if parent:
        lines.append(f"In-Reply-To: {parent.message_id}")
        lines.append("References: " + "\r\n ".join((*parent.references, parent.message_id)))
    if address.startswith("news"):
        lines.append("List-Unsubscribe: <https://letters.example.com/u/1>")
        lines.append("Precedence: bulk")
    return "\r\n".join(lines).encode() + b"\r\n"


def _content(rng: random.Random, number: int) -> bytes:
    """MIME headers and body; the line that ends the header block is in it."""
    kind, text = rng.random(), _prose(rng)
    boundary = b"=_part_%d_%08x" % (number, rng.getrandbits(32))
    if kind < 0.45:
        return _text(text, "utf-8" if rng.random() < 0.5 else "us-ascii")
    if kind < 0.55:
        charset, line = rng.choice(_LEGACY)
        return _text(line + "\r\n", charset)
    alternative = _multipart(_ALTERNATIVE, boundary, [_text(text, "utf-8"), _html(text)])
    if kind < 0.94:
        return alternative
    # a few attachments of 2 to 20 kB, one message in a hundred 100 kB
    size = 100_000 if kind > 0.99 else rng.randrange(2_000, 20_000)
    name = rng.choice(("report.pdf", "photo.jpg", "Übersicht 2024.xlsx", "数据.csv", "notes.txt"))
    attached = (
        b"Content-Type: application/octet-stream; name*=utf-8''" + _percent(name)
        + b"\r\nContent-Disposition: attachment; filename*=utf-8''" + _percent(name)
        + b"\r\nContent-Transfer-Encoding: base64\r\n\r\n" + _base64(rng.randbytes(size))
    )
    return _multipart(_MIXED, boundary + b"m", [alternative, attached])


def _multipart(head: bytes, boundary: bytes, parts: list[bytes]) -> bytes:
    lines = [b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts]
    return head % boundary + b"".join(lines) + b"--" + boundary + b"--\r\n"


def _text(text: str, charset: str, subtype: str = "plain") -> bytes:
    data = text.encode(charset)
    if data.isascii() and charset in {"us-ascii", "utf-8"}:
        encoding, body = b"7bit", data
    elif charset in {"utf-8", "iso-8859-1", "windows-1252"}:
        encoding, body = b"quoted-printable", quopri.encodestring(data.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
    else:
        encoding, body = b"base64", _base64(data)
    return (f"Content-Type: text/{subtype}; charset={charset}\r\nContent-Transfer-Encoding: ".encode()
            + encoding + b"\r\n\r\n" + body)


def _html(text: str) -> bytes:
    paragraphs = "".join(f"<p style=\"font-family:sans-serif\">{line}</p>\r\n" for line in text.split("\r\n\r\n"))
    return _text(f"<!DOCTYPE html>\r\n<html><body>\r\n{paragraphs}</body></html>\r\n", "utf-8", "html")


def _prose(rng: random.Random) -> str:
    paragraphs = []
    for _ in range(min(30, 1 + int(rng.expovariate(0.35)))):
        start = rng.randrange(len(_WORDS))
        words = (_WORDS[start:] + _WORDS)[:rng.randrange(20, 90)]
        paragraphs.append("\r\n".join(" ".join(words[i:i + 12]) for i in range(0, len(words), 12)))
    return "\r\n\r\n".join(paragraphs) + "\r\n"


def _flags(rng: random.Random) -> tuple[str, ...]:
    flags = [r"\Seen"] if rng.random() < 0.7 else []
    if rng.random() < 0.05:
        flags.append(r"\Flagged")
    if flags and rng.random() < 0.2:
        flags.append(r"\Answered")
    if rng.random() < 0.03:
        flags.append("$Important")
    return tuple(flags)


def _phrase(name: str) -> str:
    if not name.isascii():
        return _encoded(name)
    return f'"{name}"' if set(name) & set(",'.") else name


def _encoded(text: str) -> str:
    return text if text.isascii() else Header(text, "utf-8").encode(linesep="\r\n")


def _percent(name: str) -> bytes:
    return b"".join(b"%c" % c if chr(c).isalnum() and c < 128 else b"%%%02X" % c for c in name.encode())


def _base64(data: bytes) -> bytes:
    return base64.encodebytes(data).replace(b"\n", b"\r\n")
