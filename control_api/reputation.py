"""The resource /mail/accounts/reputation: how each account stands with those it sends to, and what it may send.

No account has this name for an id: theirs are UUIDs, and the router tells the two apart.
"""

from __future__ import annotations

from collections.abc import Sequence

from .answers_reputation import AccountReputation, Reputations
from .operation import Call, Operation
from .services import AccountsService


def operations(service: AccountsService) -> Sequence[Operation]:
    """The operations of this resource."""

    async def get_reputation(call: Call) -> Reputations:
        return Reputations(data=[AccountReputation.of(view) for view in await service.reputations(call.user)])

    return (
        Operation(
            "GET", "/mail/accounts/reputation", "getReputation", "See how the accounts stand", "Reputation",
            get_reputation, Reputations,
            description="Every account that you have part in, the oldest first: a member sends as it too.",
        ),
    )
