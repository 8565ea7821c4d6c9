"""The operator's listener: metrics and health, on an address of its own, loopback by default, never the public one.

It has no sessions: who reaches it is decided by where it listens.  Being apart, it answers also while the public
listener is full.
"""

from __future__ import annotations

from typing import Final

from quart import Response
from quart_trio import QuartTrio

from .services import OperationsService
from .web import BoundedApp, json_response, json_text

HANDLER_TIMEOUT: Final = 10.0
"""Seconds for one answer: Prometheus gives a scrape 10 s by default."""

MAX_REQUESTS: Final = 16
"""Requests under way: a scraper or two, and health checks."""

MAX_BODY: Final = 1024
"""Bytes; nothing here takes a body."""


def create_operations_app(service: OperationsService) -> QuartTrio:
    """The application with /metrics, /health/live and /health/ready, and nothing else."""
    app = BoundedApp(
        __name__, handler_timeout=HANDLER_TIMEOUT, max_requests=MAX_REQUESTS, max_body=MAX_BODY, quiet=True
    )

    async def metrics() -> Response:
        text, content_type = service.metrics()
        return Response(text, content_type=content_type)

    async def live() -> Response:
        return json_response(json_text({"status": "live", **await service.live()}))

    async def ready() -> Response:
        is_ready, parts = await service.ready()
        body = json_text({"status": "ready" if is_ready else "not_ready", **parts})
        return json_response(body, 200 if is_ready else 503)

    for rule, view in (("/metrics", metrics), ("/health/live", live), ("/health/ready", ready)):
        app.add_url_rule(rule, rule, view, methods=["GET"])
    return app
