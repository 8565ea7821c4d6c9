"""What a server says it can do, and which way to send a password follows from it.  Pure.

Capabilities said before TLS are worth nothing (RFC 9051 section 6.2.1), and login may change them: whoever holds a set
forgets it at both.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import Final

from daemon.errors import Disposition, Fault, FaultKind

MAX_CAPABILITIES: Final = 8192
"""Bytes of one CAPABILITY answer; the longest known (Dovecot's, all plugins on) has under 1 KiB."""


@lru_cache(maxsize=256)  # thousands of sessions at a few kinds of servers: they share one set each
def parse_capabilities(text: bytes) -> frozenset[bytes]:
    """`b"IMAP4rev1 IDLE"` -> upper-case names; raises Fault(PROTOCOL) beyond `MAX_CAPABILITIES`."""
    if len(text) > MAX_CAPABILITIES:
        raise Fault(FaultKind.PROTOCOL, "The mail server sent an impossibly long list of capabilities.")
    return frozenset(text.upper().split())


class PasswordMethod(StrEnum):
    """How a password travels; both inside TLS only."""

    PLAIN = "plain"
    """SASL PLAIN (RFC 4616): UTF-8 and every character but NUL."""
    LOGIN = "login"
    """The LOGIN command."""


def password_method(capabilities: frozenset[bytes]) -> PasswordMethod:
    """Which way this server takes passwords; raises Fault(PASSWORD_UNSUPPORTED) when it says that it takes none.

    Called inside TLS only, so LOGINDISABLED (RFC 9051 section 6.2.3) cannot mean "not before TLS".
    """
    if b"AUTH=PLAIN" in capabilities:
        return PasswordMethod.PLAIN
    if b"LOGINDISABLED" not in capabilities:
        return PasswordMethod.LOGIN
    if capabilities & {b"AUTH=XOAUTH2", b"AUTH=OAUTHBEARER"}:
        reason = "The mail server takes no passwords, only sign-in through its provider (OAuth)."
    else:
        reason = "The mail server has switched off signing in with a password."
    raise Fault(FaultKind.PASSWORD_UNSUPPORTED, reason, disposition=Disposition.PARK)
