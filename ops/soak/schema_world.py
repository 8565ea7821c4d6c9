"""The world in which `schema` asks: people, accounts, invitations, shares and campaigns, whose ids everybody knows.

What one request takes away, the next must find again: or an hour of cases sees one account, and then 404 for ever.  So
the world is tended while people ask who may change it: what was there at the beginning is brought back, what they
brought is taken away.  While the stranger asks it is left alone, and compared before and after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID, uuid4

import psycopg
import trio

from daemon.account import owning_store
from daemon.account.owning_store import NewAccount
from daemon.identity import User, users_store
from daemon.network import Endpoint
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.vault import Vault
from daemon.vault.secret import Secret

OWNER: Final = "schema-owner"
ADMIN: Final = "schema-admin"
MEMBER: Final = "schema-member"
STRANGER: Final = "schema-stranger"
HOST: Final = "schema-host"
"""Never asks; has accounts and invites the others, the stranger excepted."""

TEND_EVERY: Final = 0.2
"""Seconds: what is gone is back before Schemathesis has asked a dozen times for it."""

LIVES: Final = 3.0
"""Seconds that what a request brought may stay: others ask for it meanwhile, and it does not fill the limits."""

SEEDED: Final = 4
"""Open invitations to each account, and campaigns."""

Invitation = tuple[UUID, str, str]
"""The account, who invites, and the address."""


def address(user: str) -> str:
    """The address that a user's session confirms."""
    return f"{user}@example.test"


@dataclass(frozen=True, slots=True)
class Mailboxes:
    """Where accounts of this world live."""

    vault: Vault
    imap: Endpoint
    smtp: Endpoint
    password: str

    def account(self, owner: str, user: str, password: str | None = None) -> NewAccount:
        """An account of a mailbox, whose name nobody else has."""
        account_id = uuid4()
        sealed = self.vault.seal(account_id, {"password": Secret(password or self.password)})
        return NewAccount(
            id=account_id, owner_id=owner, email=user, email_normal=user, name=f"Name of {user}",
            imap=self.imap, smtp=self.smtp, username=user,
            data_key=sealed.data_key, password_sealed=sealed.fields["password"],
        )  # fmt: skip


