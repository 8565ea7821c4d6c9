"""Making a batch ready: hostile headers cost bounded work, and other tasks have their turns meanwhile."""

from uuid import uuid4

import pytest
import trio

from daemon.messages import headers as headers_module
from daemon.messages import words as words_module
from daemon.messages.headers import MAX_ADDRESS_FIELD, MAX_ADDRESSES, read_headers
from daemon.messages.incoming import IncomingMessage
from daemon.messages.messages_store import AT_ONCE, Prepared

FIELDS = (b"From", b"To", b"Cc", b"Bcc", b"Reply-To")
SIZE = 200_000


class Work:
    """What the parsers that are not ours, or not linear, were given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.address_fields: list[int] = []
        self.encoded: list[int] = []
        addresses, decode = headers_module.read_addresses, words_module.decode_header

        def read_addresses(text):
            self.address_fields.append(len(text))
            return addresses(text)

        def decode_header(text):
            self.encoded.append(len(text))
            return decode(text)

        monkeypatch.setattr(headers_module, "read_addresses", read_addresses)
        monkeypatch.setattr(words_module, "decode_header", decode_header)


@pytest.mark.parametrize("unit", [
    b"a@b,", b"(", b"(a)", b"<", b'"', b"[", b"a:", b".", b"@", b"a ", b",", b'"' + b"=?a?q?" * 12 + b'" <a@b>,',
    b'=?utf-8?q?a?= <a@b>,',
])
def test_long_address_fields_are_read_to_a_bound(monkeypatch, unit):
    work = Work(monkeypatch)
    block = unit * (SIZE // len(unit) // len(FIELDS))
    read = read_headers(b"".join(name + b": " + block + b"\r\n" for name in FIELDS) + b"\r\n")
    assert len(work.address_fields) <= len(FIELDS)
    assert max(work.address_fields, default=0) <= MAX_ADDRESS_FIELD
    assert len(work.encoded) <= len(FIELDS) * MAX_ADDRESSES
    assert sum(work.encoded) <= len(FIELDS) * MAX_ADDRESS_FIELD
    assert all(len(found) <= MAX_ADDRESSES for found in (read.sender, read.to, read.cc, read.bcc, read.reply_to))


def test_a_name_of_encoded_words_without_end_is_left_out(monkeypatch):
    work = Work(monkeypatch)
    read = read_headers(b'From: "' + b"=?a?q?" * 30_000 + b'" <a@b.test>, c@d.test\r\n\r\n')
    assert read.sender == []
    assert sum(work.encoded) <= MAX_ADDRESS_FIELD


async def test_others_have_their_turns_while_a_batch_is_made_ready():
    field = b"a@b," * 4000
    raw = b"".join(name + b": " + field + b"\r\n" for name in FIELDS) + b"\r\nx"
    batch = [IncomingMessage(uid, (), None, None, len(raw), (raw,), "stored") for uid in range(1, 201)]
    turns, ended = 0, False

    async def other():
        nonlocal turns
        while not ended:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        prepared = await Prepared.of(uuid4(), batch)
        ended = True
    # In one pass of the scheduler it is only begun; who goes first within a pass is chance.
    assert turns >= len(batch) // AT_ONCE - 1
    assert [message.uid for message in prepared.messages] == list(range(1, 201))
    assert len(prepared.rows) == len(prepared.briefs) == 200


async def test_halves_are_the_whole_in_order():
    batch = [IncomingMessage(uid, (), None, None, 1, (b"Subject: %d\r\n\r\n" % uid,), "stored") for uid in range(1, 6)]
    prepared = await Prepared.of(uuid4(), batch)
    first, second = prepared.half(second=False), prepared.half(second=True)
    assert [m.uid for m in [*first.messages, *second.messages]] == [1, 2, 3, 4, 5]
    assert [*first.rows, *second.rows] == prepared.rows
    assert [brief.subject for brief in [*first.briefs, *second.briefs]] == ["1", "2", "3", "4", "5"]
    assert first.account_id == second.account_id == prepared.account_id
