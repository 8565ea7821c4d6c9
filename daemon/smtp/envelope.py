"""A message and its addresses in the form that goes over the wire, and what they ask of a server.  Pure.

Lines end in CRLF and in nothing else: a bare CR or LF that one server passes and the next takes for a line end is how
mail is smuggled past checks.  Addresses come from stored rows, so a bad one is a refusal of that recipient, never an
error that stops the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import idna
from aiosmtplib.email import parse_address

from .replies import Reply

END: Final = b".\r\n"
"""What ends a message (RFC 5321 section 4.1.1.4); the payload before it ends with CRLF."""

MAX_PATH: Final = 254
"""Characters of an address: RFC 5321 section 4.5.3.1.3 allows 256 octets with the brackets."""

MAX_LOCAL: Final = 64
"""Octets of what stands before the @ (RFC 5321 section 4.5.3.1.1)."""

# RFC 5321 section 4.1.2, with RFC 6531's characters above 127.  Dots may stand anywhere: ann.@ and a..b@ are in use at
# Japanese carriers, and are the server's to refuse.  A quoted part has no blank and no angle bracket, which some server
# would take for the end of the path, and escapes only what must be.
_ABOVE: Final = r"[^\x00-\xa0\s]"
_LOCAL: Final = re.compile(
    rf"(?:[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~.-]|{_ABOVE})+"
    rf'|"(?:[!#-;=?-\[\]-~]|\\["\\]|{_ABOVE})+"'
)
_DOMAIN: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")
_IPV6: Final = re.compile(r"IPv6:([0-9A-Fa-f:.]+)", re.IGNORECASE)

TOO_LARGE: Final = Reply(552, "5.3.4", "The message is larger than the server takes.", local=True)
NO_EIGHT_BIT: Final = Reply(554, "5.6.3", "The server takes no messages with 8-bit text.", local=True)
NO_UTF8: Final = Reply(553, "5.6.7", "The server takes no international addresses.", local=True)
BAD_SENDER: Final = Reply(553, "5.1.7", "The sender is not an address that can be used.", local=True)
BAD_RECIPIENT: Final = Reply(553, "5.1.3", "This is not an address that can be sent to.", local=True)


@dataclass(frozen=True, slots=True)
class Payload:
    """A message as it is sent."""

    data: bytearray
    """CRLF line ends, leading dots doubled, without `END`."""
    size: int
    """Octets by RFC 1870's count: CRLF line ends, dots not doubled."""
    eight_bit: bool
    """Whether any octet is above 127."""
    utf8_header: bool
    """Whether the header has one, which takes SMTPUTF8 (RFC 6531 section 3.1)."""


PIECE: Final = 1 << 16
"""Bytes of a message that are brought into form without a pause: a thread as well keeps all others waiting while it is
inside one call of C.  A piece of text takes 0.2 ms, one of nothing but line ends 1.6 ms (measured)."""


def payload(message: bytes) -> Payload:
    """Bring a message into its wire form; 3 ms a megabyte, 26 of line ends alone, so large ones belong in a thread."""
    data = bytearray()  # grows in place: to join the pieces of 50 MB in the end would be 40 ms in one call
    size, end_of_header = 0, -1
    for begin, end in _spans(message):
        lines = message[begin:end].replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
        if end == len(message) and not lines.endswith(b"\r\n"):
            lines += b"\r\n"
        size += len(lines)
        if lines.startswith(b".") and (not data or data.endswith(b"\r\n")):
            data += b"."
        before = len(data)
        data += lines.replace(b"\r\n.", b"\r\n..")
        if end_of_header < 0:
            end_of_header = data.find(b"\r\n\r\n", max(before - 3, 0))
    eight_bit = not message.isascii()
    utf8_header = eight_bit if end_of_header < 0 else not data[:end_of_header].isascii()
    return Payload(data, size, eight_bit, utf8_header)


def _spans(message: bytes) -> Iterator[tuple[int, int]]:
    """The pieces of a message, at least one; none ends between CR and LF."""
    begin = 0
    while True:
        end = min(begin + PIECE, len(message))
        if message[end - 1 : end + 1] == b"\r\n":
            end += 1
        yield begin, end
        if end == len(message):
            return
        begin = end


def mailbox(address: str) -> str | None:
    """*address* as it stands in MAIL or RCPT: the domain as A-labels where nothing else is international.

    None for one that is no address.  The empty address is for MAIL only, and the caller's business.
    """
    local, at, domain = address.rpartition("@")
    if not at or len(address) > MAX_PATH or not _LOCAL.fullmatch(local):
        return None
    try:
        if len(local.encode()) > MAX_LOCAL:  # a lone surrogate has no encoding
            return None
        if domain.startswith("["):
            _check_literal(domain)
        else:
            name = domain if domain.isascii() else idna.encode(domain, uts46=True).decode("ascii")
            if not _DOMAIN.fullmatch(name):
                return None
            if local.isascii():
                address = f"{local}@{name}"
        # aiosmtplib puts what the standard library makes of an address on the wire: that must be this one.
        return address if len(address) <= MAX_PATH and parse_address(address) == address else None
    except ValueError:  # idna's and Unicode's errors are ValueErrors too
        return None


def _check_literal(domain: str) -> None:
    """An address literal (RFC 5321 section 4.1.3); raises ValueError for none, and for tags other than IPv6."""
    inner = domain.removeprefix("[").removesuffix("]")
    if len(inner) != len(domain) - 2:
        raise ValueError("a literal stands in brackets")
    if match := _IPV6.fullmatch(inner):
        IPv6Address(match[1])
    else:
        IPv4Address(inner)


def refuse(sender: str, content: Payload, extensions: Mapping[str, str]) -> Reply | None:
    """Why the server could not take this message at all, by what it announced; None if it might."""
    limit = size_limit(extensions)
    if limit is not None and content.size > limit:
        return TOO_LARGE
    if (content.utf8_header or not sender.isascii()) and "smtputf8" not in extensions:
        return NO_UTF8
    if content.eight_bit and "8bitmime" not in extensions and "smtputf8" not in extensions:
        return NO_EIGHT_BIT
    return None


def mail_options(addresses: Iterable[str], content: Payload, extensions: Mapping[str, str]) -> list[str]:
    """The parameters of MAIL (RFC 1870, RFC 6152, RFC 6531), as far as they were announced."""
    options = []
    if "size" in extensions:
        options.append(f"SIZE={content.size}")
    if content.eight_bit and "8bitmime" in extensions:
        options.append("BODY=8BITMIME")
    if content.utf8_header or not all(address.isascii() for address in addresses):
        options.append("SMTPUTF8")
    return options


def size_limit(extensions: Mapping[str, str]) -> int | None:
    """The largest message that the server announced; None for no limit (RFC 1870 section 4: 0 is none too)."""
    text = extensions.get("size", "").strip()
    limit = int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0
    return limit or None
