"""What the API answers: one model a document, with every field always present.

The models serialise the answers and are the OpenAPI document's schemas.  Field names, and which of them are camelCase,
are the product's; adding a field is fine, removing or renaming one breaks its clients.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from daemon.account.views import AccountView, FolderProgress, SyncOverview, SyncRun, SyncStatus
from daemon.network import Security
from daemon.sharing.rules import Access


def rfc3339(value: datetime) -> str:
    """A time in UTC to the second, `2026-01-15T10:00:00Z`."""
    if value.tzinfo is None:
        raise ValueError("a time without a zone has no place in an answer")
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Time = Annotated[
    datetime,
    PlainSerializer(rfc3339, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-01-15T10:00:00Z"]}),
]


class AnswerModel(BaseModel):
    """What all answers have in common: a field is always there, whether it has a default or not."""

    model_config = ConfigDict(frozen=True, serialize_by_alias=True, json_schema_serialization_defaults_required=True)


class Done(AnswerModel):
    """It was done; there is nothing else to say."""

    success: Literal[True] = True


class Account(AnswerModel):
    """One connected account as a list shows it."""

    id: UUID
    email: str
    name: str
    imap_host: str
    imap_port: int
    smtp_host: str
    smtp_port: int
    sync_status: SyncStatus = Field(
        description="pending: saved, first sync not begun; syncing; synced: up to date; error: see state_reason."
    )
    is_default: bool
    created_at: Time
    access: Access

    @classmethod
    def of(cls, view: AccountView) -> Account:
        """From the daemon's view."""
        return cls(**_listed(view))


class Folder(AnswerModel):
    """How far one folder is."""

    name: str
    messages_total: int
    messages_done: int
    bytes_done: int
    complete: bool
    method: str

    @classmethod
    def of(cls, progress: FolderProgress) -> Folder:
        """From the daemon's view."""
        return cls(
            name=progress.name,
            messages_total=progress.messages_total,
            messages_done=progress.messages_done,
            bytes_done=progress.bytes_done,
            complete=progress.complete,
            method=progress.method,
        )


class AccountDetail(Account):
    """One account with what it is doing and why."""

    imap_security: Security
    smtp_security: Security
    username: str
    desired_state: Literal["running", "paused", "removed"]
    daily_limit: int | None = Field(description="Its own limit: recipients in 24 hours; null where it has none.")
    state: str
    state_reason: str | None
    state_code: str | None
    last_synced_at: Time | None
    last_contact_at: Time | None
    retry_at: Time | None
    folders: list[Folder]

    @classmethod
    def of(cls, view: AccountView) -> AccountDetail:
        """From the daemon's view."""
        return cls(
            **_listed(view),
            imap_security=view.imap.security,
            smtp_security=view.smtp.security,
            username=view.username,
            desired_state=view.desired,
            daily_limit=view.daily_limit,
            state=view.state,
            state_reason=view.state_reason,
            state_code=view.state_code,
            last_synced_at=view.last_synced_at,
            last_contact_at=view.last_contact_at,
            retry_at=view.retry_at,
            folders=[Folder.of(folder) for folder in view.folders],
        )


def _listed(view: AccountView) -> dict[str, Any]:
    return {
        "id": view.id,
        "email": view.email,
        "name": view.name,
        "imap_host": view.imap.host,
        "imap_port": view.imap.port,
        "smtp_host": view.smtp.host,
        "smtp_port": view.smtp.port,
        "sync_status": view.sync_status,
        "is_default": view.is_default,
        "created_at": view.created_at,
        "access": view.access,
    }


class Accounts(AnswerModel):
    """All accounts the caller owns or shares."""

    success: Literal[True] = True
    accounts: list[Account]


class OneAccount(AnswerModel):
    """One account."""

    success: Literal[True] = True
    account: AccountDetail


class ConnectedAccount(AnswerModel):
    """What there is to say of an account that was just saved."""

    id: UUID
    email: str
    sync_status: SyncStatus


class Connected(AnswerModel):
    """The credentials were accepted and the account saved."""

    success: Literal[True] = True
    account: ConnectedAccount


class SyncRunAnswer(AnswerModel):
    """The outcome of a request to synchronise: done now, or on its way."""

    success: Literal[True] = True
    account_id: UUID = Field(serialization_alias="accountId")
    status: Literal["synced", "queued"]
    new_messages: int = Field(serialization_alias="newMessages")
    synced_at: Time | None = Field(serialization_alias="syncedAt")

    @classmethod
    def of(cls, run: SyncRun) -> SyncRunAnswer:
        """From the daemon's view."""
        return cls(
            account_id=run.account_id, status=run.status, new_messages=run.new_messages, synced_at=run.synced_at
        )


class SyncState(AnswerModel):
    """How far one account is."""

    id: UUID
    email: str
    last_sync_at: Time | None = Field(serialization_alias="lastSyncAt")
    sync_status: Literal["idle", "syncing", "failed"] = Field(serialization_alias="syncStatus")
    new_message_count: int = Field(serialization_alias="newMessageCount")

    @classmethod
    def of(cls, overview: SyncOverview) -> SyncState:
        """From the daemon's view."""
        return cls(
            id=overview.id,
            email=overview.email,
            last_sync_at=overview.last_sync_at,
            sync_status=overview.sync_status,
            new_message_count=overview.new_message_count,
        )


class SyncStates(AnswerModel):
    """How far each account is."""

    success: Literal[True] = True
    accounts: list[SyncState]


class FailureDetails(AnswerModel):
    """What is wrong with a body, by field and as a whole."""

    field_errors: dict[str, list[str]] = Field(serialization_alias="fieldErrors")
    form_errors: list[str] = Field(serialization_alias="formErrors")


class CurrentPlan(AnswerModel):
    """The caller's plan."""

    slug: str


class Upgrade(AnswerModel):
    """What a larger plan would allow."""

    feature: str
    current_plan: CurrentPlan


def _never_null(schema: dict[str, Any]) -> None:
    """Describe a field that may be left out, as one that is not null where it is given."""
    (given,) = (inner for inner in schema.pop("anyOf") if inner != {"type": "null"})
    del schema["default"]
    schema |= given


class Failure(AnswerModel):
    """Every failure, whatever its status."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    success: Literal[False]
    error: str = Field(description="One plain sentence.")
    code: str = Field(description="The same for machines.")
    details: FailureDetails | None = Field(
        default=None, description="With validation_failed.", json_schema_extra=_never_null
    )
    upgrade: Upgrade | None = Field(
        default=None, description="With plan_limit_exceeded.", json_schema_extra=_never_null
    )
    retry_after: int | None = Field(
        default=None,
        serialization_alias="retryAfter",
        description="Seconds to wait; with rate_limited, busy, not_ready and timed_out.",
        json_schema_extra=_never_null,
    )
