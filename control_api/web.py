"""A Quart application that answers everything in the envelope, in bounded time, to a bounded number of callers.

Both listeners stand on it.  Quart's own behaviour is replaced where it would answer HTML, redirect, wait without bound
or, for a request it cannot even build, not answer at all:

- `asgi_app` is the outermost layer: it refuses beyond the number of requests under way before a body is read, refuses
  targets that are no paths (Quart fails on them), bounds the request as a whole, and answers 500 when all else failed.
- `dispatch_request` bounds the handler; Quart's RESPONSE_TIMEOUT bounds only the sending of the answer.
- `handle_user_exception` sends every exception, framework's or ours, through the one table in `errors`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, cast

import structlog
import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope
from quart import Response, g, has_request_context, request
from quart.ctx import RequestContext
from quart.globals import request_ctx
from quart.typing import ResponseReturnValue, ResponseTypes
from quart.utils import encode_headers
from quart.wrappers.response import DataBody
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from werkzeug.exceptions import HTTPException

from .errors import BadTarget, HandlerTimeout, Refusal, refusal_for
from .limits import Gate

log = structlog.get_logger(__name__)

BODY_TIMEOUT: Final = 10
"""Seconds in which a body must arrive once a handler asks for it; the largest useful one has a few hundred bytes."""

SENDING: Final = 30.0
"""Seconds a request may take beyond handler and body: the answer's sending, piece by piece bounded by the guard."""

MAX_LOGGED_PATH: Final = 200
"""Characters of a path in the log: where no route matches, it is a stranger's text."""

HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""On every answer; a view may set its own value of one."""

_JSON: Final = "application/json"


def json_text(value: object) -> bytes:
    """A JSON document as sent."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def json_response(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer holding a JSON document."""
    return Response(body, status, dict(headers or {}), content_type=_JSON)


