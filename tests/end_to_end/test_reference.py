"""Every answer of the contract, given by a running daemon and compared field by field with its copy for machines.

Two daemons are driven once, one of them into want of everything; then each entry of the copy is looked at by itself:
was it answered, and as it says.  What the OpenAPI document tells is held against the same copy.
"""

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from psycopg import sql

from control_api.limits import MAX_PER_CALLER
from tests.contract import described, scenes
from tests.contract.reference import Endpoint, Entry, load
from tests.contract.refusals import refuse_all
from tests.contract.strict import STRICT_API, STRICT_RATES, HalfAsked, crowd, no_path, run_out
from tests.contract.witness import RATE_HEADERS, Witness
from tests.fix_daemon import DaemonProcess, MailServers, loopback_settings
from tests.fix_postgres import Servers

REFERENCE = load()


@dataclass
class Witnessed:
    """What came of it, with the daemon still running."""

    witness: Witness
    unnamed: list[str]
    """Fields of bodies that a refusal should have named."""
    api: dict[str, Any]
    """The OpenAPI document."""
    daemon: DaemonProcess


@pytest.fixture(scope="module")
def strict_daemon(
    postgres_servers: Servers, mail: MailServers, ca_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaemonProcess]:
    """A daemon that has little of everything, on a database of its own; not ready yet."""
    server, name = postgres_servers.get("embedded"), postgres_servers.fresh_database("embedded")
    settings = loopback_settings(f"host={server.socket} user=postgres dbname={name}", ca_file, mail.ports)
    settings["rates"].update(STRICT_RATES)
    daemon = DaemonProcess(tmp_path_factory.mktemp("strict"), settings | {"api": STRICT_API})
    try:
        daemon.launch()
        yield daemon
    finally:
        daemon.close()
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def witnessed(
    strict_daemon: DaemonProcess, shared_daemon: DaemonProcess, mail: MailServers, closed_port: int
) -> Iterator[Witnessed]:
    """Everything asked that the copy tells of."""
    witness, daemon, user = Witness(REFERENCE), shared_daemon, f"reference-{secrets.token_hex(4)}@example.test"
    with ExitStack() as stack:
        unhurried = stack.enter_context(closing(HalfAsked(daemon, f"unhurried|{user}")))

        def want() -> None:
            strict_daemon.wait_ready()
            run_out(strict_daemon, witness, user, lambda name: mail.mailbox(f"{name}-{user}"))
            witness.judge(unhurried.answer())

        def client(name: str, **claims: Any) -> httpx.Client:
            claims = {"email": f"{name}-{user}"} | claims
            return witness.watch(stack.enter_context(daemon.client(f"{name}|{user}", **claims)))

        meanwhile = stack.enter_context(ThreadPoolExecutor(1)).submit(want)
        cast = scenes.Cast(
            daemon=daemon, mail=mail, closed_port=closed_port, user=user, owner=client("owner", email=user),
            admin=client("admin"), member=client("member"), stranger=client("stranger"),
            frugal=client("frugal", plan="one"),
        )  # fmt: skip
        for scene in (scenes.connecting, scenes.sharing, scenes.others, scenes.changing, scenes.synchronising):
            scene(cast)
        signed_out = witness.watch(stack.enter_context(daemon.client(None)))
        unnamed = refuse_all(REFERENCE, cast.owner, signed_out, cast.account_id)
        crowd(daemon, witness, f"crowd|{user}", MAX_PER_CALLER)
        no_path(daemon, witness)
        meanwhile.result()
        api = httpx.get(f"{daemon.api}/mail/openapi.json", timeout=10).json()
        yield Witnessed(witness, unnamed, api, daemon)


@pytest.mark.parametrize("entry", list(REFERENCE.entries()), ids=str)
def test_every_entry_was_answered(witnessed: Witnessed, entry: Entry) -> None:
    answered = [str(other) for other in witnessed.witness.seen if other.operation == entry.operation]
    assert witnessed.witness.seen[entry] > 0, f"this operation answered {sorted(answered)}"


def test_no_answer_was_otherwise(witnessed: Witnessed) -> None:
    assert witnessed.witness.faults == []
    assert witnessed.unnamed == []


def test_nothing_was_answered_that_the_copy_does_not_know(witnessed: Witnessed) -> None:
    assert set(witnessed.witness.seen) <= set(REFERENCE.entries())


def test_the_document_and_the_copy_know_the_same_operations(witnessed: Witnessed) -> None:
    paths = witnessed.api["paths"]
    told = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert told == {endpoint.name for endpoint in REFERENCE.endpoints}


@pytest.mark.parametrize("endpoint", REFERENCE.endpoints, ids=lambda endpoint: endpoint.name)
def test_the_document_tells_of_the_same_fields(witnessed: Witnessed, endpoint: Endpoint) -> None:
    operation = witnessed.api["paths"][endpoint.path][endpoint.method.lower()]
    schemas, documents = witnessed.api["components"]["schemas"], REFERENCE.documents
    assert {int(status) for status in operation["responses"]} == REFERENCE.statuses(endpoint)

    def form(content: dict[str, Any]) -> described.Form:
        return described.of_schema(content["content"]["application/json"]["schema"], schemas)

    success = operation["responses"]["200"]
    assert list(described.unlike(described.of_copy(endpoint.answer, documents), form(success))) == []
    assert sorted(success.get("headers", ())) == (sorted(RATE_HEADERS) if endpoint.limited else [])
    assert ("requestBody" in operation) == (endpoint.body is not None)
    if endpoint.body is not None:
        body = described.of_copy(dict(endpoint.body), documents, body=True)
        assert list(described.unlike(body, form(operation["requestBody"]))) == []
    queried = [told["name"] for told in operation.get("parameters", ()) if told["in"] == "query"]
    assert queried == list(endpoint.query)


def test_the_document_tells_of_the_same_failure(witnessed: Witnessed) -> None:
    schemas = witnessed.api["components"]["schemas"]
    failure = REFERENCE.failure
    envelope = described.of_copy(failure["envelope"] | failure["carried"], REFERENCE.documents)
    envelope["required"] = sorted(failure["envelope"])
    assert list(described.unlike(envelope, described.of_schema(schemas["Failure"], schemas))) == []


@pytest.mark.parametrize(("page", "media_type"), REFERENCE.pages.items())
def test_pages_for_everybody(witnessed: Witnessed, page: str, media_type: str) -> None:
    method, _, path = page.partition(" ")
    with witnessed.daemon.client(None) as http:
        answer = http.request(method, path)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, media_type)


def test_an_invitation_holds_as_long_as_the_example(witnessed: Witnessed) -> None:
    (shown,) = next(one for one in REFERENCE.endpoints if one.name.endswith("/invitations")).example["invitations"]
    stored = witnessed.daemon.query("SELECT expires_at - created_at FROM invitations WHERE status = 'declined'")
    times = [datetime.fromisoformat(shown[name]) for name in ("created_at", "expires_at")]
    assert {held for (held,) in stored} == {times[1] - times[0]}
