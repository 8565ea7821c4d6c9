"""The SQL of accounts as their actor and their node see them: what to run, and how it goes.

Everything here that writes is called inside a fenced transaction.  What many accounts do at the same time is written
for many at once (`daemon.storage.together`): a row that is locked is left out, unless the caller may wait.  What API
handlers read and write, always joined with `account_access`, is in `access_store`.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
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
    mailbox: int
    """Which of the account's mailboxes, one after the other, it has its mail in now."""
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
    " credentials_version, refused_version, desired, state, state_reason, first_synced_at, mailbox,"
    " new_messages, coalesce(sync_requested_at > coalesce(sync_served_at, '-infinity'), false) AS sync_pending,"
    " coalesce(proof_until > now(), false) AS proved"
    " FROM accounts WHERE id = ANY(%s)"
)


async def load(conn: Conn, ids: Sequence[UUID]) -> list[AccountRow | None]:
    """The rows of accounts, None for what has been purged."""
    async with conn.cursor(row_factory=class_row(AccountRow)) as cursor:
        await cursor.execute(_ROW, (list(ids),))
        found = {row.id: row for row in await cursor.fetchall()}
    return [found.get(account_id) for account_id in ids]


@dataclass(frozen=True, slots=True)
class _Writing:
    """A statement that writes columns of many accounts at once, each with values of its own.

    Only accounts that are to run are written.  Of one that its owner has stopped the fleet says so, and what an attempt
    has still to say, however late it gets here, does not undo that.
    """

    given: Mapping[str, str]
    """The names and types of an account's values, beside its id: `g` in the expressions."""
    to: str
    """What is set, of the row `a`."""
    news: str = "NULL"
    """What is told of each, by the row `b` as it was before."""
    where: str = "true"
    """Which rows `b` are written beside."""

    async def run(self, conn: Conn, rows: Sequence[tuple[object, ...]], locked: Locked) -> dict[UUID, Any]:
        """Write accounts, each given as its id and its values; those that were written, with the news of each."""
        arrays = "".join(f", %s::{kind}[]" for kind in self.given.values())
        cursor = await conn.execute(
            f"UPDATE accounts a SET {self.to} FROM (SELECT g.*, {self.news} AS news"  # noqa: S608 - this module's words
            f" FROM unnest(%s::uuid[]{arrays}) AS g ({', '.join(('id', *self.given))})"
            f" JOIN accounts b ON b.id = g.id AND b.desired = 'running' AND {self.where}"
            f" FOR NO KEY UPDATE OF b{locked}) AS g"
            " WHERE a.id = g.id RETURNING a.id, g.news",
            [list(column) for column in zip(*rows, strict=True)],
        )
        return dict(await cursor.fetchall())


def _outcome(account_id: UUID, written: Container[UUID], locked: Locked) -> LeftOut | None:
    """What became of a row: one that was not written is locked, or else not wanted any more."""
    return Left.OUT if account_id not in written and locked is Locked.SKIP else None


@dataclass(frozen=True, slots=True)
class Step:
    """An attempt has come so far."""

    account_id: UUID
    state: State


_PROGRESS = _Writing({"state": "text"}, "state = g.state, state_since = now(), retry_at = NULL")


async def set_progress(conn: Conn, steps: Sequence[Step], locked: Locked = Locked.WAIT) -> list[LeftOut | None]:
    """Enter states of attempts under way; the reason of the last trouble stays until it is over."""
    written = await _PROGRESS.run(conn, [(step.account_id, step.state.value) for step in steps], locked)
    return [_outcome(step.account_id, written, locked) for step in steps]


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
    credentials_version: int | None
    """Of the credentials of the attempt that ended in it, or None of what no attempt was needed for."""
    refused: bool = False
    """Whether those were refused for good: nobody logs in with them again."""


LONGEST_REASON: Final = 500
"""Characters of a reason that are kept, as many as the schema allows: ours have a sentence or two."""

_NEWLY_PARKED = (
    "g.state = 'parked' AND (b.state, b.state_code, b.state_reason, b.refused_version)"
    " IS DISTINCT FROM (g.state, g.code, g.reason, g.refused)"
)
"""That an account went down is told once.  A row that says the same already was written by a COMMIT whose answer was
lost, or by the start before this one: nothing happened since (new credentials are stored with the state `new`)."""

_TROUBLE = _Writing(
    {"state": "text", "code": "text", "reason": "text", "retry": "float8", "version": "int", "refused": "int"},
    "state = g.state, state_code = g.code, state_reason = g.reason,"
    " state_since = CASE WHEN a.state = g.state THEN a.state_since ELSE now() END,"
    " retry_at = now() + make_interval(secs => g.retry), trouble_since = coalesce(a.trouble_since, now()),"
    " refused_version = g.refused",
    news=f"CASE WHEN {_NEWLY_PARKED} THEN b.email END",
    where="b.credentials_version = coalesce(g.version, b.credentials_version)",
)


