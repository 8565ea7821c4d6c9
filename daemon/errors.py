"""Faults (the world's) and how the supervisor is to treat them; bugs (ours) are every other exception.

A fault carries its disposition, judged where the evidence is: by a real reply of a server, never by a number that
looks like one.  Nobody below the supervisor retries a connection, so the disposition is the whole retry policy.
"""

from __future__ import annotations

from enum import StrEnum


class Disposition(StrEnum):
    """What the supervisor does with a child that ended in a fault."""

    RETRY = "retry"
    """Start again, paced, for ever; spends no restart intensity and never parks the account."""

    PARK = "park"
    """Stay down, with the reason, until new credentials or a person."""

    ESCALATE = "escalate"
    """Our bug: spends the account's restart intensity."""


class FaultKind(StrEnum):
    """What went wrong, in the words that the API's error codes are built from."""

    HOST_NOT_ALLOWED = "host_not_allowed"
    """The address guard refused the host or the port."""

    CONNECT_FAILED = "connect_failed"
    """The name does not resolve, nobody answers, or no sensible greeting came."""

    TLS_FAILED = "tls_failed"
    """No TLS, an old TLS, or a certificate that does not verify for the host name."""

    AUTH_FAILED = "auth_failed"
    """The server refused the credentials."""

    PASSWORD_UNSUPPORTED = "password_login_unsupported"  # noqa: S105 - the name of a code, not a password
    """The server does not take passwords (OAuth only)."""

    LOST = "connection_lost"
    """A session that had worked ended: network, BYE, silence."""

    UNAVAILABLE = "server_unavailable"
    """The server says that it cannot serve now (UNAVAILABLE, INUSE, SERVERBUG, 4xx)."""

    THROTTLED = "throttled"
    """The server asks us to slow down; `retry_after` holds its own back-off where it named one."""

    REFUSED = "refused"
    """The server refused a command for good (NO or BAD without a code that says more)."""

    PROTOCOL = "protocol_violation"
    """The server broke the protocol or one of our bounds."""

    UNREADABLE = "credentials_unreadable"
    """The stored credentials cannot be opened: the key ring lacks their key, or they were changed."""

    DATABASE_AWAY = "database_away"
    """PostgreSQL does not answer; nobody's account is at fault."""


class Fault(Exception):
    """Something the world did, with a plain sentence for the owner and a disposition for the supervisor.

    The reason never holds a secret nor, for faults shown to a stranger, the remote server's own text.
    """

    def __init__(
        self,
        kind: FaultKind,
        reason: str,
        *,
        disposition: Disposition = Disposition.RETRY,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.disposition = disposition
        self.retry_after = retry_after
        """Seconds to wait at least, where the server named them or its words leave no doubt, or None."""

    def __repr__(self) -> str:
        return f"Fault({self.kind.value}, {self.reason!r}, {self.disposition.value})"


def leaves(exc: BaseException) -> list[BaseException]:
    """The single exceptions inside nested groups, in order; every Trio nursery adds a layer."""
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for inner in exc.exceptions for leaf in leaves(inner)]
    return [exc]
