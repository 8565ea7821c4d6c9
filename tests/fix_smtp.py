"""Real SMTP servers with AUTH over STARTTLS and TLS.

- `smtp_server`: aiosmtpd, shared; it records what it takes (`mails_to(recipient)`), and an address can ask it for a
  reply or a broken connection (see `ops.testservers.smtp_child`). Other kinds by indirect parameter (`SmtpOptions`).
- `private_smtp_server`: one for this test alone, to stop and restart. Same parameter.
- `submission`: Dovecot's submission service in front of `smtp_server`: what it takes turns up there.

The user names of Dovecot and of these servers are free, the password is `password`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ops.testservers.dovecot import Dovecot
from ops.testservers.dovecot_conf import DovecotOptions
from ops.testservers.smtp import SmtpOptions, SmtpServer
from ops.testservers.tls import Authority
from tests.fix_dovecot import DovecotFarm
from tests.fix_leaks import share_process


class SmtpFarm:
    """Shared servers by their options, started when first asked for."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._servers: dict[SmtpOptions, SmtpServer] = {}

    def get(self, options: SmtpOptions | None = None) -> SmtpServer:
        options = options or SmtpOptions()
        server = self._servers.get(options)
        if server is None or not server.running:
            if server is not None:
                server.close()
            server = SmtpServer(options, authority=self._authority)
            self._servers[options] = server
            server.start()
            share_process(server.pid)
        return server

    def close(self) -> None:
        while self._servers:
            self._servers.popitem()[1].close()


@dataclass(frozen=True, slots=True)
class Submission:
    """Dovecot's submission service. `relay` is where its mail goes."""

    dovecot: Dovecot
    relay: SmtpServer
    host: str = "localhost"

    @property
    def starttls_port(self) -> int:
        return self.dovecot.submission_port

    @property
    def tls_port(self) -> int:
        return self.dovecot.submissions_port

    @property
    def password(self) -> str:
        return self.dovecot.password


@pytest.fixture(scope="session")
def smtp_farm(authority: Authority) -> Iterator[SmtpFarm]:
    farm = SmtpFarm(authority)
    yield farm
    farm.close()


@pytest.fixture
def smtp_server(smtp_farm: SmtpFarm, request: pytest.FixtureRequest) -> SmtpServer:
    return smtp_farm.get(getattr(request, "param", None))


@pytest.fixture
def private_smtp_server(authority: Authority, request: pytest.FixtureRequest) -> Iterator[SmtpServer]:
    with SmtpServer(getattr(request, "param", None), authority=authority) as server:
        yield server


@pytest.fixture
def submission(smtp_farm: SmtpFarm, dovecot_farm: DovecotFarm) -> Submission:
    relay = smtp_farm.get()
    return Submission(dovecot_farm.get(DovecotOptions(relay=relay.relay_port)), relay)
