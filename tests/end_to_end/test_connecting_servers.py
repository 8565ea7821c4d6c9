"""POST /mail/accounts against every way in which a server can be wrong: status, code and sentence by one table.

All cases run at once, each as a user of its own, against one daemon on a database of its own; then the tests look at
what came of it, at the log, at the database and at the connections.
"""

import base64
import re
import socket
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from psycopg import sql

from ops.testservers.tls import Authority
from tests.end_to_end.hostile import HostileServers, Names
from tests.end_to_end.hostile_cases import CASES, ONE_CAUSE, WRONG, Case
from tests.fix_daemon import PASSWORD, DaemonProcess, MailServers, eventually, loopback_settings
from tests.fix_postgres import Servers
from tests.fix_scripted_imap import On, Say, StartTls, Swallow

PATH = "/mail/accounts"
REBOUND = "imap.example.test"
REBIND = (
    Say(b"* OK ready\r\n"), On(rb"STARTTLS$", b"<tag> OK go\r\n"), StartTls(),
    On(rb"CAPABILITY$", b"* CAPABILITY IMAP4rev1 LOGINDISABLED\r\n<tag> OK done\r\n"), Swallow(),
)  # fmt: skip


@dataclass
class Outcome:
    """What came of all cases."""

    daemon: DaemonProcess
    servers: HostileServers
    names: Names
    ports: dict[str, int]
    answers: dict[str, httpx.Response]


@pytest.fixture(scope="module")
def deaf_port() -> Iterator[int]:
    """A loopback port whose queue is full: no SYN is answered, as behind a filter."""
    with socket.socket() as deaf, socket.socket() as filler:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        filler.connect(deaf.getsockname())
        yield deaf.getsockname()[1]


def user_of(case: Case) -> str:
    return re.sub(r"\W+", "-", case.name.lower()).strip("-") + "@example.test"


def body_of(case: Case, ports: dict[str, int], mail: MailServers) -> dict[str, Any]:
    """A mailbox at good servers, but for what the case makes wrong."""
    wrong: dict[str, Any] = {"password": PASSWORD}
    if case.steps:
        wrong |= {f"{case.service}_port": ports[case.name], f"{case.service}_security": "starttls"}
    wrong |= {name: ports.get(value, value) for name, value in case.changes.items()}
    return mail.mailbox(user_of(case), **wrong)


@pytest.fixture(scope="module")
def outcome(
    postgres_servers: Servers, mail: MailServers, authority: Authority, ca_file: Path, closed_port: int, deaf_port: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Outcome]:  # fmt: skip
    """The answers to all cases, and the daemon that gave them, still running."""
    home = tmp_path_factory.mktemp("hostile")
    database = postgres_servers.get("embedded")
    name = postgres_servers.fresh_database("embedded")
    zone = {
        ("localhost", "A"): ["127.0.0.1"],
        ("nothing.example.test", "A"): "NXDOMAIN",
        ("nothing.example.test", "AAAA"): "NXDOMAIN",
        ("inside.example.test", "A"): ["10.0.0.1"],
        (REBOUND, "A"): ["127.0.0.2"],
    }
    with HostileServers(authority, home) as servers, Names(zone) as names:
        ports = {case.name: servers.play(*case.steps, tls=case.tls) for case in CASES.values() if case.steps}
        ports["rebind"] = servers.play(*REBIND, addresses=("127.0.0.2", "127.0.0.3"))
        names.then[REBOUND, "A"] = ["127.0.0.3"]
        ports |= {"closed": closed_port, "deaf": deaf_port, "dovecot": mail.imap.imaps_port}
        settings = loopback_settings(
            f"host={database.socket} user=postgres dbname={name}", ca_file, (*mail.ports, *ports.values())
        )
        settings["network"] |= {"allow": ["127.0.0.0/8"], "nameservers": [names.address]}
        daemon = DaemonProcess(home / "daemon", settings)
        try:
            daemon.start()

            def ask(case: Case) -> httpx.Response:
                with daemon.client(user_of(case)) as http:
                    return http.post(PATH, json=body_of(case, ports, mail))

            with ThreadPoolExecutor(len(CASES)) as threads:
                answers = dict(zip(CASES, threads.map(ask, CASES.values()), strict=True))
            yield Outcome(daemon, servers, names, ports, answers)
        finally:
            daemon.close()
            database.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.mark.parametrize("name", CASES)
