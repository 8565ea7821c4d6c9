"""A watch of a server that lies, floods, drips, falls silent or goes, at every stage of a renewal.

What is asserted is which fault the waiting task gets, whether its session may be used on, and that nobody else on the
same lookout notices.  That nothing is left in the lookout is checked at the end of each conversation.
"""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from daemon.errors import Fault, FaultKind
from daemon.imap import lanes
from daemon.imap import watch as watch_module
from daemon.imap.faults import Refused
from daemon.imap.session import Session
from daemon.imap.watch import NOOP, SIMPLE, Question
from daemon.imap.wire import Wire
from daemon.network.tls import handshake
from ops.testservers.tls import Authority
from tests.daemon.imap.scripted import BOUND, Peer, connected, looking_out, scripted, watched
from tests.daemon.imap.watching import (
    ANSWER,
    STAGES,
    Act,
    Renewing,
    Server,
    closes,
    falls_silent,
    looking,
    resets,
    says,
)

Asking = Callable[[Session], Callable[[], Question | None]]


def noop(_: Session) -> Callable[[], Question | None]:
    return lambda: NOOP


both = pytest.mark.parametrize("asking", [noop, looking], ids=["noop", "select"])


async def fault_of(server: Server, asking: Asking = looking) -> FaultKind:
    """What the task gets; its session is then good for nothing."""
    async with watched(server) as (session, lookout):
        with pytest.raises(Fault) as caught:
            await session.watch(Renewing(asking(session)), lookout)
        assert session.dirty
        assert lookout.waiting == 0
        return caught.value.kind


WRONG = [
    *((stage, b"XX OK what") for stage in STAGES),
    *((stage, b"\0\1") for stage in STAGES),
    *((stage, b"") for stage in STAGES),
    *((stage, b" OK no tag") for stage in STAGES),
    *((stage, b"+ go on") for stage in STAGES),  # at the beginning, the one behind it is too many
    *((stage, b"%tag% OK over") for stage in STAGES if stage != "ending"),  # twice, or unasked
    *((stage, b"%tag% PREAUTH over") for stage in STAGES),
    *((stage, b"%next% OK not yet") for stage in STAGES),
    *((stage, b"A1 OK again") for stage in STAGES[3:]),
    ("asking", b"%next% NO not yet"),
    ("beginning 2", b"A2 OK again"),
    ("idling 2", b"A2 OK again"),
]


@both
@pytest.mark.parametrize(("stage", "line"), WRONG)
async def test_what_does_not_belong_there_breaks_the_protocol(stage: str, line: bytes, asking: Asking) -> None:
    assert await fault_of(Server({stage: says(line)}), asking) is FaultKind.PROTOCOL


@both
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b" NO not now", FaultKind.REFUSED),
        (b" BAD what", FaultKind.REFUSED),
        (b" NO [UNAVAILABLE] later", FaultKind.UNAVAILABLE),
        (b" BYE what", FaultKind.PROTOCOL),
        (b" OKAY", FaultKind.PROTOCOL),
    ],
)
async def test_a_question_refused_costs_the_session(answer: bytes, kind: FaultKind, asking: Asking) -> None:
    assert await fault_of(Server(refusal=answer), asking) is kind, "IDLE is still to be answered"


@pytest.mark.parametrize("answer", [b"NO not now", b"BAD what"])
@pytest.mark.parametrize("stage", ["beginning", "idling", "beginning 2", "idling 2"])
async def test_idle_refused_leaves_a_sound_session(stage: str, answer: bytes) -> None:
    async def refuse(peer: Peer, tag: bytes) -> None:
        await peer.say(tag + b" " + answer)
        await peer.say(await peer.expect(b"NOOP") + b" OK done")
        await peer.hear_out()

    async with watched(Server({stage: refuse})) as (session, lookout):
        with pytest.raises(Refused):
            await session.watch(Renewing(looking(session)), lookout)
        assert not session.dirty
        await session.noop()


@both
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("act", [says(b"* BYE shutting down"), closes, resets], ids=["bye", "close", "reset"])
async def test_who_goes_is_lost(stage: str, act: Act, asking: Asking) -> None:
    assert await fault_of(Server({stage: act}), asking) is FaultKind.LOST


