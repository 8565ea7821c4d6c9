"""Hypercorn's connection, unable to bring down or hold up anything but itself.

Hypercorn 0.18's Trio worker has faults that a public listener cannot live with, each seen on the wire:

1. An unforeseen exception in one connection (a malformed WebSocket upgrade is enough) falls through to the nursery of
   the whole server and ends the process.  `Connection.run` is the boundary it lacks.
2. Sending is shielded without limit, so that one client which does not read keeps the process from ever ending.
   Here a send is not shielded and has `send_timeout`; then the connection is torn down.
3. The end of a request is handled in a task that is being cancelled, so that a connection may be left open with nobody
   to time it out. Here it is shielded.
4. An answer given before the body has arrived (413, 401) is lost when the unread rest makes the kernel reset the
   connection.  Here the rest is read and discarded for a bounded time and number of bytes (RFC 9112 section 9.6).
5. What h11 refuses is answered with an empty body, which the application's own answer may run into; here it gets the
   envelope and is the last word, as is what `heads` refuses; an answer that has begun is ended before the connection.
6. A client that says that it will send no more is taken for gone, and its answer is cut wherever it is. Here it is
   still given the answer to what it asked (RFC 9112 section 9.6 speaks of half-closed connections), for a bounded time.

Whatever waits for its client (for a head, or for the taking of an answer) is in `waiting`, the longest waiting first:
a listener that is full asks it to give way, so that connections that say nothing cannot keep others out.

HTTP/2 is absent rather than off: the wrapper that changes protocols is left out, so neither `Upgrade: h2c` nor the
prior-knowledge preface leads anywhere.  TLS is the reverse proxy's business.  All of this uses names Hypercorn does not
promise: its version is pinned exactly, and a contract test names every one.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Final, cast

import h11
import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.events import EndBody, Response
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, LifespanState
from hypercorn.utils import parse_socket_addr

from .heads import Http11
from .idle import IdleTimer
from .web import HEADERS

log = structlog.get_logger(__name__)

SEND_TIMEOUT: Final = 10.0
"""Seconds for one piece of an answer: our largest, a list of accounts, is well below one socket buffer and a half."""

LINGER: Final = 2.0
"""Seconds for which the rest of an unwanted body is discarded after the answer."""

MAX_LINGER: Final = 4 << 20
"""Bytes discarded so: four times the largest body accepted by default."""

HALF_CLOSED: Final = 2.0
"""Seconds in which a client that sends no more may hear its answer: all but connecting an account takes milliseconds,
and one that has gone altogether, which looks the same, must not keep its request running."""

_JOINED: Final = 1 << 16  # bytes of a body up to which copying it behind its head is cheaper than a system call
_MAX_RECEIVE: Final = 1 << 14  # bytes; also how far beyond its bound a head may come, for h11 looks after each read
_Address = tuple[str, int] | None
Sendable = h11.Response | h11.InformationalResponse | h11.Data | h11.EndOfMessage
Waiting = dict["Connection", None]
"""Connections that wait for their clients, in the order in which they began to."""

_WHOLE: Final = frozenset({h11.DONE, h11.MUST_CLOSE})
"""A client's states once its request has come to its end."""

_REFUSALS: Final = {
    400: ("bad_request", "The request could not be understood."),
    413: ("headers_too_large", "The request's headers are larger than this server accepts."),
    431: ("headers_too_large", "The request's headers are larger than this server accepts."),
    501: ("not_implemented", "This transfer coding is not supported."),
    505: ("http_version_not_supported", "This server speaks HTTP/1.1."),
}


