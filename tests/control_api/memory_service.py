"""The daemon's side kept in memory: the rules of the contract, with mail servers that know one password."""

import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import trio

from daemon.account.campaigns_store import Registered
from daemon.account.listing import Form
from daemon.account.views import (
    AccountView,
    AlreadyConnected,
    CampaignsActive,
    FolderProgress,
    QuotaReached,
    ReputationView,
    Service,
    SyncOverview,
    SyncRun,
    VerificationFailed,
)
from daemon.errors import Disposition, Fault, FaultKind
from daemon.identity.rates import Allowance, Rate
from daemon.identity.users import normalise_email
from daemon.sharing.rules import AccountNotFound, InvitationNotFound, ShareNotFound
from daemon.sharing.views import Entry, Invitation, Received, Share

RIGHT_PASSWORD = "correct horse battery staple"
SYNCED_AT = datetime(2026, 1, 15, 10, 0, 0, 987654, UTC)


@dataclass
class MemoryService:
    quota: int | None = None
    campaigns_active: bool = False
    delay: float = 0.0
    gate: trio.Event | None = None
    """Work that has begun does not end before this is set."""
    failure: BaseException | None = None
    """Raised by every method but `remember`."""
    accounts: dict[uuid.UUID, tuple[str, AccountView]] = field(default_factory=dict)
    remembered: list = field(default_factory=list)
    requests: list = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    cancelled: int = 0

    async def work(self):
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await trio.sleep(self.delay)
            if self.gate is not None:
                await self.gate.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1
        if self.failure is not None:
            raise self.failure

    def _own(self, user):
        return self.own(user.id)

    def own(self, user_id):
        return [view for owner, view in self.accounts.values() if owner == user_id]

    def find(self, user, account_id):
        owner, view = self.accounts.get(account_id, (None, None))
        if view is None or owner != user.id:
            raise AccountNotFound
        return view

    async def remember(self, user):
        self.remembered.append(user)

    def listing(self, form):
        return MemoryListing(self, form)

    async def get_account(self, user, account_id):
        await self.work()
        view = self.find(user, account_id)
        return replace(view, folders=(FolderProgress("INBOX", 10, 4, 4096, False, "qresync"),))

    @property
    def sharing(self):
        return MemorySharing(self)

    @property
    def changes(self):
        return MemoryChanges(self)

    @property
    def campaigns(self):
        return MemoryCampaigns(self)

    async def connect(self, caller, request, told):
        user = caller.user
        told(Allowance(Rate("connect.user", 30, 3600.0), 29, 1_800_000_000))
        self.requests.append(request)
        await self.work()
        if any(normalise_email(view.email) == normalise_email(request.email) for view in self._own(user)):
            raise AlreadyConnected
        if self.quota is not None and len(self._own(user)) >= self.quota:
            raise QuotaReached(user.plan, self.quota)
        if request.password.reveal() != RIGHT_PASSWORD:
            fault = Fault(FaultKind.AUTH_FAILED, "The server refused the credentials.", disposition=Disposition.PARK)
            raise VerificationFailed(Service.IMAP, fault)
        view = AccountView(
            id=uuid.uuid4(), email=request.email, name=request.name or request.email,
            imap=request.imap, smtp=request.smtp, sync_status="pending",
            is_default=not self._own(user), created_at=SYNCED_AT, access="owner",
            desired="running", state="starting", state_reason=None, state_code=None, last_synced_at=None,
            last_contact_at=SYNCED_AT, retry_at=None, username=request.username,
        )
        self.accounts[view.id] = user.id, view
        return view

    async def disconnect(self, caller, account_id):
        await self.work()
        view = self.find(caller.user, account_id)
        if view.is_default and self.campaigns_active:
            raise CampaignsActive
        del self.accounts[account_id]

    async def reputations(self, user):
        await self.work()
        return [ReputationView(view.id, view.email, daily_limit=500, sent_today=3) for view in self._own(user)]

    async def sync_overview(self, user):
        await self.work()
        return [SyncOverview(view.id, view.email, view.last_synced_at, "syncing", 0) for view in self._own(user)]

    async def sync_now(self, caller, account_id):
        user = caller.user
        await self.work()
        own = self._own(user)
        if account_id is None and own:
            account_id = own[0].id
        view = self.find(user, account_id)
        return SyncRun(view.id, "queued", 3, SYNCED_AT)


