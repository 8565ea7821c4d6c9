"""Connections that are asked to give way leave at once, whatever they are in the middle of."""

import h11
import pytest

from control_api import guard
from tests.control_api.conftest import serving
from tests.control_api.test_connections import sends
from tests.control_api.wire import Stalled, answer, connection, request, until


@pytest.fixture
async def full(app_with_much_to_say, nursery, monkeypatch):
    """A listener for one connection, whose client does not read what it asked for and then breaks the protocol."""
    monkeypatch.setattr(guard, "LINGER", 60.0)
    listener, scope, address = await serving(nursery, app_with_much_to_say, max_connections=1, send_timeout=60)
    stalled = Stalled(address)
    stalled.ask(request("GET", "/much", "Transfer-Encoding: chunked"))
    await until(lambda: sends(listener))
    (stuck,) = listener._waiting
    stalled.ask(b"zz\r\n\r\n")  # no chunk: an error behind an answer that has begun, which is ended first
    await until(lambda: stuck._http.connection.their_state is h11.ERROR)
    yield listener, address
    stalled.socket.close()
    scope.cancel()


async def test_an_answer_that_is_being_ended_does_not_hold_the_place(full):
    listener, address = full
    async with connection(address) as newcomer:
        await newcomer.send_all(request("GET", "/x"))
        assert (await answer(newcomer))[0] == 404
        await until(lambda: listener._leaving == 0)
        assert listener.statistics()["open"] == 1
        assert listener.statistics()["gave_way"] == 1


async def test_who_gives_way_is_asked_once(full):
    listener, _ = full
    (connection_,) = listener._waiting
    connection_.give_way()
    connection_._begin_waiting()
    assert not listener._waiting
    assert not listener._make_room()
