"""What is used of Hypercorn, and of Quart, without a promise: exactly this version, exactly these names."""

import inspect
from importlib.metadata import version

import h11
from hypercorn.config import Config
from hypercorn.protocol.events import Response
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from quart.wrappers.response import DataBody
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection

from control_api.guard import Connection, Http1
from control_api.web import BoundedApp, OnePiece


def test_the_pinned_version():
    assert version("hypercorn") == "0.18.0"


def test_what_is_overridden_is_there():
    for ours, theirs in ((Connection, TCPServer), (Http1, H11Protocol)):
        for name, own in vars(ours).items():
            if inspect.isfunction(own) and name in vars(theirs) and name != "__init__":
                replaced = getattr(theirs, name)
                assert inspect.signature(own).parameters.keys() == inspect.signature(replaced).parameters.keys()
    assert {"run", "protocol_send", "_read_data"} <= vars(TCPServer).keys() & vars(Connection).keys()
    assert {"stream_send", "_check_protocol", "_send_error_response"} <= vars(H11Protocol).keys() & vars(Http1).keys()


def test_what_is_called_is_there():
    assert list(inspect.signature(TCPServer.__init__).parameters) == [
        "self", "app", "config", "context", "state", "stream"]
    assert list(inspect.signature(H11Protocol.__init__).parameters) == [
        "self", "app", "config", "context", "task_group", "connection_state", "ssl", "client", "server", "send"]
    assert {"_idle_timeout", "_initiate_server_close"} <= vars(TCPServer).keys()
    assert {"handle", "_send_h11_event"} <= vars(H11Protocol).keys()
    assert {"spawn", "spawn_app", "__aenter__", "__aexit__"} <= vars(TaskGroup).keys()
    assert WorkerContext(None).terminated.is_set() is False
    assert "headers" in Response.__dataclass_fields__
    assert h11.SEND_BODY is not h11.DONE


def test_requests_come_from_the_connection_that_is_put_in_place():
    assert "self.connection.next_event()" in inspect.getsource(H11Protocol._handle_events)
    assert "error.error_status_hint" in inspect.getsource(H11Protocol._handle_events)
    assert list(inspect.signature(h11.Connection.next_event).parameters) == ["self"]
    assert list(inspect.signature(h11.Request.__init__).parameters)[:5] == [
        "self", "method", "headers", "target", "http_version"]
    assert "websocket.http.response" in inspect.getsource(WSStream)


def test_who_times_out_an_idle_connection():
    source = inspect.getsource(TCPServer._idle_timeout) + inspect.getsource(TCPServer._initiate_server_close)
    assert "keep_alive_timeout" in source
    assert "terminated.wait()" in source
    assert "self.protocol.handle(Closed())" in source


def test_what_a_request_runs_through_in_quart():
    """`web.OnePiece` stands in for these."""
    assert BoundedApp.asgi_http_class is OnePiece
    assert QuartTrio.asgi_http_class is TrioASGIHTTPConnection
    for name in ("__call__", "_send_response"):
        theirs = getattr(TrioASGIHTTPConnection, name)
        own = getattr(OnePiece, name)
        assert inspect.signature(own).parameters.keys() == inspect.signature(theirs).parameters.keys()
    run = inspect.getsource(TrioASGIHTTPConnection)
    assert "nursery.start_soon(self.handle_messages, nursery, request, receive)" in run
    assert "nursery.start_soon(self.handle_request, nursery, request, send)" in run
    assert {"data", "begin", "end"} <= vars(DataBody(b"")).keys()


def test_the_settings_exist():
    for name in ("accesslog", "errorlog", "include_server_header", "h11_max_incomplete_size", "keep_alive_timeout",
                 "keep_alive_max_requests", "websocket_max_message_size"):
        assert hasattr(Config, name)
