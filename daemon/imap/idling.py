"""A session that waits for news in IDLE (RFC 2177).

A push is a hint.  What counts is what the server said by the end of it, so an IDLE always ends properly and gives all
the news, and whoever called compares the folder with its cursor from time to time (`Renewals`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from .conversation import Conversation
from .watch import Stage, Watch

if TYPE_CHECKING:
    from daemon.network import Lookout

    from .news import News
    from .watch import Renewals
    from .wire import Wire

IDLE_RENEWAL: Final = 9 * 60.0
"""Seconds of one IDLE: RFC 2177 allows 29 minutes, the NAT tables between here and there often less than 10."""


class Once:
    """An IDLE that is not renewed."""

    __slots__ = ("due_at",)

    def __init__(self, due_at: float) -> None:
        self.due_at = due_at

    def question(self) -> None:
        """None is asked."""

    def renewed(self) -> None:
        """Never called."""


class Idling(Conversation):
    """A conversation that can wait; for one task at a time, but for `interrupt`."""

    __slots__ = ("_interrupted", "_watch", "news_at")

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire)
        self.news_at = 0.0
        """When the last word of the server came for which the task was woken, Trio's time."""
        self._interrupted = False
        self._watch: Watch | None = None
        """The one in progress."""

    @property
    def can_idle(self) -> bool:
        """Whether the server offers IDLE (IMAP4rev2 has it built in)."""
        return bool(self.capabilities & {b"IDLE", b"IMAP4REV2"})

    async def idle(self, seconds: float = IDLE_RENEWAL, lookout: Lookout | None = None) -> News:
        """Wait until the server has news, `interrupt` is called, or *seconds* are over; the news."""
        return await self.watch(Once(trio.current_time() + seconds), lookout)

    async def watch(self, renewals: Renewals, lookout: Lookout | None = None) -> News:
        """Wait in IDLE, as often renewed as *renewals* want it, until there is something to do; the news.

        That is when the server has news, when `interrupt` is called, when a question is not answered as expected, and
        when the time is over: at once when there is news already, or `interrupt` was called since the last time.

        A *lookout* renews.  Without one, and where more than it can deal with is waiting, the time is over when a
        renewal is due.
        """
        if not self._interrupted and not self.newsbox.any:
            with self.exclusive():
                self._watch = Watch(self, renewals, lookout)
                try:
                    await self._watched(self._watch)
                finally:
                    self._watch = None
        else:
            self.news_at = self.wire.heard_at
        self._interrupted = False
        return self.take_news()

    async def _watched(self, watch: Watch) -> None:
        await watch.begin()
        while not (self._interrupted or watch.over):
            if watch.stage is Stage.IDLING and self.wire.has_line:
                watch.hear(await self.read())
            elif self.newsbox.any:
                break
            elif watch.stage is Stage.IDLING:
                await watch.wait()
            else:
                await watch.resume()
        self.news_at = self.wire.heard_at
        await watch.end()

    def interrupt(self) -> None:
        """Make the wait in progress, or else the next one, return soon.  May be called by any task."""
        self._interrupted = True
        if self._watch is not None:
            self._watch.wake()
