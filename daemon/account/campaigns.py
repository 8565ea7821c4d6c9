"""The registry of campaigns: which of them are active, as the system that runs them says.

It keeps what is not completed.  While one of an owner's own campaigns is active, their only remaining default account
stays connected (API contract, part 1); so whoever registered a campaign may end it, whatever has become of the account.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final, Literal
from uuid import UUID

from daemon.identity import rates_store, users_store
from daemon.identity.rates import Rate, Told, untold
from daemon.sharing import audit_store, sharing_store
from daemon.sharing.audit_store import Action
from daemon.sharing.rules import Act, demand
from daemon.sharing.views import Caller
from daemon.storage.connection import Conn
from daemon.storage.requests import Requests

from . import campaigns_store
from .campaigns_store import Campaign, Registered

CampaignStatus = Literal["active", "paused", "completed"]

MOST_CAMPAIGNS: Final = 1000
"""Campaigns of one user that are not completed: no team runs so many, and each is a row."""


class TooManyCampaigns(Exception):
    """One too many that is not completed."""


class CampaignRegistry:
    """Notes what campaigns do."""

    def __init__(self, requests: Requests, rate: Rate) -> None:
        self._requests = requests
        self._rate = rate

    async def register(
        self, caller: Caller, campaign_id: str, account_id: UUID, status: CampaignStatus, told: Told = untold
    ) -> None:
        """Note what one of the caller's campaigns does; *told* how they stand to their rate.

        Raises:
            RateExceeded: the caller changed too much.
            AccountNotFound: unknown, or the caller has no part in it; not of a campaign that they end.
            TooManyCampaigns: one too many.
        """
        await rates_store.count(self._requests, self._rate, caller.user, told)
        wanted = Campaign(account_id, status)
        await self._requests.run(partial(self._register, caller=caller, id_=campaign_id, wanted=wanted))

    @staticmethod
    async def _register(conn: Conn, *, caller: Caller, id_: str, wanted: Campaign) -> None:
        user_id = caller.user.id
        await users_store.lock(conn, user_id)  # who disconnects counts campaigns behind the same lock
        known = await campaigns_store.find(conn, user_id, id_)
        if known is not None and wanted.status == "completed":
            wanted = replace(known, status="completed")  # of whichever account it is: it can be of one only
        elif known is None or known.account_id != wanted.account_id or wanted.status == "active":
            demand(Act.CAMPAIGN, await sharing_store.lock(conn, user_id, wanted.account_id))
        if known == wanted or (known is None and wanted.status == "completed"):
            return
        if known is None and await campaigns_store.count(conn, user_id) >= MOST_CAMPAIGNS:
            raise TooManyCampaigns
        if wanted.status == "completed":
            await campaigns_store.forget(conn, user_id, id_)
        else:
            await campaigns_store.put(conn, user_id, id_, wanted)
        if known is not None and known.account_id != wanted.account_id:
            detail = {"campaign_id": id_, "status": "moved"}
            await audit_store.note(conn, caller, known.account_id, Action.CAMPAIGN, detail)
        detail = {"campaign_id": id_, "status": wanted.status}
        await audit_store.note(conn, caller, wanted.account_id, Action.CAMPAIGN, detail)

    async def list(self, caller: Caller) -> Sequence[Registered]:
        """The caller's campaigns that are not completed, by their ids."""
        return await self._requests.run(partial(campaigns_store.registered, user_id=caller.user.id))
