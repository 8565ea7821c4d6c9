"""The copy of the contract is whole, and what compares with it fails whenever a document is otherwise."""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.contract import described
from tests.contract.reference import FILE, Endpoint, Entry, Reference, load
from tests.contract.shapes import TYPES, NoShape, Shape, constant, differences, field, split, words
from tests.contract.witness import Witness

REFERENCE = load()
DOCUMENTS = REFERENCE.documents
ACCOUNTS, REPUTATION = "GET /mail/accounts", "GET /mail/accounts/reputation"


def named(name: str) -> Endpoint:
    return next(endpoint for endpoint in REFERENCE.endpoints if endpoint.name == name)


def places(shape: Shape, document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Every value of a document with its path, and the text that says what it is."""
    if isinstance(shape, str) and shape.startswith("@"):
        shape = DOCUMENTS[split(shape)[0].removeprefix("@")]
    if isinstance(shape, str):
        yield path, shape
    elif isinstance(shape, list):
        for number, member in enumerate(document):
            yield from places(shape[0], member, (*path, number))
    elif "*" not in shape:
        for name, inner in shape.items():
            yield from places(inner, document[field(name)], (*path, field(name)))


PLACES = [
    pytest.param(endpoint, path, text, id=f"{endpoint.name} {'.'.join(map(str, path))}")
    for endpoint in REFERENCE.endpoints for path, text in places(endpoint.answer, endpoint.example)
]  # fmt: skip


def changed(document: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    """A copy of a document in which *change* was done to the object that holds the path's end."""
    made = copy.deepcopy(document)
    holder = made
    for step in path[:-1]:
        holder = holder[step]
    change(holder, path[-1])
    return made


@pytest.mark.parametrize("endpoint", REFERENCE.endpoints, ids=lambda endpoint: endpoint.name)
def test_the_examples_are_what_the_copy_says(endpoint: Endpoint) -> None:
    assert differences(endpoint.answer, endpoint.example, DOCUMENTS) == []


@pytest.mark.parametrize(("endpoint", "path", "text"), PLACES)
def test_every_field_is_looked_at(endpoint: Endpoint, path: tuple[Any, ...], text: str) -> None:
    """Taken away, renamed, of another type, null, or with a companion: each is told, of each field there is."""
    def rename(holder: Any, name: str) -> None:
        holder[f"{name}_"] = holder.pop(name)

    def put(value: Any) -> Callable[[Any, Any], None]:
        return lambda holder, name: holder.__setitem__(name, value)

    def found(change: Callable[[Any, Any], None]) -> list[str]:
        return differences(endpoint.answer, changed(endpoint.example, path, change), DOCUMENTS)

    assert len(found(lambda holder, name: holder.pop(name))) == 1
    assert len(found(rename)) == 2
    assert len(found(lambda holder, name: holder.__setitem__("more", 1))) == 1
    for other in ({"an": "object"}, ["a list"], 1.5, "", "no such word!"):
        assert len(found(put(other))) == (0 if text.startswith("string") and other == "no such word!" else 1), other
    assert len(found(put(None))) == (0 if text.endswith("?") else 1)


@pytest.mark.parametrize(("endpoint", "path", "text"), [place for place in PLACES if "|" in place.values[2]])
def test_every_word_of_a_choice_may_come_and_no_other(endpoint: Endpoint, path: tuple[Any, ...], text: str) -> None:
    for word in words(split(text)[0]):
        made = changed(endpoint.example, path, lambda holder, name, word=word: holder.__setitem__(name, word))
        assert differences(endpoint.answer, made, DOCUMENTS) == []
        fewer = " | ".join(other for other in words(split(text)[0]) if other != word)
        assert differences(fewer + " | other", word, DOCUMENTS) != []


@pytest.mark.parametrize(("kind", "value"), [
    ("uuid", "0B4C6A1E-7C1D-4C55-9F0E-6A3F2D1C9B7A"), ("uuid", "inv_0123456789"), ("rfc3339", "2026-01-15 10:00:00Z"),
    ("rfc3339", "2026-01-15T10:00:00+00:00"), ("rfc3339", "2026-01-15T10:00:00.5Z"), ("email", "nobody"),
    ("boolean", 1), ("boolean", "true"), ("count", True), ("count", -1), ("count", "1"), ("count", 1.0), ("port", 0),
    ("port", 65536), ("score", 101), ("seconds", 0), ("invitation", "0123456789"), ("sentence", "two\nlines."),
    ("sentence", "no end"), ("code", "Not Found"), ("string", ""), ("host", "a b"), ("= true", 1), ("= true", "true"),
    ("= pending", "declined"), ("@account", None), (["count"], {}), ({"*": "count"}, []),
])  # fmt: skip
def test_types_are_strict(kind: Shape, value: Any) -> None:
    assert len(differences(kind, value, DOCUMENTS)) == 1


@pytest.mark.parametrize("shape", ["uiud", "@nothing", 7, [], ["count", "count"]])
def test_a_misspelt_copy_is_no_excuse(shape: Shape) -> None:
    with pytest.raises(NoShape):
        differences(shape, 1, DOCUMENTS)


def test_every_text_of_the_copy_can_be_read() -> None:
    for endpoint in REFERENCE.endpoints:
        described.of_copy(endpoint.answer, DOCUMENTS)
        described.of_copy(dict(endpoint.body or {}), DOCUMENTS, body=True)
        for codes in REFERENCE.refusals(endpoint).values():
            assert codes <= REFERENCE.failure["codes"].keys()
    assert set(TYPES) > {"uuid", "rfc3339"}
    assert constant("= true") is True
    assert differences(REFERENCE.failure["envelope"], REFERENCE.failure["example"], DOCUMENTS) == []


def altered(change: Callable[[dict[str, Any]], None]) -> Reference:
    """The copy after a slip of its writer's."""
    document = json.loads(FILE.read_text())
    change(document)
    return Reference(document)


def answer(method: str, path: str, status: int, document: Any, **headers: str) -> httpx.Response:
    request = httpx.Request(method, f"http://127.0.0.1{path}")
    return httpx.Response(status, json=document, headers=headers, request=request)


def judged(reference: Reference, *answers: httpx.Response) -> Witness:
    witness = Witness(reference)
    for given in answers:
        witness.judge(given)
    return witness


@pytest.mark.parametrize("change", [
    lambda it: it["documents"]["account"].__setitem__("ident", it["documents"]["account"].pop("id")),
    lambda it: it["documents"]["account"].__setitem__("imap_port", "string"),
    lambda it: it["documents"]["account"].__setitem__("sync_status", "pending | syncing | error"),
    lambda it: it["documents"]["account"].pop("+access"),
    lambda it: it["documents"]["account"].__setitem__("color", "string"),
])  # fmt: skip
def test_a_slip_in_the_copy_is_seen_in_an_answer_and_in_the_document(change: Callable[[Any], None]) -> None:
    given = answer("GET", "/mail/accounts", 200, named(ACCOUNTS).example)
    assert judged(REFERENCE, given).faults == []
    slipped = altered(change)
    assert judged(slipped, given).faults != []
    forms = [described.of_copy("@account", reference.documents) for reference in (REFERENCE, slipped)]
    assert list(described.unlike(*forms)) != []
    assert list(described.unlike(forms[0], forms[0])) == []


@pytest.mark.parametrize(("status", "document", "headers"), [
    (401, {"success": False, "error": "Sign in first.", "code": "not_authenticated"}, {}),
    (404, {"success": False, "error": "There is none.", "code": "not_authenticated"}, {"WWW-Authenticate": "Cookie"}),
    (403, {"success": False, "error": "You may not.", "code": "not_allowed"}, {}),
    (503, {"success": False, "error": "Later.", "code": "busy", "retryAfter": 1}, {"Retry-After": "2"}),
    (503, {"success": False, "error": "Later.", "code": "busy"}, {"Retry-After": "1"}),
    (500, {"success": False, "error": "Broken.", "code": "internal_error", "trace": "x"}, {}),
    (500, {"success": True, "error": "Broken.", "code": "internal_error"}, {}),
    (418, {"success": False, "error": "A teapot.", "code": "teapot"}, {}),
    (202, {"success": True, "accounts": []}, {}),
    (500, ["no envelope"], {}),
])  # fmt: skip
def test_a_wrong_refusal_is_told(status: int, document: Any, headers: dict[str, str]) -> None:
    assert len(judged(REFERENCE, answer("GET", "/mail/accounts", status, document, **headers)).faults) == 1


def test_rates_and_methods_are_told_in_headers() -> None:
    path = "/mail/accounts/0b4c6a1e-7c1d-4c55-9f0e-6a3f2d1c9b7a"
    rates = {"X-RateLimit-Limit": "10", "X-RateLimit-Remaining": "9", "X-RateLimit-Reset": "1800000000"}
    example = named("PATCH /mail/accounts/{account_id}").example
    assert judged(REFERENCE, answer("PATCH", path, 200, example, **rates)).faults == []
    for name in rates:
        assert len(judged(REFERENCE, answer("PATCH", path, 200, example, **(rates | {name: ""}))).faults) == 1
    refused = {"success": False, "error": "Not here.", "code": "method_not_allowed"}
    for allow, faults in (("DELETE, GET, HEAD, OPTIONS, PATCH", 0), ("DELETE, GET, OPTIONS, PATCH", 1), ("PUT", 1)):
        assert len(judged(REFERENCE, answer("PUT", path, 405, refused, Allow=allow)).faults) == faults


def test_who_is_never_asked_is_not_seen() -> None:
    seen = judged(REFERENCE, answer("GET", "/mail/accounts/reputation", 200, named(REPUTATION).example)).seen
    assert set(seen) == {Entry(REPUTATION, 200, "")} < set(REFERENCE.entries())
