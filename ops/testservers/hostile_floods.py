"""Servers that send more than anybody wants: without an end, without being asked, or too much at once."""

from __future__ import annotations

from typing import Final

import trio

from .hostile_talk import Honest

_LITERAL: Final = 60 << 20
"""Bytes of a literal really sent: below every bound on what a message may have."""

_BIG_LINE: Final = 900_000
"""Bytes of a line, below every bound on a line."""


class EndlessGreeting(Honest):
    """A greeting without a line end."""

    async def greet(self) -> None:
        """Begin one."""
        await self.say(b"* OK ")
        await self.talk.for_ever(b"welcome ")


class EndlessOk(Honest):
    """Untagged responses to SELECT that tell nothing, for ever."""

    async def on_examine(self, command: bytes) -> None:
        """No tagged answer."""
        await self.say(self.described(command))
        await self.talk.for_ever(b"* OK [UNSEEN 1] still working on it\r\n")


class AnnouncedLiteral(Honest):
    """Announces a literal of 4 GiB."""

    async def on_uid_fetch(self, command: bytes) -> None:
        """And sends as much of it as is taken."""
        del command
        await self.say(b"* 1 FETCH (UID 1 BODY[]<0> {4294967296}\r\n")
        await self.talk.for_ever(b"x" * 65536)


