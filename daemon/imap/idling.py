"""IDLE (RFC 2177): waiting until the server has news.

    ─[NOOP]─► IDLE ──► + ──► news, `interrupt` or the time is over ──► DONE ──► OK ──► all the news

A push is a hint.  What counts is what the server said by the end of it, so an IDLE always ends properly and gives all
the news, and whoever called compares the folder with its cursor from time to time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from daemon.errors import Fault, FaultKind

from .conversation import Conversation

if TYPE_CHECKING:
    from .news import News
    from .responses import Response
    from .wire import Wire

IDLE_RENEWAL: Final = 9 * 60.0
"""Seconds of one IDLE: RFC 2177 allows 29 minutes, the NAT tables between here and there often less than 10."""

DONE_TIME: Final = 30.0
"""Seconds in which DONE must be answered: it asks nothing of the server but to stop waiting."""


class Idling(Conversation):
    """A conversation that can wait; for one task at a time, but for `interrupt`."""

    __slots__ = ("_interrupted", "_waiting", "news_at")

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire)
        self.news_at = 0.0
        """When the server's last word in an IDLE came, Trio's time: before it answered DONE."""
        self._interrupted = False
        self._waiting: trio.CancelScope | None = None

    @property
    def can_idle(self) -> bool:
        """Whether the server offers IDLE (IMAP4rev2 has it built in)."""
        return bool(self.capabilities & {b"IDLE", b"IMAP4REV2"})

    async def idle(self, seconds: float = IDLE_RENEWAL, *, ask: bool = False) -> News:
        """Wait in IDLE until the server has news, `interrupt` is called, or *seconds* are over; the news.

        *ask* sends NOOP before it, in the same packet: a server that has forgotten to tell something tells it then.
        Returns at once when there is news already, or when `interrupt` was called since the last idle.
        """
        if not self._interrupted and not self.newsbox.any:
            noop = self.next_tag() if ask else None
            tag = self.next_tag()
            with self.exclusive():
                await self._idle(tag, trio.current_time() + seconds, noop)
        else:
            self.news_at = self.wire.heard_at
        self._interrupted = False
        return self.take_news()

    async def _idle(self, tag: bytes, deadline: float, noop: bytes | None) -> None:
        await self.wire.send((noop + b" NOOP\r\n" if noop else b"") + tag + b" IDLE\r\n")
        while (response := await self.read()).tag != b"+":
            if noop is not None and response.tag == noop:
                if response.kind != b"OK":  # which it may not be, RFC 9051 section 6.1.2; IDLE is still to be answered
                    raise Fault(FaultKind.PROTOCOL, "The mail server refused NOOP.")
                noop = None
                continue
            self._heard(response, tag)
            if response.tag == tag:
                raise Fault(FaultKind.PROTOCOL, "The mail server ended IDLE before it began.")
        while not self._interrupted and (not self.newsbox.any or self.wire.has_line):
            # Only the waiting may be cut short: a response once begun is read to its end.
            if not self.wire.has_line:  # a scope costs twice what the least response does
                with trio.CancelScope(deadline=deadline) as self._waiting:
                    await self.wire.wait_line()
                if self._waiting.cancelled_caught:
                    break
            self._heard(await self.read(), b"*")
        self._waiting = None
        self.news_at = self.wire.heard_at
        with self.wire.within(DONE_TIME):
            await self.wire.send(b"DONE\r\n")
            while (response := await self.read()).tag != tag:
                self._heard(response, tag)
        self.check(b"IDLE", response)

    def _heard(self, response: Response, tag: bytes) -> None:
        """File an untagged response; *tag* may end the command, anything else is no IMAP."""
        if response.tag == b"*":
            self.newsbox.file(response)  # "* OK Still here" is none, but it was heard
        elif response.tag == tag:
            self.check(b"IDLE", response)
        else:
            raise Fault(FaultKind.PROTOCOL, "The mail server answered a command that was not sent.")

    def interrupt(self) -> None:
        """Make the `idle` in progress, or else the next one, return soon.  May be called by any task."""
        self._interrupted = True
        if self._waiting is not None:
            self._waiting.cancel()
