"""What the sync hands over to be stored: frozen values, already bounded and decoded as far as IMAP goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Literal

BodyState = Literal["stored", "too_large", "unreadable"]

PART = 1 << 20
"""Bytes of one stored part of a body: what a reader of a large message has to hold at once."""


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """One message as the server has it now."""

    uid: int
    flags: tuple[str, ...]
    modseq: int | None
    received_at: datetime | None
    size: int
    """RFC822.SIZE, bytes."""
    pieces: Sequence[bytes]
    """The body in order; of a body that is too large or unreadable, its beginning (for the headers) or nothing."""
    body_state: BodyState


@dataclass(frozen=True, slots=True)
class FlagChange:
    """The flags of one message as they are now."""

    uid: int
    flags: tuple[str, ...]
    modseq: int | None


@lru_cache(256)  # a mailbox knows a few dozen combinations; the session bounds each to some kilobytes
def flag_names(flags: tuple[bytes, ...]) -> tuple[str, ...]:
    """IMAP's flags as text, sorted, without \\Recent, which is the session's and not the message's (RFC 9051)."""
    names = {flag.decode("ascii", "replace").replace("\x00", "") for flag in flags}
    return tuple(sorted(name for name in names if name and name.lower() != "\\recent"))