@dataclass
class MemoryListing:
    service: MemoryService
    form: Form

    async def show(self, user_id):
        await self.service.work()
        return self.form.whole(self.form.account(view) for view in self.service.own(user_id))


@dataclass
class MemoryChanges:
    service: MemoryService

    async def change(self, caller, account_id, request, told):
        self.service.requests.append(request)
        told(Allowance(Rate("change.user", 600, 3600.0), 599, 1_800_000_000))
        await self.service.work()
        view = self.service.find(caller.user, account_id)
        if request.credentials is not None:
            told(Allowance(Rate("connect.user", 30, 3600.0), 28, 1_800_000_000))
        if request.name is not None:
            view = replace(view, name=request.name or view.email)
        if request.paused is not None:
            view = replace(view, desired="paused" if request.paused else "running")
        self.service.accounts[account_id] = caller.user.id, view
        return view


@dataclass
class MemoryCampaigns:
    service: MemoryService

    async def register(self, caller, campaign_id, account_id, status, told):
        told(Allowance(Rate("change.user", 600, 3600.0), 599, 1_800_000_000))
        self.service.requests.append((campaign_id, account_id, status))
        await self.service.work()
        self.service.find(caller.user, account_id)

    async def list(self, caller):
        await self.service.work()
        return [Registered("spring 2026", view.id, "active", SYNCED_AT) for view in self.service.own(caller.user.id)]


@dataclass
class MemorySharing:
    """Knows one invitation and one share of every account; what it is told of another is not there."""

    service: MemoryService
    invitation = Invitation("inv_0123456789abcdef", "ann@example.com", "member", SYNCED_AT, SYNCED_AT)
    share = Share("auth0|bob/1", "bob@example.com", "admin", SYNCED_AT)

    async def _seen(self, caller, account_id):
        await self.service.work()
        self.service.find(caller.user, account_id)

    async def invite(self, caller, account_id, email, role, told):
        told(Allowance(Rate("invite.user", 50, 86400.0), 49, 1_800_000_000))
        await self._seen(caller, account_id)
        return replace(self.invitation, invitee_email=email, role=role)

    async def invitations(self, caller, account_id):
        await self._seen(caller, account_id)
        return [self.invitation]

    async def revoke_invitation(self, caller, account_id, invitation_id):
        await self._seen(caller, account_id)
        if invitation_id != self.invitation.id:
            raise InvitationNotFound

    async def shares(self, caller, account_id):
        await self._seen(caller, account_id)
        return [self.share]

    async def revoke_share(self, caller, account_id, user_id):
        await self._seen(caller, account_id)
        if user_id != self.share.user_id:
            raise ShareNotFound

    async def received(self, caller):
        await self.service.work()
        return [Received(self.invitation.id, "you@example.com", "You", "member", SYNCED_AT, SYNCED_AT)]

    async def accept(self, caller, invitation_id):
        await self.service.work()
        if invitation_id != self.invitation.id:
            raise InvitationNotFound
        return uuid.UUID(int=1)

    async def decline(self, caller, invitation_id):
        await self.service.work()
        if invitation_id != self.invitation.id:
            raise InvitationNotFound

    async def audit(self, caller, account_id, before):
        await self._seen(caller, account_id)
        entry = Entry(7, SYNCED_AT, "ann", "ann@example.com", "192.0.2.1", "account.changed", account_id, {"name": "x"})
        return [entry] if before is None or before > entry.id else []
