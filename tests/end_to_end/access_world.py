"""A small world for the matrix of access: one account, and one person of every kind that may call.

    owner      has two accounts: the one in question, and another one that is the default
    admin, member, guest      accepted an invitation
    invited, guest to be      have an open one
    declined, former, stranger    have nothing, any more or at all

It is written by SQL, in one go, so that each deed can have a fresh one.  Its accounts are claimed by no node: nothing
moves in them but what callers do.  They are parked, so a wish to synchronise is answered at once.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID, uuid4

import psycopg
from psycopg import sql

from control_api.access import Kind, Unknown
from daemon.sharing.rules import Standing
from ops.testservers.smtp import SmtpServer
from tests.fix_daemon import PASSWORD, MailServers, make_token

_numbers = itertools.count()

_SETTLED = {
    Standing.INVITED: "pending", Standing.DECLINED: "declined", Standing.FORMER: "accepted",
    Standing.MEMBER: "accepted", Standing.ADMIN: "accepted",
}  # fmt: skip

WATCHED: Mapping[str, str] = {
    "accounts": "id, owner_id, email, name, imap_host, imap_port, smtp_host, smtp_port, username, data_key,"
    " password_sealed, credentials_version, is_default, daily_limit, desired, sync_requested_at",
    "account_access": "account_id, user_id, role",
    "invitations": "id, account_id, inviter_id, invitee_normal, role, status",
    "campaigns": "user_id, id, account_id, status",
    "audit": "id, account_id, user_id, action",
}
"""Tables, and of each the columns that callers' deeds change."""


@dataclass(frozen=True)
class World:
    """Who and what there is; users are named after their kind."""

    name: str
    account: UUID
    title: str
    """The account's name, which nobody can guess."""
    mail: MailServers

    def user(self, who: str) -> str:
        """The id of somebody."""
        return f"{who.replace(' ', '-')}-{self.name}"

    def email(self, who: str) -> str:
        """Their address."""
        return f"{self.user(who)}@example.test"

    def invitation(self, who: str) -> str:
        """The id of their invitation, whether there is one or not."""
        return f"inv_{''.join(filter(str.isalnum, who))}{self.name}"

    def token(self, kind: Kind) -> str | None:
        """What this kind of caller has for a session.  Without a valid one it is nearly the owner's."""
        owner = {"sub": self.user("owner"), "email": self.email("owner")}
        match kind:
            case Unknown.ANONYMOUS:
                return None
            case Unknown.EXPIRED:
                return make_token(**owner, lifetime=-3600)
            case Unknown.ANON_KEY:
                return make_token(**owner, role="anon")
            case Unknown.SERVICE_KEY:
                return make_token(**owner, role="service_role")
            case _:
                return make_token(self.user(kind), email=self.email(kind))


def make_world(conn: psycopg.Connection, mail: MailServers) -> World:
    """Write a fresh one."""
    name = f"{next(_numbers):08}"
    world = World(name, uuid4(), f"Books of {uuid4().hex}", mail)
    with conn.transaction():
        people = [*Standing, "guest", "guest to be"]
        for who in people:
            conn.execute(
                "INSERT INTO users (id, email, email_normal, name, plan) VALUES (%s, %s, %s, %s, 'free')",
                (world.user(who), world.email(who), world.email(who), who),
            )
        for account, email, default in ((uuid4(), f"first-{name}", True), (world.account, f"second-{name}", False)):
            _account(conn, world, account, f"{email}@example.test", mail.smtp, default=default)
        for who, role in (("admin", "admin"), ("member", "member"), ("guest", "member")):
            conn.execute(
                "INSERT INTO account_access (account_id, user_id, role) VALUES (%s, %s, %s)",
                (world.account, world.user(who), role),
            )
        for who, status in {**_SETTLED, "guest": "accepted", "guest to be": "pending"}.items():
            conn.execute(
                "INSERT INTO invitations (id, account_id, inviter_id, invitee_email, invitee_normal, role, status,"
                " expires_at, settled_at) VALUES (%s, %s, %s, %s, %s, %s, %s, now() + interval '31 days',"
                " CASE WHEN %s THEN NULL ELSE now() END)",
                (
                    *(world.invitation(who), world.account, world.user("owner"), world.email(who), world.email(who)),
                    *("admin" if who == "admin" else "member", status, status == "pending"),
                ),
            )
    return world


def _account(
    conn: psycopg.Connection, world: World, account: UUID, email: str, smtp: SmtpServer, *, default: bool
) -> None:
    conn.execute(
        "INSERT INTO accounts (id, owner_id, email, email_normal, name, imap_host, imap_port, imap_security,"
        " smtp_host, smtp_port, smtp_security, username, data_key, password_sealed, is_default, state, state_code,"
        " state_reason) VALUES (%s, %s, %s, %s, %s, 'localhost', %s, 'tls', 'localhost', %s, 'starttls', %s, 'k', 'p',"
        " %s, 'parked', 'imap_auth_failed', 'Nobody runs it.')",
        (
            *(account, world.user("owner"), email, email, world.title, world.mail.imap.imaps_port),
            *(smtp.starttls_port, email, default),
        ),
    )
    conn.execute(
        "INSERT INTO account_access (account_id, user_id, role) VALUES (%s, %s, 'owner')",
        (account, world.user("owner")),
    )


def snapshot(conn: psycopg.Connection) -> Mapping[str, str]:
    """A fingerprint of each table that is watched, of all worlds together."""
    parts = sql.SQL(", ").join(
        sql.SQL("(SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM (SELECT {} FROM {}) t)").format(
            sql.SQL(columns), sql.Identifier(table)
        )
        for table, columns in WATCHED.items()
    )
    row = conn.execute(sql.SQL("SELECT {}").format(parts)).fetchone()
    assert row is not None
    return dict(zip(WATCHED, row, strict=True))


def body_of(world: World, kind: Kind, name: str, case: str) -> dict[str, object]:
    """A right body of this operation in this case; KeyError: it wants one here."""
    invitation = {"invitation_id": world.invitation(kind if kind in _SETTLED else Standing.INVITED)}
    account = {"account_id": str(world.account)}
    return {
        "connectAccount": lambda: world.mail.mailbox(f"new-{world.user(kind)}@example.test"),
        "changeAccount": lambda: {
            "": {"name": "Ours"},
            "with new credentials": {"password": PASSWORD},
            "with `is_default`": {"is_default": True},
        }[case],
        "invite": lambda: {"email": f"new-{world.email('guest')}"},
        "acceptInvitation": lambda: invitation,
        "declineInvitation": lambda: invitation,
        "registerCampaign": lambda: {**account, "status": "active"},
        "startSync": lambda: account,
    }[name]()
