"""What reads the words of mail servers and of mail, as functions of one case: IMAP, SMTP, headers, addresses.

Each raises nothing but what it declares; a result that breaks a promise is an AssertionError.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from daemon.errors import Fault
from daemon.imap import faults as imap_faults
from daemon.imap.capabilities import parse_capabilities, password_method
from daemon.imap.faults import Refused, telling
from daemon.imap.fetched import MAX_FLAG, MAX_FLAGS, MAX_SIZE, fetched
from daemon.imap.folders import list_folders
from daemon.imap.news import MAX_ALERTS, MAX_FLAG_NEWS, MAX_STATUSES, MAX_VANISHED, NewsBox
from daemon.imap.open import open_session
from daemon.imap.parse import MAX_MODSEQ, Malformed, values
from daemon.imap.responses import Response, read_response
from daemon.imap.search import MAX_UIDS, Found
from daemon.imap.selected import Known, Selecting
from daemon.imap.session import Session
from daemon.imap.uidset import MAX_UID, UidSet, parse_ranges
from daemon.imap.wire import Wire
from daemon.messages.addresses import read_addresses
from daemon.messages.headers import MAX_ADDRESSES, MAX_REFERENCES, MAX_TEXT, Headers, has_attachment, read_headers
from daemon.messages.incoming import IncomingMessage, flag_names
from daemon.messages.messages_store import Prepared
from daemon.network import Endpoint, Security
from daemon.smtp import faults as smtp_faults
from daemon.smtp import open_submission
from daemon.smtp.envelope import mailbox, payload, size_limit
from daemon.smtp.replies import MAX_REPLY, MalformedReply, reply, take_reply
from daemon.smtp.replies import MAX_TEXT as MAX_REPLY_TEXT
from daemon.vault.secret import Secret

from .parsers_streams import Answering, Said, dialer

_ACCOUNT: Final = UUID(int=7)
_HOST: Final = "mail.example.test"
_GREETING: Final = (
    b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN IDLE ENABLE QRESYNC CONDSTORE ESEARCH ID SPECIAL-USE] ready\r\n"
)
_STEPS: Final = (1, 7, 100, 1 << 15)
_MOST_READS: Final = 50  # of one case: each costs a scope, which is not what is measured


async def responses(data: bytes, rng: random.Random) -> list[Response]:
    """Every response that a connection gives before it breaks."""
    wire = Wire(Said(data, max(rng.choice(_STEPS), len(data) // _MOST_READS)), _HOST)
    found: list[Response] = []
    with suppress(Fault):
        while len(found) < 5000:
            found.append(await read_response(wire))
    return found


async def imap_values(data: bytes, rng: random.Random) -> None:
    """Each response as values; FETCH also as what it tells."""
    for response in await responses(data, rng):
        with suppress(Malformed):
            values(response.parts)
        with suppress(Malformed):
            told = fetched(response.number or 0, response.parts)
            if told is not None:
                assert 1 <= told.uid <= MAX_UID
                assert told.modseq is None or 1 <= told.modseq <= MAX_MODSEQ
                assert told.size is None or 0 <= told.size <= MAX_SIZE
                assert len(told.flags or ()) <= MAX_FLAGS
                assert all(len(flag) <= MAX_FLAG for flag in told.flags or ())
                flag_names(told.flags or ())


async def imap_news(data: bytes, rng: random.Random) -> None:
    """All responses filed as news."""
    box = NewsBox()
    for response in await responses(data, rng):
        box.file(response)
    news = box.take()
    assert len(news.flags) <= MAX_FLAG_NEWS
    assert len(news.vanished) <= MAX_VANISHED
    assert len(news.statuses) <= MAX_STATUSES
    assert len(news.alerts) <= MAX_ALERTS


async def imap_selected(data: bytes, rng: random.Random) -> None:
    """All responses as the answer to a SELECT."""
    selecting = Selecting("INBOX")
    for response in await responses(data, rng):
        selecting.take(response)
        told = selecting.done(response, read_only=False)
        assert 0 <= told.uidvalidity <= MAX_UID


async def imap_search(data: bytes, rng: random.Random) -> None:
    """All responses as the answer to a search; bounded before it is expanded."""
    found = Found(rng.choice((0, 7, MAX_UIDS)))
    with suppress(Fault):
        for response in await responses(data, rng):
            found.take(response)
    assert len(await found.ascending()) <= MAX_UIDS


def imap_words(data: bytes, _rng: random.Random) -> None:
    """Capabilities, sets of UIDs, and what a refusal means."""
    with suppress(Fault):
        password_method(parse_capabilities(data))
    for read in (parse_ranges, UidSet):
        with suppress(ValueError):
            read(data)
    for phase in imap_faults.Phase:
        for status in ("NO", "BAD"):
            fault = Refused("LOGIN", status, data).fault(phase)
            assert len(fault.reason) < 200
        assert len(telling(data.decode("utf-8", "replace"))) <= 160
        imap_faults.bye(data, phase)


async def imap_session(data: bytes, rng: random.Random) -> None:
    """A whole session with a server that answers each command with a piece of the case."""
    pieces = _pieces(data, rng)

    def answer(sent: bytes) -> bytes | None:
        piece = next(pieces, None)
        if piece is None:
            return None
        tag = sent.split(b" ", 1)[0].strip()
        return piece + (b"" if tag == b"DONE" else rng.choice((b"+ \r\n", b"",
            b"")) + tag + b" OK [READ-ONLY] done\r\n")

    stream = Answering(_GREETING if rng.random() < 0.9 else data, answer, rng.choice(_STEPS[1:]))
    with suppress(Fault, Refused):
        async with open_session(dialer(stream), Endpoint(_HOST, 993, Security.TLS), "ann", Secret("pw")) as session:
            await _use(session, rng)


async def _use(session: Session, rng: random.Random) -> None:
    with suppress(Refused):
        await session.enable(b"QRESYNC")
    for _ in range(8):
        with suppress(Refused):
            await rng.choice((_folders, _select, _fetch, _search, _status, _idle))(session)
    session.statistics()


async def _folders(session: Session) -> None:
    await list_folders(session)


async def _select(session: Session) -> None:
    await session.select("INBOX", Known(3, 5))


async def _fetch(session: Session) -> None:
    stream = session.fetch([b"1:5", b"7"], [b"UID", b"FLAGS", b"BODY.PEEK[]"], on_malformed=lambda _: None)
    async with aclosing(stream):
        async for message in stream:
            flag_names(message.flags or ())


async def _search(session: Session) -> None:
    await session.uids()


async def _status(session: Session) -> None:
    await session.status("Sent")


async def _idle(session: Session) -> None:
    await session.idle(0.0)


def _pieces(data: bytes, rng: random.Random) -> Iterator[bytes]:
    """The case in some whole lines at a time."""
    lines = data.splitlines(keepends=True)
    at = 0
    while at < len(lines):
        count = rng.choice((1, 1, 3, 20))
        yield b"".join(lines[at : at + count])
        at += count


def smtp_replies(data: bytes, _rng: random.Random) -> None:
    """Every reply in a buffer, and what each means in each phase."""
    buffer = bytearray(data)
    with suppress(MalformedReply):
        while (raw := take_reply(buffer)) is not None:
            assert sum(map(len, raw.lines)) <= MAX_REPLY
            answer = reply(raw.code, b"\n".join(raw.lines).decode("utf-8", "replace"))
            assert len(answer.text) <= MAX_REPLY_TEXT
            assert "\n" not in answer.text
            for phase in smtp_faults.Phase:
                smtp_faults.judge(answer, phase)
    size_limit({"size": data.decode("utf-8", "replace")})


async def smtp_session(data: bytes, rng: random.Random) -> None:
    """A login and two messages, with a server that answers by the case."""
    pieces = _pieces(data, rng)
    good = iter((b"250-x\r\n250-AUTH PLAIN LOGIN CRAM-MD5\r\n250 SIZE 99\r\n", b"235 ok\r\n"))

    def answer(_sent: bytes) -> bytes | None:
        if rng.random() < 0.7 and (right := next(good, None)) is not None:
            return right
        return next(pieces, None) if rng.random() < 0.8 else rng.choice((b"250 ok\r\n", b"354 go\r\n", b"334 \r\n"))

    greeting = b"220 hi\r\n" if rng.random() < 0.8 else data
    endpoint = Endpoint(_HOST, 587, rng.choice((Security.TLS, Security.STARTTLS)))
    stream = Answering(greeting, answer, rng.choice(_STEPS[1:]))
    with suppress(Fault):
        async with open_submission(dialer(stream), endpoint, "ann", Secret("pw")) as submission:
            for _ in range(2):
                result = await submission.send("a@b.test", ["c@d.test", "e@f.test"], b"Subject: a\r\n\r\nb\r\n")
                booked = [*result.accepted, *result.refused, *result.deferred, *result.unknown]
                assert sorted(booked) == ["c@d.test", "e@f.test"]


def mail_headers(data: bytes, _rng: random.Random) -> None:
    """The headers of a message, which must fit JSON and PostgreSQL."""
    headers = read_headers(data)
    has_attachment(data, headers)
    _check(headers)


def _check(headers: Headers) -> None:
    people = [headers.sender, headers.to, headers.cc, headers.bcc, headers.reply_to]
    texts = [headers.subject, headers.message_id or "", headers.in_reply_to or "", *headers.references]
    texts += [text for listed in people for person in listed for text in person.values()]
    assert all(len(listed) <= MAX_ADDRESSES for listed in people)
    assert len(headers.references) <= MAX_REFERENCES
    assert all(len(text) <= MAX_TEXT and "\0" not in text for text in texts)
    json.dumps([*texts, str(headers.date)]).encode()
    "".join(texts).encode()  # no half surrogates


def mail_addresses(data: bytes, _rng: random.Random) -> None:
    """A field of addresses; and each as a recipient."""
    text = data.decode("utf-8", "replace")
    for name, address in read_addresses(text):
        assert len(name) <= len(text)
        path = mailbox(address)
        assert path is None or not {"\r", "\n", "\0", " "} & set(path)


async def mail_stored(data: bytes, rng: random.Random) -> None:
    """A message made ready for the database."""
    date = rng.choice((None, datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 12, 31, tzinfo=UTC)))
    flags = flag_names(tuple(data.split(b" ")[:5]))
    size = rng.choice((0, len(data), MAX_SIZE))
    state: Any = rng.choice(("stored", "too_large", "unreadable"))
    message = IncomingMessage(rng.choice((1, MAX_UID)), flags, rng.choice((None, 1, MAX_MODSEQ)), date, size,
        (data,), state)
    prepared = await Prepared.of(_ACCOUNT, [message])
    assert len(prepared.messages) == 1
    brief = prepared.briefs[0]
    "".join((brief.subject, brief.message_id or "", json.dumps(list(brief.sender)))).encode()
    assert prepared.rows[0], "whatever the bytes, the row can be written"


def mail_payload(data: bytes, _rng: random.Random) -> None:
    """A message in its wire form: no bare line end, no bare dot."""
    wire = payload(data).data
    assert b"\n" not in wire.replace(b"\r\n", b"")
    assert b"\r" not in wire.replace(b"\r\n", b"")
    assert b"\r\n.\r\n" not in b"\r\n" + wire
