"""What `schema` sees beside Schemathesis: whose words an answer holds, how rates are told, what was never served; and
that its world comes back, and every change of it is seen."""

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from daemon.network import Endpoint, Security
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from ops.bench.place import vault_of
from ops.soak.schema_answers import MOST_TOLD, Answers, Route
from ops.soak.schema_asks import MAX_OUTPUT, configured, worst
from ops.soak.schema_world import ADMIN, OWNER, STRANGER, Mailboxes, World

_RATED = {"headers": {"X-RateLimit-Limit": {}}}
DOCUMENT = {
    "paths": {
        "/mail/accounts": {
            "get": {"operationId": "list", "responses": {"200": {}}},
            "post": {"operationId": "connect", "responses": {"200": _RATED}},
        },
        "/mail/accounts/{account_id}": {"get": {"operationId": "look", "responses": {"200": {}}}, "parameters": []},
        "/mail/accounts/reputation": {"get": {"operationId": "reputation", "responses": {"200": {}}}},
    }
}
TOLD = {"X-RateLimit-Limit": ["4"], "X-RateLimit-Remaining": ["0"], "X-RateLimit-Reset": ["1790000000"]}


def exchange(method: str, path: str, status: int, body: Any = None, headers: Any = None) -> dict[str, Any]:
    content = base64.b64encode(json.dumps(body).encode()).decode()
    return {
        "request": {"method": method, "uri": f"http://127.0.0.1:1{path}?before=1"},
        "response": {"status_code": status, "headers": headers or {}, "content": {"$base64": content}},
    }


def read(tmp_path: Path, *exchanges: dict[str, Any], never: tuple[str, ...] = ()) -> Answers:
    report = tmp_path / "lines.ndjson"
    scenario = {"recorder": {"interactions": {str(number): each for number, each in enumerate(exchanges)}}}
    report.write_text("\n".join(map(json.dumps, [{"Initialize": {}}, {"ScenarioFinished": scenario}])))
    answers = Answers(Route.of(DOCUMENT))
    answers.read(report, never)
    return answers


def test_answers_are_counted_by_operation(tmp_path: Path) -> None:
    answers = read(
        tmp_path, exchange("GET", "/mail/accounts", 200), exchange("GET", "/mail/accounts/x", 404, {"error": "none"}),
        exchange("GET", "/mail/accounts/reputation", 200), exchange("PUT", "/mail/accounts", 405),
        {"request": {"method": "GET", "uri": "http://127.0.0.1:1/mail/accounts"}},
    )  # fmt: skip
    assert answers.figures() == {"list": {"200": 1}, "look": {"404": 1}, "reputation": {"200": 1}}
    assert answers.never_served() == [("connect", b""), ("look", b'{"error": "none"}')]
    answers.add(read(tmp_path, exchange("GET", "/mail/accounts/x", 200), exchange("GET", "/mail/accounts", 200)))
    assert answers.statuses["list"] == Counter({200: 2})
    assert [name for name, _ in answers.never_served()] == ["connect"]
    assert answers.faults == []


@pytest.mark.parametrize(
    ("status", "body", "headers", "told"),
    [
        (200, {}, TOLD, ""),
        (200, {}, {}, "without"),
        (200, {}, {**TOLD, "X-RateLimit-Reset": ["soon"]}, "['x-ratelimit-reset']"),
        (400, {}, {}, ""),
        (429, {"retryAfter": 9}, {**TOLD, "Retry-After": ["9"]}, ""),
        (429, {"retryAfter": 9}, TOLD, "without Retry-After"),
        (429, {"retryAfter": 0}, {**TOLD, "Retry-After": ["0"]}, "without Retry-After"),
        (429, {"retryAfter": 8}, {**TOLD, "Retry-After": ["9"]}, "another retryAfter"),
        (429, {"retryAfter": 9}, {**TOLD, "Retry-After": ["9"], "X-RateLimit-Remaining": ["1"]}, "more may follow"),
        (429, {"retryAfter": 9}, {"Retry-After": ["9"]}, "without"),
    ],
)
def test_how_rates_are_told(tmp_path: Path, status: int, body: Any, headers: Any, told: str) -> None:
    faults = read(tmp_path, exchange("POST", "/mail/accounts", status, body, headers)).faults
    assert len(faults) == bool(told)
    assert all(told in fault for fault in faults)


