"""The SQL behind the API: every statement is scoped by the caller through `account_access`, or by ownership.

Whoever may not see an account gets no row, so nobody can tell "not yours" from "not there".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from psycopg.rows import class_row, dict_row

from daemon.network import Endpoint, Security
from daemon.sharing.rules import Access
from daemon.storage.connection import Conn

from .states import State
from .status import Facts, holds_until, sync_status
from .views import AccountView, FolderProgress, SyncOverview, SyncStatus

VIEW_COLUMNS = (
    "a.id, a.email, a.name, a.imap_host, a.imap_port, a.imap_security, a.smtp_host, a.smtp_port, a.smtp_security,"
    " a.is_default, a.created_at, a.desired, a.state, a.state_reason, a.state_code, a.first_synced_at,"
    " a.last_synced_at, a.last_contact_at, a.trouble_since, a.proof_until, a.retry_at, a.daily_limit, a.username,"
    " x.role AS access"
)
"""What `view_of` needs, of an account `a` and a row `x` of account_access; with `now() AS now` beside it."""

_SEEN = (
    " FROM accounts a JOIN account_access x ON x.account_id = a.id AND x.user_id = %(user)s"
    " WHERE a.desired <> 'removed'"
)
_VIEW = f"SELECT {VIEW_COLUMNS}, now() AS now{_SEEN} AND a.id = %(id)s"
_OVERVIEW = (
    "SELECT a.id, a.email, a.desired, a.state, a.first_synced_at, a.trouble_since, a.proof_until, a.last_synced_at,"
    f" a.new_messages, now() AS now{_SEEN} ORDER BY a.created_at, a.id"
)


async def get_view(conn: Conn, user_id: str, account_id: UUID) -> AccountView | None:
    """One account with its folders' progress, or None when the user may not see it."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_VIEW, {"user": user_id, "id": account_id})
        row = await cursor.fetchone()
    if row is None:
        return None
    async with conn.cursor(row_factory=class_row(FolderProgress)) as folders:
        await folders.execute(
            "SELECT f.name, f.messages_total, f.messages_done, f.bytes_done, f.method,"
            " coalesce(f.backfill_below = 1, false) AND f.mailbox = a.mailbox AS complete"
            " FROM folders f JOIN accounts a ON a.id = f.account_id WHERE f.account_id = %s ORDER BY f.name",
            (account_id,),
        )
        return view_of(row, tuple(await folders.fetchall()))


def view_of(get: Mapping[str, object], folders: tuple[FolderProgress, ...] = ()) -> AccountView:
    """An account from `VIEW_COLUMNS` and `now`."""
    facts, now = _facts(get)
    return AccountView(
        id=get["id"],  # type: ignore[arg-type]  # a uuid in the schema, as what follows is constrained by it
        email=str(get["email"]),
        name=str(get["name"]),
        imap=_endpoint(get, "imap"),
        smtp=_endpoint(get, "smtp"),
        sync_status=sync_status(facts, now),
        is_default=bool(get["is_default"]) and get["access"] == "owner",  # a sharer's default is one of their own
        created_at=_time(get["created_at"]) or now,
        access=get["access"],  # type: ignore[arg-type]
        desired=facts.desired,
        state=facts.state.value,
        state_reason=_text(get["state_reason"]),
        state_code=_text(get["state_code"]),
        last_synced_at=_time(get["last_synced_at"]),
        last_contact_at=_time(get["last_contact_at"]),
        retry_at=_time(get["retry_at"]) if facts.state is State.RETRYING else None,
        username=str(get["username"]),
        daily_limit=get["daily_limit"],  # type: ignore[arg-type]  # constrained by the schema
        folders=folders,
        status_until=holds_until(facts, now),
    )


