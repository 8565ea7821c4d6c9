"""A watch of a server that keeps to the rules: what wakes the task that waits, what does not, and how IDLE is renewed.

Every conversation is over real sockets; `Server` checks that the client keeps to the order of IDLE, DONE and question.
"""

from collections.abc import Callable

import pytest
import trio

from daemon.imap import watch as watch_module
from daemon.imap.news import FlagNews, News
from daemon.imap.selected import SelectedFolder
from daemon.imap.session import Session
from daemon.imap.watch import NOOP, Question
from daemon.network import PlainSocket
from tests.daemon.imap.scripted import Peer, connected, looking_out, scripted, talk, watched
from tests.daemon.imap.watching import ANSWER, STAGES, Renewing, Server, Steps, looking, says, settled

Asking = Callable[[Session], Callable[[], Question | None]]


def noop(_: Session) -> Callable[[], Question | None]:
    return lambda: NOOP


both = pytest.mark.parametrize("asking", [noop, looking], ids=["noop", "select"])


async def is_usable(session: Session) -> bool:
    await session.noop()
    return not session.dirty


async def test_a_sign_of_life_wakes_nobody_and_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "QUIET", 0.0)
    steps, heard_at, counts = Steps(), list[float](), list[int]()

    async def chat(peer: Peer, _: bytes) -> None:
        for _ in range(5):
            await trio.sleep(0.01)
            counts.append(steps.count)
            heard_at.append(session.heard_at)
            await peer.say(b"* OK Still here")
        await trio.sleep(0.01)
        await peer.say(b"* 5 EXISTS")

    async with watched(Server({"idling": chat})) as (session, lookout):
        with steps:
            news = await session.watch(Renewing(), lookout)
        assert news.exists == 5
        assert len(set(counts)) == 1, "the task slept"
        assert sorted(set(heard_at)) == heard_at, "each was heard"
        assert lookout.seen == 6
        assert session.news_at > heard_at[-1]
        assert await is_usable(session)


async def test_who_talks_much_is_heard_by_the_task() -> None:
    async def chat(peer: Peer, _: bytes) -> None:
        for _ in range(20):
            await peer.say(b"* OK Still here")
            await trio.sleep(0.005)
        await peer.say(b"* 5 EXISTS")

    async with watched(Server({"idling": chat})) as (session, lookout):
        noted = session.meter._units
        assert (await session.watch(Renewing(), lookout)).exists == 5
        assert session.meter._units - noted > 20, "and weighed"


