"""Reads the copy of the contract: its endpoints, its documents, and every entry that somebody has to see answered."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.contract.shapes import Documents, Shape

FILE = Path(__file__).with_name("reference.json")
ANYWHERE = "anywhere"
"""The operation of entries that belong to none."""

SAFE = frozenset({"GET"})
"""Methods that change nothing, among those the copy has."""

Codes = Mapping[int, frozenset[str]]
"""By status, what may be answered."""


class Entry(NamedTuple):
    """One answer of the copy: of an operation, with a status and, unless it is a success, a code."""

    operation: str
    status: int
    code: str

    def __str__(self) -> str:
        return f"{self.operation} {self.status} {self.code}".strip()


@dataclass(frozen=True)
class Endpoint:
    """One operation of the copy; the fields are the file's own."""

    method: str
    path: str
    part: int
    who: str
    answer: Shape
    example: Any
    limited: bool = False
    body: Mapping[str, Shape] | None = None
    query: Sequence[str] = ()
    refuses: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    def is_at(self, path: str) -> bool:
        """Whether a path is one of this operation's."""
        return re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", self.path), path) is not None


class Reference:
    """The copy as a whole."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.documents: Documents = document["documents"]
        self.failure: Mapping[str, Any] = document["failure"]
        self.pages: Mapping[str, str] = document["pages"]
        self.endpoints = [Endpoint(**given) for given in document["endpoints"]]
        self.anywhere = _codes(self.failure["of_the_listener"])

    def at(self, path: str) -> list[Endpoint]:
        """The operations at a path; a path that is written out is not one with an id."""
        found = [endpoint for endpoint in self.endpoints if endpoint.is_at(path)]
        return [endpoint for endpoint in found if endpoint.path == path] or found

    def refusals(self, endpoint: Endpoint) -> Codes:
        """All that belongs to an operation: its own codes, and those of its kind."""
        kinds = ["of_every_operation"]
        kinds += ["of_those_that_change"] if endpoint.method not in SAFE else []
        kinds += ["of_those_with_a_body"] if endpoint.body is not None else []
        kinds += ["of_limited_ones"] if endpoint.limited else []
        return _codes(endpoint.refuses, *(self.failure[kind] for kind in kinds))

    def statuses(self, endpoint: Endpoint) -> set[int]:
        """The statuses that a document of the API tells of an operation."""
        told = {200, *self.refusals(endpoint), *self.failure["documented_at_every_operation"]}
        return told | set(self.failure["documented_at_those_with_a_body"] if endpoint.body is not None else ())

    def entries(self) -> Iterator[Entry]:
        """Every answer that the copy knows."""
        for endpoint in self.endpoints:
            yield Entry(endpoint.name, 200, "")
            for status, codes in sorted(self.refusals(endpoint).items()):
                yield from (Entry(endpoint.name, status, code) for code in sorted(codes))
        for status, codes in sorted(self.anywhere.items()):
            yield from (Entry(ANYWHERE, status, code) for code in sorted(codes))


def _codes(*parts: Mapping[str, Sequence[str]]) -> Codes:
    found: dict[int, frozenset[str]] = {}
    for part in parts:
        for status, codes in part.items():
            found[int(status)] = found.get(int(status), frozenset()) | frozenset(codes)
    return found


def load() -> Reference:
    """The copy as it stands in the repository."""
    return Reference(json.loads(FILE.read_text()))
