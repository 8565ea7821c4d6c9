"""The servers that a benchmark runs against: a durable embedded PostgreSQL, and a Dovecot of its own.

Both are gone at the end, with all they wrote.  PostgreSQL is run exactly as the daemon runs it: fsync on.
"""

from __future__ import annotations

import secrets
import shutil
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Final

import trio

from daemon.network import Dialer, Endpoint, NetworkPolicy, Resolver, Security
from daemon.storage.database import Database
from daemon.storage.embedded import run_embedded
from daemon.storage.migrate import migrate
from daemon.vault import KeyRing, Vault
from ops.testservers.dovecot import Dovecot
from ops.testservers.process import Owner, short_directory

LOOPBACK: Final = (ip_network("127.0.0.0/8"), ip_network("::1/128"))

CONNECTIONS: Final = 8
"""The pool's size: the daemon's default."""


def trusting(ca: Path) -> ssl.SSLContext:
    """A client's TLS context that trusts one authority alone; one for all sessions, as the daemon has it."""
    return ssl.create_default_context(cafile=ca)


def vault_of(key: bytes) -> Vault:
    """A vault with this one key."""
    return Vault(KeyRing({"bench": key}))


def dialer_to(ports: Iterable[int], context: ssl.SSLContext | None) -> Dialer:
    """The daemon's dialer, allowed to the loopback interface."""
    return Dialer(NetworkPolicy(allow=LOOPBACK, ports=frozenset(ports)), Resolver(), tls=context)


class Place:
    """Where a benchmark takes place."""

    def __init__(self, directory: Path, conninfo: str, database: Database, dovecot: Dovecot) -> None:
        self.directory = directory
        self.conninfo = conninfo
        self.database = database
        self.dovecot = dovecot
        self.key = secrets.token_bytes(32)
        self.vault = vault_of(self.key)
        self.context = trusting(dovecot.ca_pem)
        self.dialer = dialer_to({dovecot.imaps_port}, self.context)

    @property
    def imap(self) -> Endpoint:
        """Dovecot over TLS."""
        return Endpoint(self.dovecot.host, self.dovecot.imaps_port, Security.TLS)


@asynccontextmanager
async def opened(dovecot: Dovecot) -> AsyncIterator[Place]:
    """A place around a running Dovecot: a fresh, migrated, durable database and a vault."""
    directory = short_directory("bench-", Owner.ourselves())
    try:
        async with trio.open_nursery() as nursery:
            conninfo = await nursery.start(run_embedded, directory / "postgresql")
            async with Database(conninfo, size=CONNECTIONS) as database:
                await nursery.start(database.watch)
                await migrate(conninfo)
                yield Place(directory, conninfo, database, dovecot)
            nursery.cancel_scope.cancel()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