def _facts(row: Mapping[str, object]) -> tuple[Facts, datetime]:
    """What an account's status follows from, and the moment of the database's clock."""
    now = _time(row["now"])
    assert now is not None, "the database has a clock"
    facts = Facts(
        desired=row["desired"],  # type: ignore[arg-type]  # constrained by the schema
        state=State(str(row["state"])),
        first_synced=row["first_synced_at"] is not None,
        trouble_since=_time(row["trouble_since"]),
        proof_until=_time(row["proof_until"]),
    )
    return facts, now


def _endpoint(row: Mapping[str, object], service: str) -> Endpoint:
    port = row[f"{service}_port"]
    assert isinstance(port, int), "constrained by the schema"
    return Endpoint(str(row[f"{service}_host"]), port, Security(str(row[f"{service}_security"])))


def _time(value: object) -> datetime | None:
    return value if isinstance(value, datetime) else None


def _text(value: object) -> str | None:
    return None if value is None else str(value)


_OVERVIEW_WORDS: Final[Mapping[SyncStatus, Literal["idle", "syncing", "failed"]]] = {
    "pending": "idle", "syncing": "syncing", "synced": "idle", "error": "failed",
}  # fmt: skip


async def overview(conn: Conn, user_id: str) -> list[SyncOverview]:
    """How the synchronisation of a user's accounts goes, the oldest account first."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_OVERVIEW, {"user": user_id})
        return [
            SyncOverview(
                id=row["id"],
                email=row["email"],
                last_sync_at=row["last_synced_at"],
                sync_status=_OVERVIEW_WORDS[sync_status(*_facts(row))],
                new_message_count=row["new_messages"],
            )
            for row in await cursor.fetchall()
        ]


async def command(conn: Conn, account_id: UUID, kind: str) -> None:
    """Leave a request for whichever node runs the account."""
    await conn.execute("INSERT INTO commands (account_id, kind) VALUES (%s, %s)", (account_id, kind))


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """The last request to synchronise now, and what came of it."""

    account_id: UUID
    access: Access
    requested_at: datetime | None
    served_at: datetime | None
    new_messages: int
    last_synced_at: datetime | None
    recent: bool
    """Whether the last request is too young for another run."""
    runnable: bool
    """Whether a node may serve it: running, and not parked."""

    @property
    def served(self) -> bool:
        """Whether a run has served the request."""
        return self.requested_at is not None and self.served_at is not None and self.served_at >= self.requested_at


_REQUEST = (
    "SELECT a.id AS account_id, x.role AS access, a.sync_requested_at AS requested_at, a.sync_served_at AS served_at,"
    " a.sync_new_messages AS new_messages, a.last_synced_at,"
    " coalesce(a.sync_requested_at > now() - make_interval(secs => %(spacing)s), false) AS recent,"
    " a.desired = 'running' AND a.state <> 'parked' AS runnable FROM accounts a"
    " JOIN account_access x ON x.account_id = a.id AND x.user_id = %(user)s"
    " WHERE a.desired <> 'removed'"
    " AND CASE WHEN %(id)s::uuid IS NULL THEN a.is_default AND a.owner_id = %(user)s ELSE a.id = %(id)s END"
)
_REQUEST_LOCKED = _REQUEST + " FOR NO KEY UPDATE OF a"


async def sync_request(
    conn: Conn, user_id: str, account_id: UUID | None, *, spacing: float, lock: bool
) -> SyncRequest | None:
    """The state of the request of one account, the user's default one when none is named; None when not theirs."""
    async with conn.cursor(row_factory=class_row(SyncRequest)) as cursor:
        wanted = {"user": user_id, "id": account_id, "spacing": spacing}
        if lock and await (await cursor.execute(_REQUEST_LOCKED, wanted)).fetchone() is None:
            return None
        await cursor.execute(_REQUEST, wanted)  # as it is behind the lock: the share may have been revoked meanwhile
        return await cursor.fetchone()


async def request_sync(conn: Conn, account_id: UUID) -> None:
    """Ask for a synchronisation now."""
    await conn.execute("UPDATE accounts SET sync_requested_at = clock_timestamp() WHERE id = %s", (account_id,))
    await command(conn, account_id, "sync")
