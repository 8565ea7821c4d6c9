"""What was answered in one run of Schemathesis, read from its report line by line: statuses by operation, headers of
rates, and words that must not be there.

That every answer is as its schema says is Schemathesis's to see.  What it cannot: whether an operation ever did what it
is for, whether 429 tells how one stands, and whose data an answer holds.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

RATE_HEADERS: Final = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")

_METHODS: Final = frozenset({"get", "put", "post", "delete", "patch"})
MOST_TOLD: Final = 5
"""Faults of one run that are told; the first says enough."""


@dataclass(frozen=True, slots=True)
class Route:
    """An operation, as far as an answer is told by it."""

    name: str
    method: str
    path: re.Pattern[str]
    limited: bool
    """Whether its success tells a rate."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> list[Route]:
        """All of an OpenAPI document, those of more literal paths first."""
        found = []
        for template, item in document["paths"].items():
            parts = ("[^/]+" if part[:1] == "{" else re.escape(part) for part in template.split("/"))
            pattern = re.compile("/".join(parts))
            for method in item.keys() & _METHODS:
                told = item[method]
                limited = "X-RateLimit-Limit" in told["responses"]["200"].get("headers", {})
                found.append((template.count("{"), cls(told["operationId"], method.upper(), pattern, limited)))
        return [route for _, route in sorted(found, key=lambda each: (each[0], each[1].name))]


@dataclass
class Answers:
    """Those of one run, or of several of one caller."""

    routes: Sequence[Route]
    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    refusals: dict[str, bytes] = field(default_factory=dict)
    """The last one of each operation."""
    faults: list[str] = field(default_factory=list)
    """Sentences: what must not be."""

    def read(self, report: Path, never: Sequence[str] = ()) -> None:
        """Take in a report of Schemathesis (NDJSON); *never* are words that no answer may hold."""
        for request, response in _exchanges(report):
            path = urlsplit(request["uri"]).path
            method = request["method"].upper()
            route = next((r for r in self.routes if r.method == method and r.path.fullmatch(path)), None)
            status = int(response["status_code"])
            content = _content(response)
            headers = {name.lower(): values for name, values in response["headers"].items()}
            if route is not None:
                self._take(route, status, headers, content)
            whole = content.decode(errors="replace") + str(headers)
            if seen := [word for word in never if word in whole]:
                self._fault(f"{method} {path} answered {status} with {seen[:3]}: {content[:200]!r}")

    def _take(self, route: Route, status: int, headers: Mapping[str, Sequence[str]], content: bytes) -> None:
        self.statuses.setdefault(route.name, Counter())[status] += 1
        if status not in {200, 401}:  # 401 is said by the check `ignored_auth`
            self.refusals[route.name] = content[:200]
        if route.limited and status in {200, 429} and (wrong := _rates(status, headers, content)):
            self._fault(f"{route.name} answered {status} {wrong}: {headers} {content[:200]!r}")

    def add(self, other: Answers) -> None:
        """Take in what was answered in another run."""
        for name, statuses in other.statuses.items():
            self.statuses.setdefault(name, Counter()).update(statuses)
        self.refusals.update(other.refusals)

    def _fault(self, text: str) -> None:
        if len(self.faults) < MOST_TOLD:
            self.faults.append(text)

    def never_served(self) -> list[tuple[str, bytes]]:
        """Operations that never did what they are for, each with its last refusal."""
        never = [route.name for route in self.routes if not self.statuses.get(route.name, Counter())[200]]
        return [(name, self.refusals.get(name, b"")) for name in sorted(never)]

    def figures(self) -> dict[str, dict[str, int]]:
        """How often which status, by operation."""
        return {
            name: {str(status): count for status, count in sorted(seen.items())}
            for name, seen in sorted(self.statuses.items())
        }


def _exchanges(report: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Requests with their answers; a request without one is Schemathesis's to tell."""
    with report.open(encoding="utf-8") as lines:
        for line in lines:
            recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
            for exchange in recorder.get("interactions", {}).values():
                if exchange.get("response"):
                    yield exchange["request"], exchange["response"]


def _content(response: Mapping[str, Any]) -> bytes:
    content = response.get("content") or {}
    return base64.b64decode(content.get("$base64", ""))


def _rates(status: int, headers: Mapping[str, Sequence[str]], content: bytes) -> str:
    """What is wrong with how a rate is told; empty where nothing is."""
    missing = [name for name in RATE_HEADERS if not all(value.isdecimal() for value in headers.get(name, ["none"]))]
    if missing:
        return f"without {missing}"
    if status != 429:  # RFC 6585 section 4
        return ""
    pause = headers.get("retry-after", [""])[0]
    if not pause.isdecimal() or not int(pause):
        return "without Retry-After"
    if json.loads(content).get("retryAfter") != int(pause):
        return "with another retryAfter than Retry-After"
    if headers["x-ratelimit-remaining"] != ["0"]:
        return "though more may follow"
    return ""
