"""Changing an account: its name, its own limit, whether it runs, which one is the default, and its credentials.

New credentials are verified at both servers before they replace the old ones.  Whatever of them is changed, the
password comes with it: the stored one is never sent to a host that it was not given for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal
from uuid import UUID

import psycopg
import structlog

from daemon.identity import User, users_store
from daemon.identity.rates import Allowance
from daemon.network import Dialer, Endpoint
from daemon.sharing import audit_store
from daemon.sharing.audit_store import Action
from daemon.sharing.rules import AccountNotFound, Act, demand
from daemon.sharing.views import Caller
from daemon.storage.connection import Conn
from daemon.storage.requests import Requests
from daemon.vault import Vault
from daemon.vault.secret import Secret

from . import access_store, changes_store
from .changes_store import Changeable
from .verifying import verify
from .views import AlreadyConnected

log = structlog.get_logger(__name__)

Count = Callable[[User, tuple[Endpoint, Endpoint], str], Awaitable[Allowance]]
"""Counts an attempt of a caller, at two servers, with a user name."""

CampaignStatus = Literal["active", "paused", "completed"]


class Unset:
    """Not spoken of, where None means something."""


UNSET: Final = Unset()


class ChangedMeanwhile(Exception):
    """Somebody else changed the credentials while these were verified."""


@dataclass(frozen=True, slots=True)
class NewCredentials:
    """What of an account's servers and login is to be new; what is None stays."""

    password: Secret
    imap: Endpoint | None = None
    smtp: Endpoint | None = None
    username: str | None = None


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """What is to be changed; what is None or UNSET stays."""

    name: str | None = None
    make_default: bool = False
    daily_limit: int | Unset | None = UNSET
    """None takes the limit away."""
    paused: bool | None = None
    credentials: Callable[[Changeable], NewCredentials] | None = None
    """From what there is to what is to be: the parts that were given on top of those that stay."""

    def acts(self) -> list[Act]:
        """What one must be allowed to do."""
        acts = [Act.CHANGE] if (self.name, self.paused) != (None, None) or self.daily_limit is not UNSET else []
        if self.make_default:
            acts.append(Act.MAKE_DEFAULT)
        if self.credentials is not None:
            acts.append(Act.CHANGE_CREDENTIALS)
        return acts or [Act.CHANGE]


@dataclass(frozen=True, slots=True)
class _Verified:
    """Credentials that both servers accepted."""

    imap: Endpoint
    smtp: Endpoint
    username: str
    password: Secret
    version: int
    """Of the credentials that they replace."""

    def is_stored(self, found: Changeable) -> bool:
        """Whether they have replaced them."""
        stored = (found.imap, found.smtp, found.username, found.credentials_version)
        return stored == (self.imap, self.smtp, self.username, self.version + 1)


