"""Changing an account: its name, its own limit, whether it runs, which one is the default, and its credentials.

New credentials are verified at both servers before they replace the old ones.  Whatever of them is changed, the
password comes with it: the stored one is never sent to a host that it was not given for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import UUID, uuid4

import psycopg

from daemon.identity import rates_store, users_store
from daemon.identity.rates import Told, untold
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
from .caller_rates import CallerRates
from .changes_store import Changeable
from .verifying import verify
from .views import AccountView, AlreadyConnected


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
    """Credentials that both servers accepted, sealed."""

    imap: Endpoint
    smtp: Endpoint
    username: str
    sealed: tuple[bytes, bytes]
    """Data key and password: no two sealings are alike."""
    version: int
    """Of the credentials that they replace."""

    def told(self, former: Changeable) -> dict[str, object]:
        """What may be told of them: what is new of where they lead, and never the password."""
        told: dict[str, object] = {"password": "changed"}
        if self.imap != former.imap:
            told["imap"] = _written(self.imap)
        if self.smtp != former.smtp:
            told["smtp"] = _written(self.smtp)
        if self.username != former.username:
            told["username"] = self.username
        return told


def _written(endpoint: Endpoint) -> str:
    return f"{endpoint.host}:{endpoint.port} {endpoint.security.value}"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One change as it is carried out, once or again."""

    id: UUID
    """By which the audit knows it: after a COMMIT whose answer was lost somebody else may have changed the same."""
    request: ChangeRequest
    verified: _Verified | None


def _judged(request: ChangeRequest, found: Changeable | None) -> Changeable:
    """What was found, if the caller may change of it what is wanted.

    Raises:
        AccountNotFound, NotAllowed: by the rules of sharing.
    """
    for act in request.acts():
        demand(act, found.access if found is not None else None)
    if found is None:
        raise AccountNotFound
    return found


class AccountChanges:
    """Carries out what callers want changed."""

    def __init__(
        self, requests: Requests, dialer: Dialer, vault: Vault, *, rates: CallerRates, nudge: Callable[[], None]
    ) -> None:
        self._requests = requests
        self._dialer = dialer
        self._vault = vault
        self._rates = rates
        self._nudge = nudge

    async def change(
        self, caller: Caller, account_id: UUID, request: ChangeRequest, told: Told = untold
    ) -> AccountView:
        """Change an account, all of it or nothing; as that left it.  *told* how the caller stands to their rates.

        Raises:
            AccountNotFound, NotAllowed: by the rules of sharing.
            RateExceeded: the caller changed too much, or credentials were tried too often.
            VerificationFailed: a server did not accept the new credentials; nothing was changed.
            ChangedMeanwhile: somebody else changed the credentials meanwhile; nothing was changed.
            AlreadyConnected: the new mailbox is connected already.
            DatabaseAway: nothing was changed; or it is not known, where it went away during COMMIT.
        """
        await rates_store.count(self._requests, self._rates.changes, caller.user, told)
        verified = await self._verified(caller, account_id, request, told)

        wanted = _Wanted(uuid4(), request, verified)

        async def work(conn: Conn, in_doubt: bool) -> AccountView:
            await self._change(conn, caller, account_id, wanted, in_doubt=in_doubt)
            view = await access_store.get_view(conn, caller.user.id, account_id)  # as this change left it
            if view is None:  # in doubt only: it was changed, and is gone since
                raise AccountNotFound
            return view

        try:
            view = await self._requests.settle(work)
        except psycopg.errors.UniqueViolation:
            raise AlreadyConnected from None
        self._nudge()
        return view

    async def _verified(
        self, caller: Caller, account_id: UUID, request: ChangeRequest, told: Told
    ) -> _Verified | None:
        """The new credentials, once both servers have accepted them."""
        found = await self._requests.run(partial(changes_store.look, user_id=caller.user.id, account_id=account_id))
        found = _judged(request, found)  # before any server is asked
        if request.credentials is None:
            return None
        new = request.credentials(found)
        imap, smtp = new.imap or found.imap, new.smtp or found.smtp
        username = new.username or found.username
        await rates_store.count(self._requests, self._rates.connects, caller.user, told)
        same = (imap.host, smtp.host, username) == (found.imap.host, found.smtp.host, found.username)
        await self._rates.count_target(self._requests, caller.user, (imap, smtp), username, proven=same)
        await verify(self._dialer, imap, smtp, username, new.password)
        sealed = self._vault.seal(account_id, {"password": new.password})
        key_and_password = (sealed.data_key, sealed.fields["password"])
        return _Verified(imap, smtp, username, key_and_password, found.credentials_version)

    async def _change(
        self, conn: Conn, caller: Caller, account_id: UUID, wanted: _Wanted, *, in_doubt: bool
    ) -> None:
        """Change what is not so yet, and note it."""
        if wanted.request.make_default:
            await users_store.lock(conn, caller.user.id)
        found = await changes_store.look(conn, caller.user.id, account_id, lock=True)
        if in_doubt and await audit_store.was_noted(conn, wanted.id):  # behind the lock: it may be in COMMIT still
            return
        found = _judged(wanted.request, found)
        changed = await self._set_columns(conn, caller, account_id, wanted.request, found)
        if wanted.request.make_default and not found.is_default:
            former = await changes_store.make_default(conn, caller.user.id, account_id)
            if former is not None:
                await audit_store.note(conn, caller, former, Action.CHANGED, {"is_default": False})
            changed["is_default"] = True
        if (new := wanted.verified) is not None:
            if found.credentials_version != new.version:
                raise ChangedMeanwhile
            await changes_store.set_credentials(
                conn, caller.user.id, account_id, new.imap, new.smtp, new.username, new.sealed
            )
            changed |= new.told(found)
        if changed:
            await audit_store.note(conn, caller, account_id, Action.CHANGED, changed, request=wanted.id)

    async def _set_columns(
        self, conn: Conn, caller: Caller, account_id: UUID, request: ChangeRequest, found: Changeable
    ) -> dict[str, object]:
        """Set what is plainly set; what of it was not so already, as it is told."""
        columns = self._columns(request, found)
        if columns:
            await changes_store.set_columns(conn, caller.user.id, account_id, columns)
        changed = {name: value for name, value in columns.items() if name != "desired"}
        if "desired" in columns:
            await access_store.command(conn, account_id, "changed")
            changed["paused"] = request.paused
        return changed

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
