"""Lists of addresses as header fields hold them (RFC 5322 section 3.4), read in one pass and without guessing.

The standard library's `getaddresses` reads one field differently from release to release (CVE-2023-27043: first it
made addresses out of what is none, then it dropped whole fields), and is not linear.  Here an entry ends at a comma or
semicolon outside quotes, comments and angle brackets, and is one address or none: what stands in its only pair of
angle brackets, or the whole of it.  An entry that could be read as two addresses is left out; the others stay.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

# Each alternative either takes what it looked at or fails at the next character of its own kind: linear on anything.
_TOKEN: Final = re.compile(
    r"""
      (?P<quoted>  "(?:[^"\\]|\\.)*+"?+ )
    | (?P<angle>   <(?:[^<>"]|"(?:[^"\\]|\\.)*+")*+> )
    | (?P<literal> \[[^\[\]]*+\] )
    | (?P<text>    [^\s"<>(),:;\[\]]++ )
    | (?P<space>   \s++ )
    | (?P<special> . )
    """,
    re.DOTALL | re.VERBOSE,
)
_IN_COMMENT: Final = re.compile(r"\\.|[()]", re.DOTALL)
_PAIR: Final = re.compile(r"\\(.)", re.DOTALL)

# Dots may stand anywhere and characters above 127 everywhere: this is what was written, not what may be written to.
# Without a domain, for bounces come from <MAILER-DAEMON> and a machine's own mail from root.
_ADDRESS: Final = re.compile(
    r"""
    (?: [^\s"<>(),:;@\[\]\\]+ | "(?:[^"\\]|\\.)*+" )
    (?: @ (?: [^\s"<>(),:;@\[\]\\]+ | \[[^\s\[\]<>"\\]+\] ) )?
    """,
    re.DOTALL | re.VERBOSE,
)


class _Entry:
    """What was seen since the last comma."""

    __slots__ = ("ambiguous", "angle", "comments", "name", "written")

    def __init__(self) -> None:
        self.name: list[str] = []
        self.written: list[str] = []
        self.comments: list[str] = []
        self.angle: str | None = None
        self.ambiguous = False

    def take(self, kind: str | None, token: str) -> None:
        if kind == "angle":
            self.ambiguous |= self.angle is not None
            self.angle = token[1:-1].strip()
            return
        self.written.append(token)
        self.name.append(_unquoted(token) if kind == "quoted" else token)
        # A bracket without its partner, and anything between an address and the next comma.
        self.ambiguous |= token in ("<", ">") or (self.angle is not None and kind != "space")

    def pair(self) -> tuple[str, str] | None:
        if self.ambiguous:
            return None
        if self.angle is not None:
            address, name = self.angle, "".join(self.name).strip()
        else:
            address, name = "".join(self.written).strip(), ""
        if not _ADDRESS.fullmatch(address):
            return None
        return name or " ".join(self.comments).strip(), address


def read_addresses(text: str) -> Iterator[tuple[str, str]]:
    """Each entry's name and address, in order; the name may still hold encoded words (RFC 2047).

    A group's name is dropped and its members are listed (section 3.4).  Where an address has no name, a comment behind
    it is one, as was the custom before RFC 822.
    """
    entry, position = _Entry(), 0
    while match := _TOKEN.match(text, position):
        position, piece = match.end(), match[0]
        if piece in (",", ";"):
            if (pair := entry.pair()) is not None:
                yield pair
            entry = _Entry()
        elif piece == ":":
            entry = _Entry()
        elif piece == "(":
            end = _comment_end(text, position)
            entry.comments.append(_PAIR.sub(r"\1", text[position : end - 1]))
            entry.written.append(" ")  # a comment parts words: ann(x)@example.com is none that we read
            position = end
        else:
            entry.take(match.lastgroup, piece)
    if (pair := entry.pair()) is not None:
        yield pair


def _comment_end(text: str, position: int) -> int:
    """Behind the comment that was opened before *position*; one that is never closed takes all the rest."""
    depth = 1
    for match in _IN_COMMENT.finditer(text, position):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if depth == 0:
            return match.end()
    return len(text) + 1


def _unquoted(token: str) -> str:
    return _PAIR.sub(r"\1", token[1:].removesuffix('"'))
