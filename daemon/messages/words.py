"""Encoded words in header fields (RFC 2047): `=?utf-8?q?caf=C3=A9?=` is "café".

The standard library's `decode_header` decides what a field means; a field of one or two words takes it 8 to 11 µs.
Where a field is nothing but printable ASCII and well-formed encoded words, which is nearly always, `_quick` reads the
same in one pass of 2 to 4 µs (measured); everything else goes to the standard library.  The tests hold the two against
each other.
"""

from __future__ import annotations

import binascii
import re
from email.errors import HeaderParseError
from email.header import decode_header
from typing import Final

# A piece is a well-formed word (charset, base64 or quoted), or text in which no word begins.  Linear, for no two
# alternatives begin alike.  Not possessive: Python before 3.11.5 forgets to go back where a possessive group fails.
_PIECE: Final = re.compile(
    r"=\?([A-Za-z0-9_-]+)\?(?:[bB]\?([A-Za-z0-9+/]*={0,2})|[qQ]\?((?:[!-<>@-~]|=[0-9A-Fa-f]{2})*))\?="
    r"|((?:[ -<>-~]|=(?!\?))+)"
)


def decoded(text: str) -> str:
    """*text* with its encoded words decoded; a broken one stays as it is."""
    if "=?" not in text:
        return text
    quick = _quick(text)
    return quick if quick is not None else by_library(text)


def by_library(text: str) -> str:
    """What the standard library makes of *text*; it decides.

    It looks for the end of each word to the end of the line, so that beginnings without an end cost the square of their
    number: what stands behind the last end is no word, and is not shown to it.
    """
    line = " ".join(text.splitlines())
    last = line.rfind("?=") + 2
    if last < 2 or "=?" not in text:
        return text
    try:
        parts = decode_header(line[:last])
    except (HeaderParseError, ValueError):
        return text
    words = "".join(
        data if isinstance(data, str) else _in_charset(data, charset or "latin-1") for data, charset in parts
    )
    return words + line[last:]


def _quick(text: str) -> str | None:
    """As `by_library`, or None where only that can tell."""
    out: list[str] = []
    data, charset, blank = b"", "", ""
    position = 0
    while match := _PIECE.match(text, position):
        name, base64, quoted, plain = match.groups()
        if plain is not None:
            if not position:
                plain = plain.lstrip()
            if charset and plain.isspace():
                blank = plain  # between two encoded words it means nothing
            elif plain:
                if charset:
                    out.append(_in_charset(data, charset))
                    data, charset = b"", ""
                out.append(plain)
        else:
            try:
                piece = (
                    binascii.a2b_base64(base64 + "==="[: -len(base64) % 4])
                    if quoted is None
                    else binascii.a2b_qp(quoted, header=True)
                )
            except ValueError:
                return None
            if charset and charset != name.lower():
                out.append(_in_charset(data, charset))
                data = b""
            charset, blank = name.lower(), ""
            data += piece  # words of one charset may share a character
        position = match.end()
    if position != len(text):
        return None
    if charset:
        out.append(_in_charset(data, charset) + blank)
    return "".join(out)


def _in_charset(data: bytes, charset: str) -> str:
    try:
        return data.decode(charset, "replace")
    except (LookupError, ValueError):  # an unknown charset, or one that is no text encoding
        return data.decode("latin-1")
