"""Real mailboxes: a Dovecot for the whole run, a user of its own for each test.

- `authority`: the certificate authority all test servers share; `authority.ca_pem` is what a client must trust.
- `dovecot`: the shared server. Other kinds by indirect parameter, each started once in a run:
  `@pytest.mark.parametrize("dovecot", [DovecotOptions(without=frozenset({"QRESYNC"}))], indirect=True)`.
  Do not stop, restart or break it: others use it.
- `private_dovecot`: one for this test alone, to stop, restart and break (50 ms). Same parameter.
- `mail_user`: a user nobody else has, with an empty mailbox on `dovecot`.

Its methods block: from an async test, what takes long goes through `trio.to_thread.run_sync`.
"""

import itertools
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ops.testservers.dovecot import Dovecot
from ops.testservers.dovecot_conf import DovecotOptions
from ops.testservers.tls import Authority
from tests.fix_leaks import share_process

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class MailUser:
    """Somebody with a mailbox."""

    name: str
    password: str


class DovecotFarm:
    """Shared servers by their options, started when first asked for."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._servers: dict[DovecotOptions, Dovecot] = {}

    def get(self, options: DovecotOptions | None = None) -> Dovecot:
        options = options or DovecotOptions()
        server = self._servers.get(options)
        if server is None or not server.running:
            if server is not None:
                server.close()
            server = Dovecot(options, authority=self._authority)
            self._servers[options] = server
            server.start()
            share_process(server.pid)
        return server

    def close(self) -> None:
        while self._servers:
            self._servers.popitem()[1].close()


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="session")
def ca_file(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authority's certificate as a file, for `[network] ca_file`."""
    return authority.write_ca(tmp_path_factory.mktemp("ca") / "ca.pem")


@pytest.fixture(scope="session")
def dovecot_farm(authority: Authority) -> Iterator[DovecotFarm]:
    farm = DovecotFarm(authority)
    yield farm
    farm.close()


@pytest.fixture
def dovecot(dovecot_farm: DovecotFarm, request: pytest.FixtureRequest) -> Dovecot:
    return dovecot_farm.get(getattr(request, "param", None))


@pytest.fixture
def private_dovecot(authority: Authority, request: pytest.FixtureRequest) -> Iterator[Dovecot]:
    with Dovecot(getattr(request, "param", None), authority=authority) as server:
        yield server


@pytest.fixture
def new_user() -> str:
    """A user name nobody had before, in this run or another."""
    return f"u{next(_numbers)}-{secrets.token_hex(3)}@example.test"


@pytest.fixture
def mail_user(dovecot: Dovecot, new_user: str) -> MailUser:
    return MailUser(new_user, dovecot.password)
