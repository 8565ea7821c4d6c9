"""Serve an application on one address, as a child of the supervisor: bounded, and gracefully stopped by cancellation.

Hypercorn's `serve()` starts more than is wanted here (TLS, HTTP/2 and 3, lifespan, statsd) and lets one connection end
it, so this module accepts the connections itself and hands each to `guard.Connection`.

Stopping: cancelled, the listener closes at once and idle connections with it; requests under way have `grace` seconds,
shielded from the cancellation; then they are cut.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import structlog
import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import wrap_app
from quart_trio import QuartTrio

from daemon.settings_values import split_bind

from .guard import SEND_TIMEOUT, Connection, Waiting

log = structlog.get_logger(__name__)

GRACE: Final = 4.0
"""Seconds for requests under way when the server stops: below the 5 s the supervisor gives a shielded clean-up."""

MAX_CONNECTIONS: Final = 512
"""Connections at once, twice the requests under way by default; beyond it the one that waits longest gives way, and
where none waits the newcomer is closed at once."""

MAX_LEAVING: Final = 64
"""Connections that were asked to give way and have not ended: they do so at once, so that more means that we are stuck.
"""

BACKLOG: Final = 128
"""Connections the kernel may hold for us until they are accepted."""

HEAD_TIMEOUT: Final = 10.0
"""Seconds for a request's line and headers to arrive, and for an idle connection to say something."""

MAX_HEAD: Final = 32 * 1024
"""Bytes of a request's line and headers: room for a browser's other cookies beside an 8 KiB token."""

MAX_KEPT_ALIVE: Final = 1000
"""Requests on one connection, after which the client is asked to open another."""

MAX_MESSAGE: Final = 64 * 1024
"""Bytes of a WebSocket message, once there are any to be accepted."""


class Listener:
    """One application on one address."""

    def __init__(
        self,
        app: QuartTrio,
        bind: str,
        *,
        grace: float = GRACE,
        max_connections: int = MAX_CONNECTIONS,
        head_timeout: float = HEAD_TIMEOUT,
        send_timeout: float = SEND_TIMEOUT,
    ) -> None:
        self._host, self._port = split_bind(bind)
        self._app = wrap_app(app, 0, "asgi")
        self._config = _hypercorn_config(head_timeout)
        self._grace = grace
        self._max_connections = max_connections
        self._send_timeout = send_timeout
        self._open = 0
        self._accepted = 0
        self._refused = 0
        self._gave_way = 0
        self._leaving = 0
        self._waiting: Waiting = {}

    async def serve(self, *, task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; reports the bound address and port when connections are accepted.

        Raises:
            OSError: the address cannot be bound.
        """
        listeners = await trio.open_tcp_listeners(self._port, host=self._host, backlog=BACKLOG)
        host, port = listeners[0].socket.getsockname()[:2]
        context = WorkerContext(None)
        stopping = trio.Event()
        scope = trio.CancelScope(shield=True)
        try:
            async with trio.open_nursery() as nursery:
                connections = await nursery.start(partial(_hold, scope, stopping))
                try:
                    task_status.started((host, port))
                    log.info("api.listening", host=host, port=port)
                    handler = partial(self._handle, context)
                    await trio.serve_listeners(handler, listeners, handler_nursery=connections)
                finally:
                    stopping.set()
                    scope.deadline = trio.current_time() + self._grace
                    with trio.CancelScope(shield=True):  # an event's setting, made awaitable by Hypercorn: no waiting
                        await context.terminated.set()
        finally:
            for listener in listeners:
                listener.socket.close()
            log.info("api.stopped", host=host, port=port)

    def statistics(self) -> dict[str, int]:
        """Connections open, accepted, refused beyond the bound, and ended for the sake of newcomers."""
        return {
            "open": self._open, "accepted": self._accepted, "refused": self._refused, "gave_way": self._gave_way
        }  # fmt: skip

    async def _handle(self, context: WorkerContext, stream: trio.SocketStream) -> None:
        if self._open >= self._max_connections and not self._make_room():
            self._refused += 1
            await trio.aclose_forcefully(stream)
            return
        self._open += 1
        self._accepted += 1
        connection = Connection(self._app, self._config, context, stream, self._send_timeout, self._waiting)
        try:
            await connection.run()
        finally:
            self._open -= 1
            self._leaving -= connection.gave_way

    def _make_room(self) -> bool:
        """Let the connection that waits longest for its client give way; whether there is one."""
        if not self._waiting or self._leaving >= MAX_LEAVING:
            return False
        self._leaving += 1
        self._gave_way += 1
        next(iter(self._waiting)).give_way()
        return True


async def serve_api(
    app: QuartTrio, bind: str, *, task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve an application on `address:port` until cancelled; a child function for the supervisor.

    Raises:
        OSError: the address cannot be bound.
    """
    await Listener(app, bind).serve(task_status=task_status)


async def _hold(
    scope: trio.CancelScope, stopping: trio.Event, *, task_status: trio.TaskStatus[trio.Nursery]
) -> None:
    """Hold the nursery of the connections, which outlives the cancellation of the listener by the grace."""
    with scope:
        async with trio.open_nursery() as connections:
            task_status.started(connections)
            await stopping.wait()


def _hypercorn_config(head_timeout: float) -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = None  # failures are reported by `web` and `guard`
    config.include_server_header = False
    config.h11_max_incomplete_size = MAX_HEAD
    config.keep_alive_timeout = head_timeout
    config.keep_alive_max_requests = MAX_KEPT_ALIVE
    config.websocket_max_message_size = MAX_MESSAGE
    return config
