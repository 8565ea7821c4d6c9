"""POST /mail/accounts where nothing but the public internet is allowed: every spelling of what is ours, in every field.

Proof that nothing went out is not taken from a clock: the addresses have listeners, at a port on the list, which hear
nobody; the name server tells who was asked for.
"""

import ipaddress
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import pytest
from psycopg import sql

from daemon.settings import RateSettings
from ops.testservers.tls import Authority
from tests.end_to_end.hostile import HostileServers, Names
from tests.end_to_end.hostile_cases import NO_NAME, NO_PORT, NOT_PUBLIC
from tests.fix_daemon import PASSWORD, DaemonProcess
from tests.fix_postgres import Servers
from tests.fix_scripted_imap import Swallow

PATH = "/mail/accounts"
USER = "guarded@example.test"

ADDRESSES = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "169.254.0.1", "100.64.0.1", "100.127.255.255", "100.100.100.200", "168.63.129.16",
    "192.0.0.8", "192.0.0.170", "192.0.2.1", "198.18.0.1", "198.19.255.255", "224.0.0.1", "239.255.255.255",
    "240.0.0.1", "255.255.255.255",
    "::", "::1", "0:0:0:0:0:0:0:1", "::0001", "fe80::1", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "ff0e::1",
    "::ffff:127.0.0.1", "::FFFF:7f00:1", "0:0:0:0:0:ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1",
    "::ffff:0:127.0.0.1", "::127.0.0.1", "::7f00:1", "64:ff9b::7f00:1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1", "64:ff9b:1::7f00:1", "64:ff9b:1:7f00:0:100::", "2002:7f00:1::", "2002:a9fe:a9fe::1",
    "2001:0:4136:e378:8000:63bf:80ff:fffe", "2001::1", "2001:db8::1", "100::1",
    "localhost", "LOCALHOST", "mail.localhost", "ｌｏｃａｌｈｏｓｔ", "ⓛocalhost",
]  # fmt: skip
"""Addresses in a form that has one reading, and names that say themselves where they lead."""

SPELLINGS = [
    "127.1", "127.0.1", "0177.0.0.1", "0177.1", "2130706433", "017700000001", "0x7f.1", "0x7F000001", "0x7f.0.0.0x1",
    "127.0.0.01", "127.0.0.1.", "127.0.0.0x1", "0", "1.2.3.4.5", "256.0.0.1", "foo.0x7f", "3232235777",
    "[::]", "[::1]", "[::1]:143", "[127.0.0.1]", "::1%lo", "fe80::1%eth0", "fe80::1%25eth0", "::1/128", "127.0.0.0/8",
    "LOCALHOST.", "localhost.", "localhost..", ".localhost", "metadata.google.internal.",
    "１２７.0.0.1", "①②⑦.⓪.⓪.①", "127。0。0。1", "127．0．0．1", "٠.٠.٠.٠", "localhost\u3002", "local\u00adhost.",
    "127.0.0.1:143", "user@127.0.0.1", "http://127.0.0.1/", "127.0.0.1/", "127.0.0.1#", "127.0.0.1?", "127.0.0.1\\",
    "%31%32%37.0.0.1", "%6cocalhost", "localhost%00", "127.0.0.1\r\n", "127.0.0.1\nHost: x", "127.0.0.1\0", "\t::1",
    " localhost", "localhost ", "local host", "\u202e127.0.0.1", "127.0.0.1\u2028", "::1\u2029", "*", ".", "..",
    "a_b.example.test", "-a.example.test", "a" * 64 + ".test", "xn--\u00df", "",
]  # fmt: skip
"""Whatever somebody could read otherwise than we do."""

INSIDE = {
    "inside.example.test": {"A": ["10.0.0.1"]},
    "loop.example.test": {"A": ["127.0.0.1"]},
    "six.example.test": {"AAAA": ["::1"]},
    "mapped.example.test": {"AAAA": ["::ffff:127.0.0.1"]},
    "nat64.example.test": {"AAAA": ["64:ff9b::a9fe:a9fe"]},
    "zero.example.test": {"A": ["0.0.0.0"]},
    "both.example.test": {"A": ["8.8.8.8", "10.0.0.1"]},
    "families.example.test": {"A": ["8.8.8.8"], "AAAA": ["fd00::1"]},
    "alias.example.test": {"CNAME": "alias2.example.test"},
    "alias2.example.test": {"CNAME": "loop.example.test"},
    "127.0.0.1.nip.example.test": {"A": ["127.0.0.1"]},
    "metadata.google.internal": {"A": ["169.254.169.254"]},
    "crowd.example.test": {"A": [f"8.8.8.{number}" for number in range(40)]},
    "round.example.test": {"CNAME": "round.example.test"},
    "empty.example.test": {},
    "nothing.example.test": {"A": "NXDOMAIN", "AAAA": "NXDOMAIN"},
    "broken.example.test": {"A": "SERVFAIL", "AAAA": "REFUSED"},
}
"""Names that exist inside only, beside names that do not exist or lead nowhere: nobody is to tell them apart."""


