"""The OpenAPI document and the page that shows it."""

import re
from importlib.resources import files

import jsonschema_rs
import pytest
import schemathesis
import trio

from control_api.cookies import SESSION_COOKIE


def references(value):
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


async def test_the_document_is_whole(document):
    api = document.document
    assert api["openapi"] == "3.1.0"
    schemas = api["components"]["schemas"]
    for reference in references(api):
        assert reference.removeprefix("#/components/schemas/") in schemas
    for schema in schemas.values():
        jsonschema_rs.Draft202012Validator({**schema, "components": api["components"]})
    names = [operation["operationId"] for methods in api["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names)) == 19
    assert {tag["name"] for tag in api["tags"]} == {"Accounts", "Campaigns", "Reputation", "Sharing", "Synchronisation"}


async def test_another_reader_takes_it(document):
    """Schemathesis parses and resolves every operation; it fails on a document it does not understand."""
    def read():
        schema = schemathesis.openapi.from_dict(document.document)
        return {result.ok().label for result in schema.get_all_operations()}

    assert await trio.to_thread.run_sync(read) == {
        "GET /mail/accounts", "POST /mail/accounts", "GET /mail/accounts/{account_id}",
        "PATCH /mail/accounts/{account_id}", "DELETE /mail/accounts/{account_id}", "GET /mail/sync", "POST /mail/sync",
        "GET /mail/accounts/reputation",
        "GET /mail/accounts/{account_id}/invitations", "POST /mail/accounts/{account_id}/invitations",
        "DELETE /mail/accounts/{account_id}/invitations/{invitation_id}", "GET /mail/accounts/{account_id}/shares",
        "DELETE /mail/accounts/{account_id}/shares/{user_id}", "GET /mail/accounts/{account_id}/audit",
        "GET /mail/invitations/pending", "POST /mail/invitations/accept", "POST /mail/invitations/decline",
        "PUT /mail/campaign-registry/{campaign_id}", "GET /mail/campaign-registry",
    }


async def test_it_says_what_the_contract_says(document):
    api = document.document
    statuses = {(path, method): set(operation["responses"]) for path, methods in api["paths"].items()
                for method, operation in methods.items()}
    assert statuses["/mail/accounts", "post"] >= {"200", "400", "401", "403", "409", "413", "415", "429", "500", "503"}
    assert statuses["/mail/accounts/{account_id}", "delete"] >= {"200", "401", "403", "404"}
    bodiless = statuses["/mail/accounts/{account_id}", "delete"]
    assert "415" in bodiless
    assert not {"408", "413"} & bodiless
    assert "405 `method_not_allowed`" in api["info"]["description"]
    session = api["components"]["securitySchemes"]["session"]
    assert (session["in"], session["name"]) == ("cookie", SESSION_COOKIE)
    listed = api["components"]["schemas"]["Account"]
    assert set(listed["required"]) == set(listed["properties"]) >= {
        "id", "email", "name", "imap_host", "imap_port", "smtp_host", "smtp_port", "sync_status", "is_default",
        "created_at"}
    assert listed["properties"]["sync_status"]["enum"] == ["pending", "syncing", "synced", "error"]
    body = api["components"]["schemas"]["ConnectBody"]
    assert set(body["required"]) == {"email", "imap_host", "imap_port", "smtp_host", "smtp_port", "username",
        "password"}
    assert body["properties"]["password"]["writeOnly"] is True


@pytest.mark.parametrize(("path", "content_type"), [
    ("/mail/docs", "text/html; charset=utf-8"), ("/mail/docs/docs.css", "text/css; charset=utf-8"),
    ("/mail/docs/docs.js", "text/javascript; charset=utf-8"), ("/mail/openapi.json", "application/json"),
])
async def test_the_documentation_needs_no_session_and_nothing_from_elsewhere(app, path, content_type):
    answer = await app.test_client().get(path)
    text = (await answer.get_data()).decode()
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, content_type)
    assert not re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text), "an address elsewhere"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


async def test_the_page_obeys_its_policy(app):
    page = (await (await app.test_client().get("/mail/docs")).get_data()).decode()
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert set(loaded) == {"docs/docs.css", "docs/docs.js", "openapi.json"}
    for name in {*loaded} - {"openapi.json"}:
        assert (await app.test_client().get(f"/mail/{name}")).status_code == 200
    assert not re.search(r"\son\w+=|style=|<style|<script>", page)
    script = (files("control_api") / "static" / "docs.js").read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|\.style\b", script)