@both
@pytest.mark.parametrize("stage", ["beginning", "ending", "asking", "beginning 2"])
@pytest.mark.parametrize("drips", [False, True])
async def test_silence_is_lost(stage: str, drips: bool, asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    for time in ("DONE_TIME", "ANSWER_TIME"):
        monkeypatch.setattr(watch_module, time, 0.1)

    async def talk_on(peer: Peer, _: bytes) -> None:
        while True:
            await peer.say(b"* OK Still here")
            await trio.sleep(0.02)

    assert await fault_of(Server({stage: talk_on if drips else falls_silent}), asking) is FaultKind.LOST


async def test_a_late_answer_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "DONE_TIME", 0.1)

    async def late(_: Peer, __: bytes) -> None:
        await trio.sleep(0.3)

    server = Server({"asking": late})
    async with watched(server) as (session, lookout):
        renewals = Renewing(looking(session), lambda: None)
        assert not await session.watch(renewals, lookout)
        assert (renewals.done, server.idles, server.dones) == (1, 2, 2), "the task took over, and went on"
        await session.noop()


@pytest.mark.parametrize("stage", STAGES)
async def test_a_drip_is_heard(stage: str) -> None:
    async def drip(peer: Peer, _: bytes) -> None:
        for byte in b"* OK drip\r\n* 5 EXISTS\r\n":
            await peer.raw(bytes([byte]))
            await trio.sleep(0.002)

    async with watched(Server({stage: drip})) as (session, lookout):
        news = await session.watch(Renewing(looking(session), lambda: None), lookout)
        assert news.exists == (None if stage == "asking" else 5)
        await session.noop()


async def test_an_answer_in_too_many_packets_is_left_to_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "READS", 3)

    async def apart(peer: Peer, _: bytes) -> None:
        for _ in range(10):
            await peer.say(b"* 0 RECENT")
            await trio.sleep(0.01)

    server = Server({"asking": apart})
    async with watched(server) as (session, lookout):
        renewals = Renewing(looking(session), lambda: None)
        assert not await session.watch(renewals, lookout)
        assert (renewals.done, server.idles, server.dones) == (1, 2, 2)
        assert lookout.seen <= 5
        await session.noop()


@pytest.mark.parametrize(
    "lines",
    [
        [b"* %d FETCH (UID %d FLAGS (\\Seen) MODSEQ (91))" % (uid, uid) for uid in range(1, 2500)],
        [b"* VANISHED (EARLIER) " + b",".join(b"%d" % uid for uid in range(10_001, 60_000, 3))],
        [b"* OK " + b"x" * 100_000],
    ],
    ids=["fetch", "vanished", "line"],
)
async def test_a_long_answer_is_left_to_the_task(lines: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "BEARABLE", 2_000.0)  # what was asked for may have more
    server = Server(answers=(*ANSWER, *lines))
    async with watched(server) as (session, lookout):
        renewals = Renewing(looking(session), lambda: None)
        assert not await session.watch(renewals, lookout)
        nothing_new = lines[0].startswith(b"* OK")
        assert (renewals.done, server.idles, server.dones) == (nothing_new, 2, 2)
        assert lookout.seen < 5, "it reads little of what is much"
        await session.noop()


async def test_a_long_line_in_idle_is_heard() -> None:
    lines = b"* OK " + b"x" * 3 * SIMPLE, b"* 5 EXISTS"
    async with watched(Server({"idling": says(*lines)})) as (session, lookout):
        assert (await session.watch(Renewing(), lookout)).exists == 5
        await session.noop()


async def test_half_a_long_line_does_not_hold_up_the_end() -> None:
    async def half(peer: Peer, _: bytes) -> None:
        await peer.raw(b"* OK " + b"x" * 2 * SIMPLE)

    async def rest(peer: Peer, _: bytes) -> None:
        await peer.say(b"y")

    server = Server({"idling": half, "ending": rest})
    async with watched(server) as (session, lookout):
        assert not await session.watch(Renewing(looking(session)), lookout)
        assert server.heard == [b"A1 IDLE", b"DONE"], "its time is over: nothing is asked"
        await session.noop()


