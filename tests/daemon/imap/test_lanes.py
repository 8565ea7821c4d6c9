"""Who reads much takes turns and stops when it is too much; who reads little never waits."""

import random

import pytest
import trio
from trio.testing import MockClock

from daemon.errors import Fault, FaultKind
from daemon.imap.allowance import Allowance
from daemon.imap.conversation import Conversation
from daemon.imap.lanes import BEARABLE, LIGHT, LONG_ANSWER, SECONDS, SHARE, SLICE, Meter, lanes, weight
from daemon.imap.parse import Malformed, values
from daemon.imap.wire import Wire


def test_an_allowance_is_so_much_at_once_and_so_much_a_second():
    allowance = Allowance(10, 2, now=0.0)
    assert [allowance.take(5, 0.0), allowance.take(5, 0.0), allowance.take(1, 0.0)] == [0.0, 0.0, 0.5]
    assert allowance.take(1, 1.0) == 0.0
    assert allowance.take(11, 1000.0) == 0.5, "no more than the most comes together"


def test_an_extended_allowance_lasts_until_it_is_taken_back():
    allowance = Allowance(10, 1, now=0.0)
    allowance.extend(100)
    assert allowance.take(90, 5.0) == 0.0
    allowance.extend(100)
    allowance.end_extension()
    assert allowance.take(11, 5.0) == 1.0


async def feed(meter: Meter, units: int, *, wanted: bool = False, size: int = 0) -> None:
    """As a conversation does it."""
    while units > 0:
        if meter.note(size):
            await meter.pause()
        if wanted:
            meter.wanted()
        units -= weight(size)


async def test_a_little_never_waits(autojump_clock: MockClock):
    meter = Meter()
    await feed(meter, int(LIGHT) - SLICE)
    assert lanes().held_back == 0
    assert trio.current_time() == autojump_clock.current_time()


async def test_floods_have_a_share_of_the_loop_together(autojump_clock: MockClock):
    began, units = trio.current_time(), 50_000
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(feed, Meter(), units)
    took = trio.current_time() - began
    heavy = 10 * (units - LIGHT)
    assert took == pytest.approx(heavy * SECONDS / SHARE, rel=0.1)


async def test_what_was_asked_for_is_not_held_back_by_floods_beside_it(autojump_clock: MockClock):
    done: list[str] = []

    async def one(name: str, units: int, *, wanted: bool) -> None:
        await feed(Meter(), units, wanted=wanted)
        done.append(name)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(lambda: one("flood", 20_000, wanted=False))
        nursery.start_soon(lambda: one("first sync", 1_000_000, wanted=True))
        while not done:  # noqa: ASYNC110  # the clock is looked at
            await trio.sleep(0.001)
        assert done == ["first sync"]
        assert trio.current_time() - began < 1.0


async def test_a_session_that_reads_much_lets_others_go_first():
    steps = 0

    async def light() -> None:
        nonlocal steps
        while True:
            await trio.lowlevel.checkpoint()
            steps += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(light)
        await feed(Meter(), 100 * SLICE, wanted=True)
        assert steps >= 90, "a step for each slice"
        nursery.cancel_scope.cancel()


async def test_more_than_can_be_borne_ends_the_session(autojump_clock: MockClock):
    meter = Meter()
    with pytest.raises(Fault, match="floods us") as caught:
        await feed(meter, 2 * int(BEARABLE))
    assert caught.value.kind is FaultKind.PROTOCOL


async def test_what_was_asked_for_may_have_any_length(autojump_clock: MockClock):
    await feed(Meter(), 3 * int(BEARABLE), wanted=True)


async def test_a_long_answer_is_no_flood_until_it_has_ended(autojump_clock: MockClock):
    meter = Meter()
    meter.expect(LONG_ANSWER)
    await feed(meter, int(LONG_ANSWER) // 2, size=900_000)
    meter.expect(0.0)
    with pytest.raises(Fault, match="floods us"):
        await feed(meter, 2 * int(BEARABLE))


class Endless:
    """A server that says one thing for ever."""

    def __init__(self, line: bytes) -> None:
        self.data = line * (32768 // len(line))
        self.given = 0

    async def receive_some(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        self.given += len(self.data)
        return self.data[:max_bytes]

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("line", [b"* 1 EXISTS\r\n", b"* OK Still here\r\n", b"* 7 FETCH (UID 7 FLAGS ())\r\n"])
async def test_a_conversation_that_is_flooded_ends(
    line: bytes, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("daemon.imap.lanes.BEARABLE", 5000.0)
    endless = Endless(line)
    conversation = Conversation(Wire(endless, "host.test"))
    with pytest.raises(Fault, match="floods us"):
        await conversation.command(b"NOOP")
    assert conversation.dirty
    assert endless.given < (5000 + 5000) * len(line)


def test_a_line_of_more_values_than_anybody_asked_for_is_malformed():
    assert len(values([b"a " * 19_000])) == 19_000
    for text in (b"a " * 30_000, b"(" * 30_000, b"()" * 15_000):
        with pytest.raises(Malformed) as caught:
            values([text])
        assert caught.value.detail == "too many values"


@pytest.mark.parametrize("literals", [(0,), (4_000,), (1_000, 60_000, 500), (3_000_000,)])
async def test_a_large_mailbox_that_was_asked_for_is_no_flood(literals: tuple[int, ...], autojump_clock: MockClock):
    meter, units, rng = Meter(), 0, random.Random(1)
    while units < 20 * BEARABLE:
        text, literal = rng.randrange(60, 2000), rng.choice(literals)
        if meter.note(text, literal):
            await meter.pause()
        meter.wanted()
        units += weight(text, literal)
    assert lanes().held_back == 0


async def test_answers_of_many_servers_do_not_queue_as_floods_do(autojump_clock: MockClock):
    """Thousands of servers without ESEARCH answer with all their UIDs when all accounts start."""

    async def search() -> None:
        meter = Meter()
        meter.expect(LONG_ANSWER)
        for _ in range(10):
            if meter.note(20_000):
                await meter.pause()
            meter.answers()

    async with trio.open_nursery() as nursery:
        for _ in range(1000):
            nursery.start_soon(search)
    assert lanes().held_back == 0


async def test_answers_without_an_end_are_a_flood(autojump_clock: MockClock):
    meter, told = Meter(), 0

    async def answer(units: int) -> None:
        nonlocal told
        while told < units:
            if meter.note(900):
                await meter.pause()
            meter.answers()
            told += weight(900)

    meter.expect(LONG_ANSWER)
    await answer(int(LONG_ANSWER) // 2)
    with pytest.raises(Fault, match="floods us"):
        await answer(2 * int(LONG_ANSWER))
