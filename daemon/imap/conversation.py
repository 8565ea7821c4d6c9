"""Commands and their answers on one wire, one at a time (RFC 9051 section 2.2).

A command that was begun and not answered leaves the conversation *dirty*: cancelled, broken, or given up half way, its
answer would be taken for the next one's.  Then only closing is left; a NO or BAD (`Refused`) is an answer like another
and leaves it clean.

Every response passes `notice`, so that capabilities, alerts and a BYE are noticed whatever was going on; what the
command in progress does not take goes to the news.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import structlog

from daemon.errors import Fault, FaultKind

from .capabilities import parse_capabilities
from .faults import Phase, Refused, bye, telling
from .lanes import Meter
from .news import NewsBox
from .parse import response_code
from .responses import Response, in_pieces, read_response
from .wire import Wire, WireStatistics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .news import News

log = structlog.get_logger(__name__)

MAX_ANSWER: Final = 256 << 20
"""Bytes of untagged responses to one command: an endless answer ends here.  What is kept of it is bounded by its
taker; a SELECT that tells the changed flags of a million messages has 80 MB."""

ANSWER_TIME: Final = 600.0
"""Seconds from a command to its tagged answer, unless told otherwise: Dovecot may index a large folder first."""

_LITERAL_MINUS: Final = 4096  # bytes of a literal that LITERAL- lets us send unasked (RFC 7888 section 5)
_STATUS: Final = frozenset({b"OK", b"NO", b"BAD", b"PREAUTH"})


@dataclass(frozen=True, slots=True)
class Literal:
    """A command's argument that may hold anything but NUL, sent as `{n}` and n bytes."""

    data: bytes

    def __post_init__(self) -> None:
        if b"\0" in self.data:
            raise ValueError("no NUL in an IMAP literal")


Argument: TypeAlias = bytes | Literal
Sink: TypeAlias = "Callable[[Response], bool]"
"""Offered each untagged response; whether it took it."""


def quoted(text: str | bytes) -> Argument:
    """*text* as a quoted string, or as a literal when it is not ASCII; raises ValueError for CR, LF and NUL.

    Line breaks are refused in literals too: no user, folder or header name has them, and one that does is an attempt.
    """
    data = text.encode() if isinstance(text, str) else text
    if any(c in b"\r\n\0" for c in data):
        raise ValueError("no line breaks or NUL in an IMAP string")
    if not data.isascii():
        return Literal(data)
    return b'"' + data.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def checked(argument: bytes) -> bytes:
    """*argument*, which goes on the line as it is; raises ValueError for CR, LF and NUL in it."""
    if any(c in argument for c in (b"\r", b"\n", b"\0")):
        raise ValueError("no line breaks or NUL in an IMAP command")
    return argument


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """What a session has done."""

    wire: WireStatistics
    commands: int
    """Commands sent."""
    malformed: int
    """Responses that could not be read and were passed over."""
    news_dropped: int
    """Unsolicited facts beyond a bound."""
    dirty: bool
    """Whether only closing is left."""


