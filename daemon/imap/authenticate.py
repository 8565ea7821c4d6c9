"""Login: SASL PLAIN, LOGIN, OAUTHBEARER, XOAUTH2; only ever called inside TLS (`open` sees to that).

A refusal becomes a `Fault` here, by the table in `faults`.  Credentials leave as base64 or as a literal, never as
part of a line; what is logged of a refused login is its code.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

import structlog

from .capabilities import PasswordMethod, password_method
from .conversation import Conversation, quoted
from .faults import Phase, Refused, telling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.vault.secret import Secret

log = structlog.get_logger(__name__)

_MAX_CHALLENGE = 4096  # bytes looked at of a server's SASL challenge; an OAuth error document has about 100


async def login(conversation: Conversation, username: str, password: Secret) -> None:
    """Log in with a password and learn what the server offers afterwards.

    Raises Fault: AUTH_FAILED (PARK when the server's code makes it final, else RETRY), PASSWORD_UNSUPPORTED,
    THROTTLED, UNAVAILABLE, LOST, PROTOCOL; ValueError for a user name or password with CR, LF or NUL.
    """
    secret = password.reveal()
    if any(c in "\r\n\0" for c in username + secret):
        raise ValueError("no line breaks or NUL in a user name or password")
    await conversation.ask_capabilities()
    method = password_method(conversation.capabilities)
    try:
        if method is PasswordMethod.PLAIN:
            await _authenticate(conversation, b"PLAIN", f"\0{username}\0{secret}")
        else:
            user, word = quoted(username), quoted(secret)
            conversation.forget_capabilities()
            await conversation.command(b"LOGIN", user, word, within=conversation.wire.patience)
    except Refused as exc:
        raise exc.fault(Phase.LOGIN) from None  # its text may repeat what we sent
    await _welcome(conversation)


async def login_oauth(conversation: Conversation, username: str, token: Secret, port: int = 993) -> None:
    """Log in with an OAuth access token, by OAUTHBEARER (RFC 7628) or Google's and Microsoft's XOAUTH2.

    Raises as `login` does.  *port* is that of the real connection: RFC 7628 signs it into the message.
    """
    secret = token.reveal()
    if any(c in "\r\n\0\1" for c in username + secret):
        raise ValueError("no control characters in a user name or token")
    await conversation.ask_capabilities()
    try:
        if b"AUTH=OAUTHBEARER" in conversation.capabilities:
            name = username.replace("=", "=3D").replace(",", "=2C")
            message = f"n,a={name},\1host={conversation.wire.host}\1port={port}\1auth=Bearer {secret}\1\1"
            await _authenticate(conversation, b"OAUTHBEARER", message, after_error=b"AQ==")
        else:
            await _authenticate(conversation, b"XOAUTH2", f"user={username}\1auth=Bearer {secret}\1\1")
    except Refused as exc:
        raise exc.fault(Phase.LOGIN) from None
    await _welcome(conversation)


async def _authenticate(
    conversation: Conversation, mechanism: bytes, message: str, *, after_error: bytes = b""
) -> None:
    """One SASL exchange: the message, and *after_error* to whatever the server still says (an OAuth error)."""
    data = base64.b64encode(message.encode())
    # SASL-IR (RFC 4959) saves the round trip of an empty challenge.
    early = b"SASL-IR" in conversation.capabilities
    replies: Iterator[bytes] = iter(() if early else (data,))

    def answer(challenge: bytes) -> bytes:
        if challenge:
            _log_challenge(mechanism, challenge)
        return next(replies, after_error)

    conversation.forget_capabilities()
    await conversation.command(
        b"AUTHENTICATE " + mechanism, *((data,) if early else ()), answer=answer, within=conversation.wire.patience
    )


def _log_challenge(mechanism: bytes, challenge: bytes) -> None:
    try:
        said = base64.b64decode(challenge[:_MAX_CHALLENGE], validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return
    if said:
        log.debug("imap.sasl_challenge", mechanism=mechanism.decode("ascii"), text=telling(said))


async def _welcome(conversation: Conversation) -> None:
    conversation.phase = Phase.SESSION
    await conversation.ask_capabilities()
