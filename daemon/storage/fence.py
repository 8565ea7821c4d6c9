"""The fence: a transaction that writes for an account proves, inside itself, that this node still owns the account.

`claims` is updated by claim, release and takeover only.  FOR SHARE makes a takeover wait until the fenced transaction
has ended, and makes a fenced transaction that comes after a takeover fail; so two owners never write for one account.
Owner and epoch are not on the account row itself: there two fenced writers that update it deadlock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .connection import Conn

_FENCE_ALL: Final = (
    "SELECT c.account_id, c.owner, c.epoch FROM unnest(%s::uuid[], %s::uuid[], %s::bigint[]) AS g (id, owner, epoch)"
    " JOIN claims c ON c.account_id = g.id AND c.owner = g.owner AND c.epoch = g.epoch FOR SHARE OF c SKIP LOCKED"
)


@dataclass(frozen=True, slots=True)
class Claim:
    """One node's right to run one account, until another epoch begins."""

    account_id: UUID
    owner: UUID
    """The node."""
    epoch: int
    """Grows by one with each change of owner."""


class ClaimLost(Exception):
    """The account belongs to another node, or to a later epoch of this one: stop writing for it."""

    def __init__(self, claim: Claim) -> None:
        super().__init__(f"account {claim.account_id} is no longer claimed by {claim.owner} in epoch {claim.epoch}")
        self.claim = claim


def fencing(claim: Claim) -> str:
    """The statement that holds the claim until its transaction ends: it finds a row, or the claim is lost.

    It fails with LockNotAvailable while a takeover holds the row for longer than the transaction's lock limit.  Its
    values are in its text, so that it can be sent together with BEGIN.
    """
    return (
        f"SELECT 1 FROM claims WHERE account_id = '{claim.account_id}'"  # noqa: S608 - identifiers, a number
        f" AND owner = '{claim.owner}' AND epoch = {int(claim.epoch)} FOR SHARE"
    )


async def fence_all(conn: Conn, claims: Sequence[Claim]) -> frozenset[Claim]:
    """Hold those of the claims that can be held at once until this transaction ends; which these are.

    What is missing in the answer is somebody else's now, or is being taken over: `fencing` tells which.
    """
    columns = zip(*((claim.account_id, claim.owner, claim.epoch) for claim in claims), strict=True)
    cursor = await conn.execute(_FENCE_ALL, [list(column) for column in columns] or [[], [], []])
    return frozenset([Claim(*row) for row in await cursor.fetchall()])
