"""The SQL of accounts as their actor and their node see them: what to run, and how it goes.

Everything here that writes is called inside a fenced transaction.  What many accounts do at the same time is written
for many at once (`daemon.storage.together`): a row that is locked is left out, unless the caller may wait.  What API
handlers read and write, always joined with `account_access`, is in `access_store`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from psycopg.rows import class_row

from daemon import events
from daemon.network import Endpoint, Security
from daemon.storage.connection import Conn
from daemon.storage.together import Left, LeftOut, Locked

from .states import State


@dataclass(frozen=True, slots=True)
class AccountRow:
    """What a node needs to run an account."""

    id: UUID
    owner_id: str
    email: str
    imap_host: str
    imap_port: int
    imap_security: str
    username: str
    data_key: bytes | None
    password_sealed: bytes | None
    credentials_version: int
    refused_version: int | None
    """The version of the credentials that a server refused for good."""
    desired: Literal["running", "paused", "removed"]
    state: str
    state_reason: str | None
    first_synced_at: datetime | None
    sync_pending: bool
    """Whether a requested synchronisation has not been served."""
    new_messages: int
    """Arrived since it was first up to date."""
    proved: bool
    """Whether the last proof that it is up to date is still fresh."""

    @property
    def imap(self) -> Endpoint:
        """Where its mail is."""
        return Endpoint(self.imap_host, self.imap_port, Security(self.imap_security))


_ROW = (
    "SELECT id, owner_id, email, imap_host, imap_port, imap_security, username, data_key, password_sealed,"
    " credentials_version, refused_version, desired, state, state_reason, first_synced_at, new_messages,"
    " coalesce(sync_requested_at > coalesce(sync_served_at, '-infinity'), false) AS sync_pending,"
    " coalesce(proof_until > now(), false) AS proved"
    " FROM accounts WHERE id = ANY(%s)"
)


async def load(conn: Conn, ids: Sequence[UUID]) -> list[AccountRow | None]:
    """The rows of accounts, None for what has been purged."""
    async with conn.cursor(row_factory=class_row(AccountRow)) as cursor:
        await cursor.execute(_ROW, (list(ids),))
        found = {row.id: row for row in await cursor.fetchall()}
    return [found.get(account_id) for account_id in ids]


_RUNNING = "JOIN accounts b ON b.id = g.id AND b.desired = 'running' FOR NO KEY UPDATE OF b"
"""Who is written.  Of an account that its owner has stopped the fleet says so, and what an attempt has still to say,
however late it gets here, does not undo that: such a row is left as it is."""


def _left(locked: Locked) -> LeftOut | None:
    """What became of a row that was not written: locked, or else not wanted any more."""
    return Left.OUT if locked is Locked.SKIP else None


@dataclass(frozen=True, slots=True)
class Step:
    """An attempt has come so far."""

    account_id: UUID
    state: State


async def set_progress(conn: Conn, steps: Sequence[Step], locked: Locked = Locked.WAIT) -> list[LeftOut | None]:
    """Enter states of attempts under way; the reason of the last trouble stays until it is over."""
    cursor = await conn.execute(
        "UPDATE accounts a SET state = g.state, state_since = now(), retry_at = NULL"  # noqa: S608 - an enumeration's
        " FROM (SELECT b.id, g.state FROM unnest(%s::uuid[], %s::text[]) AS g (id, state)"
        f"  {_RUNNING}{locked}) AS g"
        " WHERE a.id = g.id RETURNING a.id",
        ([step.account_id for step in steps], [step.state.value for step in steps]),
    )
    written = {row[0] for row in await cursor.fetchall()}
    return [None if step.account_id in written else _left(locked) for step in steps]


@dataclass(frozen=True, slots=True)
class Trouble:
    """What keeps an account from being up to date."""

    account_id: UUID
    state: State
    """`RETRYING` or `PARKED`."""
    code: str
    """A machine's word for the reason."""
    reason: str
    """A sentence for the owner."""
    retry_in: float | None
    """Seconds until the next attempt, or None."""
    refused_version: int | None = None
    """The version of the credentials that were refused for good, or None: nobody logs in with those again."""


LONGEST_REASON: Final = 500
"""Characters of a reason that are kept, as many as the schema allows: ours have a sentence or two."""

_NEWLY_PARKED = (
    "g.state = 'parked' AND (b.state, b.state_code, b.state_reason, b.refused_version)"
    " IS DISTINCT FROM (g.state, g.code, g.reason, g.refused)"
)
"""That an account went down is told once.  A row that says the same already was written by a COMMIT whose answer was
lost, or by the start before this one: nothing happened since (new credentials are stored with the state `new`)."""