async def set_trouble(conn: Conn, troubles: Sequence[Trouble], locked: Locked = Locked.WAIT) -> list[bool | LeftOut]:
    """Enter states of trouble; of each whether it was: an account that has got other credentials meanwhile begins anew.

    That an account is parked is an event, unless its row says so already.
    """
    rows = [
        (
            *(t.account_id, t.state.value, t.code, t.reason[:LONGEST_REASON], t.retry_in),
            *(t.credentials_version, t.credentials_version if t.refused else None),
        )
        for t in troubles
    ]
    written = await _TROUBLE.run(conn, rows, locked)
    parked = [
        (account_id, {"email": email, "code": code, "reason": reason})
        for account_id, _, code, reason, *_ in rows
        if (email := written.get(account_id)) is not None
    ]
    await events.append_each(conn, events.EventType.ACCOUNT_ERROR, parked)
    return [t.account_id in written or (Left.OUT if locked is Locked.SKIP else False) for t in troubles]


async def clock(conn: Conn, asked: Sequence[None]) -> list[datetime]:
    """What time it is, by the one clock by which requests are dated: a node's own would have to be compared with it.

    By the statement, not by its transaction: what was committed before it was asked for is before it.
    """
    row = await (await conn.execute("SELECT clock_timestamp()")).fetchone()
    assert row is not None, "a SELECT without FROM has one row"
    return [row[0]] * len(asked)


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
    began: datetime | None
    """When the run began which this ends, by `clock`, where one was requested: it serves what was asked before it
    began, and nothing later."""
    credentials_version: int
    """Of the credentials by which it is: others may lead to another mailbox, of which this says nothing."""


_CAUGHT_UP = _Writing(
    {"fresh": "float8", "new": "int", "total": "bigint", "served": "timestamptz", "version": "int"},
    "state = 'watching', state_code = NULL, state_reason = NULL, retry_at = NULL,"
    " state_since = CASE WHEN a.state = 'watching' THEN a.state_since ELSE now() END, trouble_since = NULL,"
    " first_synced_at = coalesce(a.first_synced_at, now()), last_synced_at = now(), last_contact_at = now(),"
    " refused_version = NULL, proof_until = now() + make_interval(secs => g.fresh), new_messages = g.total,"
    " sync_served_at = coalesce(g.served, a.sync_served_at),"
    " sync_new_messages = CASE WHEN g.served IS NULL THEN a.sync_new_messages ELSE g.new END",
    news="b.first_synced_at IS NULL",
    where="b.credentials_version = g.version",
)


async def set_caught_up(conn: Conn, proofs: Sequence[Proof], locked: Locked = Locked.WAIT) -> list[bool | LeftOut]:
    """Accounts are up to date; of each whether that completed its first synchronisation, which is then an event.

    Of one that has got other credentials meanwhile nothing is written.
    """
    rows = [(p.account_id, p.fresh, p.new_messages, p.total, p.began, p.credentials_version) for p in proofs]
    first = await _CAUGHT_UP.run(conn, rows, locked)
    synced = [(proof.account_id, {"email": proof.email}) for proof in proofs if first.get(proof.account_id)]
    await events.append_each(conn, events.EventType.ACCOUNT_SYNCED, synced)
    return [first.get(proof.account_id, Left.OUT if locked is Locked.SKIP else False) for proof in proofs]


@dataclass(frozen=True, slots=True)
class Renewed:
    """An account was, a while ago, as it was when it was last up to date."""

    account_id: UUID
    age: float
    """Seconds since the server said so."""
    fresh: float
    """Seconds for which its word still counts as proof of life."""


_RENEWED = _Writing(
    {"age": "float8", "fresh": "float8"},
    "last_synced_at = greatest(a.last_synced_at, now() - make_interval(secs => g.age)),"
    " last_contact_at = greatest(a.last_contact_at, now() - make_interval(secs => g.age)),"
    " proof_until = greatest(a.proof_until, now() + make_interval(secs => g.fresh))",
    where="b.state = 'watching'",  # with new credentials it begins anew, and the old ones' proof says nothing
)


async def set_renewed(conn: Conn, renewed: Sequence[Renewed], locked: Locked = Locked.WAIT) -> AbstractSet[UUID]:
    """Enter proofs that say nothing else than the last one; of which accounts they were entered."""
    return (await _RENEWED.run(conn, [(each.account_id, each.age, each.fresh) for each in renewed], locked)).keys()


async def rewrap(conn: Conn, account_id: UUID, former: bytes, data_key: bytes) -> None:
    """Store an account's data key under the current key of the ring, unless the credentials changed meanwhile."""
    await conn.execute(
        "UPDATE accounts SET data_key = %s WHERE id = %s AND data_key = %s", (data_key, account_id, former)
    )