class Http1(H11Protocol):
    """HTTP/1.1 only, refusing in the envelope."""

    _refused = False
    _head = b""
    """The head of an answer whose length is known, until its body goes out with it: one packet and one system call."""

    _turned_down = False
    """Whether the application answers a handshake otherwise than by opening a WebSocket."""

    async def handle(self, event: Event) -> None:
        """As Hypercorn's, but that what comes behind a handshake that is turned down is dropped.

        It would be refused by a second answer while the first one is on its way.
        """
        if not (self._turned_down and isinstance(event, RawData)):
            await super().handle(event)

    async def stream_send(self, event: StreamEvent) -> None:
        """Send; an answer that comes before the request has ended is the connection's last, and says so.

        So is any HTTP answer to a WebSocket handshake, which Hypercorn would leave open without a timeout.
        """
        if self._refused:
            return
        if isinstance(event, Response) and isinstance(self.stream, WSStream) and _is_bare(event):
            # Hypercorn's own refusal of a handshake: bytes came before it was accepted
            await self._send_error_response(event.status_code)
            await self.send(Closed())
            return
        if isinstance(event, Response) and isinstance(self.stream, WSStream):
            self._turned_down = event.status_code >= 200
        if isinstance(event, Response) and self.connection.their_state is h11.SEND_BODY:
            event = replace(event, headers=[*event.headers, (b"connection", b"close")])
        await super().stream_send(event)
        if isinstance(event, EndBody) and isinstance(self.stream, WSStream):
            await self.send(Closed())

    async def _send_h11_event(self, event: Sendable) -> None:
        """Hypercorn's, but that a head waits for what follows it at once, and that nothing is not sent."""
        try:
            data = self.connection.send(event) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return
        if isinstance(event, h11.Response) and any(name == b"content-length" for name, _ in event.headers):
            self._head = data
            return
        head, self._head = self._head, b""
        if len(data) > _JOINED:
            await self.send(RawData(head))
            await self.send(RawData(data))
        elif head or data:
            await self.send(RawData(head + data))

    async def _check_protocol(self, event: h11.Request) -> None:
        """Stay with HTTP/1.1, whatever the client would like to change to."""

    async def _send_error_response(self, status_code: int) -> None:
        self._refused = True  # an application that answers at this very moment is too late
        code, sentence = _REFUSALS.get(status_code, _REFUSALS[400])
        body = json.dumps({"success": False, "error": sentence, "code": code}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *((name.lower().encode(), value.encode()) for name, value in HEADERS.items()),
        ]
        every = list(chain(headers, self.config.response_headers("h11")))
        await self._send_h11_event(h11.Response(status_code=status_code, headers=every))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())


