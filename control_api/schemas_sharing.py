"""What callers may send about shares, campaigns and changes of an account; `schemas` says what holds of all bodies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Self
from uuid import UUID

from pydantic import AfterValidator, Field, model_validator

from daemon.account.campaigns import CampaignStatus
from daemon.account.changes_store import Changeable
from daemon.account.changing import UNSET, ChangeRequest, NewCredentials
from daemon.network import Endpoint, Security, default_security
from daemon.sharing.rules import Given
from daemon.vault.secret import Secret

from .errors import InvalidQuery
from .operation import MAX_WORD
from .schemas import (
    BodyModel,
    Email,
    Host,
    Name,
    OwnBodyModel,
    Password,
    Port,
    Username,
    no_controls,
    wrong,
)

MAX_DAILY_LIMIT: Final = 1_000_000
"""Recipients a day that an account's own limit may allow: far beyond what any provider takes from one mailbox."""

MAX_ID: Final = (1 << 63) - 1
"""The greatest id of an entry: a bigint."""

Word = Annotated[str, Field(min_length=1, max_length=MAX_WORD), AfterValidator(no_controls)]


class InviteBody(BodyModel):
    """Whom to invite."""

    email: Email
    role: Given = "member"


class AnswerBody(BodyModel):
    """Which invitation is answered."""

    invitation_id: Word


class CampaignBody(OwnBodyModel):
    """What a campaign does."""

    account_id: UUID
    status: CampaignStatus


def _moved(is_default: bool) -> bool:
    if not is_default:
        raise wrong("Make another account the default one: it moves there.")
    return is_default


class ChangeBody(OwnBodyModel):
    """What to change of an account; what is left out stays as it is."""

    name: Name | None = Field(default=None, description="null: the email again.")
    is_default: Annotated[bool, AfterValidator(_moved)] | None = Field(
        default=None, description="true: this one, and no longer the former. To move it, make another one the default."
    )
    daily_limit: Annotated[int, Field(ge=0, le=MAX_DAILY_LIMIT)] | None = Field(
        default=None, description="Recipients in 24 hours; null: no limit of its own."
    )
    paused: bool | None = None
    imap_host: Host | None = None
    imap_port: Port | None = None
    imap_security: Security | None = None
    smtp_host: Host | None = None
    smtp_port: Port | None = None
    smtp_security: Security | None = None
    username: Username | None = None
    password: Password | None = Field(default=None, description="Needed with any other part of the credentials.")

    @model_validator(mode="after")
    def _password_goes_with_the_rest(self) -> Self:
        if self.password is None and any(
            part is not None
            for part in (
                *(self.imap_host, self.imap_port, self.imap_security, self.username),
                *(self.smtp_host, self.smtp_port, self.smtp_security),
            )
        ):
            raise wrong("Give the password together with a new server, port, security or user name.")
        return self

    def to_request(self) -> ChangeRequest:
        """The same in the daemon's words."""
        given = self.model_fields_set
        return ChangeRequest(
            name=(self.name or "").strip() if "name" in given else None,
            make_default=self.is_default is True,
            daily_limit=self.daily_limit if "daily_limit" in given else UNSET,
            paused=self.paused,
            credentials=self._credentials if self.password is not None else None,
        )

    def _credentials(self, found: Changeable) -> NewCredentials:
        assert self.password is not None, "asked for with a password only"
        return NewCredentials(
            password=Secret(self.password.get_secret_value()),
            imap=_changed(found.imap, self.imap_host, self.imap_port, self.imap_security),
            smtp=_changed(found.smtp, self.smtp_host, self.smtp_port, self.smtp_security),
            username=self.username,
        )


def _changed(former: Endpoint, host: str | None, port: int | None, security: Security | None) -> Endpoint:
    """An endpoint with the parts that were given; a new port implies its security unless that was given, too."""
    if security is None:
        security = former.security if port is None else default_security(port)
    return Endpoint(host or former.host, port or former.port, security)


def number_in(query: Mapping[str, str], name: str) -> int | None:
    """A number of the query, None where there is none.

    Raises:
        InvalidQuery: something else is there.
    """
    given = query.get(name)
    if given is None:
        return None
    if given.isascii() and given.isdigit() and len(given) <= len(str(MAX_ID)) and 0 < (number := int(given)) <= MAX_ID:
        return number
    raise InvalidQuery(name, "This must be a positive number.")
