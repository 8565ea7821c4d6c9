"""Has a running daemon give what belongs to one operation: its success, and each of its own refusals."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import psycopg

from daemon.account.campaigns import MOST_CAMPAIGNS
from daemon.sharing.rules import MOST_PENDING
from ops.testservers.mail import message
from tests.fix_daemon import PASSWORD, DaemonProcess, MailServers, connect, eventually

ACCOUNTS = "/mail/accounts"


@dataclass
class Cast:
    """A daemon, and everybody who calls it; their clients are watched."""

    daemon: DaemonProcess
    mail: MailServers
    closed_port: int
    user: str
    """An address of the owner's, unlike anybody's before; those of the others are `admin-` and so on before it.  The
    users' own ids are `owner|` before it, and so on."""
    owner: httpx.Client
    admin: httpx.Client
    member: httpx.Client
    stranger: httpx.Client
    frugal: httpx.Client
    """One whose plan allows one account."""
    account_id: str = ""

    @property
    def item(self) -> str:
        return f"{ACCOUNTS}/{self.account_id}"

    def mailbox(self, name: str, **changes: Any) -> dict[str, Any]:
        """The body that connects a mailbox of the owner's, by a name of its own."""
        return self.mail.mailbox(f"{name}-{self.user}", **changes)

    def wrong(self) -> Iterable[dict[str, Any]]:
        """Servers, or what is said to them, that are wrong in one way each."""
        tls, starttls = {"imap_security": "tls"}, {"imap_port": self.mail.imap.imap_port}
        return (
            {"password": "wrong"},
            {"imap_port": self.closed_port, **tls},
            {**starttls, **tls},
            {"username": "say-535-5.7.8@example.test"},
            {"smtp_port": self.closed_port, "smtp_security": "starttls"},
            {"smtp_port": self.mail.smtp.starttls_port, "smtp_security": "tls"},
            {"imap_host": "10.0.0.1"},
            {"username": "say-534-5.7.9@example.test"},
        )


def connecting(cast: Cast) -> None:
    """Connect; and be refused by every server, by the plan, and for what is connected already."""
    cast.mail.imap.seed(cast.user, [message("first"), message("second")])
    cast.account_id = connect(cast.owner, cast.mail.mailbox(cast.user))
    cast.owner.post(ACCOUNTS, json=cast.mail.mailbox(cast.user))
    cast.frugal.post(ACCOUNTS, json=cast.mailbox("frugal"))
    cast.frugal.post(ACCOUNTS, json=cast.mailbox("frugal-2"))
    tried: list[Callable[[], httpx.Response]] = []
    for number, changes in enumerate(cast.wrong()):
        body = cast.mailbox(f"wrong-{number}", **changes)
        tried.append(lambda body=body: cast.stranger.post(ACCOUNTS, json=body))  # type: ignore[misc]  # bound at once
        change = {"password": PASSWORD} | changes
        tried.append(lambda change=change: cast.owner.patch(cast.item, json=change))  # type: ignore[misc]  # as above
    with ThreadPoolExecutor(8) as threads:
        for answer in [threads.submit(ask) for ask in tried]:
            answer.result()


def sharing(cast: Cast) -> None:
    """Invite, accept, decline, take back and leave; and whatever of it is not to be."""
    invitations = f"{cast.item}/invitations"

    def invite(name: str, role: str | None = None) -> httpx.Response:
        body = {"email": f"{name}-{cast.user}"} | ({"role": role} if role else {})
        return cast.owner.post(invitations, json=body)

    for name, guest in (("admin", cast.admin), ("member", cast.member)):
        made = invite(name, name).json()["invitation"]
        invite(name)
        guest.get("/mail/invitations/pending")
        guest.post("/mail/invitations/accept", json={"invitation_id": made["id"]})
        invite(name)
    cast.owner.post(invitations, json={"email": cast.user})
    made = invite("stranger").json()["invitation"]
    cast.stranger.post("/mail/invitations/decline", json={"invitation_id": made["id"]})
    for answer in ("accept", "decline"):
        cast.stranger.post(f"/mail/invitations/{answer}", json={"invitation_id": made["id"]})
    made = invite("nobody").json()["invitation"]
    cast.owner.get(invitations)
    cast.owner.delete(f"{invitations}/{made['id']}")
    cast.owner.delete(f"{invitations}/{made['id']}")
    cast.owner.get(f"{cast.item}/shares")
    cast.owner.delete(f"{cast.item}/shares/nobody")
    _fill(cast, "invitations", MOST_PENDING)
    invite("one-too-many")


