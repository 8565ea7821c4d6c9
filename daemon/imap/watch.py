"""One watch of a folder: IDLE (RFC 2177) after IDLE, each renewed without a step of the task that waits for news.

    begin ──► BEGINNING ──+──► IDLING ──due──► ENDING ──OK──► ENDED ──► ASKING ──OK──► BEGINNING ──+──► IDLING ...
                              (DONE)                    (a question, and IDLE)

What comes is told apart in one place, `hear`, whoever reads it: the task, or in its place the node's `Lookout`, which
reads what is simple (`readable`) and renews in time (`due`).  Anything else wakes the task up, which goes on from the
stage that was reached: news, an answer that is not the expected one or is late, more words than a quiet server has.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Final, Protocol

import trio

from daemon.errors import Fault, FaultKind

from .conversation import ANSWER_TIME
from .faults import Refused
from .lanes import LONG_ANSWER
from .responses import split_response

if TYPE_CHECKING:
    from daemon.network import Lookout

    from .conversation import Conversation
    from .responses import Response

DONE_TIME: Final = 30.0
"""Seconds in which DONE and IDLE must be answered: they ask nothing of the server but to stop and begin to wait.  A
renewal that has not ended after as long is waited for by the task, with its own limits."""

QUIET: Final = 1.0
"""Seconds between two words of a server that is left to the lookout while it idles: Dovecot says that it is still there
every two minutes.  Who speaks more often is heard by the task, whose meter weighs what it says."""

READS: Final = 64
"""Reads of one renewal's answers by the lookout: three or four as a rule, a dozen where each line is sent by itself."""

SIMPLE: Final = 1 << 12
"""Bytes with which it deals at once: a SELECT's answer has less than one KiB, and takes 0.1 ms."""

WORDS: Final = 3
LINES: Final = 32
"""Lines that it reads at once, while the server idles and while it answers: nobody meters them."""


class Question(Protocol):
    """What a server is asked between two IDLEs."""

    @property
    def command(self) -> bytes:
        """Without tag and line end."""
        ...

    def take(self, response: Response) -> bool:
        """Take an untagged response; whether it belongs to the answer."""
        ...

    def answered(self, tagged: Response) -> bool:
        """The answer is complete, with OK: whether it says that nothing is new."""
        ...


class _Noop:
    """Whether there is anything that the server has failed to push."""

    command: Final = b"NOOP"

    def take(self, _: Response) -> bool:
        """Its answer has no words of its own."""
        return False

    def answered(self, _: Response) -> bool:
        """Whatever is new was told as news."""
        return True


NOOP: Final = _Noop()


class Renewals(Protocol):
    """How a watch is to be renewed."""

    @property
    def due_at(self) -> float:
        """When the next renewal is due, Trio's time."""
        ...

    def question(self) -> Question | None:
        """It is due: what to ask; None ends the watch instead."""
        ...

    def renewed(self) -> None:
        """The question was answered, nothing is new, and the server waits for news again."""
        ...


class Stage(Enum):
    """How far an IDLE has come."""

    BEGINNING = auto()
    IDLING = auto()
    ENDING = auto()
    ENDED = auto()
    ASKING = auto()