class OnePiece(TrioASGIHTTPConnection):
    """Quart's side of one request, with one task less and a bytes body told in one piece."""

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Run the request; a client that hangs up cancels it."""
        incoming = self._create_request_from_scope(send)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.handle_messages, nursery, incoming, receive)
            await self.handle_request(nursery, incoming, send)

    async def _send_response(self, send: ASGISendCallable, response: ResponseTypes) -> None:
        body = response.response
        if not isinstance(body, DataBody):
            await super()._send_response(send, response)
            return
        head = {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": encode_headers(response.headers),
        }
        await send(cast("ASGISendEvent", head))
        piece = {"type": "http.response.body", "body": body.data[body.begin : body.end], "more_body": False}
        await send(cast("ASGISendEvent", piece))


class BoundedApp(QuartTrio):
    """See the module's docstring."""

    asgi_http_class = OnePiece

    def __init__(
        self, name: str, *, handler_timeout: float, max_requests: int, max_body: int, quiet: bool = False
    ) -> None:
        """`quiet`: requests that succeed are told at debug; a scraper's say the same every few seconds."""
        super().__init__(name, static_folder=None)
        self.gate = Gate(max_requests)
        self.handler_timeout = handler_timeout
        self._quiet = quiet
        self.config.update(MAX_CONTENT_LENGTH=max_body, BODY_TIMEOUT=BODY_TIMEOUT, RESPONSE_TIMEOUT=None)
        # One spelling for each address: otherwise the router answers redirects, in HTML.
        self.url_map.strict_slashes = True
        self.url_map.merge_slashes = False
        self.url_map.redirect_defaults = False
        self.after_request(self._finish)

    def answer_headers(self) -> Mapping[str, str]:
        """More headers for the answer to the current request; for subclasses."""
        return {}

    async def asgi_app(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve one request, WebSocket handshake or lifespan."""
        if scope["type"] == "lifespan":
            await super().asgi_app(scope, receive, send)
            return
        begun = False
        started = trio.current_time()

        async def tracked(message: ASGISendEvent) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            with self.gate.request():
                if not _is_path(scope["path"]):
                    raise BadTarget
                with trio.move_on_after(self.handler_timeout + BODY_TIMEOUT + SENDING) as whole:
                    await super().asgi_app(scope, receive, tracked)
                if whole.cancelled_caught:
                    raise HandlerTimeout
        except Exception as exc:  # the boundary: whatever happens, this connection is answered and others go on
            refusal = refusal_for(exc)
            if refusal.status == 500:
                log.exception("api.request_failed", method=scope.get("method"), answered=begun)
            if not begun:
                # Quart, which tells of requests otherwise, has never seen this one, or not to its end.
                method, route = str(scope.get("method", "GET")), scope["path"][:MAX_LOGGED_PATH]
                self._tell(method, route, refusal.status, trio.current_time() - started, refused_as=refusal.code)
                await _send_refusal(scope, refusal, send)

    async def dispatch_request(self, request_context: RequestContext | None = None) -> ResponseReturnValue:
        """Run the view, in bounded time."""
        g.started = trio.current_time()
        with trio.move_on_after(self.handler_timeout):
            return await super().dispatch_request(request_context)
        raise HandlerTimeout

    async def handle_user_exception(
        self, error: Exception | BaseExceptionGroup[BaseException]
    ) -> HTTPException | ResponseReturnValue:
        """Answer an exception by the table; cancellation and other ends of the process pass."""
        if not isinstance(error, Exception):
            raise error
        refusal = refusal_for(error)
        if refusal.status == 500:
            log.error("api.unhandled", route=_route(), exc_info=error)
        elif has_request_context():
            g.refused_as = getattr(error, "reason", None) if refusal.status == 401 else refusal.code
        return json_response(json_text(refusal.envelope()), refusal.status, refusal.headers)

    async def _finish(self, response: Response) -> Response:
        given = {name.lower() for name, _ in response.headers}
        for name, value in (*HEADERS.items(), *self.answer_headers().items()):
            if name.lower() not in given:
                response.headers.add(name, value)
        if response.status_code == 204:  # RFC 9110 section 8.6: no length; and there is nothing to be of a type
            response.headers.pop("Content-Type", None)
            response.headers.pop("Content-Length", None)
        if has_request_context():
            seconds = trio.current_time() - g.get("started", trio.current_time())
            self._tell(request.method, _route(), response.status_code, seconds, **_who())
        return response

    def _tell(self, method: str, route: str | None, status: int, seconds: float, **more: object) -> None:
        """Count and log an answer."""
        self.note(method, status, seconds)
        tell = log.debug if self._quiet and status < 400 else log.info
        tell("api.request", method=method, route=route, status=status, seconds=round(seconds, 4), **more)

    async def make_default_options_response(self) -> Response:
        """Answer OPTIONS: what may be done here."""
        assert request_ctx.url_adapter is not None  # made with the request
        return Response("", 204, {"Allow": ", ".join(sorted(request_ctx.url_adapter.allowed_methods()))})

    def note(self, method: str, status: int, seconds: float) -> None:
        """Count an answer; the operator's own listener is not counted."""


def _is_path(text: str) -> bool:
    """Whether a request target is a path here; the router reads `//mail/sync` as `/mail/sync`, a proxy may not."""
    return text == "*" or (text.startswith("/") and not text.startswith("//"))


def _route() -> str | None:
    """The matched rule, or the path as it came, shortened: ids of accounts are no secrets, queries are left out."""
    if not has_request_context():
        return None
    return request.url_rule.rule if request.url_rule is not None else request.path[:MAX_LOGGED_PATH]


def _who() -> dict[str, Any]:
    known = {"client": g.get("client"), "user": g.get("user_id"), "refused_as": g.get("refused_as")}
    return {name: value for name, value in known.items() if value is not None}


async def _send_refusal(scope: Scope, refusal: Refusal, send: ASGISendCallable) -> None:
    """Answer without Quart; a WebSocket's handshake too, by the extension of ASGI that our server has."""
    kind = "http.response" if scope["type"] == "http" else "websocket.http.response"
    body = json_text(refusal.envelope())
    headers = {**HEADERS, **refusal.headers, "Content-Type": _JSON, "Content-Length": str(len(body))}
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    start = {"type": f"{kind}.start", "status": refusal.status, "headers": encoded}
    await send(cast("ASGISendEvent", start))
    await send(cast("ASGISendEvent", {"type": f"{kind}.body", "body": body, "more_body": False}))