def others(cast: Cast) -> None:
    """What a member may not, and what is not there for a stranger."""
    body = {"email": f"friend-{cast.user}"}
    asked: tuple[tuple[str, str, Mapping[str, Any] | None], ...] = (
        ("PATCH", "", {"name": "Mine"}),
        ("GET", "/invitations", None),
        ("POST", "/invitations", body),
        ("DELETE", "/invitations/inv_0123456789", None),
        ("GET", "/shares", None),
        ("DELETE", "/shares/anybody", None),
        ("GET", "/audit", None),
    )
    for method, below, given in asked:
        cast.member.request(method, cast.item + below, json=given)
    for item in (cast.item, f"{ACCOUNTS}/{uuid4()}", f"{ACCOUNTS}/7"):
        for method, below, given in (*asked, ("GET", "", None), ("DELETE", "", None)):
            cast.stranger.request(method, item + below, json=given)
    cast.member.post("/mail/sync", json={"account_id": cast.account_id})
    cast.stranger.post("/mail/sync", json={"account_id": cast.account_id})
    campaign = {"account_id": cast.account_id, "status": "active"}
    cast.stranger.put("/mail/campaign-registry/c1", json=campaign)
    cast.member.delete(f"{cast.item}/shares/member|{cast.user}")


def changing(cast: Cast) -> None:
    """Look at an account and change it; credentials also by two at once, of whom one is told so."""
    cast.admin.get(ACCOUNTS)
    cast.admin.patch(cast.item, json={"name": "Ours", "daily_limit": 500})
    other = connect(cast.owner, cast.mailbox("second"))
    cast.owner.patch(f"{ACCOUNTS}/{other}", json={"username": cast.user, "password": PASSWORD})
    cast.owner.delete(f"{ACCOUNTS}/{other}")
    with ThreadPoolExecutor(2) as threads, psycopg.connect(cast.daemon.dsn) as holder:
        holder.execute("SELECT FROM accounts WHERE id = %s FOR UPDATE", (cast.account_id,))
        new = {"password": PASSWORD}
        asking = [threads.submit(cast.owner.patch, cast.item, json=new) for _ in range(2)]
        eventually(lambda: cast.daemon.query(_WAITING) == [(2,)])  # both have the servers' word by now
        holder.rollback()
        for answer in asking:
            answer.result()
    cast.owner.get(f"{cast.item}/audit")


_WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    " AND strpos(query, 'FOR NO KEY UPDATE OF a') > 0"
)


def synchronising(cast: Cast) -> None:
    """Be synchronised, and look how far; then say that a campaign runs, and try to go."""
    cast.daemon.wait_synced(cast.owner, cast.account_id)
    for path in (ACCOUNTS, f"{ACCOUNTS}/reputation", "/mail/sync"):
        cast.owner.get(path)
    cast.owner.post("/mail/sync", json={})
    cast.owner.put("/mail/campaign-registry/c1", json={"account_id": cast.account_id, "status": "active"})
    cast.owner.put("/mail/campaign-registry/c2", json={"account_id": cast.account_id, "status": "paused"})
    cast.owner.get("/mail/campaign-registry")
    cast.owner.delete(cast.item)
    _fill(cast, "campaigns", MOST_CAMPAIGNS)
    cast.owner.put("/mail/campaign-registry/one-too-many", json={"account_id": cast.account_id, "status": "active"})


_FILLING = {
    "invitations": "INSERT INTO invitations (id, account_id, inviter_id, invitee_email, invitee_normal, role,"
    " expires_at) SELECT 'inv_filled' || 1000 + n, %(account)s, %(user)s, n || '@x.test', n || '@x.test', 'member',"
    " now() + interval '1 day' FROM generate_series(1, %(count)s) n",
    "campaigns": "INSERT INTO campaigns (user_id, id, account_id, status)"
    " SELECT %(user)s, 'filled-' || n, %(account)s, 'paused' FROM generate_series(1, %(count)s) n",
}


def _fill(cast: Cast, table: str, count: int) -> None:
    """As many rows of the owner's as there may be: what as many requests would leave."""
    with psycopg.connect(cast.daemon.dsn, autocommit=True) as conn:
        values = {"account": cast.account_id, "user": f"owner|{cast.user}", "count": count}
        conn.execute(_FILLING[table], values)
