"""Whatever bytes come, in whatever pieces, at whatever stage: a watch ends with news, a fault, or a refusal.

No sockets: the stream gives out the next piece whenever somebody reads, and the lookout that stands in for the real one
calls the watcher for each piece, and says that it is due wherever the example wants it.
"""

from collections import deque

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daemon.errors import Fault
from daemon.imap import watch as watch_module
from daemon.imap.faults import Refused
from daemon.imap.news import News
from daemon.imap.responses import Response
from daemon.imap.session import Session
from daemon.imap.watch import NOOP, READS, SIMPLE, Stage, Watch
from daemon.imap.wire import Wire
from daemon.network import WatchedSocket
from tests.daemon.imap.watching import ANSWER, Renewing, looking

DUE = None
"""Beside the pieces: the lookout's clock strikes."""

Events = list[bytes | None]

LINES = (
    *ANSWER, b"+ idling", b"+", b"* OK Still here", b"* 5 EXISTS", b"* 1 EXPUNGE", b"* VANISHED 3", b"* OK [CLOSED] x",
    b"* VANISHED (EARLIER) 1:4294967295", b"* 3 FETCH (UID 3 FLAGS (\\Seen) MODSEQ (91))",
    b"* 3 FETCH (UID 3 FLAGS ({3}", b"* 3 FETCH ((((", b"* SEARCH" + b" 1234" * 2000, b"* VANISHED 1" + b",3" * 4000,
    b"* SEARCH 1 2 3", b"* STATUS INBOX (MESSAGES 4)", b"* CAPABILITY IMAP4rev1", b"* BYE gone",
    b"* OK [CAPABILITY IMAP4rev1] x", b"* OK [ALERT] \xff\0", b"* LIST () NIL {1}", b"", b"* ", b"* 4", b" A1 OK",
    b"* OK [", b"* 99999999999 EXISTS", b"* " + b"x" * 200 + b" y", b"* OK " + b"x" * 2 * SIMPLE, b"* NO [ALERT",
    *(b"A%d %b" % (n, word) for n in range(1, 6) for word in (b"OK done", b"OK [READ-ONLY] x", b"NO no", b"BAD", b"X")),
)  # fmt: skip

line = st.sampled_from([each + end for each in LINES for end in (b"\r\n", b"\n")])
packet = st.one_of(line, st.lists(line, min_size=2, max_size=6).map(b"".join), st.binary(min_size=1, max_size=64))
torn = st.tuples(packet, st.integers(1, 40)).map(
    lambda t: [t[0][at : at + t[1]] for at in range(0, min(len(t[0]), 30 * t[1]), t[1])]
)
ROUND: Events = [
    b"+ idling\r\n", DUE, b"A1 OK idled\r\n", b"\r\n".join((*ANSWER, b"A2 OK done\r\n")), b"+ idling\r\n", DUE,
    b"A3 OK idled\r\n", b"\r\n".join((*ANSWER, b"A4 OK done\r\n")), b"+ idling\r\n", DUE, b"A5 OK idled\r\n",
]  # fmt: skip
"""All in order: two renewals, and the end."""

any_events = st.lists(st.one_of(st.just([DUE]), packet.map(lambda p: [p]), torn), max_size=12).map(
    lambda groups: [event for group in groups for event in group]
)
astray = st.tuples(st.integers(0, len(ROUND)), any_events).map(lambda t: [*ROUND[: t[0]], *t[1], *ROUND[t[0] :]])


class Fed(WatchedSocket):
    """Gives out one piece at each reading, and in the end an end."""

    __slots__ = ("events", "reads", "said")

    def __init__(self, events: Events) -> None:
        self.events = deque(events)
        self.reads = 0
        self.said: list[bytes] = []

    def fileno(self) -> int:
        return 3

    def receive_now(self) -> bytes | None:
        """For the lookout's watcher: not before the clock strikes, where that is next."""
        if self.events and self.events[0] is DUE:
            return None
        self.reads += 1
        return self.events.popleft() if self.events else b""

    async def receive_some(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while self.events and self.events[0] is DUE:
            self.events.popleft()
        self.reads += 1
        piece = self.events.popleft() if self.events else b""
        assert piece is not None
        if len(piece) > max_bytes:
            self.events.appendleft(piece[max_bytes:])
        return piece[:max_bytes]

    def send_now(self, data: bytes) -> None:
        self.said.append(data)

    async def send_all(self, data: bytes) -> None:
        self.said.append(data)


class Calling:
    """In place of the lookout: calls the watcher as the events want it."""

    def __init__(self, stream: Fed) -> None:
        self._stream = stream

    async def wait(self, fd: int, watcher: Watch, due_at: float) -> None:
        enough = False
        while not enough:
            if self._stream.events and self._stream.events[0] is DUE:
                self._stream.events.popleft()
                enough = watcher.due()
            else:
                enough = watcher.readable()
            assert watcher.stage is not Stage.ENDED, "no stage to wait at"
        await trio.lowlevel.checkpoint()

    def due_again(self, fd: int, due_at: float) -> None:
        assert fd == 3

    def wake(self, fd: int) -> None:
        raise AssertionError("nobody interrupts")


async def outcome(events: Events, *, select: bool, quiet: float = 0.0) -> tuple[News | Fault | Refused, Renewing]:
    stream = Fed(events)
    session = Session(Wire(stream, "localhost"))
    question = looking(session) if select else lambda: NOOP
    renewals = Renewing(question, question, lambda: None)
    heard = 0
    hear = Watch.hear

    def counted(self: Watch, response: Response) -> bool:
        nonlocal heard
        heard += 1
        return hear(self, response)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Watch, "hear", counted)
        patch.setattr(watch_module, "QUIET", quiet)
        result: News | Fault | Refused
        try:
            result = await session.watch(renewals, Calling(stream))  # type: ignore[arg-type]  # in a lookout's place
        except (Fault, Refused) as exc:
            result = exc
    assert session.dirty == isinstance(result, Fault)
    # Bounded: a reading for a piece, and for where a literal ends; a word for a line or a piece of a list; and no more
    # is said than was asked for.
    text = b"".join(event for event in events if event is not None)
    size = len(text)
    assert stream.reads <= len(events) + text.count(b"{") + size // (1 << 15) + 2
    assert heard <= size // 2 + 1
    assert len(stream.said) <= 1 + 2 * renewals.asked + 1
    assert stream.said.count(b"DONE\r\n") <= sum(data.endswith(b" IDLE\r\n") for data in stream.said)
    return result, renewals


@given(events=st.one_of(any_events, astray, astray), select=st.booleans(), quiet=st.sampled_from([0.0, 1.0]))
@settings(max_examples=600)
@example(events=[b"+ idling\r\n", DUE, *[b"* OK x\r\n"] * (READS + 5)], select=True, quiet=0.0)
@example(events=[b"+ idling\r\n", DUE, b"A1 OK\r\nA2 OK\r\n+ idling\r\n"], select=False, quiet=0.0)
@example(events=[b"+ idling\r\n", b"* OK " + b"x" * 2 * SIMPLE, DUE, b"\r\nA1 OK x\r\n"], select=True, quiet=0.0)
def test_only_faults_and_refusals_come_out(events: Events, select: bool, quiet: float) -> None:
    """*quiet* says whether the lookout or the task hears what comes in IDLE, where no time passes between two words."""
    trio.run(lambda: outcome(events, select=select, quiet=quiet))


async def test_the_round_that_is_led_astray_is_one() -> None:
    result, renewals = await outcome(ROUND, select=True)
    assert result == News()
    assert (renewals.asked, renewals.done) == (3, 2)