class AccountChanges:
    """Carries out what callers want changed."""

    def __init__(
        self, requests: Requests, dialer: Dialer, vault: Vault, *, count: Count, nudge: Callable[[], None]
    ) -> None:
        self._requests = requests
        self._dialer = dialer
        self._vault = vault
        self._count = count
        self._nudge = nudge

    async def change(
        self, caller: Caller, account_id: UUID, request: ChangeRequest, told: Callable[[Allowance], None]
    ) -> None:
        """Change an account, all of it or nothing; *told* how the caller stands, where credentials are tried.

        Raises:
            AccountNotFound, NotAllowed: by the rules of sharing.
            RateExceeded: credentials were tried too often.
            VerificationFailed: a server did not accept the new credentials; nothing was changed.
            ChangedMeanwhile: somebody else changed the credentials meanwhile; nothing was changed.
            AlreadyConnected: the new mailbox is connected already.
            DatabaseAway: nothing was changed.
        """
        verified = await self._verified(caller, account_id, request, told)
        tried = False

        async def work(conn: Conn) -> None:
            nonlocal tried
            again, tried = tried, True
            await self._change(conn, caller, account_id, request, verified, again=again)

        try:
            await self._requests.run(work)
        except psycopg.errors.UniqueViolation:
            raise AlreadyConnected from None
        self._nudge()

    async def _verified(
        self, caller: Caller, account_id: UUID, request: ChangeRequest, told: Callable[[Allowance], None]
    ) -> _Verified | None:
        """The new credentials, once both servers have accepted them."""
        found = await self._requests.run(partial(changes_store.look, user_id=caller.user.id, account_id=account_id))
        for act in request.acts():  # before any server is asked
            demand(act, found.access if found is not None else None)
        if request.credentials is None or found is None:
            return None
        new = request.credentials(found)
        imap, smtp = new.imap or found.imap, new.smtp or found.smtp
        username = new.username or found.username
        told(await self._count(caller.user, (imap, smtp), username))  # by now: a stranger uses up nobody's rate
        await verify(self._dialer, imap, smtp, username, new.password)
        return _Verified(imap, smtp, username, new.password, found.credentials_version)

    async def _change(
        self,
        conn: Conn,
        caller: Caller,
        account_id: UUID,
        request: ChangeRequest,
        verified: _Verified | None,
        *,
        again: bool,
    ) -> None:
        """Change what is not so yet; *again*: an earlier try may have been committed although its answer was lost."""
        if request.make_default:
            await users_store.lock(conn, caller.user.id)
        found = await changes_store.look(conn, caller.user.id, account_id, lock=True)
        for act in request.acts():
            demand(act, found.access if found is not None else None)
        if found is None:
            raise AccountNotFound
        columns = self._columns(request, found)
        if columns:
            await changes_store.set_columns(conn, account_id, columns)
        if "desired" in columns:
            await access_store.command(conn, account_id, "changed")
        if request.make_default:
            await changes_store.make_default(conn, caller.user.id, account_id)
        changed: dict[str, object] = {name: value for name, value in columns.items() if name != "desired"}
        if "desired" in columns:
            changed["paused"] = request.paused
        if request.make_default and not found.is_default:
            changed["is_default"] = True
        if verified is not None and not (again and verified.is_stored(found)):
            changed |= await self._replace(conn, account_id, found, verified)
        if changed:
            await audit_store.note(conn, caller, account_id, Action.CHANGED, changed)

    @staticmethod
    def _columns(request: ChangeRequest, found: Changeable) -> dict[str, object]:
        """The columns of the row that are to be new, and are not so already."""
        columns: dict[str, object] = {}
        if request.name is not None and (name := request.name or found.email) != found.name:
            columns["name"] = name
        if not isinstance(request.daily_limit, Unset) and request.daily_limit != found.daily_limit:
            columns["daily_limit"] = request.daily_limit
        if request.paused is not None and request.paused != (found.desired == "paused"):
            columns["desired"] = "paused" if request.paused else "running"
        return columns

    async def _replace(
        self, conn: Conn, account_id: UUID, found: Changeable, verified: _Verified
    ) -> dict[str, object]:
        """Store the credentials; what is told of them: where they lead, and never the password."""
        if found.credentials_version != verified.version:
            raise ChangedMeanwhile
        sealed = self._vault.seal(account_id, {"password": verified.password})
        await changes_store.set_credentials(
            conn, account_id, verified.imap, verified.smtp, verified.username,
            (sealed.data_key, sealed.fields["password"]),
        )  # fmt: skip
        log.info("account.credentials_changed", account=str(account_id))
        return {
            "imap": f"{verified.imap.host}:{verified.imap.port}",
            "smtp": f"{verified.smtp.host}:{verified.smtp.port}",
            "username": verified.username,
            "password": "changed",
        }

    async def register_campaign(
        self, caller: Caller, campaign_id: str, account_id: UUID, status: CampaignStatus
    ) -> None:
        """Note what one of the caller's campaigns does; an active one keeps its owner's last account connected.

        Raises:
            AccountNotFound: unknown, or the caller has no part in it.
        """

        async def work(conn: Conn) -> None:
            await users_store.lock(conn, caller.user.id)  # who disconnects counts campaigns behind the same lock
            found = await changes_store.look(conn, caller.user.id, account_id, lock=True)
            demand(Act.CAMPAIGN, found.access if found is not None else None)
            await changes_store.set_campaign(conn, caller.user.id, campaign_id, account_id, status)
            detail = {"campaign_id": campaign_id, "status": status}
            await audit_store.note(conn, caller, account_id, Action.CAMPAIGN, detail)

        await self._requests.run(work)
