"""The registry of campaigns: which accounts have active ones, told by the system that runs them."""

from __future__ import annotations

from collections.abc import Sequence

from daemon.account.campaigns import MOST_CAMPAIGNS
from daemon.sharing.rules import Act

from .answers import Done
from .answers_sharing import Campaigns, RegisteredCampaign
from .operation import Call, Operation
from .schemas_sharing import CampaignBody
from .services import AccountsService


def operations(service: AccountsService) -> Sequence[Operation]:
    """The operations of this resource."""

    async def register(call: Call) -> Done:
        body = call.body_as(CampaignBody)
        await service.campaigns.register(
            call.caller, call.words["campaign_id"], body.account_id, body.status, call.told
        )
        return Done()

    async def list_campaigns(call: Call) -> Campaigns:
        found = await service.campaigns.list(call.caller)
        return Campaigns(campaigns=[RegisteredCampaign.of(campaign) for campaign in found])

    return (
        Operation(
            "GET", "/mail/campaign-registry", "listCampaigns", "List your campaigns", "Campaigns", list_campaigns,
            Campaigns, description="Those that you have registered and that are not completed.",
        ),
        Operation(
            "PUT", "/mail/campaign-registry/{campaign_id}", "registerCampaign", "Say what a campaign does", "Campaigns",
            register, Done, act=Act.CAMPAIGN, body=CampaignBody, limited=True,
            description="While one of its owner's campaigns is active, the only remaining default account stays "
            "connected. Ids are each user's own. A campaign that is completed is forgotten. Whoever registered one may "
            "pause or complete it, whatever has become of the account.",
            refusals={
                400: "`validation_failed`.",
                404: "There is no such account, or you have no part in it: which of the two is never told.",
                409: f"`too_many_campaigns`: {MOST_CAMPAIGNS} of yours are not completed.",
            },
        ),
    )
