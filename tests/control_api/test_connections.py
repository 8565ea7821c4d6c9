"""The listener's connections on real sockets: how many there may be, who gives way, who is closed, how all stop."""

import h11
import pytest
import trio

import control_api.guard as guard
from tests.control_api.conftest import serving
from tests.control_api.wire import JSON, Stalled, answer, ask, connection, request, until, until_closed


def sends(listener):
    """Whether somebody is being sent an answer, and does not take it."""
    return any(each._http.connection.our_state is h11.SEND_BODY for each in listener._waiting)


async def test_a_slow_head_and_an_idle_connection_are_closed(listening, token):
    async with connection(listening) as slow, connection(listening) as idle:
        await slow.send_all(b"GET / HTTP/1.1\r\nHost:")
        await idle.send_all(request(token=token))
        assert (await answer(idle))[0] == 200
        assert await until_closed(slow) == b""
        assert await until_closed(idle) == b""


async def test_idle_connections_are_closed_after_refusals_too(app, nursery):
    """The end of a request is settled in a cancelled task: a connection must not be forgotten there."""
    listener, scope, address = await serving(nursery, app, head_timeout=0.3)
    for _ in range(5):
        async with connection(address) as stream:
            await stream.send_all(request("GET", "/x") + request("GET", "/y"))
            assert (await until_closed(stream)).count(b"HTTP/1.1 404") == 2
    await until(lambda: listener.statistics()["open"] == 0)
    scope.cancel()


async def test_connections_beyond_the_bound_are_closed(app, nursery, token, service):
    service.gate = trio.Event()
    listener, scope, address = await serving(nursery, app, max_connections=3)
    async with connection(address) as one, connection(address) as two, connection(address) as three:
        for stream in (one, two, three):
            await stream.send_all(request(token=token))
        await until(lambda: service.under_way == 3)
        async with connection(address) as beyond:
            assert await until_closed(beyond) == b""
        assert listener.statistics() == {"open": 3, "accepted": 3, "refused": 1, "gave_way": 0}
        service.gate.set()
        for stream in (one, two, three):
            assert (await answer(stream))[0] == 200
    await until(lambda: listener.statistics()["open"] == 0)
    assert (await ask(address, request(token=token)))[0] == 200
    scope.cancel()


async def test_who_only_waits_gives_way_the_longest_waiting_first(app, nursery, token, service):
    """Else a few hundred silent connections would keep everybody out."""
    service.gate = trio.Event()
    listener, scope, address = await serving(nursery, app, max_connections=3)
    async with connection(address) as busy, connection(address) as silent, connection(address) as idle:
        await busy.send_all(request(token=token))
        await idle.send_all(request("GET", "/x"))
        assert (await answer(idle))[0] == 404
        await until(lambda: service.under_way == 1)
        for _ in range(20):
            async with connection(address) as another:
                await another.send_all(request("GET", "/x"))
                assert (await answer(another))[0] == 404
        assert await until_closed(silent) == b""
        assert service.under_way == 1
        service.gate.set()
        assert (await answer(busy))[0] == 200       # what is under way is never cut
    assert listener.statistics()["refused"] == 0
    assert listener.statistics()["gave_way"] >= 1
    await until(lambda: listener.statistics()["open"] == 0)
    scope.cancel()


async def test_slow_heads_stalled_readers_and_lingering_connections_give_way(app_with_much_to_say, nursery):
    listener, scope, address = await serving(nursery, app_with_much_to_say, max_connections=3, send_timeout=60)
    stalled = Stalled(address)
    stalled.ask(request("GET", "/much"))
    await until(lambda: sends(listener))
    async with connection(address) as slow, connection(address) as lingering:
        await slow.send_all(b"GET / HTTP/1.1\r\nHost: ")
        await lingering.send_all(request("POST", "/mail/accounts", "Content-Length: 100000", JSON))
        assert (await answer(lingering))[0] == 401
        async with connection(address) as one, connection(address) as two, connection(address) as three:
            for stream in (one, two, three):
                await stream.send_all(request("GET", "/x"))
                assert (await answer(stream))[0] == 404
    assert listener.statistics()["refused"] == 0
    stalled.socket.close()
    scope.cancel()


async def test_a_client_that_does_not_read_is_given_up(app_with_much_to_say, nursery):
    listener, scope, address = await serving(nursery, app_with_much_to_say, send_timeout=0.5)
    client = Stalled(address)
    client.ask(request("GET", "/much"))
    await until(lambda: listener.statistics()["open"] == 1)
    await until(lambda: listener.statistics()["open"] == 0)
    client.socket.close()
    scope.cancel()


async def test_what_nobody_reads_is_discarded_for_a_bounded_time_only(app, nursery, monkeypatch):
    monkeypatch.setattr(guard, "LINGER", 0.3)
    listener, scope, address = await serving(nursery, app)
    async with connection(address) as stream:
        await stream.send_all(request("POST", "/mail/accounts", "Content-Length: 100000", JSON))
        assert (await answer(stream))[0] == 401
        await until(lambda: listener.statistics()["open"] == 0)      # although the client never closes
    scope.cancel()


# -- stopping ----------------------------------------------------------------------------------------------------------


async def test_stopping_lets_requests_end_within_the_grace(app, nursery, token, service):
    service.gate = trio.Event()
    _, scope, address = await serving(nursery, app, grace=5.0, head_timeout=60.0)
    async with connection(address) as busy, connection(address) as idle:
        await idle.send_all(request("GET", "/x"))
        assert (await answer(idle))[0] == 404
        await busy.send_all(request(token=token))
        await until(lambda: service.under_way == 1)
        scope.cancel()
        assert await until_closed(idle) == b""
        service.gate.set()
        assert (await answer(busy))[0] == 200
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream(*address)
    assert service.cancelled == 0


async def test_stopping_cuts_what_outlasts_the_grace(app, token, service):
    service.delay = 60
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            _, _, address = await serving(nursery, app, grace=0.2)
            async with connection(address) as stream:
                await stream.send_all(request(token=token))
                await until(lambda: service.under_way == 1)
                nursery.cancel_scope.cancel()
    assert service.cancelled == 1


async def test_a_client_that_does_not_read_does_not_hold_the_stop(app_with_much_to_say):
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            listener, _, address = await serving(nursery, app_with_much_to_say, grace=0.2, send_timeout=3600)
            client = Stalled(address)
            client.ask(request("GET", "/much"))
            await until(lambda: sends(listener))
            nursery.cancel_scope.cancel()
    client.socket.close()
