"""What an account's actor is told: frozen values in its mailbox."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from daemon.errors import Fault


@dataclass(frozen=True, slots=True)
class SyncNow:
    """The owner asked for a synchronisation now."""


@dataclass(frozen=True, slots=True)
class RowChanged:
    """Something in the account's row changed: credentials, name, what the owner wants."""


@dataclass(frozen=True, slots=True)
class Attempting:
    """The sync child begins to connect."""


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """The server accepted the credentials."""


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """The folder equals the server's."""

    new_messages: int
    proof: float
    """Seconds for which the server's last word counts as proof of life."""

    began: datetime | None
    """When the run began that `SyncNow` asked for, by the database's clock; None for one that nobody asked for."""

    credentials_version: int
    """Of the credentials that it was made with."""


@dataclass(frozen=True, slots=True)
class SyncEnded:
    """The sync child ended in a fault or a bug, and what its supervisor does next."""

    fault: Fault | None
    """None for a bug of ours."""

    retry_in: float | None
    """Seconds until it is started again; None when it is not."""

    credentials_version: int | None
    """Of the credentials that it was made with; None where it ended before it had any."""


Command = SyncNow | RowChanged | Attempting | LoggedIn | CaughtUp | SyncEnded