class Connection(TCPServer):
    """One connection; `run()` ends normally whatever the client does."""

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        stream: trio.SocketStream,
        send_timeout: float,
        waiting: Waiting,
    ) -> None:
        # Hypercorn's annotation says SSLStream and means any stream.
        super().__init__(app, config, context, LifespanState({}), cast("trio.SSLStream[trio.SocketStream]", stream))
        self._transport = stream
        self._send_timeout = send_timeout
        self._waiting = waiting
        self._settled = trio.Event()
        """Whether no request is under way."""
        self._scope = trio.CancelScope()
        self._closing = False
        self._reading = True
        self._idle = IdleTimer(config.keep_alive_timeout)
        self.gave_way = False
        """Whether it was asked to end for another's sake."""

    async def run(self) -> None:
        """Serve the connection to its end."""
        try:
            await self._serve()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            pass  # the client went away; what it did to us on the way is of no interest
        except Exception as exc:  # the boundary Hypercorn lacks
            if not _gone(exc):
                log.warning("api.connection_failed", exc_info=exc)
        finally:
            self._waiting.pop(self, None)
            await trio.aclose_forcefully(self._transport)

    def give_way(self) -> None:
        """End at once: another needs the place, and this one only waits."""
        self.gave_way = True
        self._waiting.pop(self, None)
        self._settled.set()  # an answer that is being ended waits for it in a shield
        self._scope.cancel()

    async def _serve(self) -> None:
        socket = self._transport.socket
        client = parse_socket_addr(socket.family, socket.getpeername())
        server = parse_socket_addr(socket.family, socket.getsockname())
        with self._scope:
            await self._converse(client, server)

    async def _converse(self, client: _Address, server: _Address) -> None:
        async with TaskGroup() as tasks:
            self._task_group = tasks
            http = Http1(
                self.app, self.config, self.context, tasks, ConnectionState({}), False, client, server,
                self.protocol_send,
            )
            http.connection = Http11(h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size)
            self._http = http
            self.protocol = cast("ProtocolWrapper", http)  # of which it has all that is used: `handle()`
            self._begin_waiting()
            tasks.spawn(self._idle_timeout)
            await self._read_data()
            self._idle.end()
            if self._closing:
                self._scope.cancel()

    async def _idle_timeout(self) -> None:
        if await self._idle.expired(self.context.terminated.wait):
            with trio.CancelScope(shield=True):
                await self._initiate_server_close()

    async def protocol_send(self, event: Event) -> None:
        """What the protocol wants sent, or done to the connection."""
        if isinstance(event, RawData):
            await self._send(event.data)
            return
        if isinstance(event, Updated):
            if event.idle:
                self._begin_waiting()
                self._idle.restart()
            else:
                self._waiting.pop(self, None)
                self._settled = trio.Event()
                self._idle.stop()
            return
        # The end of a request is told from the request's own task, which Quart cancels at that very moment; what
        # becomes of the connection must be settled all the same. What is waited for in here is the end
        # of a send, and bounded.
        with trio.CancelScope(shield=True):
            if isinstance(event, Closed):
                await self._end_answer()
                self._begin_waiting()
                await self._begin_closing()

    async def _end_answer(self) -> None:
        """An error in what follows a request must not cut the answer that has begun."""
        if self._http.stream is not None and self._http.connection.our_state is h11.SEND_BODY:
            with trio.move_on_after(LINGER):
                await self._settled.wait()

    def _begin_waiting(self) -> None:
        """Nothing is under way here but what the client will do next."""
        self._settled.set()
        if self.gave_way:
            return  # it ends, and its place is given away once
        self._waiting.pop(self, None)  # the order is that of arrival
        self._waiting[self] = None

    async def _send(self, data: bytes) -> None:
        async with self.send_lock:
            under_way = self not in self._waiting
            try:
                if not self.gave_way:
                    self._waiting.setdefault(self)  # for the client to read
                with trio.fail_after(self._send_timeout):
                    await self._transport.send_all(data)
                if under_way:
                    self._waiting.pop(self, None)
                return
            except trio.TooSlowError:
                log.info("api.client_stalled")
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            except trio.Cancelled:
                await trio.aclose_forcefully(self._transport)  # who knows how much of it went out
                raise
        await trio.aclose_forcefully(self._transport)
        self._settled.set()
        await self.protocol.handle(Closed())

    async def _begin_closing(self) -> None:
        """Say that no more will be sent; the reader then discards what still comes, and closes."""
        if self._closing:
            return
        self._closing = True
        async with self.send_lock:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._transport.send_eof()
        await self.protocol.handle(Closed())
        self._task_group.spawn(self._end_of_linger)

    async def _end_of_linger(self) -> None:
        """End the connection, be the reader waiting for the client, for the protocol, or gone."""
        if self._reading:
            await trio.sleep(LINGER)
        self._scope.cancel()

    async def _read_data(self) -> None:
        """Read until the client or we have ended; what comes after our last word is counted and dropped."""
        discarded = 0
        while discarded <= MAX_LINGER:
            try:
                data = await self._transport.receive_some(_MAX_RECEIVE)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                break
            if not data:
                await self._hear_out()
            if self._closing:
                discarded += len(data)
            else:
                await self.protocol.handle(RawData(bytes(data)))
            if not data:
                break
        self._reading = False
        await self.protocol.handle(Closed())

    async def _hear_out(self) -> None:
        """The client sends no more; where a whole request is under way it may be listening to the answer."""
        if self._http.stream is not None and self._http.connection.their_state in _WHOLE:
            with trio.move_on_after(HALF_CLOSED):
                await self._settled.wait()


def _is_bare(response: Response) -> bool:
    return response.status_code >= 400 and (b"content-length", b"0") in response.headers


def _gone(exc: Exception) -> bool:
    """Whether nothing else went wrong than that the client went away."""
    if not isinstance(exc, ExceptionGroup):
        return False
    _, rest = exc.split((OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError))
    return rest is None
