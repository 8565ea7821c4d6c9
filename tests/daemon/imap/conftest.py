"""How these tests reach servers: the real dialer, allowed to the loopback interface, trusting the test authority.

- `dial_to(*ports)`: a `Dialer`.
- `login_to`: a logged-in session with a Dovecot user, as an async context manager.
- `account`: an account of such a user, not synchronised yet.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_network

import pytest

from daemon.imap.folder_record import Store
from daemon.imap.open import open_session
from daemon.imap.session import Session
from daemon.network import Dialer, Endpoint, NetworkPolicy, Resolver, Security
from daemon.storage.database import Database
from daemon.vault.secret import Secret
from ops.testservers.dovecot import Dovecot
from ops.testservers.tls import Authority
from tests.daemon.imap.accounts import Account, LoginTo
from tests.fix_dovecot import MailUser
from tests.stored import make_account

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))

DialTo = Callable[..., Dialer]


@pytest.fixture
def dial_to(authority: Authority) -> DialTo:
    context = authority.client_context()  # shared, as the daemon shares its own

    def make(*ports: int) -> Dialer:
        return Dialer(NetworkPolicy(allow=LOOPBACK, ports=frozenset(ports)), Resolver(), tls=context)

    return make


@pytest.fixture
def login_to(dial_to: DialTo) -> LoginTo:
    @asynccontextmanager
    async def login(server: Dovecot, user: MailUser, security: Security = Security.TLS) -> AsyncIterator[Session]:
        port = server.imaps_port if security is Security.TLS else server.imap_port
        endpoint = Endpoint("localhost", port, security)
        async with open_session(dial_to(port), endpoint, user.name, Secret(user.password)) as session:
            yield session

    return login


@pytest.fixture
async def account(db: Database, dovecot: Dovecot, mail_user: MailUser, login_to: LoginTo) -> Account:
    imap = Endpoint("localhost", dovecot.imaps_port, Security.TLS)
    claim = await make_account(db, username=mail_user.name, imap=imap)
    return Account(db, Store(db, claim), dovecot, mail_user, login_to)
