"""What a server sent on one connection, taken apart strictly, and whether an API may have sent it.  Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .http_cases import CANARY

_STATUS: Final = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [ -~]*")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9a-z-]+): ([ -~]*)")

GOOD: Final = frozenset({100, 200, 202, 204})
REFUSED: Final = frozenset({400, 401, 403, 404, 405, 408, 409, 413, 415, 429, 431, 501, 505})
"""What a client's fault may be answered with.  501 and 505 are RFC 9110's words for a transfer coding and a version
that the client chose and we do not speak; every other 5xx is a fault of ours."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One response."""

    status: int
    headers: dict[bytes, bytes]
    """Names in lower case."""
    body: bytes


class NotHttp(Exception):
    """The bytes are no sequence of whole responses."""


def answers(data: bytes, *, to_head: bool) -> Iterator[Answer]:
    """Each response in turn; *to_head*: some may be to HEAD, and have no body whatever their length says.

    Raises:
        NotHttp: a response is malformed, or not whole.
    """
    while data:
        head, found, rest = data.partition(b"\r\n\r\n")
        if not found:
            raise NotHttp(f"a head that does not end: {data[:200]!r}")
        first, *lines = head.split(b"\r\n")
        status = _STATUS.fullmatch(first)
        fields = [_FIELD.fullmatch(line.partition(b":")[0].lower() + b":" + line.partition(b":")[2]) for line in lines]
        if status is None or not all(fields):
            raise NotHttp(f"no head: {head[:500]!r}")
        headers = {field[1]: field[2] for field in fields if field is not None}
        if len(headers) != len(lines):
            raise NotHttp(f"a header twice: {head[:500]!r}")
        code = int(status[1])
        size = 0 if code < 200 or code == 204 else _length(headers)
        if to_head and (not rest or rest.startswith(b"HTTP/1.1 ")):
            size = 0
        if len(rest) < size:
            raise NotHttp(f"{len(rest)} of {size} bytes of a body, status {code}")
        yield Answer(code, headers, rest[:size])
        data = rest[size:]


def _length(headers: dict[bytes, bytes]) -> int:
    text = headers.get(b"content-length", b"")
    if not text.isdigit() or b"transfer-encoding" in headers:
        raise NotHttp(f"an answer without a length of its own: {headers}")
    return int(text)


def wrong(answer: Answer, *, to_head: bool = False) -> str | None:
    """What is wrong with an answer; None where it may be given to anybody for anything, without a body to HEAD only."""
    if answer.status not in GOOD | REFUSED:
        return f"status {answer.status}: {answer.body[:300]!r}"
    if CANARY.encode() in answer.body or any(CANARY.encode() in value for value in answer.headers.values()):
        return f"the client's own words come back, status {answer.status}: {answer.body[:300]!r}"
    if answer.status in REFUSED and (answer.body or not to_head):
        return _wrong_envelope(answer)
    return None


def _wrong_envelope(answer: Answer) -> str | None:
    kind = answer.headers.get(b"content-type")
    if kind != b"application/json" or answer.headers.get(b"cache-control") != b"no-store":
        return f"status {answer.status} with {answer.headers}"
    try:
        envelope = json.loads(answer.body)
    except ValueError:
        return f"status {answer.status} without JSON: {answer.body[:300]!r}"
    if not isinstance(envelope, dict) or envelope.get("success") is not False:
        return f"status {answer.status} without an envelope: {answer.body[:300]!r}"
    if not all(isinstance(envelope.get(name), str) and envelope[name] for name in ("error", "code")):
        return f"status {answer.status} with a poor envelope: {answer.body[:300]!r}"
    return None
