"""What the control API asks about accounts and is told: frozen values, no SQL and no HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal
from uuid import UUID

from daemon.errors import Fault
from daemon.network import Endpoint
from daemon.sharing.rules import Access
from daemon.vault.secret import Secret

SyncStatus = Literal["pending", "syncing", "synced", "error"]
WarmupStatus = Literal["inactive", "active", "paused", "completed"]
BlacklistStatus = Literal["clean", "listed", "unknown"]


class Service(StrEnum):
    """Which of an account's two servers."""

    IMAP = "imap"
    SMTP = "smtp"


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """A mailbox to connect; everything in it has been validated for form."""

    email: str
    name: str | None
    imap: Endpoint
    smtp: Endpoint
    username: str
    password: Secret


@dataclass(frozen=True, slots=True)
class FolderProgress:
    """How far a folder's first sync has come."""

    name: str
    messages_total: int
    messages_done: int
    bytes_done: int
    complete: bool
    method: str
    """The rung of the ladder in use: `qresync`, `condstore` or `uid_diff`."""


@dataclass(frozen=True, slots=True)
class AccountView:
    """One account as a list shows it."""

    id: UUID
    email: str
    name: str
    imap: Endpoint
    smtp: Endpoint
    sync_status: SyncStatus
    is_default: bool
    created_at: datetime
    access: Access
    desired: Literal["running", "paused", "removed"]
    state: str
    state_reason: str | None
    state_code: str | None
    last_synced_at: datetime | None
    last_contact_at: datetime | None
    retry_at: datetime | None
    username: str = ""
    daily_limit: int | None = None
    """Its own limit: recipients in 24 hours."""
    folders: tuple[FolderProgress, ...] = ()
    """Filled for one account, empty in a list."""
    status_until: datetime | None = None
    """When `sync_status` is to be judged again although nothing changed; None: never."""


@dataclass(frozen=True, slots=True)
class SyncRun:
    """The answer to a request to synchronise now."""

    account_id: UUID
    status: Literal["synced", "queued"]
    new_messages: int
    synced_at: datetime | None


@dataclass(frozen=True, slots=True)
class SyncOverview:
    """One account in the overview of synchronisation."""

    id: UUID
    email: str
    last_sync_at: datetime | None
    sync_status: Literal["idle", "syncing", "failed"]
    new_message_count: int


@dataclass(frozen=True, slots=True)
class ReputationView:
    """How one account stands with those it sends to; what no probe has found out is not known."""

    account_id: UUID
    email: str
    daily_limit: int
    """Recipients in 24 hours, at most: the least of the limits that hold."""
    sent_today: int
    """Recipients in the last 24 hours."""
    reputation_score: int | None = None
    """From 0 to 100."""
    warmup_status: WarmupStatus = "inactive"
    blacklist_status: BlacklistStatus = "unknown"
    last_checked_at: datetime | None = None


class AlreadyConnected(Exception):
    """This address, or this mailbox, is connected already."""


class QuotaReached(Exception):
    """The caller's plan allows no further account."""

    def __init__(self, plan: str, limit: int) -> None:
        super().__init__(f"the plan {plan} allows {limit} connected accounts")
        self.plan = plan
        self.limit = limit


class VerificationFailed(Exception):
    """A server did not accept the credentials, or could not be reached as asked."""

    def __init__(self, service: Service, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.service = service
        self.fault = fault


class CampaignsActive(Exception):
    """The only remaining default account cannot go while campaigns are active."""
