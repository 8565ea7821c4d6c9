"""A renewal that the lookout leaves to the task, at any point: what comes of it is the same.

With so many READS the task takes over when the server answers DONE (0), the question (1), or IDLE (2) and (3).
"""

from collections.abc import Callable

import pytest
import trio

from daemon.errors import Fault, FaultKind
from daemon.imap import watch as watch_module
from daemon.imap.selected import SelectedFolder
from daemon.imap.session import Session
from daemon.imap.watch import NOOP, Question
from tests.daemon.imap.scripted import Peer, watched
from tests.daemon.imap.watching import ANSWER, Act, Renewing, Server, Steps, falls_silent, looking, says

Asking = Callable[[Session], Callable[[], Question | None]]


def noop(_: Session) -> Callable[[], Question | None]:
    return lambda: NOOP


both = pytest.mark.parametrize("asking", [noop, looking], ids=["noop", "select"])
taken_over = pytest.mark.parametrize("reads", [0, 1, 2, 3])


@pytest.fixture(autouse=True)
def _few_reads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "reads" in request.fixturenames:
        monkeypatch.setattr(watch_module, "READS", request.getfixturevalue("reads"))


def a_part(*, of: str) -> dict[str, Act]:
    """A word by itself at a stage, so that it has a read more."""
    return {of: says(b"* OK a moment")}


@both
@taken_over
async def test_it_is_renewed_and_the_watch_goes_on(reads: int, asking: Asking) -> None:
    server = Server({**a_part(of="asking"), **a_part(of="beginning 2"), "idling 3": says(b"* 5 EXISTS")})
    steps = Steps()
    async with watched(server) as (session, lookout):
        renewals = Renewing(asking(session), asking(session))
        with steps:
            news = await session.watch(renewals, lookout)
        assert news.exists == 5
        assert (renewals.asked, renewals.done, server.idles, server.dones, server.asked) == (2, 2, 3, 3, 2)
        assert steps.count > 1, "the task took over"
        await session.noop()


@both
@taken_over
@pytest.mark.parametrize("stage", ["ending", "asking", "beginning 2"])
async def test_news_come_out(reads: int, stage: str, asking: Asking) -> None:
    server = Server({stage: says(b"* OK a moment", b"* 5 FETCH (UID 9 FLAGS ())", b"* 5 EXISTS")})
    async with watched(server) as (session, lookout):
        renewals = Renewing(asking(session))
        news = await session.watch(renewals, lookout)
        assert news.exists == (None if stage == "asking" and asking is looking else 5)
        assert renewals.done == 0, "a run is due"
        assert server.dones == server.idles
        await session.noop()


@taken_over
async def test_an_answer_that_does_not_fit_ends_the_watch(reads: int) -> None:
    def never(_: SelectedFolder) -> bool:
        return False

    server = Server()
    async with watched(server) as (session, lookout):
        renewals = Renewing(looking(session, never))
        assert not await session.watch(renewals, lookout)
        assert (renewals.done, server.idles, server.dones) == (0, 2, 2)
        await session.noop()


@both
@taken_over
@pytest.mark.parametrize("stage", ["ending", "asking", "beginning 2"])
async def test_an_interrupt_ends_it_in_order(reads: int, stage: str, asking: Asking) -> None:
    async def interrupts(peer: Peer, _: bytes) -> None:
        await peer.say(b"* OK a moment")
        await trio.sleep(0.02)
        session.interrupt()
        await trio.sleep(0.02)

    server = Server({stage: interrupts})
    async with watched(server) as (session, lookout):
        assert not await session.watch(Renewing(asking(session)), lookout)
        assert server.dones == server.idles
        await session.noop()


@both
@taken_over
@pytest.mark.parametrize("stage", ["ending", "asking", "beginning 2"])
async def test_cancelled_it_costs_the_session_and_leaves_nothing(reads: int, stage: str, asking: Asking) -> None:
    scope = trio.CancelScope()

    async def cancels(peer: Peer, tag: bytes) -> None:
        await peer.say(b"* OK a moment")
        await trio.sleep(0.02)
        scope.cancel()
        await falls_silent(peer, tag)

    async with watched(Server({stage: cancels})) as (session, lookout):
        with scope:
            await session.watch(Renewing(asking(session)), lookout)
        assert scope.cancelled_caught
        assert session.dirty
        assert lookout.waiting == 0


@both
@taken_over
@pytest.mark.parametrize("stage", ["ending", "asking", "beginning 2"])
async def test_who_goes_is_lost(reads: int, stage: str, asking: Asking) -> None:
    server = Server({stage: says(b"* OK a moment", b"* BYE shutting down")})
    async with watched(server) as (session, lookout):
        with pytest.raises(Fault) as caught:
            await session.watch(Renewing(asking(session)), lookout)
        assert caught.value.kind is FaultKind.LOST
        assert session.dirty


async def test_many_words_in_one_packet_are_the_tasks() -> None:
    words = [b"* OK Still here"] * 4
    steps, counts = Steps(), list[int]()

    async def talk(peer: Peer, _: bytes) -> None:
        await trio.sleep(0.02)
        counts.append(steps.count)
        await peer.say(*words)
        await trio.sleep(0.02)
        counts.append(steps.count)
        await peer.say(b"* 5 EXISTS")

    async with watched(Server({"idling": talk})) as (session, lookout):
        noted = session.meter._units
        with steps:
            assert (await session.watch(Renewing(), lookout)).exists == 5
        assert counts[1] > counts[0]
        assert session.meter._units > noted
        await session.noop()


async def test_an_answer_of_many_lines_is_the_tasks_and_counts() -> None:
    server = Server({"idling 2": says(b"* 5 EXISTS")}, answers=(*ANSWER, *[b"* OK [NONSENSE] word"] * 40))
    async with watched(server) as (session, lookout):
        renewals = Renewing(looking(session))
        assert (await session.watch(renewals, lookout)).exists == 5
        assert renewals.done == 1
        await session.noop()