class SentLiteral(Honest):
    """Really sends literals of 60 MiB, where 1 MiB was asked for."""

    async def on_uid_fetch(self, command: bytes) -> None:
        """One after the other."""
        del command
        piece = b"x" * (1 << 16)
        while True:
            await self.say(b"* 1 FETCH (UID 1 BODY[]<0> {%d}\r\n" % _LITERAL)
            for _ in range(_LITERAL // len(piece)):
                await self.say(piece)
            await self.say(b")\r\n")


class UnaskedLiteral(Honest):
    """Sends literals of 60 MiB in answer to SELECT."""

    async def on_examine(self, command: bytes) -> None:
        """Where no literal has a place at all."""
        del command
        piece = b"x" * (1 << 16)
        while True:
            await self.say(b"* OK [X {%d}\r\n" % _LITERAL)
            for _ in range(_LITERAL // len(piece)):
                await self.say(piece)
            await self.say(b"\r\n")


class Exists(Honest):
    """Millions of EXISTS in IDLE."""

    async def idling(self) -> None:
        """Without an end."""
        await self.talk.for_ever(b"* %d EXISTS\r\n" % self.messages)


class Expunge(Honest):
    """Millions of EXPUNGE in IDLE."""

    async def idling(self) -> None:
        """Without an end."""
        await self.talk.for_ever(b"* 1 EXPUNGE\r\n")


class FlagNews(Honest):
    """Millions of FETCH with flags in IDLE."""

    async def idling(self) -> None:
        """Without an end."""
        await self.talk.for_ever(b"".join(self.flags(uid) for uid in range(1, 1000)))


class IdleChatter(Honest):
    """Says in IDLE that it is still there, for ever and without a pause."""

    async def idling(self) -> None:
        """Nothing that could be acted on."""
        await self.talk.for_ever(b"* OK Still here\r\n")


class Alternating(Honest):
    """Tells of a new message as soon as IDLE begins, and has none."""

    async def idling(self) -> None:
        """So that the client fetches for ever."""
        await self.say(b"* %d EXISTS\r\n" % (self.messages + 1))


class AlternatingFlags(Honest):
    """Tells of a removal as soon as IDLE begins, so that the folder is compared for ever."""

    async def idling(self) -> None:
        """Nothing went."""
        await self.say(b"* 1 EXPUNGE\r\n* %d EXISTS\r\n" % self.messages)


class Unasked(Honest):
    """Answers every FETCH with messages nobody asked for."""

    async def on_uid_fetch(self, command: bytes) -> None:
        """Without an end."""
        del command
        await self.talk.for_ever(b"".join(self.message(uid) for uid in range(1000, 1100)))


class Junk(Honest):
    """A new message of 512 KiB that compresses to nothing, as soon as IDLE begins."""

    @property
    def uids(self) -> list[int]:
        """All that were made up so far."""
        return list(range(1, 2 + int(self.memory.get("made", 0))))

    async def idling(self) -> None:
        """One more."""
        self.memory["made"] = self.memory.get("made", 0) + 1
        await self.say(b"* %d EXISTS\r\n" % len(self.uids))

    def body(self, uid: int) -> bytes:
        """Mostly nothing."""
        return super().body(uid) + b"A" * (512 << 10)


class Search(Honest):
    """Ten million UIDs in answer to SEARCH."""

    async def on_uid_search(self, command: bytes) -> None:
        """In lines as long as are taken."""
        del command
        uid = 1_000_000_000
        for _ in range(120):
            line = b" ".join(b"%d" % (uid + number) for number in range(_BIG_LINE // 11))
            uid += _BIG_LINE // 11
            await self.say(b"* SEARCH " + line + b"\r\n")
            await trio.lowlevel.checkpoint()
        await self.ok()


class Vanished(Honest):
    """VANISHED with as many scattered UIDs as a line holds, in answer to SELECT, for ever."""

    capabilities = Honest.capabilities + b" ENABLE CONDSTORE QRESYNC"

    async def on_examine(self, command: bytes) -> None:
        """No tagged answer."""
        await self.say(self.described(command))
        uids = b",".join(b"%d" % uid for uid in range(1, _BIG_LINE // 4, 2))[:_BIG_LINE].rpartition(b",")[0]
        line = b"* VANISHED (EARLIER) " + uids + b"\r\n"
        while True:
            await self.say(line)


class Capabilities(Honest):
    """CAPABILITY responses without an end."""

    async def on_capability(self, command: bytes) -> None:
        """No tagged answer."""
        del command
        await self.talk.for_ever(b"* CAPABILITY IMAP4rev1 " + b" ".join(b"X%d" % n for n in range(500)) + b"\r\n")

    async def greet(self) -> None:
        """So that it is asked."""
        await self.say(b"* OK ready\r\n")


class Tokens(Honest):
    """FETCH lines of 900 KB that are nothing but brackets and atoms."""

    async def on_uid_fetch(self, command: bytes) -> None:
        """Without an end."""
        del command
        line = b"* 1 FETCH (UID 1 FLAGS (" + b"a " * (_BIG_LINE // 2) + b"))\r\n"
        while True:
            await self.say(line)


class Drip(Honest):
    """A large message, whose pieces come a few bytes a second: it holds a place for large bodies."""

    messages = 1

    async def on_uid_fetch(self, command: bytes) -> None:
        """The first piece at once, the others by drops."""
        if b"<0." in command:
            piece = b"x" * (1 << 20)
            await self.say(b"* 1 FETCH (UID 1 FLAGS () RFC822.SIZE 40000000 BODY[]<0> {%d}\r\n" % len(piece))
            await self.say(piece + b")\r\n")
            await self.ok()
            return
        await self.say(b"* 1 FETCH (UID 1 BODY[]<0> {%d}\r\n" % (1 << 20))
        while True:
            await self.say(b"x" * 1000)
            await trio.sleep(0.1)


FLOODS: Final = {
    "endless_greeting": EndlessGreeting,
    "endless_ok": EndlessOk,
    "announced_literal": AnnouncedLiteral,
    "sent_literal": SentLiteral,
    "unasked_literal": UnaskedLiteral,
    "exists": Exists,
    "expunge": Expunge,
    "flag_news": FlagNews,
    "idle_chatter": IdleChatter,
    "alternating": Alternating,
    "alternating_flags": AlternatingFlags,
    "unasked_fetch": Unasked,
    "junk": Junk,
    "search": Search,
    "vanished": Vanished,
    "capabilities": Capabilities,
    "tokens": Tokens,
    "drip": Drip,
}
"""By name."""