class Watch:
    """One watch; between `begin` and `end` the connection is its own."""

    __slots__ = (
        "_asked", "_idle", "_lookout", "_question", "_reads", "_renewals", "_scope", "_session", "over", "stage",
    )  # fmt: skip

    def __init__(self, session: Conversation, renewals: Renewals, lookout: Lookout | None) -> None:
        self._session = session
        self._renewals = renewals
        self._lookout = lookout
        self.stage = Stage.BEGINNING
        self.over = False
        """Whether whoever waits is to compare the folder, or to stop waiting."""
        self._idle = b""
        self._asked = b""
        """The tags of IDLE, and of the question before it."""
        self._question: Question | None = None
        self._reads = 0
        self._scope: trio.CancelScope | None = None
        """What the task waits in, where it waits by itself."""

    async def begin(self) -> None:
        """Let the server wait for news."""
        self._idle = self._session.next_tag()
        with self._session.wire.within(DONE_TIME):
            await self._session.wire.send(self._idle + b" IDLE\r\n")
            await self._hear_out(Stage.BEGINNING)

    async def wait(self) -> None:
        """Until something is here that the task has to go on with, or the time is over."""
        wire, due_at = self._session.wire, self._renewals.due_at
        if self._lookout is not None and wire.descriptor >= 0 and wire.pending <= SIMPLE:
            # The task's last read may have left the rest of a TLS record in OpenSSL, where no epoll sees it.
            if wire.receive_now():
                await trio.lowlevel.checkpoint()
            else:
                await self._lookout.wait(wire.descriptor, self, due_at)
            return
        with trio.CancelScope(deadline=due_at) as self._scope:
            await wire.wait_line()
        self.over, self._scope = self._scope.cancelled_caught, None

    def wake(self) -> None:
        """Let the task that waits go on."""
        if self._scope is not None:
            self._scope.cancel()
        elif self._lookout is not None:
            self._lookout.wake(self._session.wire.descriptor)

    async def resume(self) -> None:
        """Go one stage further with a renewal that was too much for the lookout."""
        if self.stage is Stage.ENDING:
            with self._session.wire.within(DONE_TIME):
                await self._hear_out(Stage.ENDING)
        elif self.stage is Stage.ENDED:
            self._ask()
        else:
            await self._hear_answers()
            if not (self.over or self._session.newsbox.any):
                self._renewals.renewed()

    async def end(self) -> None:
        """End it in order, from whatever stage it has reached."""
        await self._hear_answers()
        with self._session.wire.within(DONE_TIME):
            if self.stage is Stage.IDLING:
                self.stage = Stage.ENDING
                await self._session.wire.send(b"DONE\r\n")
            await self._hear_out(Stage.ENDING)

    async def _hear_answers(self) -> None:
        """What is still to come of a question and the IDLE behind it."""
        session = self._session
        if self.stage is Stage.ASKING:
            session.meter.expect(LONG_ANSWER)
            try:
                with session.wire.within(ANSWER_TIME):
                    await self._hear_out(Stage.ASKING)
            finally:
                session.meter.expect(0.0)
        if self.stage is Stage.BEGINNING:  # at each push it is not, and a scope costs as much as a response
            with session.wire.within(DONE_TIME):
                await self._hear_out(Stage.BEGINNING)

    async def _hear_out(self, stage: Stage) -> None:
        while self.stage is stage:
            if self.hear(await self._session.read()):
                self._session.meter.answers()

    def hear(self, response: Response) -> bool:
        """Take a response for what it is at this stage; whether it was part of an answer.

        Raises Refused for IDLE, and Fault: a refused question by its reason, and PROTOCOL for what is no IMAP.
        """
        if response.tag == b"*":
            if self._question is not None and self.stage is Stage.ASKING and self._question.take(response):
                return True
            self._session.newsbox.file(response)  # "* OK Still here" is no news, but it was heard
        elif response.tag == b"+" and self.stage is Stage.BEGINNING:
            self.stage = Stage.IDLING
        elif response.tag == self._asked and self.stage is Stage.ASKING:
            self._hear_answer(response)
        elif response.tag == self._idle and self.stage is not Stage.ASKING:
            self._session.check(b"IDLE", response)
            if self.stage is not Stage.ENDING:
                raise Fault(FaultKind.PROTOCOL, "The mail server ended IDLE before it was asked to.")
            self.stage = Stage.ENDED
        else:
            raise Fault(FaultKind.PROTOCOL, "The mail server answered a command that was not sent.")
        return False

    def _hear_answer(self, response: Response) -> None:
        question, self._question = self._question, None
        assert question is not None, "somebody asked"
        try:
            self._session.check(question.command, response)
        except Refused as exc:  # not the end of the command that is under way: IDLE is still to be answered
            raise exc.fault() from None
        self.stage = Stage.BEGINNING
        self.over = not question.answered(response)

    # -- called by the lookout -----------------------------------------------------------------------------------------

    def readable(self) -> bool:
        """Read what is simple; whether the task has to go on."""
        session, began = self._session, self.stage
        wire = session.wire
        spoke_at = wire.heard_at
        if not wire.receive_now():
            return False
        self._reads -= 1
        crowded = wire.heard_at - spoke_at < QUIET if began is Stage.IDLING else self._reads < 0
        if crowded or wire.pending > SIMPLE:
            return True
        for _ in range(WORDS if began is Stage.IDLING else LINES):
            if (line := wire.take_simple_line()) is None:
                break
            response = split_response([line])
            session.notice(response)
            self.hear(response)
            if self.stage is Stage.ENDED and not session.newsbox.any:
                self._ask()
        if self.over or session.newsbox.any:
            return True
        if self.stage is Stage.IDLING and began is not Stage.IDLING:
            self._renewals.renewed()
            self._again_at(self._renewals.due_at)
        return wire.has_line

    def due(self) -> bool:
        """Renew; whether the task has to go on: the watch is over, or an answer late."""
        if self.stage is not Stage.IDLING:
            return True
        self._question = self._renewals.question()
        self.over = self._question is None
        if not self.over:
            self._session.wire.send_now(b"DONE\r\n")
            self.stage = Stage.ENDING
            self._reads = READS
            self._again_at(trio.current_time() + DONE_TIME)
        return self.over

    def _ask(self) -> None:
        """The IDLE has ended: send the question, and the next IDLE behind it in the same packet."""
        assert self._question is not None, "DONE is sent with a question in hand"
        self._asked, self._idle = self._session.next_tag(), self._session.next_tag()
        self._session.wire.send_now(self._asked + b" " + self._question.command + b"\r\n" + self._idle + b" IDLE\r\n")
        self.stage = Stage.ASKING

    def _again_at(self, due_at: float) -> None:
        assert self._lookout is not None, "it is the lookout that calls"
        self._lookout.due_again(self._session.wire.descriptor, due_at)
