"""Who may parse when: sessions that have much to read take turns, so that those that have little never wait for them.

All sessions of a node share one event loop.  What a server sends is parsed without a pause for as long as it is here;
fifty servers that send without end would be fifty such stretches between any two steps of a session that has one new
message.  So reading is weighed (`weight`), a session that has read more than a little stops after each SLICE, and goes
on when it is its turn:

    asked     what was asked for, such as a first synchronisation: one slice a turn of the loop, first come first served
    unasked   all else: likewise, and all of them together have no more than SHARE of the loop's time, nor of its turns

Slices are counted in units and not by the clock: a machine that is busy with other things does not change what is fair.

What one server may send at all of what it alone decides is bounded besides: `BEARABLE` units, more while it answers
what may have a long answer.  Beyond that it floods, and the session ends: whatever was true in it, the next one is told
again.
"""

from __future__ import annotations

from typing import Final

import trio

from daemon.errors import Fault, FaultKind

from .allowance import Allowance

UNIT: Final = 16
LITERAL_UNIT: Final = 128
"""Bytes of text, and of literals, that weigh as much as the least response: `* 5 EXISTS` takes 4 us, a FETCH with the
flags of one message, in 60 bytes, four times that, and a message with its headers 100 to 150 us."""

SECONDS: Final = 4e-6
"""Of the loop's time that a unit takes, about."""

SLICE: Final = 250
"""Units parsed without a pause, about 1 ms: a new message takes some twenty turns of the loop until it is stored, and
each may have such a slice in it."""

SHARE: Final = 0.15
"""Of the loop's time that is spent on what nobody asked for."""

LIGHT: Final = 2000.0
LIGHT_RATE: Final = 500.0
"""Units that a session may read at once, and a second, a slice in each turn of the loop, before it takes turns with all
others: a hundred messages' flags, or a few messages with their bodies."""


BEARABLE: Final = 50_000.0
BEARABLE_RATE: Final = 100.0
"""Units that a server may send unasked at once, and a second: the new flags of twelve thousand messages.  Who sends
more is not believed less, only asked again by a fresh session, whose SELECT may tell far more.  Fifty that flood have
SHARE of the loop together, and shall all be found out within a minute or two."""

LONG_ANSWER: Final = 2_000_000.0
"""Units of the answer to SELECT (with QRESYNC: all that changed) or SEARCH: half a million messages' flags, or the UIDs
of three million in scattered numbers."""


def weight(text: int, literals: int = 0) -> int:
    """The units of a response of so many bytes."""
    return 1 + text // UNIT + literals // LITERAL_UNIT


class Lanes:
    """Those of one event loop."""

    def __init__(self) -> None:
        self._asked = trio.Lock()
        self._unasked = trio.Lock()
        self._next_at = 0.0
        self.held_back = 0
        """Slices of what nobody asked for that have waited."""

    async def asked(self) -> None:
        """Wait for a turn to go on with what was asked for."""
        async with self._asked:  # at least one turn of the loop, and one slice in each
            pass

    async def unasked(self, units: int) -> None:
        """Wait for a turn to go on with what was not, after so many units of it."""
        async with self._unasked:
            self.held_back += 1
            await trio.sleep_until(self._next_at)
            began = trio.current_time()
            await trio.lowlevel.checkpoint()
            now = trio.current_time()
            # A turn of the loop that takes long says that others have much to do, or that the machine has.
            self._next_at = now + max(units * SECONDS, now - began) / SHARE


class Meter:
    """What one session has read."""

    __slots__ = ("_answers", "_bearable", "_last", "_light", "_units", "_wanted")

    def __init__(self) -> None:
        now = trio.current_time()
        self._bearable = Allowance(BEARABLE, BEARABLE_RATE, now)
        self._light = Allowance(LIGHT, LIGHT_RATE, now)
        self._last = self._units = self._wanted = self._answers = 0

    def note(self, text: int, literals: int = 0) -> bool:
        """A response of so many bytes came; whether `pause` is due before it is parsed."""
        self._last = weight(text, literals)
        self._units += self._last
        return self._units >= SLICE

    def wanted(self) -> None:
        """The last response is what was asked for: a message, of which we know that it is there."""
        self._wanted += self._last

    def answers(self) -> None:
        """The last response answers a command: asked for, too, but how much of it there is the server alone decides."""
        self._wanted += self._last
        self._answers += self._last

    def expect(self, units: float) -> None:
        """An answer of at most so many units is coming, 0: it has come."""
        if units:
            self._bearable.extend(BEARABLE + units)
        else:
            self._bearable.end_extension()

    async def pause(self) -> None:
        """Let others go first, unless this session has read little.

        Raises:
            Fault: PROTOCOL, when the server sends more than can be borne of what nobody asked for.
        """
        # The last response is still to be parsed: whether it was asked for shows only then.
        units = self._units - self._last
        unasked = max(0, units - self._wanted)
        told = unasked + self._answers
        self._units, self._wanted, self._answers = self._last, 0, 0
        now = trio.current_time()
        if self._bearable.take(told, now):
            raise Fault(FaultKind.PROTOCOL, "The mail server floods us with what nobody asked for.")
        if not self._light.take(units, now):
            await trio.lowlevel.checkpoint()  # hundreds that begin at once all read little
            return
        if 2 * unasked > units:
            await lanes().unasked(unasked)
        else:
            await lanes().asked()


_lanes: Final[trio.lowlevel.RunVar[Lanes]] = trio.lowlevel.RunVar("daemon.imap.lanes")


def lanes() -> Lanes:
    """The lanes of this event loop."""
    try:
        return _lanes.get()
    except LookupError:
        made = Lanes()
        _lanes.set(made)
        return made