class Conversation:
    """One connection to an IMAP server, for one task at a time."""

    __slots__ = (
        "_capabilities_told", "_leaving", "_pieces", "_tag", "capabilities", "dirty", "malformed", "meter", "newsbox",
        "phase", "wire",
    )  # fmt: skip

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.capabilities: frozenset[bytes] = frozenset()
        """Upper case, as last told."""
        self.dirty = False
        self.phase = Phase.LOGIN
        self.malformed = 0
        self.meter = Meter()
        """Weighs what comes in, so that a server that sends much holds up no other's session."""
        self.newsbox = NewsBox()
        self._capabilities_told = False
        self._leaving = False
        self._pieces: Iterator[Response] | None = None
        """What is left of a long list."""
        self._tag = 0

    @property
    def heard_at(self) -> float:
        """`trio.current_time()` when the server last sent anything."""
        return self.wire.heard_at

    def take_news(self) -> News:
        """What was said unasked since the last taking, which is then forgotten here."""
        return self.newsbox.take()

    def statistics(self) -> SessionStatistics:
        """What the session has done."""
        return SessionStatistics(
            self.wire.statistics(), self._tag, self.malformed, self.newsbox.overflowed, self.dirty
        )  # fmt: skip

    async def command(
        self,
        name: bytes,
        *arguments: Argument,
        sink: Sink | None = None,
        answer: Callable[[bytes], bytes] | None = None,
        within: float = ANSWER_TIME,
    ) -> Response:
        """Send one command and return its tagged OK.

        *sink* is offered each untagged response; what it does not take is news.  *answer* replies to `+` once the
        literals among *arguments* are sent.  Raises `Refused` for NO and BAD, `Fault` when the connection or the
        protocol breaks, ValueError (before anything is sent) for an argument that cannot be sent.
        """
        tag = self.next_tag()
        chunks = self._chunks(tag, name, arguments)
        with self.exclusive(), self.wire.within(within):
            await self.wire.send(chunks.pop(0))
            return await self._answered(tag, name, chunks, sink, answer)

    async def _answered(
        self,
        tag: bytes,
        name: bytes,
        chunks: list[bytes],
        sink: Sink | None,
        answer: Callable[[bytes], bytes] | None,
    ) -> Response:
        room = MAX_ANSWER
        while True:
            response = await self.read()
            if response.tag == b"*":
                room -= response.size
                if room < 0:
                    raise Fault(FaultKind.PROTOCOL, f"The mail server's answer went beyond {MAX_ANSWER} bytes.")
                if sink is not None and sink(response):
                    self.meter.answers()
                else:
                    self.newsbox.file(response)
            elif response.tag == tag:
                return self.check(name, response)
            elif response.tag != b"+":
                raise Fault(FaultKind.PROTOCOL, "The mail server answered a command that was not sent.")
            elif chunks:
                await self.wire.send(chunks.pop(0))
            elif answer is not None:
                await self.wire.send(answer(response.text) + b"\r\n")
            else:
                raise Fault(FaultKind.PROTOCOL, "The mail server asked for more where nothing was left to send.")

    def next_tag(self) -> bytes:
        """A tag for one command."""
        self._tag += 1
        return b"A%d" % self._tag

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the connection for one command; whatever leaves it unanswered leaves the conversation dirty."""
        if self.dirty:
            raise Fault(FaultKind.LOST, "An earlier command was not finished.")
        self.dirty = True
        try:
            yield
        except Refused:
            self.dirty = False
            raise
        self.dirty = False

    async def read(self) -> Response:
        """The next response, after what it says of the connection itself was noticed; a BYE raises its fault.

        A long list of UIDs comes as several responses (`in_pieces`).

        Sessions that read much take turns here; one that floods us ends (`Meter`).
        """
        response = next(self._pieces, None) if self._pieces is not None else None
        if response is None:
            response = await read_response(self.wire)
            if (pieces := in_pieces(response)) is not None:
                self._pieces, response = pieces, next(pieces)
            else:
                self._pieces = None
        text = len(response.text)
        if self.meter.note(text, response.size - text):
            await self.meter.pause()
        self.notice(response)
        return response

    def notice(self, response: Response) -> None:
        """See what a response says of the connection itself; a BYE raises its fault."""
        kind = response.kind
        if kind in _STATUS:
            if response.text.startswith(b"["):
                self._notice_code(response)
        elif kind == b"CAPABILITY":
            self._told_capabilities(response.text)
        elif kind == b"BYE" and response.tag == b"*" and not self._leaving:
            log.debug("imap.bye", text=telling(response.text.decode("utf-8", "replace")))
            raise bye(response.text, self.phase)

    def check(self, name: bytes, response: Response) -> Response:
        """*response*, a tagged one, if it is OK; raises Refused (NO, BAD) or Fault(PROTOCOL)."""
        if response.kind == b"OK":
            return response
        if response.kind not in (b"NO", b"BAD"):
            raise Fault(FaultKind.PROTOCOL, "The mail server ended a command with neither OK, NO nor BAD.")
        command = name.split()[0].decode("ascii")
        refused = Refused(command, response.kind.decode("ascii"), response.text)
        log.debug("imap.refused", command=command, status=refused.status, code=refused.code, text=telling(refused.text))
        raise refused

    def forget_capabilities(self) -> None:
        """What was said so far is void: the next step changes it (TLS, login)."""
        self.capabilities = frozenset()
        self._capabilities_told = False

    async def ask_capabilities(self) -> None:
        """Ask, unless the server has told since the last forgetting."""
        if not self._capabilities_told:
            await self.command(b"CAPABILITY", within=60)

    async def logout(self, within: float = 5.0) -> None:
        """Say goodbye, for at most *within* seconds; what comes of it matters no more."""
        if self.dirty:
            return
        self._leaving = True
        try:
            await self.command(b"LOGOUT", within=within)
        except (Fault, Refused) as exc:
            log.debug("imap.logout_unanswered", error=repr(exc))
        self.dirty = True

    async def aclose(self) -> None:
        """Close the connection without a word."""
        self.dirty = True
        await self.wire.aclose()

    def _notice_code(self, response: Response) -> None:
        code = response_code(response.text)
        if code is None:
            return
        if code.name == b"CAPABILITY":
            self._told_capabilities(code.argument)
        elif response.tag != b"*":
            self.newsbox.file_code(response.text)

    def _told_capabilities(self, text: bytes) -> None:
        self.capabilities = parse_capabilities(text)
        self._capabilities_told = True

    def _chunks(self, tag: bytes, name: bytes, arguments: tuple[Argument, ...]) -> list[bytes]:
        """What to send: at once, and after each `+`."""
        chunks: list[list[bytes]] = [[tag, b" ", checked(name)]]
        for argument in arguments:
            if isinstance(argument, bytes):
                chunks[-1] += (b" ", checked(argument))
            elif self._may_send_unasked(len(argument.data)):
                chunks[-1] += (b" {%d+}\r\n" % len(argument.data), argument.data)
            else:
                chunks[-1].append(b" {%d}\r\n" % len(argument.data))
                chunks.append([argument.data])
        chunks[-1].append(b"\r\n")
        return [b"".join(chunk) for chunk in chunks]

    def _may_send_unasked(self, size: int) -> bool:
        return b"LITERAL+" in self.capabilities or (b"LITERAL-" in self.capabilities and size <= _LITERAL_MINUS)
