"""What the API answers about reputation and limits; see `answers` for what holds of all answers."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from daemon.account.views import BlacklistStatus, ReputationView, WarmupStatus

from .answers import AnswerModel, Time

Score = Annotated[int, Field(ge=0, le=100)]


class AccountReputation(AnswerModel):
    """How one account stands with those it sends to, and what it may send."""

    account_id: UUID
    email: str
    reputation_score: Score | None = Field(
        description="Below 70 mail is at risk of not being delivered; null while nothing has been found out."
    )
    warmup_status: WarmupStatus
    daily_limit: int = Field(
        ge=0,
        description="Recipients in 24 hours, at most: the least of the account's own limit and what its provider "
        "allows one mailbox.",
    )
    sent_today: int = Field(
        ge=0,
        description="Recipients in the last 24 hours; with those of other clients' mail, where the account's Sent "
        "folder is synchronised.",
    )
    blacklist_status: BlacklistStatus = Field(description="unknown: nobody has looked, or nobody answered.")
    last_checked_at: Time | None = Field(description="When it was last looked; null: never.")

    @classmethod
    def of(cls, view: ReputationView) -> AccountReputation:
        """From the daemon's view."""
        return cls(
            account_id=view.account_id,
            email=view.email,
            reputation_score=view.reputation_score,
            warmup_status=view.warmup_status,
            daily_limit=view.daily_limit,
            sent_today=view.sent_today,
            blacklist_status=view.blacklist_status,
            last_checked_at=view.last_checked_at,
        )


class Reputations(AnswerModel):
    """How each account stands that the caller has part in."""

    success: Literal[True] = True
    data: list[AccountReputation]
