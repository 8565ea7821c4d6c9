"""The documentation: /mail/openapi.json, and a page that shows it without loading anything from elsewhere.

Both are public: they say what the API is, not what is in it.  The page is our own HTML, style and script, kept as
package data and read once; its policy lets it load from this origin only and run nothing inline.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Final

from quart import Response
from quart_trio import QuartTrio

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of the page."""

_STATIC: Final = (
    ("/mail/docs", "docs.html", "text/html; charset=utf-8"),
    ("/mail/docs/docs.css", "docs.css", "text/css; charset=utf-8"),
    ("/mail/docs/docs.js", "docs.js", "text/javascript; charset=utf-8"),
)

_DOCUMENT: Final = "/mail/openapi.json"

PUBLIC: Final = (_DOCUMENT, *(rule for rule, _, _ in _STATIC))
"""Addresses that need no session."""


def add_docs(app: QuartTrio, openapi: bytes) -> None:
    """Add the document and the page to an application."""
    app.add_url_rule(_DOCUMENT, "openapi", _fixed(openapi, "application/json"), methods=["GET"])
    folder = files(__package__) / "static"
    for rule, name, content_type in _STATIC:
        app.add_url_rule(rule, name, _fixed((folder / name).read_bytes(), content_type), methods=["GET"])


def _fixed(content: bytes, content_type: str) -> Callable[[], Awaitable[Response]]:
    async def view() -> Response:
        return Response(content, 200, {"Content-Security-Policy": POLICY}, content_type=content_type)

    return view