def test_words_that_must_not_be_there(tmp_path: Path) -> None:
    exchanges = [
        exchange("GET", "/mail/accounts", 200, {"email": "a@b.test"}), exchange("GET", "/no", 404, {"x": "a@b.test"}),
        exchange("GET", "/mail/accounts", 200, {}, {"Location": ["a@b.test"]}),
        exchange("GET", "/mail/accounts", 200, {"email": "c@d.test"}),
    ]  # fmt: skip
    assert len(read(tmp_path, *exchanges, never=("a@b.test",)).faults) == 3
    assert len(read(tmp_path, *exchanges * 9, never=("a@b.test",)).faults) == MOST_TOLD


def made() -> World:
    there = Endpoint("127.0.0.1", 993, Security.TLS)
    return World(Mailboxes(vault_of(bytes(32)), there, there, "pw"), ["schema0@example.test", "schema1@example.test"])


async def test_the_world_comes_back_and_every_change_is_seen(db: Database) -> None:
    world = made()
    await db.run(world.tend)
    before = await world.rows(db)
    assert {table: len(rows) for table, rows in before.items() if rows} == {
        "accounts": 8, "account_access": 8 + 4, "invitations": 12 + 6, "campaigns": 5,
    }  # fmt: skip
    first = world.shared[0].id
    for table, harm in (
        ("accounts", f"UPDATE accounts SET name = 'another' WHERE id = '{first}'"),
        ("account_access", f"DELETE FROM account_access WHERE user_id = '{ADMIN}'"),
        ("invitations", "UPDATE invitations SET status = 'declined', settled_at = now()"),
        ("campaigns", f"UPDATE campaigns SET status = 'paused' WHERE user_id = '{OWNER}'"),
        ("campaigns", f"INSERT INTO campaigns VALUES ('{STRANGER}', 'x', '{first}', 'active')"),
        ("audit", "INSERT INTO audit (account_id, user_id, user_email, client, action)"
                  f" VALUES ('{first}', '{STRANGER}', '', '', 'account.changed')"),
    ):  # fmt: skip
        held = await world.rows(db)

        async def do(conn: Conn, statement: str = harm) -> None:
            await conn.execute(statement)

        await db.run(do)
        after = await world.rows(db)
        assert [name for name in held if held[name] != after[name]] == [table], harm

    async def disconnect(conn: Conn) -> None:
        for account in world.own:
            await conn.execute(
                "UPDATE accounts SET desired = 'removed', removed_at = now(), is_default = false, data_key = NULL,"
                " password_sealed = NULL WHERE id = %s",
                (account.id,),
            )
            await conn.execute("DELETE FROM invitations WHERE account_id = %s", (account.id,))

    await db.run(disconnect)
    await db.run(world.tend)
    after = await world.rows(db)
    for table in ("accounts", "account_access", "invitations"):
        assert {row[0] for row in after[table]} == {row[0] for row in before[table]}, table


def test_secrets_are_not_words_of_the_stranger() -> None:
    """What a stranger's requests bring themselves may come back to them."""
    world = made()
    secrets, text = world.secrets(), configured(world, STRANGER)
    assert str(world.strangers.id) not in secrets
    assert world.unnamed in secrets
    assert world.unnamed not in text
    assert not {*world.campaigns, "connected0@example.test", "guest0@x.test"} & {*secrets}


def test_what_is_wrong_is_told_first() -> None:
    noise = "y" * 2000
    assert worst(f"{noise}\n===== ERRORS =====\nSystemError\n{noise}").startswith("===== ERRORS =====\nSystemError\n")
    assert worst(f"{noise}the end") == (noise + "the end")[-MAX_OUTPUT:]
