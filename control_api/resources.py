"""All operations of the API: the one list that is served, published, and drawn for readers."""

from __future__ import annotations

from collections.abc import Sequence

from . import accounts, campaigns, invitations, reputation, sync
from .operation import Operation
from .services import AccountsService


def operations(service: AccountsService) -> Sequence[Operation]:
    """Those of every resource."""
    return (
        *accounts.operations(service),
        *reputation.operations(service),
        *invitations.operations(service.sharing),
        *campaigns.operations(service),
        *sync.operations(service),
    )