async def set_trouble(conn: Conn, troubles: Sequence[Trouble], locked: Locked = Locked.WAIT) -> list[LeftOut | None]:
    """Enter states of trouble; that an account is parked is an event, unless its row says so already."""
    reasons = [trouble.reason[:LONGEST_REASON] for trouble in troubles]
    cursor = await conn.execute(
        "UPDATE accounts a SET state = g.state, state_code = g.code, state_reason = g.reason,"  # noqa: S608 - likewise
        " state_since = CASE WHEN a.state = g.state THEN a.state_since ELSE now() END,"
        " retry_at = now() + make_interval(secs => g.retry), trouble_since = coalesce(a.trouble_since, now()),"
        " refused_version = g.refused"
        f" FROM (SELECT g.*, CASE WHEN {_NEWLY_PARKED} THEN b.email END AS news FROM"
        "  unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::float8[], %s::int[])"
        f"  AS g (id, state, code, reason, retry, refused) {_RUNNING}{locked}) AS g"
        " WHERE a.id = g.id RETURNING a.id, g.news",
        (
            [trouble.account_id for trouble in troubles],
            [trouble.state.value for trouble in troubles],
            [trouble.code for trouble in troubles],
            reasons,
            [trouble.retry_in for trouble in troubles],
            [trouble.refused_version for trouble in troubles],
        ),
    )
    written: dict[UUID, str | None] = dict(await cursor.fetchall())
    parked = [
        (trouble.account_id, {"email": email, "code": trouble.code, "reason": reason})
        for trouble, reason in zip(troubles, reasons, strict=True)
        if (email := written.get(trouble.account_id)) is not None
    ]
    await events.append_each(conn, events.EventType.ACCOUNT_ERROR, parked)
    return [None if trouble.account_id in written else _left(locked) for trouble in troubles]


@dataclass(frozen=True, slots=True)
class Proof:
    """An account is up to date now."""

    account_id: UUID
    email: str
    new_messages: int
    """Arrived since it was last up to date."""
    total: int
    """Arrived since it was first up to date, these included: told as it is, for what is added twice counts twice."""
    fresh: float
    """Seconds for which the server's last word counts as proof of life."""
    began: float | None
    """When the run began which this ends, Trio's time, where one was requested: it serves what was asked before it
    began, and nothing later."""


async def set_caught_up(conn: Conn, proofs: Sequence[Proof], locked: Locked = Locked.WAIT) -> list[bool | LeftOut]:
    """Accounts are up to date; of each whether that completed its first synchronisation, which is then an event."""
    # The same moment as the transaction's now() or a little later, so that too little is served rather than too much.
    now = conn.begun_at
    cursor = await conn.execute(
        "UPDATE accounts a SET state = 'watching', state_code = NULL, state_reason = NULL, retry_at = NULL,"  # noqa: S608 - likewise
        " state_since = CASE WHEN a.state = 'watching' THEN a.state_since ELSE now() END, trouble_since = NULL,"
        " first_synced_at = coalesce(a.first_synced_at, now()), last_synced_at = now(), last_contact_at = now(),"
        " refused_version = NULL, proof_until = now() + make_interval(secs => g.fresh),"
        " new_messages = g.total,"
        " sync_served_at = coalesce(now() - make_interval(secs => g.served), a.sync_served_at),"
        " sync_new_messages = CASE WHEN g.served IS NULL THEN a.sync_new_messages ELSE g.new END"
        " FROM (SELECT g.*, b.first_synced_at IS NULL AS first"
        "  FROM unnest(%s::uuid[], %s::float8[], %s::int[], %s::bigint[], %s::float8[])"
        f"  AS g (id, fresh, new, total, served) {_RUNNING}{locked}) AS g"
        " WHERE a.id = g.id RETURNING a.id, g.first",
        (
            [proof.account_id for proof in proofs],
            [proof.fresh for proof in proofs],
            [proof.new_messages for proof in proofs],
            [proof.total for proof in proofs],
            [now - proof.began if proof.began is not None else None for proof in proofs],
        ),
    )
    first: dict[UUID, bool] = dict(await cursor.fetchall())
    synced = [(proof.account_id, {"email": proof.email}) for proof in proofs if first.get(proof.account_id)]
    await events.append_each(conn, events.EventType.ACCOUNT_SYNCED, synced)
    return [first.get(proof.account_id, Left.OUT if locked is Locked.SKIP else False) for proof in proofs]


async def rewrap(conn: Conn, account_id: UUID, former: bytes, data_key: bytes) -> None:
    """Store an account's data key under the current key of the ring, unless the credentials changed meanwhile."""
    await conn.execute(
        "UPDATE accounts SET data_key = %s WHERE id = %s AND data_key = %s", (data_key, account_id, former)
    )
