"""What an SMTP server answers (RFC 5321 section 4.2), read strictly and within bounds.  Pure.

A reply is one line or several, all with the same three digits; we never pipeline, so after each reply the server has
nothing more to say.  Its text is the stranger's: kept short and printable, for records that only the owner sees.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

MAX_LINE: Final = 8192
"""Bytes of one line: RFC 5321 section 4.5.3.1.5 allows 512, and servers exceed it in EHLO and AUTH challenges."""

MAX_REPLY: Final = 4 * MAX_LINE
"""Bytes of one whole reply; a long EHLO has 2 KiB."""

MAX_TEXT: Final = 500
"""Characters of a reply's text that are kept: enough for the longest policy text with its link."""

_LINE: Final = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
_ENHANCED: Final = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:[ :]+|$)")
_UNPRINTABLE: Final = re.compile(r"[^\S ]|[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


class MalformedReply(Exception):
    """Not a reply, or one beyond the bounds."""


@dataclass(frozen=True, slots=True)
class RawReply:
    """A reply as it came."""

    code: int
    lines: tuple[bytes, ...]
    """Each without its code and line end."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply to judge and to keep."""

    code: int
    """Three digits, 200 to 599."""
    enhanced: str | None
    """The enhanced status (RFC 3463), such as "5.7.1", where the server gave one that fits the code."""
    text: str
    """The server's own words, at most `MAX_TEXT` printable characters.  Never for anybody but the account's owner."""
    local: bool = False
    """Whether we refused it ourselves, by what the server had announced, and never asked."""

    @property
    def temporary(self) -> bool:
        """Whether the server asks us to try again (4yz)."""
        return 400 <= self.code < 500

    @property
    def positive(self) -> bool:
        """Whether the server did as asked (2yz)."""
        return 200 <= self.code < 300


def take_reply(buffer: bytearray) -> RawReply | None:
    """Remove the first reply from *buffer*, or None while it is not complete.  Raises MalformedReply."""
    lines: list[bytes] = []
    code = 0
    start = 0
    while (end := buffer.find(b"\n", start)) >= 0:
        line = bytes(buffer[start:end]).removesuffix(b"\r")
        start = end + 1
        match = _LINE.fullmatch(line)
        if match is None or len(line) > MAX_LINE or start > MAX_REPLY:
            raise MalformedReply
        if lines and int(match[1]) != code:
            raise MalformedReply
        code = int(match[1])
        lines.append(match[3] or b"")
        if match[2] != b"-":
            del buffer[:start]
            return RawReply(code, tuple(lines))
    if len(buffer) > MAX_REPLY or len(buffer) - start > MAX_LINE:
        raise MalformedReply
    return None


def reply(code: int, message: str) -> Reply:
    """From a code and the lines of text: the enhanced status taken off, the text made fit to keep."""
    text = message.strip()
    match = _ENHANCED.match(text)
    enhanced = None
    if match is not None and match[1][0] == str(code)[0]:  # RFC 2034 section 4: the classes agree
        enhanced = match[1]
        text = text.replace(f"\n{enhanced} ", "\n")[match.end() :]
    text = " ".join(_UNPRINTABLE.sub(" ", text.encode("utf-8", "replace").decode("utf-8", "replace")).split())
    return Reply(code, enhanced, text[:MAX_TEXT])
