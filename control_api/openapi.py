"""The OpenAPI 3.1 document, written from the operations' declarations and the models that validate and serialise."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from .access import for_whom
from .answers import Failure
from .cookies import SESSION_COOKIE
from .operation import MAX_WORD, Operation
from .origins import SAFE_METHODS

Json = dict[str, Any]

_REF: Final = "#/components/schemas/{model}"
_FORGED: Final = "`cross_site_request`: another site's page may have made the browser send this."

_SHARED: Final[Mapping[int, str]] = {
    401: "`not_authenticated`: no valid session came with the request.",
    429: "`rate_limited`: come back after `Retry-After` seconds.",
    500: "`internal_error`: a fault of ours; it has been recorded.",
    503: "`busy`, `not_ready` or `timed_out`: come back after `Retry-After` seconds.",
}
_WITH_BODY: Final[Mapping[int, str]] = {
    408: "`request_timeout`: the body did not arrive in time.",
    413: "`body_too_large`.",
}
_NOT_JSON: Final = "`unsupported_media_type`: the body is not `application/json`."

_RATE_HEADERS: Final[Json] = {
    name: {"description": meaning, "schema": {"type": "integer", "minimum": 0}}
    for name, meaning in (
        ("X-RateLimit-Limit", "How often it may be done in the window."),
        ("X-RateLimit-Remaining", "How often it may be done at once."),
        ("X-RateLimit-Reset", "When all of them may be again, Unix time."),
    )
}

_INTRODUCTION: Final = """\
Connects email accounts over IMAP and SMTP and keeps their inboxes synchronised.

A success is `{"success": true, …}`; a failure is `{"success": false, "error": "<one plain sentence>", "code": "<for \
machines>"}`. Times are RFC 3339 in UTC. Ids of accounts are UUIDs.

Sessions are cookies. Methods that change something take `application/json` only, and from a browser only on the same \
site or from an origin the operator listed.

An address that is not listed here, or whose id is no UUID, is 404 `not_found`; a method that is not listed at an \
address is 405 `method_not_allowed`, and `Allow` says which there are.
"""


def document(operations: Sequence[Operation], version: str) -> Json:
    """The whole document."""
    paths: dict[str, Json] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Accounts API",
            "version": version,
            "description": _INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in operations)],
        "security": [{"session": []}],
        "paths": paths,
        "components": {
            "schemas": _schemas(operations),
            "securitySchemes": {
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": SESSION_COOKIE,
                    "description": "A Supabase access token (JWT) of a signed-in user.",
                }
            },
        },
    }


def _operation(operation: Operation) -> Json:
    described: Json = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "description": " ".join(filter(None, (operation.description, for_whom(operation)))),
        "responses": _responses(operation),
    }
    if parameters := [*_in_path(operation), *_in_query(operation)]:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {"required": operation.body_required, "content": _content(operation.body)}
    return described


def _in_path(operation: Operation) -> Iterable[Json]:
    for name in re.findall(r"\{(\w+)\}", operation.path):
        schema = {"type": "string", "minLength": 1, "maxLength": MAX_WORD}
        if name == "account_id":
            schema = {"type": "string", "format": "uuid"}
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _in_query(operation: Operation) -> Iterable[Json]:
    for name, meaning in operation.query.items():
        yield {"name": name, "in": "query", "description": meaning, "schema": {"type": "integer", "minimum": 1}}


def _responses(operation: Operation) -> Json:
    statuses: dict[int, str] = {**_SHARED, **(_WITH_BODY if operation.body is not None else {})}
    statuses |= operation.refusals
    if operation.method not in SAFE_METHODS:
        statuses[415] = _NOT_JSON  # also of a body that nobody asked for
        statuses[403] = f"{statuses[403]} {_FORGED}" if 403 in statuses else _FORGED
    responses: Json = {"200": {"description": _summary(operation.answer), "content": _content(operation.answer)}}
    if operation.limited:
        responses["200"]["headers"] = dict(_RATE_HEADERS)
    for status in sorted(statuses):
        response: Json = {"description": statuses[status], "content": _content(Failure)}
        if status in {429, 503}:
            response["headers"] = {
                "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}
            }
        if operation.limited and status == 429:
            response.setdefault("headers", {}).update(_RATE_HEADERS)
        responses[str(status)] = response
    return responses


def _content(model: type[BaseModel]) -> Json:
    return {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}


def _summary(model: type[BaseModel]) -> str:
    return (model.__doc__ or model.__name__).strip()


def _schemas(operations: Iterable[Operation]) -> Json:
    """All models by name: bodies as they are read, answers as they are written."""
    wanted: dict[tuple[type[BaseModel], Literal["validation", "serialization"]], None] = {}
    for operation in operations:
        if operation.body is not None:
            wanted[operation.body, "validation"] = None
        wanted[operation.answer, "serialization"] = None
    wanted[Failure, "serialization"] = None
    _, definitions = models_json_schema(list(wanted), ref_template=_REF)
    schemas: Json = definitions["$defs"]
    return schemas
