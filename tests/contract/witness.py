"""Judges every answer of a daemon by the copy of the contract, and remembers which entries of it were answered.

    witness = Witness(load())
    witness.watch(http)             an httpx client: whatever it is answered from now on is judged
    witness.seen, witness.faults    entries, how often; what was not as the copy says, a line each
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from tests.contract.reference import ANYWHERE, Endpoint, Entry, Reference
from tests.contract.shapes import differences, field

RATE_HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
YEAR_2020 = 1_577_836_800
"""Epoch seconds: `X-RateLimit-Reset` is a moment, not a wait."""


class Witness:
    """See the module's docstring; it may watch several clients in several threads."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self.seen: Counter[Entry] = Counter()
        self.faults: list[str] = []

    def watch(self, http: httpx.Client) -> httpx.Client:
        """Judge what this client is answered."""

        def hook(answer: httpx.Response) -> None:
            answer.read()
            self.judge(answer)

        http.event_hooks["response"].append(hook)
        return http

    def judge(self, answer: httpx.Response) -> None:
        """Compare one answer; it says itself what it is an answer to."""
        method, path = answer.request.method, answer.request.url.raw_path.decode().partition("?")[0]
        here = self.reference.at(path)
        endpoint = next((found for found in here if found.method == method), None)
        entry, faults = self._judge(endpoint, answer)
        if entry.code == "method_not_allowed":
            faults += _allowed(answer, {found.method for found in here})
        self.faults += [f"{method} {path} ({entry}): {fault}" for fault in faults]
        self.seen[entry] += 1

    def _judge(self, endpoint: Endpoint | None, answer: httpx.Response) -> tuple[Entry, list[str]]:
        status = answer.status_code
        if answer.headers.get("Content-Type") != "application/json":
            return Entry(ANYWHERE, status, ""), [f"it is {answer.headers.get('Content-Type')}: {answer.text[:200]!r}"]
        document = answer.json()
        if status < 400:
            if endpoint is None or status != 200:
                return Entry(ANYWHERE, status, ""), ["no success was to be had there, or not with this status"]
            faults = differences(endpoint.answer, document, self.reference.documents)
            return Entry(endpoint.name, status, ""), faults + (_rates(answer) if endpoint.limited else [])
        code = document.get("code", "") if isinstance(document, dict) else ""
        entry = self._entry(endpoint, status, code)
        faults = list(self._failure(entry, document, answer.headers))
        if code == "rate_limited" and endpoint is not None and endpoint.limited:
            faults += _rates(answer)
        return entry, faults

    def _entry(self, endpoint: Endpoint | None, status: int, code: str) -> Entry:
        if endpoint is not None and code in self.reference.refusals(endpoint).get(status, ()):
            return Entry(endpoint.name, status, code)
        return Entry(ANYWHERE, status, code)

    def _failure(self, entry: Entry, document: Any, headers: Mapping[str, str]) -> Iterator[str]:
        failure, known = self.reference.failure, self.reference.failure["codes"].get(entry.code)
        if known is None or known["status"] != entry.status:
            yield f"a status and a code that the copy does not have together: {document!r}"
            return
        if entry.operation == ANYWHERE and entry.code not in self.reference.anywhere.get(entry.status, ()):
            yield f"this operation does not refuse so: {document!r}"
        carried = {name: failure["carried"][name] for name in known.get("carries", ())}
        yield from differences(failure["envelope"] | carried, document, self.reference.documents)
        for name in known.get("headers", ()):
            if not headers.get(name):
                yield f"without the header {name}"
        if "retryAfter" in document and headers.get("Retry-After") != str(document["retryAfter"]):
            yield f"Retry-After is {headers.get('Retry-After')!r}, and retryAfter {document['retryAfter']!r}"


def _rates(answer: httpx.Response) -> list[str]:
    """What is wrong with the headers that tell of a rate; of one that was exceeded nothing remains."""
    told = {name: answer.headers.get(name, "") for name in RATE_HEADERS}
    if not all(value.isdecimal() for value in told.values()):
        return [f"the rate is told as {told}"]
    limit, remaining, reset = (int(value) for value in told.values())
    right = 0 <= remaining < limit and reset > YEAR_2020 and (answer.status_code != 429 or remaining == 0)
    return [] if right else [f"the rate is told as {told}"]


def _allowed(answer: httpx.Response, methods: set[str]) -> list[str]:
    """405 says what there is (RFC 9110 section 15.5.6): the copy's methods, HEAD beside GET, and OPTIONS."""
    wanted = methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
    told = set(answer.headers.get("Allow", "").split(", "))
    return [] if told == wanted else [f"Allow tells of {sorted(told)}, and should of {sorted(wanted)}"]


def field_errors(endpoint: Endpoint, answer: httpx.Response) -> list[str]:
    """Fields of a body in which nothing was right that the answer does not name, or names and nobody sent."""
    named = set(answer.json()["details"]["fieldErrors"])
    return sorted(named ^ {field(name) for name in endpoint.body or ()})
