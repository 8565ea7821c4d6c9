"""The public application: who calls, may they say this from where they are, what do they say; then the operation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from uuid import UUID

from pydantic import BaseModel
from quart import Response, g, request
from quart.ctx import RequestContext
from quart.globals import request_ctx
from quart.typing import ResponseReturnValue
from quart_trio import QuartTrio
from werkzeug.exceptions import NotFound

from daemon.identity import User
from daemon.settings import Settings
from daemon.sharing.views import Caller
from daemon.telemetry import metrics
from daemon.vault.secret import Secret

from . import docs
from .cookies import session_token
from .errors import NotAuthenticated, NotJson, RequestForged, rate_headers
from .openapi import document
from .operation import MAX_WORD, Call, Operation
from .origins import VARY, Origins, has_body, is_json
from .proxies import client_address
from .resources import operations
from .schemas import parse_body
from .services import AccountsService
from .tokens import TokenVerifier, verifier_from
from .web import BoundedApp, json_response, json_text

METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
"""Methods with a count of their own."""


def create_app(settings: Settings, accounts: AccountsService, session_secret: Secret | None) -> QuartTrio:
    """The API as an ASGI application; `session_secret` is needed in mode `hs256` only.

    Raises:
        ValueError: mode `hs256` without a session secret, or with one of fewer than 32 bytes.
        OSError: `[network] ca_file` cannot be read.
    """
    return ControlApi(settings, accounts, verifier_from(settings, session_secret))


class ControlApi(BoundedApp):
    """Every operation behind one order of checks: session, origin, media type, body."""

    def __init__(self, settings: Settings, accounts: AccountsService, verifier: TokenVerifier) -> None:
        super().__init__(
            __name__,
            handler_timeout=settings.api.handler_timeout,
            max_requests=settings.api.max_requests,
            max_body=settings.api.max_body,
        )
        self._accounts = accounts
        self._verifier = verifier
        self._origins = Origins.of(settings.auth.origins)
        self._trusted = settings.api.trusted_proxies
        declared = operations(accounts)
        for operation in declared:
            self.add_url_rule(operation.rule, operation.name, self._view(operation), methods=[operation.method])
        docs.add_docs(self, json_text(document(declared, _version())))

    def _view(self, operation: Operation) -> Callable[..., Awaitable[Response]]:
        async def view(**given: UUID | str) -> Response:
            user = await self._caller()
            with self.gate.caller(user.id):
                self._check_origin()
                body = await self._body(operation)
                await self._accounts.remember(user)
                added: dict[str, str] = {}
                g.added_headers = added
                call = Call(
                    Caller(user, g.client),
                    {name: value for name, value in given.items() if isinstance(value, UUID)},
                    {name: _word(value) for name, value in given.items() if isinstance(value, str)},
                    body,
                    {name: request.args[name] for name in operation.query if name in request.args},
                    lambda allowance: added.update(rate_headers(allowance)),
                )
                answer = await operation.handle(call)
            return json_response(answer if isinstance(answer, bytes) else answer.model_dump_json().encode())

        return view

    def note(self, method: str, status: int, seconds: float) -> None:
        """Count an answer of the API."""
        known = method if method in METHODS else "other"  # a client's own words are no label
        metrics.http_requests.labels(known, str(status)).inc()
        metrics.http_seconds.observe(seconds)

    async def _caller(self) -> User:
        token = session_token(request.headers.getlist("Cookie"))
        if token is None:
            raise NotAuthenticated
        user = await self._verifier.verify(token)
        g.user_id = user.id
        return user

    def _check_origin(self) -> None:
        headers = request.headers
        if self._origins.forged(request.method, headers.getlist("Sec-Fetch-Site"), headers.getlist("Origin")):
            raise RequestForged

    async def _body(self, operation: Operation) -> BaseModel | None:
        """The body as the operation declares it; one that nobody asked for must still be JSON, and is not read."""
        headers = request.headers
        given = has_body(headers.get("Content-Length"), headers.get("Transfer-Encoding"))
        if given and request.method not in {"GET", "HEAD"} and not is_json(headers.get("Content-Type")):
            raise NotJson
        if operation.body is None:
            return None
        data = await request.get_data(cache=False, as_text=False, parse_form_data=False) if given else b""
        if not data and not operation.body_required:
            return operation.body()
        return parse_body(operation.body, data)

    async def dispatch_request(self, request_context: RequestContext | None = None) -> ResponseReturnValue:
        """Note whose request it is, for the log, and run the view."""
        peer = (request.scope.get("client") or ("", 0))[0]
        g.client = client_address(peer, request.headers.getlist("X-Forwarded-For"), self._trusted)
        return await super().dispatch_request(request_context)

    async def make_default_options_response(self) -> Response:
        """Answer OPTIONS: what may be done here, and for a listed origin that it may be done from there."""
        assert request_ctx.url_adapter is not None  # made with the request
        methods = sorted(request_ctx.url_adapter.allowed_methods())
        origin = request.headers.getlist("Origin")
        return Response("", 204, {"Allow": ", ".join(methods), **self._origins.preflight_headers(origin, methods)})

    def answer_headers(self) -> Mapping[str, str]:
        """What every answer depends on, and whether another origin's page may read it."""
        added: Mapping[str, str] = g.get("added_headers", {})
        return {"Vary": VARY, **self._origins.cors_headers(request.headers.getlist("Origin")), **added}


def _word(given: str) -> str:
    """An id out of a path; what none can be is not found, and goes no further."""
    if len(given) > MAX_WORD or not given.isprintable():
        raise NotFound
    return given


def _version() -> str:
    try:
        return version("accountsd")
    except PackageNotFoundError:  # run from a checkout that nobody installed
        return "0"
