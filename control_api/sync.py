"""The resource /mail/sync: how far the accounts are, and a wish to synchronise now."""

from __future__ import annotations

from collections.abc import Sequence

from daemon.sharing.rules import Act

from .answers import SyncRunAnswer, SyncState, SyncStates
from .operation import Call, Operation
from .schemas import SyncBody
from .services import AccountsService

_TAG = "Synchronisation"
_PATH = "/mail/sync"


def operations(service: AccountsService) -> Sequence[Operation]:
    """The operations of this resource."""

    async def overview(call: Call) -> SyncStates:
        return SyncStates(accounts=[SyncState.of(state) for state in await service.sync_overview(call.user)])

    async def sync_now(call: Call) -> SyncRunAnswer:
        return SyncRunAnswer.of(await service.sync_now(call.caller, call.body_as(SyncBody).account_id))

    return (
        Operation("GET", _PATH, "getSync", "See how far the accounts are", _TAG, overview, SyncStates),
        Operation(
            "POST", _PATH, "startSync", "Synchronise now", _TAG, sync_now, SyncRunAnswer,
            act=Act.SYNC, body=SyncBody, body_required=False,
            description="At most one run per account in 30 s; a repeat answers the previous result as `queued`.",
            refusals={
                400: "`validation_failed`.",
                403: "`not_allowed`: your role in the account does not allow that.",
                404: "There is no such account, or it is not yours, or you have no default account.",
            },
        ),
    )
