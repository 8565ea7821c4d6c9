"""An IMAP server of one folder with a handful of messages, honest in everything: what floods and liars are made from.

One object plays one connection.  What must outlive a connection (how often the folder was selected, which UIDs were
made up) is in `memory`, which all connections to one host share.
"""

from __future__ import annotations

import re
from typing import Any, Final

import trio

MAX_LINE: Final = 1 << 16
"""Bytes of a client's line: ours sends none longer than 8 KiB."""

BODY: Final = b"From: a@example.test\r\nTo: b@example.test\r\nSubject: %d\r\nMessage-ID: <%d@%s>\r\n\r\nHello.\r\n"
_ARGUMENT: Final = re.compile(rb"UID (\S+)", re.IGNORECASE)


class Gone(Exception):
    """The client went."""


class Talk:
    """One client's connection, by lines."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._buffer = bytearray()

    async def say(self, data: bytes) -> None:
        """Send; waits for as long as the client does not read."""
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Gone from None

    async def line(self) -> bytes:
        """The client's next line without its end."""
        while (end := self._buffer.find(b"\n")) < 0:
            try:
                data = await self.stream.receive_some(MAX_LINE)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise Gone from None
            if not data or len(self._buffer) > MAX_LINE:
                raise Gone
            self._buffer += data
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        del self._buffer[: end + 1]
        return line

    async def for_ever(self, data: bytes) -> None:
        """Say it again and again; 64 KiB at a time, as fast as the client takes it."""
        some = data * max(1, (1 << 16) // len(data))
        while True:
            await self.say(some)


class Honest:
    """One connection."""

    capabilities = b"IMAP4rev1 IDLE AUTH=PLAIN SASL-IR"
    messages = 5
    uidvalidity = 77

    def __init__(self, talk: Talk, memory: dict[str, Any]) -> None:
        self.talk = talk
        self.memory = memory
        self.tag = b""

    async def run(self) -> None:
        """Serve until the client goes."""
        await self.greet()
        while True:
            self.tag, _, command = (await self.talk.line()).partition(b" ")
            words = command.split(b" ", 2)
            name = b"_".join(words[: 2 if words[0].upper() == b"UID" else 1]).decode("ascii", "replace").lower()
            await getattr(self, f"on_{name}", self.on_other)(command)

    async def say(self, data: bytes) -> None:
        """Send."""
        await self.talk.say(data)

    async def ok(self, before: bytes = b"", code: bytes = b"") -> None:
        """The command's answer."""
        await self.say(before + self.tag + b" OK " + code + b"done\r\n")

    @property
    def uids(self) -> list[int]:
        """The messages there are."""
        return list(range(1, self.messages + 1))

    # -- commands ------------------------------------------------------------------------------------------------------

    async def greet(self) -> None:
        """The greeting."""
        await self.say(b"* OK [CAPABILITY " + self.capabilities + b"] ready\r\n")

    async def on_other(self, command: bytes) -> None:
        """A command that needs no thought."""
        del command
        await self.ok()

    async def on_capability(self, command: bytes) -> None:
        """CAPABILITY."""
        del command
        await self.ok(b"* CAPABILITY " + self.capabilities + b"\r\n")

    async def on_enable(self, command: bytes) -> None:
        """ENABLE: whatever was asked for."""
        await self.ok(b"* ENABLED " + command.split(b" ", 1)[1] + b"\r\n")

    async def on_logout(self, command: bytes) -> None:
        """LOGOUT."""
        del command
        await self.ok(b"* BYE\r\n")
        raise Gone

    async def on_examine(self, command: bytes) -> None:
        """EXAMINE and SELECT."""
        self.memory["selects"] = self.memory.get("selects", 0) + 1
        await self.ok(self.described(command))

    async def on_select(self, command: bytes) -> None:
        """The same."""
        await self.on_examine(command)

    def described(self, command: bytes) -> bytes:
        """What is said of the folder."""
        del command
        said = b"* %d EXISTS\r\n* OK [UIDVALIDITY %d] .\r\n* OK [UIDNEXT %d] .\r\n"
        return said % (len(self.uids), self.uidvalidity, self.uids[-1] + 1)

    async def on_uid_search(self, command: bytes) -> None:
        """UID SEARCH of ALL or a set."""
        found = self.asked(command)
        await self.ok(b"* SEARCH" + b"".join(b" %d" % uid for uid in found) + b"\r\n")

    def asked(self, command: bytes) -> list[int]:
        """Which of the messages a command names."""
        match = _ARGUMENT.findall(command.replace(b"UID FETCH ", b"UID ").replace(b"UID SEARCH ", b""))
        if not match:
            return self.uids
        chosen: set[int] = set()
        for piece in match[0].split(b","):
            low, _, high = piece.partition(b":")
            first = self.uids[-1] if low == b"*" else int(low)
            last = first if not high else self.uids[-1] if high == b"*" else int(high)
            chosen.update(uid for uid in self.uids if min(first, last) <= uid <= max(first, last))
        return sorted(chosen)

    async def on_uid_fetch(self, command: bytes) -> None:
        """UID FETCH of flags, or of whole messages."""
        whole = b"BODY" in command
        for uid in self.asked(command):
            await self.say(self.message(uid) if whole else self.flags(uid))
        await self.ok()

    def flags(self, uid: int) -> bytes:
        """A FETCH response of flags."""
        return b"* %d FETCH (UID %d FLAGS (\\Seen))\r\n" % (uid, uid)

    def message(self, uid: int, *, size: int | None = None, date: bytes = b"17-Jul-2026 02:44:25 +0000") -> bytes:
        """A FETCH response of a whole message."""
        body = self.body(uid)
        said = b'* %d FETCH (UID %d FLAGS () INTERNALDATE "%b" RFC822.SIZE %d BODY[]<0> {%d}\r\n%b)\r\n'
        return said % (uid, uid, date, len(body) if size is None else size, len(body), body)

    def body(self, uid: int) -> bytes:
        """A message."""
        return BODY % (uid, uid, type(self).__name__.lower().encode())

    async def on_idle(self, command: bytes) -> None:
        """IDLE, until DONE."""
        del command
        await self.say(b"+ idling\r\n")
        await self.idling()
        while await self.talk.line() != b"DONE":
            pass
        await self.ok()

    async def idling(self) -> None:
        """What is said in IDLE."""


class Silent(Honest):
    """Says nothing more from one point on, and leaves the connection open."""

    at = "greeting"

    async def run(self) -> None:
        """Serve, up to the point."""
        if self.at == "greeting":
            await trio.sleep_forever()
        await super().run()

    async def on_authenticate(self, command: bytes) -> None:
        """The login."""
        await self._answer("login", command)

    async def on_examine(self, command: bytes) -> None:
        """The folder."""
        if self.at == "select":
            await trio.sleep_forever()
        await super().on_examine(command)

    async def on_uid_fetch(self, command: bytes) -> None:
        """The first synchronisation: it holds a turn to fetch in bulk."""
        if self.at == "fetch":
            await trio.sleep_forever()
        await super().on_uid_fetch(command)

    async def on_idle(self, command: bytes) -> None:
        """IDLE, begun or not."""
        if self.at == "idle":
            await self.say(b"+ idling\r\n")
            await trio.sleep_forever()
        await super().on_idle(command)

    async def _answer(self, point: str, command: bytes) -> None:
        if self.at == point:
            await trio.sleep_forever()
        await self.on_other(command)


class SilentAfterGreeting(Silent):
    """Takes the login and says nothing to it."""

    at = "login"


class SilentAtSelect(Silent):
    """Logs in, and says nothing of the folder."""

    at = "select"


class SilentAtFetch(Silent):
    """Describes the folder, and gives no message."""

    at = "fetch"


class SilentInIdle(Silent):
    """Gives all its messages, and then neither news nor an answer to DONE."""

    at = "idle"


DEAF: Final = {
    "deaf_greeting": Silent,
    "deaf_login": SilentAfterGreeting,
    "deaf_select": SilentAtSelect,
    "deaf_fetch": SilentAtFetch,
    "deaf_idle": SilentInIdle,
}
"""By name; `deaf_tls`, which does not even shake hands, needs no conversation."""
