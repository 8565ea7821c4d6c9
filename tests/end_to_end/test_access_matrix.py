"""Every address of the API, every method, every kind of caller: the status that the README's table says, and no other.

The table is drawn from the declarations (tests/ops/test_diagrams.py holds it against them); here it is held against a
real daemon, cell by cell.  A refused call must have changed nothing, nor have told whoever has no part in the account
what it is called; one that is served must have done something, where it is not one to look only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import httpx
import psycopg
import pytest
from httpx import Response

from control_api.access import KINDS, Kind, cases
from control_api.app import create_app
from control_api.docs import PUBLIC
from control_api.operation import Method, Operation
from daemon.settings import Settings
from daemon.sharing.rules import Reply, Standing
from daemon.vault.secret import Secret
from ops.access_table import DECLARED, NOBODY, read, row_name
from ops.diagrams import shown_in
from tests.end_to_end.access_world import World, body_of, make_world, snapshot
from tests.fix_daemon import COOKIE, ROOT, SECRET, DaemonProcess, MailServers

SHOWN = read(shown_in((ROOT / "README.md").read_text(), "access"))
METHODS = {*get_args(Method), "HEAD", "OPTIONS"}
PATHS = {operation.path: {each.method for each in DECLARED if each.path == operation.path} for operation in DECLARED}
ADDRESSES = {**PATHS, **{path: {"GET"} for path in PUBLIC}}

IDLE = {
    ("acceptInvitation", "", Standing.MEMBER): "they have accepted, and may say so again",
    ("acceptInvitation", "", Standing.ADMIN): "likewise",
    ("startSync", "", Standing.ADMIN): "the account is parked: nobody would serve the wish",
    ("startSync", "", Standing.OWNER): "likewise",
}
"""What is served and changes nothing."""


@dataclass
class Stage:
    """The daemon, and its database."""

    http: httpx.Client
    conn: psycopg.Connection
    mail: MailServers

    def world(self) -> World:
        return make_world(self.conn, self.mail)

    def seen(self) -> dict[str, str]:
        return dict(snapshot(self.conn))

    def ask(self, world: World, kind: Kind, method: str, path: str, body: object = None) -> Response:
        token = world.token(kind)
        headers = {} if token is None else {"Cookie": f"{COOKIE}={token}"}
        if body is None:
            return self.http.request(method, path, headers=headers)
        return self.http.request(method, path, headers=headers, json=body)


@pytest.fixture
def stage(shared_daemon: DaemonProcess, mail: MailServers) -> Iterator[Stage]:
    with (
        httpx.Client(base_url=shared_daemon.api, timeout=90, verify=False) as http,  # no TLS: its set-up takes longer
        psycopg.connect(shared_daemon.dsn, autocommit=True) as conn,
    ):
        yield Stage(http, conn, mail)


def path_of(world: World, kind: Kind, path: str, case: str = "") -> str:
    """An address with ids that are there: whoever is refused is not refused for them."""
    me = kind if isinstance(kind, Standing) else Standing.OWNER
    return path.format(
        account_id=world.account,
        invitation_id=world.invitation("guest to be"),
        user_id=world.user(me if case == "one's own" else "guest"),
        campaign_id=f"c-{world.name}",
    )


def keeps_quiet(answer: Response, world: World, kind: Kind) -> bool:
    """Whether somebody without part in the account was not told what it is called."""
    has_part = isinstance(kind, Standing) and kind.access is not None
    return (has_part and answer.is_success) or world.title not in answer.text


@pytest.mark.parametrize("operation", DECLARED, ids=lambda operation: operation.name)
def test_each_operation_serves_whom_it_says(stage: Stage, operation: Operation) -> None:
    wrong: dict[tuple[str, str, Kind], object] = {}
    for case, _ in cases(operation):
        world, before, used = stage.world(), stage.seen(), False
        for kind in KINDS:
            expected = SHOWN[row_name(operation, case)][kind]
            deed = expected == 200 and operation.method != "GET"
            if deed or used:
                world, before, used = stage.world(), stage.seen(), deed
            path = path_of(world, kind, operation.path, case)
            body = body_of(world, kind, operation.name, case) if operation.body is not None else None
            for method in [operation.method, *(["HEAD"] if operation.method == "GET" else [])]:
                answer = stage.ask(world, kind, method, path, body)
                after = stage.seen()
                changed = [table for table in after if after[table] != before[table]]
                if answer.status_code != expected:
                    wrong[method, case, kind] = (answer.status_code, answer.text, "not", expected)
                elif bool(changed) != (deed and (operation.name, case, kind) not in IDLE):
                    wrong[method, case, kind] = ("changed", changed)
                elif not keeps_quiet(answer, world, kind):
                    wrong[method, case, kind] = ("told", answer.text)
                before = after
    assert wrong == {}


@pytest.mark.parametrize("path", ADDRESSES)
def test_what_is_not_declared_is_not_there_for_anybody(stage: Stage, path: str) -> None:
    declared = ADDRESSES[path] | ({"HEAD"} if "GET" in ADDRESSES[path] else set())
    world, before = stage.world(), stage.seen()
    wrong = {}
    for kind in KINDS:
        for method in METHODS - declared:
            answer = stage.ask(world, kind, method, path_of(world, kind, path))
            expected = 204 if method == "OPTIONS" else 405
            if (answer.status_code, set(answer.headers["Allow"].split(", "))) != (expected, declared | {"OPTIONS"}):
                wrong[method, kind] = (answer.status_code, answer.headers["Allow"])
    assert wrong == {}
    assert stage.seen() == before


@pytest.mark.parametrize("path", PUBLIC)
def test_what_is_public_is_so_for_everybody(stage: Stage, path: str) -> None:
    world = stage.world()
    asked = {(kind, method): stage.ask(world, kind, method, path) for kind in KINDS for method in ("GET", "HEAD")}
    assert {answer.status_code for answer in asked.values()} == {200}


def test_nobody_answers_anothers_invitation(stage: Stage) -> None:
    replies = [operation for operation in DECLARED if isinstance(operation.act, Reply)]
    assert {operation.act for operation in replies} == set(Reply)
    world, before = stage.world(), stage.seen()
    for operation in replies:
        for kind in Standing:
            for whose in {*Standing, "guest", "guest to be"} - {kind}:
                body = {"invitation_id": world.invitation(whose)}
                assert stage.ask(world, kind, "POST", operation.path, body).status_code == 404, (kind, whose)
    assert stage.seen() == before


def test_the_matrix_is_whole() -> None:
    """What the router knows is what is declared, and what is asked about here."""
    app = create_app(Settings(), NOBODY, Secret(SECRET))
    routed = {(rule.rule, method) for rule in app.url_map.iter_rules() for method in rule.methods or ()}
    declared = {(operation.rule, operation.method) for operation in DECLARED} | {(path, "GET") for path in PUBLIC}
    heads = {(rule, "HEAD") for rule, method in declared if method == "GET"}
    assert routed == declared | heads | {(rule, "OPTIONS") for rule, _ in declared}
    names = {row_name(operation, case) for operation in DECLARED for case, _ in cases(operation)}
    assert names <= set(SHOWN)
    assert all(set(SHOWN[name]) == set(KINDS) for name in names)


def test_what_names_an_account_demands_something() -> None:
    """An operation on an account that forgot to say so would be declared as everybody's."""
    for operation in DECLARED:
        names = {*operation.path.split("/"), *(operation.body.model_fields if operation.body is not None else ())}
        if names & {"{account_id}", "account_id", "invitation_id"}:
            assert operation.act is not None, operation.name
