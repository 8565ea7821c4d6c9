"""Servers whose answers contradict each other, themselves, or the protocol."""

from __future__ import annotations

from typing import Final

from .hostile_talk import Gone, Honest

_CONDSTORE: Final = Honest.capabilities + b" ENABLE CONDSTORE"


class Nothing(Honest):
    """OK to everything, and nothing done."""

    async def on_examine(self, command: bytes) -> None:
        """No word of the folder."""
        del command
        await self.ok()


class Restless(Honest):
    """Ends each session in IDLE, so that the folder is selected often."""

    async def idling(self) -> None:
        """An orderly end."""
        await self.say(b"* BYE see you\r\n")
        raise Gone


class UidValidity(Restless):
    """Another UIDVALIDITY at each SELECT."""

    def described(self, command: bytes) -> bytes:
        """Renumbered."""
        self.uidvalidity = 1000 + int(self.memory["selects"])
        return super().described(command)


class UidNextBack(Restless):
    """UIDNEXT goes back with each SELECT."""

    def described(self, command: bytes) -> bytes:
        """Lower than before."""
        honest = super().described(command)
        return honest.replace(b"UIDNEXT 6", b"UIDNEXT %d" % max(1, 7 - int(self.memory["selects"])))


class Contradiction(Honest):
    """Fifty messages by EXISTS, five by SEARCH and FETCH."""

    def described(self, command: bytes) -> bytes:
        """Ten times too many."""
        return super().described(command).replace(b"* 5 EXISTS", b"* 50 EXISTS")


class ModSeq(Restless):
    """HIGHESTMODSEQ 0, huge, and one in turn."""

    capabilities = _CONDSTORE

    def described(self, command: bytes) -> bytes:
        """No order in it."""
        value = (0, (1 << 63) - 1, 1, 1 << 70)[int(self.memory["selects"]) % 4]
        return super().described(command) + b"* OK [HIGHESTMODSEQ %d] .\r\n" % value


class Sizes(Honest):
    """RFC822.SIZE has nothing to do with the message."""

    def message(self, uid: int, **changes: object) -> bytes:
        """Too small, none, or a petabyte."""
        del changes
        return super().message(uid, size=(0, 1, 1 << 50, 1 << 39)[uid % 4])


class NewUids(Honest):
    """Whoever asks for messages gets some that were not there before."""

    @property
    def uids(self) -> list[int]:
        """All that were made up so far."""
        return list(range(1, 2 + int(self.memory.get("made", 0))))

    async def on_uid_fetch(self, command: bytes) -> None:
        """One more each time."""
        self.memory["made"] = self.memory.get("made", 0) + 1
        await self.say(b"* %d EXISTS\r\n" % len(self.uids))
        await super().on_uid_fetch(command)


class OtherUids(Honest):
    """Answers FETCH with other messages than were asked for."""

    def message(self, uid: int, **changes: object) -> bytes:
        """A thousand further on."""
        del changes
        return super().message(uid + 1000)


class SameUid(Honest):
    """Every message has UID 1, again and again."""

    def message(self, uid: int, **changes: object) -> bytes:
        """Three times."""
        del uid, changes
        return 3 * super().message(1)


class Dates(Honest):
    """Dates that are none, and headers in charsets that are none."""

    def message(self, uid: int, **changes: object) -> bytes:
        """One of each kind."""
        del changes
        dates = (b"35-Foo-2026 99:99:99 +9999", b"", b"01-Jan-0001 00:00:00 +0000", b"31-Dec-9999 23:59:59 -1400")
        return super().message(uid, date=dates[uid % 4])

    def body(self, uid: int) -> bytes:
        """Unreadable in several ways."""
        return (
            b"From: =?no-such-charset?B?////?= <\xff\xfe@\x80>\r\nSubject: =?utf-8?Q?=FF=FE=00?= \x00 \xc3\x28\r\n"
            b"Date: yesterday, or %d\r\nContent-Type: text/plain; charset=\xff\r\n\r\n\x00\xff\xfe" % uid
        )


class EmptyAnswers(Honest):
    """FETCH answers without what was asked for: NIL, empty lists, an empty ENVELOPE."""

    def message(self, uid: int, **changes: object) -> bytes:
        """Of several kinds."""
        del changes
        kinds = (b"ENVELOPE ()", b"BODY[]<0> NIL", b"RFC822.SIZE NIL INTERNALDATE NIL BODY[]<0> NIL", b"FLAGS NIL")
        return b"* %d FETCH (UID %d %b)\r\n" % (uid, uid, kinds[uid % 4])


class QresyncRefused(Honest):
    """Advertises and enables QRESYNC, and answers BAD to it."""

    capabilities = _CONDSTORE + b" QRESYNC"

    def described(self, command: bytes) -> bytes:
        """With a mod-sequence, so that the next SELECT asks."""
        return super().described(command) + b"* OK [HIGHESTMODSEQ 9] .\r\n"

    async def on_examine(self, command: bytes) -> None:
        """BAD as soon as it is used."""
        if b"QRESYNC" in command:
            await self.say(self.tag + b" BAD unknown argument\r\n")
        else:
            await super().on_examine(command)

    async def idling(self) -> None:
        """Come again."""
        await self.say(b"* BYE see you\r\n")
        raise Gone


class IdleRefused(Honest):
    """Advertises IDLE, and answers BAD to it."""

    async def on_idle(self, command: bytes) -> None:
        """Unknown."""
        del command
        await self.say(self.tag + b" BAD unknown command\r\n")


class WrongTags(Honest):
    """Answers commands that were not sent."""

    async def on_examine(self, command: bytes) -> None:
        """Another's tag."""
        del command
        await self.say(b"ZZ9 OK done\r\n")


class Emptied(Restless):
    """Sixty messages, none, sixty again: the folder empties with every other SELECT."""

    messages = 60

    def described(self, command: bytes) -> bytes:
        """All or nothing."""
        said = super().described(command)
        return said if int(self.memory["selects"]) % 2 else said.replace(b"* 60 EXISTS", b"* 0 EXISTS")


LIES: Final = {
    "nothing": Nothing,
    "uidvalidity": UidValidity,
    "uidnext_back": UidNextBack,
    "contradiction": Contradiction,
    "modseq": ModSeq,
    "sizes": Sizes,
    "new_uids": NewUids,
    "other_uids": OtherUids,
    "same_uid": SameUid,
    "dates": Dates,
    "empty_answers": EmptyAnswers,
    "qresync_refused": QresyncRefused,
    "idle_refused": IdleRefused,
    "wrong_tags": WrongTags,
    "emptied": Emptied,
}
"""By name."""
