"""From lines and literals to one response: `* 5 EXISTS`, `+ idling`, `A7 OK [READ-ONLY] done`.

RFC 9051 section 2.2.2: a response is tagged, untagged (`*`) or a continuation request (`+`).  A response once begun is
read to its end, in a bounded time, however many literals it has and however slowly they drip.

A line of UIDs may have 1 MiB, and takes 200 ms to understand, in which nobody else's mail comes.  Lists can be told in
parts as well as whole: `in_pieces` makes several responses of such a one, between which others have their turn.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from daemon.errors import Fault, FaultKind

from .wire import MAX_LITERAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .parse import Part
    from .wire import Wire

MAX_RESPONSE: Final = MAX_LITERAL + (1 << 20)
"""Bytes of one whole response, all its literals and lines together: one literal of the greatest size, and its line."""

_LEAST_RATE: Final = 4096  # bytes a second: GPRS; a server slower than this for a whole response is torn down
_GRACE: Final = 120.0  # seconds a response may take whatever its size: the first byte may wait for a slow disk
_LITERAL: Final = re.compile(rb"\{(\d{1,19})\+?\}\Z")
PIECE: Final = 1 << 12
"""Bytes of a list of UIDs that are understood without a pause: 370 scattered ones, less than 1 ms."""

_LISTS: Final = frozenset({b"SEARCH", b"ESEARCH", b"VANISHED"})
_BESIDE: Final = 1024  # bytes beside the list itself; an ESEARCH with all of RFC 4731 and RFC 7162 has under 200
_WORD: Final = 128  # bytes of a tag or a response's name; the longest of IMAP has 14


class Response(NamedTuple):
    """One response of the server."""

    tag: bytes
    """`b"*"`, `b"+"`, or the tag of the command that it ends."""
    kind: bytes
    """`b"EXISTS"`, `b"FETCH"`, `b"OK"`, upper case; empty for a continuation request."""
    number: int | None
    """The 5 of `* 5 EXISTS`."""
    parts: list[Part]
    """What follows the kind."""

    @property
    def text(self) -> bytes:
        """What follows the kind, up to the first literal."""
        first = self.parts[0]
        return first[0] if isinstance(first, tuple) else first

    @property
    def size(self) -> int:
        """Bytes, about."""
        return sum(len(part[0]) + len(part[1]) if isinstance(part, tuple) else len(part) for part in self.parts)


async def read_response(wire: Wire) -> Response:
    """The next response; raises Fault(LOST) or Fault(PROTOCOL)."""
    line = wire.take_line()
    if line is None or line.endswith(b"}"):
        parts = await _slow_parts(wire, line)
    else:
        parts = [line]
    return split_response(parts)


async def _slow_parts(wire: Wire, line: bytes | None) -> list[Part]:
    """The parts of a response that is not here yet as a single line."""
    parts: list[Part] = []
    room = MAX_RESPONSE
    while True:
        if line is None:
            with wire.within(_GRACE + wire.pending / _LEAST_RATE):
                await wire.wait_line(wire.patience)
            line = wire.take_line() or b""
        match = _LITERAL.search(line) if line.endswith(b"}") else None
        if match is None:
            parts.append(line)
            return parts
        size = int(match[1])
        room -= size + len(line) + 64  # 64: what a part costs beside its bytes, so that a million empty ones end too
        if room < 0:
            raise Fault(FaultKind.PROTOCOL, f"The mail server sent an answer of more than {MAX_RESPONSE} bytes.")
        if wire.pending >= size:
            parts.append((line, await wire.block(size)))
        else:
            with wire.within(_GRACE + size / _LEAST_RATE):
                parts.append((line, await wire.block(size)))
        line = wire.take_line()


def split_response(parts: list[Part]) -> Response:
    """The response that *parts* are; raises Fault(PROTOCOL)."""
    first = parts[0]
    head = first[0] if isinstance(first, tuple) else first
    tag, _, rest = head.partition(b" ")
    if tag == b"+":
        return Response(tag, b"", None, [rest])
    word, _, rest = rest.partition(b" ")
    number: int | None = None
    if word.isdigit() and len(word) <= 10:
        number = int(word)
        word, _, rest = rest.partition(b" ")
    if not word or len(word) > _WORD or not tag or len(tag) > _WORD:
        raise Fault(FaultKind.PROTOCOL, "The mail server sent something that is no IMAP.")
    parts[0] = (rest, first[1]) if isinstance(first, tuple) else rest
    return Response(tag, word.upper(), number, parts)


def in_pieces(response: Response) -> Iterator[Response] | None:
    """Several responses that tell the same as one that is a long list of UIDs; None where it is none.

    Raises Fault(PROTOCOL) for a list with more beside it than any has.
    """
    text = response.parts[0]
    if len(text) <= PIECE or response.kind not in _LISTS or len(response.parts) > 1 or isinstance(text, tuple):
        return None
    if response.kind == b"SEARCH":  # `(MODSEQ n)` may follow, RFC 7162 section 3.1.5, and nobody reads it
        return _pieces(response, b"", text.partition(b"(")[0] or b" ", b" ", b"")
    listed = max(text.split(b" "), key=len)
    before, _, after = text.partition(listed)
    if len(before) + len(after) > _BESIDE:
        raise Fault(FaultKind.PROTOCOL, "The mail server sent something that is no IMAP.")
    return _pieces(response, before, listed, b",", after)


def _pieces(whole: Response, before: bytes, listed: bytes, separator: bytes, after: bytes) -> Iterator[Response]:
    """The list cut at separators, each piece with what stands before and after it; at least one."""
    at = 0
    while at < len(listed):
        end = listed.find(separator, at + PIECE)
        end = len(listed) if end < 0 else end
        yield whole._replace(parts=[before + listed[at:end] + after])
        at = end + 1