class World:
    """What there is at the beginning, and is brought back."""

    def __init__(self, mailboxes: Mailboxes, mail: Sequence[str]) -> None:
        """*mail* are mailboxes of the owner's accounts that are shared; one more has a password that is wrong."""
        self.mailboxes = mailboxes
        self.shared = [mailboxes.account(OWNER, user) for user in mail]
        self.refused = mailboxes.account(OWNER, "refused@example.test", "not its password")
        self.expendable = [mailboxes.account(OWNER, f"expendable{number}@example.test") for number in range(3)]
        self.hosts = [mailboxes.account(HOST, f"host{number}@example.test") for number in range(2)]
        self.strangers = mailboxes.account(STRANGER, "strangers@example.test")
        self.accounts = [*self.shared, self.refused]
        self.invitations: dict[str, Invitation] = {
            self._invitation(f"{account.username[:7]}n{number}"): (account.id, OWNER, f"invitee{number}@x.test")
            for account in self.accounts
            for number in range(SEEDED)
        }
        self.accepted, self.declined = (  # what is accepted cannot be declined, so each has some of its own
            {
                self._invitation(f"{user.partition('-')[2]}r{number}"): (host.id, HOST, address(user))
                for user in (OWNER, ADMIN, MEMBER)
            }
            for number, host in enumerate(self.hosts)
        )
        self.campaigns = [f"campaign-{number}" for number in range(SEEDED)]
        self.unnamed = "campaign-nobody-names"
        """One that is in no request: names of campaigns are their callers' own words, which come back to them."""

    @staticmethod
    def _invitation(word: str) -> str:
        return f"inv_{word:x<16}"

    @property
    def received(self) -> dict[str, Invitation]:
        """Invitations of the host."""
        return {**self.accepted, **self.declined}

    @property
    def ours(self) -> list[NewAccount]:
        """What a stranger must not touch."""
        return [*self.own, *self.hosts]

    @property
    def own(self) -> list[NewAccount]:
        """All of the owner's."""
        return [*self.accounts, *self.expendable]

    def secrets(self) -> list[str]:
        """What a stranger must never read, though they know it."""
        accounts = self.ours
        people = (OWNER, ADMIN, MEMBER, HOST)
        invitations = {**self.invitations, **self.received}
        return sorted({
            *(str(account.id) for account in accounts), *(account.email for account in accounts),
            *people, *invitations, *(email for _, _, email in invitations.values()), self.unnamed,
        })  # fmt: skip

    async def tend(self, conn: Conn) -> None:
        """Make the world as it was at the beginning, as far as it is not."""
        everybody = (HOST, OWNER, STRANGER, ADMIN, MEMBER)
        for user in everybody:
            await users_store.remember(conn, User(id=user, email=address(user), name=f"Name of {user}", plan="free"))
            await users_store.lock(conn, user)
        for account in [*self.ours, self.strangers]:
            if not await owning_store.is_running(conn, account.id):
                await owning_store.save(conn, account)
        await self._forget_others(conn)
        await self._share(conn)
        for invitation, (account_id, inviter, email) in {**self.invitations, **self.received}.items():
            await conn.execute(
                "INSERT INTO invitations (id, account_id, inviter_id, invitee_email, invitee_normal, role, expires_at)"
                " VALUES (%(id)s, %(account)s, %(inviter)s, %(email)s, %(email)s, 'member', now() + interval '31 days')"
                " ON CONFLICT (id) DO UPDATE SET status = 'pending', settled_at = NULL"
                " WHERE invitations.status <> 'pending'",
                {"id": invitation, "account": account_id, "inviter": inviter, "email": email},
            )
        for campaign in [*self.campaigns, self.unnamed]:
            await conn.execute(
                "INSERT INTO campaigns (user_id, id, account_id, status) VALUES (%s, %s, %s, 'active')"
                " ON CONFLICT DO NOTHING",
                (OWNER, campaign, self.shared[0].id),
            )

    async def _share(self, conn: Conn) -> None:
        for account in self.shared:
            for user, role in ((ADMIN, "admin"), (MEMBER, "member")):
                await conn.execute(
                    "INSERT INTO account_access (account_id, user_id, role) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                    (account.id, user, role),
                )
        await conn.execute(
            "DELETE FROM account_access WHERE role <> 'owner' AND account_id = ANY(%s)"
            " AND created_at < now() - make_interval(secs => %s)",
            ([host.id for host in self.hosts], LIVES),
        )

    async def _forget_others(self, conn: Conn) -> None:
        """What people brought some seconds ago."""
        ours = [account.id for account in [*self.ours, self.strangers]]
        cursor = await conn.execute(
            "SELECT id, owner_id FROM accounts WHERE desired <> 'removed' AND NOT id = ANY(%s)"
            " AND connected_at < now() - make_interval(secs => %s)",
            (ours, LIVES),
        )
        for account_id, owner in await cursor.fetchall():
            await owning_store.remove(conn, owner, account_id)
        for table, when, known in (
            ("invitations", "created_at", [*self.invitations, *self.received]),
            ("campaigns", "updated_at", [*self.campaigns, self.unnamed]),
        ):
            await conn.execute(
                f"DELETE FROM {table} WHERE NOT id = ANY(%s) AND {when} < now() - make_interval(secs => %s)",  # noqa: S608  # ours
                (known, LIVES),
            )

    async def tended(self, database: Database, *, task_status: trio.TaskStatus[None]) -> None:
        """Tend it until cancelled."""
        await database.run(self.tend)
        task_status.started()
        while True:
            await trio.sleep(TEND_EVERY)
            try:
                await database.run(self.tend)
            except psycopg.errors.UniqueViolation:
                continue  # somebody connected the same mailbox, or invited the same address; it lives for seconds only

    async def rows(self, database: Database) -> Mapping[str, list[tuple[Any, ...]]]:
        """What people did to the owner's accounts and the host's, by table; nothing that only the daemon writes."""
        return await database.run(partial(_rows, ids=[account.id for account in self.ours]))


_ROWS: Final = {
    "accounts": "SELECT id, owner_id, email, name, imap_host, imap_port, imap_security, smtp_host, smtp_port,"
    " smtp_security, username, data_key, password_sealed, credentials_version, is_default, daily_limit, desired,"
    " sync_requested_at, connected_at, removed_at FROM accounts WHERE id = ANY(%(ids)s) ORDER BY id",
    "account_access": "SELECT * FROM account_access WHERE account_id = ANY(%(ids)s) ORDER BY account_id, user_id",
    "invitations": "SELECT * FROM invitations WHERE account_id = ANY(%(ids)s) ORDER BY id",
    "campaigns": "SELECT * FROM campaigns WHERE account_id = ANY(%(ids)s) OR user_id <> %(stranger)s"
    " ORDER BY user_id, id",
    "audit": "SELECT * FROM audit WHERE account_id = ANY(%(ids)s) ORDER BY id",
}  # fmt: skip


async def _rows(conn: Conn, *, ids: list[UUID]) -> dict[str, list[tuple[Any, ...]]]:
    found = {}
    for table, query in _ROWS.items():
        cursor = await conn.execute(query, {"ids": ids, "stranger": STRANGER})
        found[table] = list(await cursor.fetchall())
    return found
