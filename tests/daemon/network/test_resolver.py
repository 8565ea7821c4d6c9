import threading
from ipaddress import ip_address

import pytest
import trio

from daemon.errors import Disposition, Fault, FaultKind
from daemon.network import Resolver
from daemon.network import resolver as resolver_module
from daemon.network.resolver import MOST_ADDRESSES, RESOLVE, LookupFailed, SystemLookup

from .dns_server import dns_server

ZONE = {
    ("both.example.test", "A"): ["192.0.2.1", "192.0.2.2"],
    ("both.example.test", "AAAA"): ["2001:db8::1"],
    ("four.example.test", "A"): ["192.0.2.3"],
    ("brokensix.example.test", "A"): ["192.0.2.4"],
    ("brokensix.example.test", "AAAA"): "SERVFAIL",
    ("none.example.test", "A"): "NXDOMAIN",
    ("none.example.test", "AAAA"): "NXDOMAIN",
    ("alias.example.test", "CNAME"): "alias2.example.test",
    ("alias2.example.test", "CNAME"): "four.example.test",
    ("endless.example.test", "CNAME"): "endless.example.test",
    ("many.example.test", "A"): [f"192.0.2.{n}" for n in range(1, MOST_ADDRESSES + 2)],
    ("most.example.test", "A"): [f"192.0.2.{n}" for n in range(1, MOST_ADDRESSES + 1)],
    ("cut.example.test", "A"): ["192.0.2.5"],
    ("deaf.example.test", "A"): None,
    ("deaf.example.test", "AAAA"): None,
} | {(f"chain{n}.example.test", "CNAME"): f"chain{n + 1}.example.test" for n in range(20)} | {
    ("chain20.example.test", "A"): ["192.0.2.6"]}


async def resolve(host, zone=ZONE, **options):
    async with dns_server(zone, **options) as server:
        return [str(address) for address in await Resolver([server.address]).resolve(host)]


async def failure(host):
    with pytest.raises(Fault) as caught:
        await resolve(host)
    assert caught.value.kind is FaultKind.CONNECT_FAILED
    assert caught.value.disposition is Disposition.RETRY
    assert host not in caught.value.reason
    return caught.value


@pytest.mark.parametrize(("host", "addresses"), [
    ("both.example.test", ["2001:db8::1", "192.0.2.1", "192.0.2.2"]),
    ("four.example.test", ["192.0.2.3"]),
    ("brokensix.example.test", ["192.0.2.4"]),
    ("alias.example.test", ["192.0.2.3"]),
    ("192.0.2.99", ["192.0.2.99"]),
    ("2001:db8::99", ["2001:db8::99"]),
])
async def test_all_addresses_of_both_families(host, addresses):
    async with dns_server(ZONE) as server:
        resolver = Resolver([server.address])
        found = [str(address) for address in await resolver.resolve(host)]
        assert [found[0], *sorted(found[1:])] == addresses
        asked = {kind for name, kind in server.asked}
        assert asked == (set() if addresses == [host] else {"A", "AAAA"})
        assert {name for name, _ in server.asked} <= {host}  # no search list


@pytest.mark.parametrize("host", [
    "none.example.test", "unknown.example.test", "endless.example.test", "chain0.example.test", "many.example.test"])
async def test_no_usable_answer_is_a_fault(host):
    await failure(host)


async def test_as_many_addresses_as_the_bound():
    assert len(await resolve("most.example.test")) == MOST_ADDRESSES


async def test_a_cut_answer_is_asked_for_over_tcp():
    async with dns_server(ZONE, truncated=frozenset({"cut.example.test"})) as server:
        assert await Resolver([server.address]).resolve("cut.example.test") == (ip_address("192.0.2.5"),)
        assert server.over_tcp >= 1


async def test_a_dead_server_is_passed_over_for_the_next():
    async with dns_server(ZONE) as server:
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as deaf:
            await deaf.bind(("127.0.0.1", 0))
            resolver = Resolver([f"127.0.0.1:{deaf.getsockname()[1]}", server.address])
            assert await resolver.resolve("four.example.test") == (ip_address("192.0.2.3"),)


async def test_a_silent_name_server_ends_in_a_fault(monkeypatch):
    monkeypatch.setattr(resolver_module, "QUERY", 0.2)
    assert "resolved" in (await failure("deaf.example.test")).reason


async def test_the_bound_holds_whatever_the_look_up_does(autojump_clock):
    async def never(host):
        await trio.sleep_forever()

    resolver = Resolver(lookup=never)
    start = trio.current_time()
    with pytest.raises(Fault) as caught:
        await resolver.resolve("a.example.test")
    assert trio.current_time() - start == RESOLVE
    assert caught.value.kind is FaultKind.CONNECT_FAILED
    assert (resolver.statistics().asked, resolver.statistics().failed, resolver.statistics().waiting) == (1, 1, 0)


async def test_repeated_addresses_count_once():
    async def twice(host):
        return [ip_address("192.0.2.1")] * 100

    assert await Resolver(lookup=twice).resolve("a.example.test") == (ip_address("192.0.2.1"),)


async def test_the_system_knows_localhost():
    addresses = await Resolver().resolve("localhost")
    assert ip_address("127.0.0.1") in addresses


async def test_the_system_does_not_know_invalid_names():
    with pytest.raises(LookupFailed):
        await SystemLookup()("name.invalid")  # RFC 6761 section 6.4


async def test_a_stuck_system_look_up_is_left_behind(monkeypatch):
    started, release = threading.Event(), threading.Event()

    def stuck(*args, **kwargs):
        started.set()
        release.wait(30)
        return []

    monkeypatch.setattr(resolver_module.socket, "getaddrinfo", stuck)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Resolver().resolve, "a.example.test")
            assert await trio.to_thread.run_sync(started.wait, 20)
            nursery.cancel_scope.cancel()
        assert nursery.cancel_scope.cancelled_caught
        assert not release.is_set()
    finally:
        release.set()


@pytest.mark.parametrize("text", [
    "example.com", "127.1", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:dns", "", "192.0.2.1:"])
def test_a_name_server_is_an_address(text):
    with pytest.raises(ValueError, match="name server"):
        Resolver([text])


def test_forms_of_name_servers():
    for text in ("192.0.2.1", "192.0.2.1:5353", "2001:db8::1", "[2001:db8::1]:5353"):
        Resolver([text])
