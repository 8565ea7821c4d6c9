"""Where a mail server is and how it is spoken to: host, port, security.

A host is written in one way only.  Names are letters, digits and hyphens (RFC 1123 section 2.1), international ones as
A-labels (RFC 5891); addresses are the canonical form of `ipaddress`.  `getaddrinfo` also takes `127.1`,
`0177.0.0.1`, `2130706433` and `0x7f000001` for 127.0.0.1: whatever could be read as a number is refused here, so that
nobody downstream reads a host differently from us.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

import idna

MAX_HOST: Final = 253
"""Characters of a host name: RFC 1035 section 2.3.4's 255 octets on the wire, written out."""

_LABEL: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_STARTTLS_PORTS: Final = frozenset({25, 143, 587, 2525})


class InvalidHost(ValueError):
    """Not a host in canonical form; the message says why, in a sentence, and never repeats the host."""


class Security(StrEnum):
    """How a connection is encrypted; there is no third way (RFC 8314 section 3)."""

    TLS = "tls"
    """TLS from the first byte."""

    STARTTLS = "starttls"
    """Plain text up to the command STARTTLS, which must succeed."""


def default_security(port: int) -> Security:
    """What a port means by itself: 25, 143, 587 and 2525 are STARTTLS, any other is TLS."""
    return Security.STARTTLS if port in _STARTTLS_PORTS else Security.TLS


@lru_cache(maxsize=4096)  # an account list builds two endpoints a row, of the same few providers
def canonical_host(text: str) -> str:
    """The one form of a host: a lower-case name of A-labels, or a canonical IP address without brackets.

    Raises InvalidHost for anything that could be read in two ways.
    """
    if not text or len(text) > MAX_HOST:
        raise InvalidHost(f"A host must have 1 to {MAX_HOST} characters.")
    if (address := _literal(text)) is not None:
        return address
    name = text.lower() if text.isascii() else _a_labels(text)
    labels = name.split(".")
    if len(name) > MAX_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidHost("A host must be a name of letters, digits and hyphens, or an IP address.")
    # WHATWG URL section 3.5: a host whose last label is a number is an IPv4 address for some reader.
    if _NUMBER.fullmatch(labels[-1]):
        raise InvalidHost("A numeric host must be an IP address in its usual form, such as 192.0.2.1.")
    return name


def ip_literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that *host* is, or None where it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _literal(text: str) -> str | None:
    address = ip_literal(text) if text.isascii() else None
    if address is None:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise InvalidHost("An IP address must have no zone.")
    if isinstance(address, ipaddress.IPv6Address) and (mapped := address.ipv4_mapped) is not None:
        number = int(mapped)  # written out, for Python 3.13 began to show the last 32 bits with dots
        return f"::ffff:{number >> 16:x}:{number & 0xFFFF:x}"
    return str(address)


def _a_labels(text: str) -> str:
    """UTS 46 folds case, width and the ideographic full stops first, as browsers do."""
    try:
        return idna.encode(text, uts46=True).decode("ascii")
    except idna.IDNAError:
        raise InvalidHost("This is not a valid international host name.") from None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One mail server; the host is kept in canonical form.  Raises ValueError (InvalidHost) for anything else."""

    host: str
    port: int
    security: Security

    def __post_init__(self) -> None:
        object.__setattr__(self, "host", canonical_host(self.host))
        object.__setattr__(self, "security", Security(self.security))
        if not 1 <= self.port <= 65535:
            raise ValueError("A port must be between 1 and 65535.")
