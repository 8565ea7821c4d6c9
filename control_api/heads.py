"""Judging a request's head before anything acts on it: what h11 lets pass and Hypercorn or the router cannot handle.

`Http11` is h11's connection with two differences: a request that `problem` finds wrong is a protocol error like h11's
own, so that it is refused and closed on the one path that those take; and what a client sends behind its last request
is no error in that request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import h11

_ABSOLUTE: Final = re.compile(rb"https?://[^/?#]+", re.IGNORECASE)
_READ_AS_ASCII: Final = frozenset({b"connection", b"sec-websocket-extensions", b"sec-websocket-protocol"})
"""What Hypercorn's WebSocket handshake decodes as ASCII, and falls over."""

Headers = Iterable[tuple[bytes, bytes]]


class Http11(h11.Connection):
    """The server's side of one connection."""

    def receive_data(self, data: bytes) -> None:
        """As h11's, but for what comes behind a request with `Connection: close`: that is dropped.

        RFC 9112 section 9.6: the request is answered, and no other is processed.
        """
        if not data or self.their_state is not h11.MUST_CLOSE:
            super().receive_data(data)

    def next_event(self) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        """As h11's; a request in absolute form is given in origin form.

        Raises:
            h11.RemoteProtocolError: as h11's, and for a request with a `problem`.
        """
        if self.their_state is h11.MUST_CLOSE:
            return h11.NEED_DATA
        event = super().next_event()
        if not isinstance(event, h11.Request):
            return event
        if (status := problem(event.method, event.http_version, event.headers)) is not None:
            raise h11.RemoteProtocolError("refused", error_status_hint=status)
        target = origin_form(event.target)
        if target == event.target:
            return event
        return h11.Request(
            method=event.method, headers=list(event.headers), target=target, http_version=event.http_version
        )


def origin_form(target: bytes) -> bytes:
    """A target without scheme and authority, which every server must accept (RFC 9112 section 3.2.2).  Pure."""
    match = _ABSOLUTE.match(target)
    if match is None:
        return target
    rest = target[match.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest


def problem(method: bytes, version: bytes, headers: Headers) -> int | None:
    """The status to refuse a request with, or None.  Pure; header names are in lower case, as h11 gives them."""
    if not version.startswith(b"1."):
        return 505  # HTTP/2's preface is a request of this kind, and no request of ours
    given = list(headers)
    names = {name for name, _ in given}
    if {b"content-length", b"transfer-encoding"} <= names:
        return 400  # RFC 9112 section 6.1: where two readers may differ, requests are smuggled
    if method.upper() == b"GET" and _asks_for_websocket(given) and not _is_handshake(version, given):
        return 400
    return None


def _asks_for_websocket(headers: Headers) -> bool:
    """As Hypercorn asks, any header counting instead of the last: what it takes for a handshake is judged as one."""
    upgrades = {_text(value) for name, value in headers if name == b"upgrade"}
    tokens = {token.strip() for name, value in headers if name == b"connection" for token in _text(value).split(",")}
    return "websocket" in upgrades and "upgrade" in tokens


def _is_handshake(version: bytes, headers: Headers) -> bool:
    """RFC 6455 section 4.2.1, as far as Hypercorn relies on it."""
    given = dict(headers)
    return (
        version >= b"1.1"
        and given.get(b"sec-websocket-version") == b"13"
        and bool(given.get(b"sec-websocket-key"))
        and all(value.isascii() for name, value in headers if name in _READ_AS_ASCII)
    )


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip().lower()
