"""A server that answers a watch as it should, but for what a test does at one stage of it.

    beginning ──► idling ──► ending ──► asking ──► beginning 2 ──► idling 2 ──► ending 2 ──► ...

`Server(acts)` is a script: `acts` says what happens at which stage, before the server says what ends that stage.  Its
tag is the one that is to be answered then.  `heard` is what the client said, and `packets` in what pieces.
"""

import socket
import struct
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from typing import Self

import trio

from daemon.imap.selected import Known, SelectedFolder
from daemon.imap.session import Session
from daemon.imap.watch import Question
from tests.daemon.imap.scripted import Peer

Act = Callable[[Peer, bytes], Awaitable[None]]

ANSWER = (
    b"* FLAGS (\\Answered \\Seen)", b"* OK [PERMANENTFLAGS ()] none", b"* 4 EXISTS", b"* 0 RECENT",
    b"* OK [UIDVALIDITY 7] here", b"* OK [UIDNEXT 5] here", b"* OK [HIGHESTMODSEQ 90] here",
)  # fmt: skip
"""To EXAMINE: what `settled` expects."""

STAGES = ("beginning", "idling", "ending", "asking", "beginning 2", "idling 2")


class Server:
    """The script; `answers` are for EXAMINE and NOOP alike."""

    def __init__(
        self, acts: Mapping[str, Act] | None = None, *, answers: tuple[bytes, ...] = ANSWER, refusal: bytes = b""
    ) -> None:
        self.acts = dict(acts or {})
        self.answers = answers
        self.refusal = refusal
        self.heard: list[bytes] = []
        self.packets: list[bytes] = []
        self.idles = self.dones = self.asked = 0

    async def __call__(self, peer: Peer) -> None:
        peer.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        idle = b""
        while True:
            line = await self._line(peer)
            if line == b"DONE":
                self.dones += 1
                assert self.dones == self.idles, "DONE is said once, in IDLE"
                await self._act("ending", self.dones, peer, idle)
                await peer.say(idle + b" OK idled")
                continue
            tag, _, command = line.partition(b" ")
            if command == b"IDLE":
                assert self.dones == self.idles, "IDLE has ended before the next one begins"
                self.idles += 1
                idle = tag
                await self._act("beginning", self.idles, peer, tag)
                await peer.say(b"+ idling")
                await self._act("idling", self.idles, peer, tag)
            else:
                self.asked += 1
                await self._act("asking", self.asked, peer, tag)
                answers = () if command == b"NOOP" else self.answers
                await peer.say(*answers, tag + (self.refusal or b" OK [READ-ONLY] done"))

    async def _line(self, peer: Peer) -> bytes:
        while b"\r\n" not in peer.buffer:
            data = bytes(await peer.stream.receive_some(65536))
            if not data:
                raise EOFError
            self.packets.append(data)
            peer.buffer += data
        line = await peer.line()
        self.heard.append(line)
        return line

    async def _act(self, stage: str, number: int, peer: Peer, tag: bytes) -> None:
        act = self.acts.get(stage if number == 1 else f"{stage} {number}")
        if act is not None:
            await trio.sleep(0.01)  # so that it arrives as a packet of its own
            await act(peer, tag)


def says(*lines: bytes) -> Act:
    """`%tag%` is the one that is to be answered, `%next%` that of the command behind it."""

    async def act(peer: Peer, tag: bytes) -> None:
        following = b"A%d" % (int(tag[1:]) + 1)
        await peer.say(*(line.replace(b"%tag%", tag).replace(b"%next%", following) for line in lines))
        await trio.sleep(0.01)

    return act


async def closes(peer: Peer, _: bytes) -> None:
    raise EOFError


async def resets(peer: Peer, _: bytes) -> None:
    peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise EOFError


async def falls_silent(peer: Peer, _: bytes) -> None:
    await trio.sleep_forever()


class Renewing:
    """Renewals that a test wants (`daemon.imap.watch.Renewals`): a question each, and then none for ever."""

    def __init__(self, *questions: Callable[[], Question | None], period: float = 0.05) -> None:
        self._questions = list(questions)
        self._period = period
        self._reached: defaultdict[int, trio.Event] = defaultdict(trio.Event)
        self.asked = self.done = 0
        self.due_at = inf
        self._next()

    def question(self) -> Question | None:
        self.asked += 1
        return self._questions.pop(0)()

    def renewed(self) -> None:
        self.done += 1
        self._reached[self.done].set()
        self._next()

    async def reaches(self, done: int) -> None:
        """Until so many are done."""
        await self._reached[done].wait()

    def _next(self) -> None:
        self.due_at = trio.current_time() + self._period if self._questions else inf


def settled(folder: SelectedFolder) -> bool:
    said = (folder.uidvalidity, folder.uidnext, folder.highestmodseq, folder.exists)
    return said == (7, 5, 90, 4) and not (folder.changed or folder.vanished or folder.overflowed)


def looking(session: Session, equal: Callable[[SelectedFolder], bool] = settled) -> Callable[[], Question | None]:
    """Another EXAMINE of INBOX, with QRESYNC."""
    session.enabled = frozenset({b"QRESYNC", b"CONDSTORE"})
    return lambda: session.look_again("INBOX", Known(7, 90), equal)


class Steps(trio.abc.Instrument):
    """Counts the steps of the task that enters it."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Self:
        self._task = trio.lowlevel.current_task()
        trio.lowlevel.add_instrument(self)
        return self

    def __exit__(self, *_: object) -> None:
        trio.lowlevel.remove_instrument(self)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task is self._task
