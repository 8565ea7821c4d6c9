"""What the control API asks about shares and is told: frozen values, no SQL and no HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from daemon.identity import User

from .rules import Given


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and from where: what the audit keeps."""

    user: User
    client: str
    """Their address as the API saw it, or empty."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """One that is open, as the account's owner sees it."""

    id: str
    invitee_email: str
    role: Given
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Received:
    """One that is open, as its invitee sees it."""

    id: str
    account_email: str
    inviter_name: str
    role: Given
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Share:
    """Somebody who has accepted an invitation."""

    user_id: str
    email: str
    role: Given
    shared_at: datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that somebody did."""

    id: int
    at: datetime
    user_id: str
    user_email: str
    client: str
    action: str
    account_id: UUID
    detail: Mapping[str, object]