@dataclass
class Guarded:
    """A daemon that may reach the public internet alone, and what would hear it."""

    daemon: DaemonProcess
    servers: HostileServers
    names: Names
    port: int
    http: httpx.Client | None = None
    """A test's own, so that no connection outlives it."""

    def post(self, **changes: Any) -> httpx.Response:
        """Connect a mailbox whose servers are both of this machine, but for the changes."""
        body = {
            "email": USER, "imap_host": "127.0.0.1", "imap_port": self.port, "smtp_host": "127.0.0.1",
            "smtp_port": self.port, "username": USER, "password": PASSWORD,
        }  # fmt: skip
        assert self.http is not None
        return self.http.post(PATH, json=body | changes)


def own_addresses() -> list[str]:
    """This machine's addresses that anybody may listen at."""
    items = [item for items in psutil.net_if_addrs().values() for item in items]
    return sorted({"127.0.0.1", *(item.address for item in items if item.family == socket.AF_INET)})


@pytest.fixture(scope="module")
def guarded(
    postgres_servers: Servers, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    home = tmp_path_factory.mktemp("guarded")
    database = postgres_servers.get("embedded")
    name = postgres_servers.fresh_database("embedded")
    zone = {(host, kind): answer for host, answers in INSIDE.items() for kind, answer in answers.items()}
    addresses = [*own_addresses(), *(["::1"] if socket.has_dualstack_ipv6() else [])]
    with HostileServers(authority, home) as servers, Names(zone) as names:
        port = servers.play(Swallow(), addresses=addresses)
        settings: dict[str, dict[str, Any]] = {
            "storage": {"dsn": f"host={database.socket} user=postgres dbname={name}"},
            "network": {"nameservers": [names.address], "ports": [port, 993]},
            # One caller tries one mailbox hundreds of times: what is refused is counted as what is dialled.
            "rates": dict.fromkeys(RateSettings.model_fields, 100_000),
        }
        daemon = DaemonProcess(home / "daemon", settings)
        try:
            yield Guarded(daemon.start(), servers, names, port)
        finally:
            daemon.close()
            database.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def refused(answer: httpx.Response, code: str, sentence: str) -> None:
    assert (answer.status_code, answer.json()) == (400, {"success": False, "error": sentence, "code": code})


@pytest.fixture
def unheard(guarded: Guarded) -> Iterator[None]:
    """Fails a test in which any listener heard anybody; the test's caller meanwhile."""
    before = guarded.servers.connections(guarded.port)
    with guarded.daemon.client(USER) as guarded.http:
        yield
    assert guarded.servers.connections(guarded.port) == before == dict.fromkeys(before, 0)


def test_addresses_that_are_not_public(guarded: Guarded, unheard: None) -> None:
    asked = len(guarded.names.asked)
    own = [host for host in own_addresses() if not ipaddress.ip_address(host).is_global]
    for host in [*ADDRESSES, *own]:
        refused(guarded.post(imap_host=host), "host_not_allowed", f"IMAP: {NOT_PUBLIC}")
    assert len(guarded.names.asked) == asked, "a name server was asked for what says itself where it leads"


@pytest.mark.parametrize("field", ["imap_host", "smtp_host"])
def test_hosts_that_can_be_read_in_two_ways(guarded: Guarded, unheard: None, field: str) -> None:
    asked = len(guarded.names.asked)
    for host in SPELLINGS:
        answer = guarded.post(**{field: host})
        said = answer.json()
        assert (answer.status_code, said["code"], said["error"]) == (400, "validation_failed", "The body is not valid.")
        assert set(said["details"]["fieldErrors"]) == {field}, (host, said)
        assert len(host) < 4 or host.strip() not in answer.text, host
    assert len(guarded.names.asked) == asked


def test_names_that_exist_inside_only(guarded: Guarded, unheard: None) -> None:
    """One answer for all, to the byte: the names of the inside cannot be listed from outside."""
    with ThreadPoolExecutor(len(INSIDE)) as threads:
        answers = dict(zip(INSIDE, threads.map(lambda host: guarded.post(imap_host=host), INSIDE), strict=True))
    for host, answer in answers.items():
        assert (host, "A") in guarded.names.asked
        refused(answer, "imap_connect_failed", f"IMAP: {NO_NAME}")
    assert len({answer.content for answer in answers.values()}) == 1
    assert len({tuple(sorted(set(answer.headers) - {"date"})) for answer in answers.values()}) == 1


@pytest.mark.parametrize("port", [1, 22, 80, 143, 5432, 6379, 8025, 65535])
def test_ports_off_the_list(guarded: Guarded, unheard: None, port: int) -> None:
    """The host is not looked at: neither is a name asked for nor told whether it is ours."""
    asked = len(guarded.names.asked)
    for host in ("8.8.8.8", "127.0.0.1", "inside.example.test", "nothing.example.test"):
        refused(guarded.post(imap_host=host, imap_port=port), "host_not_allowed", f"IMAP: {NO_PORT}")
    assert len(guarded.names.asked) == asked


BREAKS = ["\r", "\n", "\r\n", "\0", "\x0b", "\x0c", "\x1b", "\x7f", "\x85", "\u2028", "\u2029"]
PASSWORD_BREAKS = ["\r", "\n", "\r\n", "\0"]
FIELDS = {
    "email": "ann@example.test", "name": "Ann", "imap_host": "imap.example.test", "smtp_host": "smtp.example.test",
    "username": "ann@example.test", "password": PASSWORD, "imap_security": "tls", "smtp_security": "starttls",
}  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_line_breaks_in_every_field(guarded: Guarded, unheard: None, field: str) -> None:
    """Before, within and after; in a password what no protocol takes for a line's end is only a character."""
    good = FIELDS[field]
    for character in PASSWORD_BREAKS if field == "password" else BREAKS:
        end = good + character
        for value in (character + good, good[:2] + character + good[2:], end, f"{end}A1 LOGOUT"):
            answer = guarded.post(**{field: value})
            assert (answer.status_code, answer.json()["code"]) == (400, "validation_failed"), value
            assert set(answer.json()["details"]["fieldErrors"]) == {field}, value
            assert "LOGOUT" not in answer.text
            assert PASSWORD not in answer.text


@pytest.mark.parametrize(("field", "longest", "unit"), [
    ("email", 254, "a"), ("name", 200, "n"), ("imap_host", 253, "h."), ("smtp_host", 253, "h."), ("username", 320, "u"),
    ("password", 1024, "p"),
])  # fmt: skip
def test_fields_that_are_too_long(guarded: Guarded, unheard: None, field: str, longest: int, unit: str) -> None:
    for size in (longest + 1, 10 * longest, 500_000):
        value = (unit * size)[:size] + ("@example.test" if field == "email" else "")
        answer = guarded.post(**{field: value})
        assert (answer.status_code, answer.json()["code"]) == (400, "validation_failed")
        assert set(answer.json()["details"]["fieldErrors"]) == {field}
        assert len(answer.content) < 1000


@pytest.mark.parametrize("value", [None, True, 1.5, -1, 0, 65536, 10**30, "993", "993\r\n", [993], {"port": 993}])
@pytest.mark.parametrize("field", ["imap_port", "smtp_port"])
def test_ports_that_are_none(guarded: Guarded, unheard: None, field: str, value: object) -> None:
    answer = guarded.post(**{field: value})
    assert (answer.status_code, answer.json()["code"]) == (400, "validation_failed")
    assert set(answer.json()["details"]["fieldErrors"]) == {field}


def test_what_was_refused_left_nothing(guarded: Guarded, unheard: None) -> None:
    """After all the above there is no row and no secret in the log, and the operator knows the ground."""
    guarded.post(imap_host="10.0.0.1")
    guarded.post(imap_host="inside.example.test")
    for table in ("accounts", "account_access", "claims", "commands", "events"):
        assert guarded.daemon.query(f"SELECT count(*) FROM {table}") == [(0,)], table
    log = guarded.daemon.log_text()
    assert PASSWORD not in log + guarded.daemon.metrics()
    assert not re.search(r"Traceback|\"level\": ?\"error\"", log)
    grounds = {(event["host"], event["subject"]) for event in guarded.daemon.events("network.refused")}
    assert {("10.0.0.1", "10.0.0.1"), ("inside.example.test", "10.0.0.1")} <= grounds
