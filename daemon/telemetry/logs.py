"""The log: one event a line on standard error, text for a person at a terminal, JSON for everything else.

Events, not prose: `session.closed reason=...`.  Secrets cannot get here by accident: a `Secret` prints as `<secret>`,
and values under names that hold secrets elsewhere are masked whatever they are.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, Literal

import structlog

_MASKED: Final = frozenset(
    {"password", "secret", "token", "authorization", "cookie", "dsn", "key", "data_key", "credentials", "conninfo"}
)

_MOST: Final = 2000  # characters of one value: a hostile server's words must not fill a disk


def set_up(level: str, style: Literal["auto", "json", "text"]) -> None:
    """Configure the log of the whole process; the standard library's loggers of other packages come along."""
    text = style == "text" or (style == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _masked,
    ]
    tail: list[structlog.typing.Processor]
    if text:
        plain = structlog.dev.plain_traceback
        tail = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    else:
        # Tracebacks without local variables: those hold passwords.
        formatter = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        tail = [structlog.processors.ExceptionRenderer(formatter), structlog.processors.JSONRenderer(default=repr)]
    structlog.configure(
        processors=[*shared, *tail],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    form = "%(levelname)s %(name)s %(message)s"
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format=form, force=True)


def _masked(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    del logger, method  # the form of a structlog processor
    for name, value in event.items():
        if name in _MASKED:
            event[name] = "***"
        elif isinstance(value, str) and len(value) > _MOST:
            event[name] = value[:_MOST] + "..."
    return event