def test_what_the_caller_is_told(outcome: Outcome, name: str) -> None:
    case, answer = CASES[name], outcome.answers[name]
    assert (answer.status_code, answer.json()) == (
        400, {"success": False, "error": case.told, "code": case.code}
    )  # fmt: skip


def test_no_two_causes_share_a_sentence() -> None:
    cases = defaultdict(list)
    for case in CASES.values():
        cases[case.told].append(case.name)
    shared = {told.partition(": ")[2] for told, names in cases.items() if len(names) > 1}
    assert shared <= set(ONE_CAUSE)


def test_the_sentences_are_plain() -> None:
    """No address, no secret, nothing of a library's or a protocol's jargon beyond what a mail program shows."""
    for case in CASES.values():
        assert re.fullmatch(r"[A-Z][A-Za-z',;.() 0-9-]+\.", case.sentence), case.sentence
        assert not re.search(r"Error|Exception|errno|\d+\.\d+\.\d+|_", case.sentence), case.sentence
        assert WRONG not in case.sentence
        assert PASSWORD not in case.sentence


def test_the_scripts_were_played(outcome: Outcome) -> None:
    """Each server was met once, and heard nothing that it did not foresee: a refusal is never asked about again."""
    assert outcome.servers.failures() == []
    for name in CASES:
        if name in outcome.ports:
            assert sum(outcome.servers.connections(outcome.ports[name]).values()) == 1, name


def test_no_password_went_out_without_tls(outcome: Outcome) -> None:
    for case in CASES.values():
        if case.steps and "login" not in case.name:
            said = b"".join(outcome.servers.lines(outcome.ports[case.name]))
            assert b"AUTH" not in said.upper(), case.name
            assert b"LOGIN" not in said.upper(), case.name


def test_nothing_was_saved(outcome: Outcome) -> None:
    for table in ("accounts", "account_access", "claims", "commands", "events"):
        assert outcome.daemon.query(f"SELECT count(*) FROM {table}") == [(0,)], table


def test_nothing_was_said_elsewhere(outcome: Outcome) -> None:
    log, metrics = outcome.daemon.log_text(), outcome.daemon.metrics()
    secrets = {PASSWORD, WRONG}
    for case in CASES.values():
        for password in (PASSWORD, WRONG):
            user = case.changes.get("username", user_of(case))
            secrets.add(base64.b64encode(f"\0{user}\0{password}".encode()).decode())
    for text in (log, metrics, *(answer.text for answer in outcome.answers.values())):
        assert not [secret for secret in secrets if secret in text]
    assert "Traceback" not in log
    assert '"level": "error"' not in log
    assert len(outcome.daemon.events("connect.refused")) == len(CASES)


def test_no_connection_is_left(outcome: Outcome) -> None:
    ports = {*outcome.ports.values()}

    def left() -> list[Any]:
        open_ = psutil.Process(outcome.daemon.pid).net_connections("tcp")
        return [found for found in open_ if found.raddr and found.raddr.port in ports]

    eventually(lambda: not left())


def test_the_judged_address_is_the_one_connected_to(outcome: Outcome, mail: MailServers) -> None:
    """A name server that answers otherwise the second time is not asked a second time, for STARTTLS neither."""
    port, asked = outcome.ports["rebind"], (REBOUND, "A")
    assert asked not in outcome.names.asked
    body = mail.mailbox("rebind@example.test", imap_host=REBOUND, imap_port=port, imap_security="starttls")
    with outcome.daemon.client("rebind@example.test") as http:
        assert http.post(PATH, json=body).json()["code"] == "password_login_unsupported"
    assert outcome.servers.connections(port) == {"127.0.0.2": 1, "127.0.0.3": 0}
    assert outcome.names.asked.count(asked) == 1