async def test_a_line_without_end_breaks_the_protocol() -> None:
    async def endless(peer: Peer, _: bytes) -> None:
        while True:
            await peer.raw(b"x" * 65536)

    assert await fault_of(Server({"idling": endless})) is FaultKind.PROTOCOL


@pytest.mark.parametrize("stage", STAGES)
async def test_a_flood_is_weighed_and_keeps_nobody_waiting(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "BEARABLE", 20_000.0)
    monkeypatch.setattr(lanes, "LONG_ANSWER", 20_000.0)
    monkeypatch.setattr(watch_module, "LONG_ANSWER", 20_000.0)
    order: list[str] = []
    flooding = trio.Event()

    async def flood(peer: Peer, _: bytes) -> None:
        flooding.set()
        while True:
            await peer.raw(b"* OK Still here and nothing new\r\n" * 500)

    async def tell(peer: Peer, _: bytes) -> None:
        await flooding.wait()
        await peer.say(b"* 5 EXISTS")

    async def drowned(port: int) -> None:
        session = connected(port)
        with pytest.raises(Fault) as caught:
            await session.watch(Renewing(looking(session)), lookout)
        assert caught.value.kind is FaultKind.PROTOCOL
        order.append("flood")
        await session.aclose()

    async def served(port: int) -> None:
        session = connected(port)
        assert (await session.watch(Renewing(), lookout)).exists == 5
        order.append("news")
        await session.aclose()

    bad, good = Server({stage: flood}), Server({"idling": tell})
    async with scripted(bad) as flooded, scripted(good) as quiet, looking_out() as lookout, trio.open_nursery() as two:
        two.start_soon(served, quiet)
        two.start_soon(drowned, flooded)
    assert order == ["news", "flood"]


async def test_a_fault_is_the_liars_alone() -> None:
    results: dict[int, object] = {}

    async def watch(at: int, port: int) -> None:
        session = connected(port)
        try:
            results[at] = (await session.watch(Renewing(looking(session)), lookout)).exists
        except Fault as fault:
            results[at] = fault.kind
        await session.aclose()

    bad, good = Server({"asking": says(b"XX OK what")}), Server({"idling 2": says(b"* 5 EXISTS")})
    async with scripted(bad) as lying, scripted(good) as honest, looking_out() as lookout, trio.open_nursery() as two:
        two.start_soon(watch, 0, lying)
        two.start_soon(watch, 1, honest)
    assert results == {0: FaultKind.PROTOCOL, 1: 5}


class Corked(trio.abc.Stream):
    """Gathers what is sent until it is told to let go: TLS records of our size in one packet."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.held: bytes | None = None

    async def send_all(self, data: bytes) -> None:
        if self.held is None:
            await self.stream.send_all(data)
        else:
            self.held += data

    async def let_go(self) -> None:
        held, self.held = self.held or b"", None
        await self.stream.send_all(held)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self.stream.receive_some(max_bytes))

    async def aclose(self) -> None:
        await self.stream.aclose()


async def test_what_openssl_holds_back_is_heard(authority: Authority, tmp_path: Path) -> None:
    """Records that do not fit into one read: the kernel has nothing more to tell, and the news are in the rest."""
    context: ssl.SSLContext = authority.issue().server_context(tmp_path)

    async def script(peer: Peer) -> None:
        corked = Corked(peer.stream)
        peer.stream = trio.SSLStream(corked, context, server_side=True, https_compatible=True)
        tag = await peer.expect(b"IDLE")
        corked.held = b""
        await peer.say(b"+ " + b"x" * 11_996)
        await peer.say(b"* OK " + b"x" * 11_993)
        await peer.say(b"* OK " + b"x" * 8_000, b"* OK " + b"x" * 4_000, b"* 5 EXISTS")
        await corked.let_go()
        assert await peer.line() == b"DONE"
        await peer.say(tag + b" OK idled")
        await peer.hear_out()

    async with scripted(script) as port, looking_out() as lookout:
        plain = connected(port)
        stream = await handshake(plain.wire.stream.detach(), "localhost", authority.client_context())
        session = Session(Wire(stream, "localhost", patience=BOUND))
        with trio.fail_after(5):
            assert (await session.watch(Renewing(), lookout)).exists == 5
        await session.aclose()