@both
async def test_renewals_take_no_step_of_the_task(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    server, steps, counts, sent = Server(), Steps(), list[int](), list[bytes]()
    send_now = PlainSocket.send_now

    def sending(stream: PlainSocket, data: bytes) -> None:
        sent.append(data)
        send_now(stream, data)

    monkeypatch.setattr(PlainSocket, "send_now", sending)

    async def count(_: Peer, __: bytes) -> None:
        counts.append(steps.count)

    server.acts = dict.fromkeys((*STAGES[1:], "ending 3", "asking 3", "beginning 4"), count)
    server.acts["idling 4"] = says(b"* 5 EXISTS")
    async with watched(server) as (session, lookout):
        renewals = Renewing(*[asking(session)] * 3)
        with steps:
            news = await session.watch(renewals, lookout)
        assert news.exists == 5
        assert (renewals.asked, renewals.done) == (3, 3)
        assert (server.idles, server.dones, server.asked) == (4, 4, 3)
        assert len(counts) == 8
        assert len(set(counts)) == 1, "the task slept"
        assert await is_usable(session)
        words = b"NOOP" if asking is noop else b'EXAMINE "INBOX" (QRESYNC (7 90))'
        assert server.packets[:3] == [b"A1 IDLE\r\n", b"DONE\r\n", b"A2 " + words + b"\r\nA3 IDLE\r\n"]
        assert sent == server.packets[1:7], "each in one piece"
        assert session.statistics().wire.sent == sum(map(len, server.packets))


async def test_a_renewal_leaves_the_meter_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lookout weighs nothing: what it reads must not be taken for answers as heavy as the task's last word."""
    server = Server({"beginning": says(b"* OK " + b"x" * 100_000), "idling 9": says(b"* 5 EXISTS")})
    async with watched(server) as (session, lookout):
        renewals = Renewing(*[looking(session)] * 8, period=0.0)
        assert (await session.watch(renewals, lookout)).exists == 5
        assert renewals.done == 8
        assert session.meter._answers == session.meter._wanted == 0


@both
@pytest.mark.parametrize("stage", STAGES)
async def test_news_come_out_at_every_stage(stage: str, asking: Asking) -> None:
    server = Server({stage: says(b"* 5 EXISTS", b"* 5 FETCH (UID 9 FLAGS (\\Seen))")})
    async with watched(server) as (session, lookout):
        renewals = Renewing(asking(session))
        news = await session.watch(renewals, lookout)
        if stage == "asking" and asking is looking:
            assert not news, "the answer was not as expected: a run finds out why"
        else:
            assert (news.exists, dict(news.flags)) == (5, {9: FlagNews((b"\\Seen",), None)})
        assert renewals.done == (stage == "idling 2")
        assert await is_usable(session)


@both
@pytest.mark.parametrize("stage", STAGES)
async def test_literals_are_read_at_every_stage(stage: str, asking: Asking) -> None:
    async def act(peer: Peer, _: bytes) -> None:
        for packet in (b"* 4 FETCH (UID 9 FLAGS ({5}", b"\r\n\\S", b"een", b"))\r\n"):
            await peer.raw(packet)
            await trio.sleep(0.01)

    server = Server({stage: act})
    async with watched(server) as (session, lookout):
        news = await session.watch(Renewing(asking(session)), lookout)
        found = {} if stage == "asking" and asking is looking else {9: FlagNews((b"\\Seen",), None)}
        assert dict(news.flags) == found
        assert await is_usable(session)


async def test_news_in_the_answer_to_noop() -> None:
    async with watched(Server({"asking": says(b"* 4 EXISTS")})) as (session, lookout):
        assert (await session.watch(Renewing(noop(session)), lookout)).exists == 4
        assert await is_usable(session)


@pytest.mark.parametrize("at", [2, 4, 5, 6])
async def test_an_answer_that_does_not_fit_ends_the_watch(at: int) -> None:
    server = Server(answers=ANSWER[:at] + ANSWER[at + 1 :])
    async with watched(server) as (session, lookout):
        renewals = Renewing(looking(session))
        assert not await session.watch(renewals, lookout)
        assert (renewals.asked, renewals.done, server.idles, server.dones) == (1, 0, 2, 2)
        assert await is_usable(session)


async def test_no_question_ends_the_watch() -> None:
    server = Server()
    async with watched(server) as (session, lookout):
        renewals = Renewing(noop(session), lambda: None)
        assert not await session.watch(renewals, lookout)
        assert (renewals.asked, renewals.done, server.idles, server.dones) == (2, 1, 2, 2)
        assert await is_usable(session)


async def test_a_renewal_that_is_due_already_waits_for_idle() -> None:
    server = Server()
    async with watched(server) as (session, lookout):
        renewals = Renewing(noop(session), lambda: None, period=-60.0)
        assert not await session.watch(renewals, lookout)
        assert server.heard == [b"A1 IDLE", b"DONE", b"A2 NOOP", b"A3 IDLE", b"DONE"]


async def test_an_idle_with_a_lookout_ends_in_its_time() -> None:
    async with watched(Server()) as (session, lookout):
        assert not await session.idle(0.05, lookout)
        assert await is_usable(session)


async def test_without_a_lookout_a_watch_is_an_idle() -> None:
    server = Server()
    async with watched(server) as (session, _):
        renewals = Renewing(noop(session))
        assert not await session.watch(renewals)
        assert (renewals.asked, renewals.done) == (0, 0)
        assert server.heard == [b"A1 IDLE", b"DONE"]


async def test_a_stream_that_cannot_be_watched_is_waited_for() -> None:
    async with talk(Server({"idling": says(b"* 5 EXISTS")})) as session, looking_out() as lookout:
        assert (await session.watch(Renewing(), lookout)).exists == 5


@both
@pytest.mark.parametrize("stage", STAGES)
async def test_an_interrupt_ends_the_watch_in_order(stage: str, asking: Asking) -> None:
    async def interrupt(_: Peer, __: bytes) -> None:
        session.interrupt()
        session.interrupt()
        await trio.sleep(0.01)

    server = Server({stage: interrupt})
    async with watched(server) as (session, lookout):
        assert not await session.watch(Renewing(asking(session)), lookout)
        assert server.idles == server.dones == (1 if STAGES.index(stage) < 3 else 2)
        assert await is_usable(session)
        assert not await session.idle(0.05, lookout), "it is not interrupted twice"
        assert server.dones in {2, 3}


@both
@pytest.mark.parametrize("stage", STAGES)
async def test_a_cancelled_watch_costs_the_session_and_leaves_nothing(stage: str, asking: Asking) -> None:
    scope = trio.CancelScope()

    async def cancel(_: Peer, __: bytes) -> None:
        scope.cancel()

    async with watched(Server({stage: cancel})) as (session, lookout):
        with scope:
            await session.watch(Renewing(asking(session)), lookout)
        assert scope.cancelled_caught
        assert session.dirty
        assert (lookout.waiting, session._watch) == (0, None)


async def test_the_question_hears_of_the_folder_that_is_selected_now() -> None:
    found: list[SelectedFolder] = []

    def equal(folder: SelectedFolder) -> bool:
        found.append(folder)
        return settled(folder)

    server = Server({"idling 2": says(b"* 5 EXISTS")}, answers=(b"* 9 EXISTS", b"* OK [CLOSED] x", *ANSWER))
    async with watched(server) as (session, lookout):
        renewals = Renewing(looking(session, equal))
        assert (await session.watch(renewals, lookout)).exists == 5
        assert (renewals.done, found[0].exists, found[0].name) == (1, 4, "INBOX")


@pytest.mark.parametrize(
    ("words", "news", "done"),
    [
        ({}, News(), 1),
        ({"ending": b"* 5 EXISTS"}, News(exists=5), 0),
        ({"asking": b"* 3 FETCH (UID 3 FLAGS () MODSEQ (91))"}, News(), 0),
        ({"beginning 2": b"* VANISHED 3"}, News(exists=0, vanished=(range(3, 4),)), 0),
        ({"ending": b"* 2 FETCH (UID 2 FLAGS ({5}\r\n\\Seen))"}, News(flags={2: FlagNews((b"\\Seen",), None)}), 0),
        ({"beginning": b"* OK [ALERT] hi"}, News(alerts=("hi",)), 1),
    ],
    ids=["quiet", "ending", "asking", "beginning", "literal", "alert"],
)
async def test_a_renewal_split_anywhere_is_the_same(words: dict[str, bytes], news: News, done: int) -> None:
    """All that the server says to a client that has waited is in one packet, but for one cut: at each byte of it."""
    outcomes: list[tuple[News, int, bool]] = []

    async def watch(at: int) -> int:
        server = Cutting(at, words)
        async with slots, scripted(server) as port:
            session = connected(port)
            try:
                renewals = Renewing(looking(session), lambda: None)
                told = await session.watch(renewals, lookout)
                outcomes.append((told, renewals.done, await is_usable(session)))
            finally:
                await session.aclose()
        return server.said

    async with looking_out() as lookout:
        slots = trio.CapacityLimiter(100)
        whole = await watch(0)
        async with trio.open_nursery() as nursery:
            for at in range(1, whole):
                nursery.start_soon(watch, at)
    assert len(outcomes) == whole > 50
    assert all(outcome == (news, done, True) for outcome in outcomes)


class Cutting(Server):
    """Holds back what it says until it has to listen, and says it in one packet, but for a cut."""

    def __init__(self, at: int, words: dict[str, bytes]) -> None:
        super().__init__()
        self._at = at
        self._words = words
        self._held = b""
        self.said = 0

    async def __call__(self, peer: Peer) -> None:
        self._send, peer.raw = peer.raw, self._hold  # type: ignore[method-assign]  # of this peer alone
        await super().__call__(peer)

    async def _hold(self, data: bytes) -> None:
        self._held += data

    async def _act(self, stage: str, number: int, peer: Peer, tag: bytes) -> None:
        if words := self._words.get(stage if number == 1 else f"{stage} {number}"):
            await peer.say(words)

    async def _line(self, peer: Peer) -> bytes:
        if b"\r\n" not in peer.buffer:
            held, self._held = self._held, b""
            cut = self._at - self.said
            self.said += len(held)
            if 0 < cut < len(held):
                await self._send(held[:cut])
                await trio.sleep(0.01)
                held = held[cut:]
            if held:
                await self._send(held)
        return await super()._line(peer)
