"""Malformed requests: every one from the seed, by class, as the bytes to send and the way to send them.

`http_framing` and `http_targets` hold the classes; here is what they are made of, and the mutations of good requests.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

CANARY: Final = "zq9canary"
"""A word in many cases; no answer may repeat it."""


class End(StrEnum):
    """What the client does when all is sent."""

    HALF = "half"
    """Says that no more will come, and reads."""
    PATIENT = "patient"
    """Reads, and leaves it to the server to end."""
    ABORT = "abort"
    """Resets the connection."""


@dataclass(frozen=True, slots=True)
class Case:
    """One connection's worth."""

    kind: str
    """The class, for the report."""
    chunks: tuple[bytes, ...]
    """What is sent, in order."""
    end: End = End.HALF
    pause: float = 0.0
    """Seconds between chunks."""
    operations: bool = False
    """Sent to the operator's listener instead of the API's."""


@dataclass(frozen=True, slots=True)
class Material:
    """What cases are made of."""

    rng: random.Random
    token: str
    """A good session."""

    def request(
        self,
        method: str = "GET",
        target: str = "/mail/accounts",
        *headers: str,
        signed: bool = True,
        body: bytes = b"",
        version: str = "HTTP/1.1",
    ) -> bytes:
        """A request that is well formed but for what is given; with a body also length and type."""
        lines = [f"{method} {target} {version}", "Host: localhost", *headers]
        if signed:
            lines.append(f"Cookie: sb-access-token={self.token}")
        if body:
            lines += [f"Content-Length: {len(body)}", "Content-Type: application/json"]
        return self.encoded("\r\n".join([*lines, "", ""])) + body

    def encoded(self, text: str) -> bytes:
        """As UTF-8 or, where that is possible, as Latin-1: then most characters above 127 are no UTF-8."""
        if self.rng.random() < 0.5:
            with suppress(UnicodeEncodeError):
                return text.encode("latin-1")
        return text.encode("utf-8", "surrogatepass")

    def good(self) -> bytes:
        """A request that is answered with 200 (or 404, for there is no such account)."""
        return self.rng.choice(
            (
                self.request(),
                self.request("GET", "/mail/sync"),
                self.request("GET", "/mail/openapi.json", signed=False),
                self.request("GET", "/mail/accounts/0189f7ea-0000-7000-8000-000000000000"),
                self.request("POST", "/mail/sync", body=b"{}"),
                self.request("POST", "/mail/accounts", body=b'{"email": "ann@example.test", "imap_port": 993}'),
                self.request("DELETE", "/mail/accounts/0189f7ea-0000-7000-8000-000000000000"),
                self.request("OPTIONS", "/mail/accounts", signed=False),
                self.request("HEAD", "/mail/accounts"),
            )
        )

    def some(self, low: int, high: int) -> int:
        """A size between the two, mostly small."""
        return int(low * (high / low) ** self.rng.random())


Make = Callable[[Material], Case | bytes]
"""Makes a case of one class; bytes alone are sent at once, and the connection half closed."""


def flipped(material: Material) -> bytes:
    """A good request with some bytes changed."""
    rng, data = material.rng, bytearray(material.good())
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] = rng.choice((rng.randrange(256), 0, 10, 13, 32, 58, 255))
    return bytes(data)


def cut(material: Material) -> bytes:
    """A good request that ends early."""
    data = material.good()
    return data[: material.rng.randrange(len(data))]


def doubled(material: Material) -> bytes:
    """A good request of which a piece comes twice, or far oftener."""
    rng, data = material.rng, material.good()
    start = rng.randrange(len(data))
    piece = data[start : start + rng.randint(1, 80)]
    return data[:start] + piece * rng.choice((2, 2, 3, 50, 1000)) + data[start:]


def shuffled(material: Material) -> bytes:
    """A good request whose lines are in another order, or some of them gone."""
    lines = material.good().split(b"\r\n")
    material.rng.shuffle(lines)
    return b"\r\n".join(lines[: material.rng.randint(1, len(lines))])


def spliced(material: Material) -> bytes:
    """The beginning of one request and the end of another."""
    first, second = material.good(), material.good()
    return first[: material.rng.randrange(len(first))] + second[material.rng.randrange(len(second)) :]


def noise(material: Material) -> bytes:
    """No HTTP at all."""
    return material.rng.randbytes(material.some(1, 60_000))


MUTATIONS: Final[dict[str, Make]] = {
    "flipped bytes": flipped,
    "cut short": cut,
    "pieces twice": doubled,
    "lines shuffled": shuffled,
    "two spliced": spliced,
    "noise": noise,
}
