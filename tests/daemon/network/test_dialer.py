import socket
from ipaddress import ip_address, ip_network

import pytest
import trio

from daemon.errors import Disposition, Fault, FaultKind
from daemon.network import Dialer, NetworkPolicy, Resolver, Security
from daemon.network import dialer as dialer_module
from daemon.network.resolver import LookupFailed

from .dns_server import dns_server
from .loopback import LOOPBACK, dialer_to, serving
from .test_stream import silence

NOT_FOUND = "The host name could not be resolved to an address we may connect to."


async def fault_of(dialer, host, port, security=Security.TLS, **options) -> Fault:
    with pytest.raises(Fault) as caught:
        await dialer.dial(host, port, security, **options)
    return caught.value


def dialer_knowing(*addresses, policy=None):
    async def lookup(host):
        return [ip_address(address) for address in addresses]

    return Dialer(policy or NetworkPolicy(), Resolver(lookup=lookup))


@pytest.fixture
def no_connections(monkeypatch):
    """Fails a test in which anything is connected to."""
    async def connect_first(addresses, port):
        pytest.fail(f"connected to {addresses}")

    monkeypatch.setattr(dialer_module, "connect_first", connect_first)


@pytest.mark.parametrize("addresses", [
    ["127.0.0.1"], ["10.0.0.1"], ["169.254.169.254"], ["::1"], ["::ffff:10.0.0.1"], ["64:ff9b::a9fe:a9fe"],
    ["8.8.8.8", "10.0.0.1"], ["2606:4700::1111", "8.8.8.8", "::1"]])
async def test_one_private_address_refuses_the_dial(addresses, no_connections):
    dialer = dialer_knowing(*addresses)
    fault = await fault_of(dialer, "mail.example.test", 993)
    assert (fault.kind, fault.reason, fault.disposition) == (FaultKind.CONNECT_FAILED, NOT_FOUND, Disposition.RETRY)
    assert dialer.statistics().refused == 1


@pytest.mark.parametrize("after", [0.0, 0.4, 1.9, 2.5])
async def test_an_internal_name_ends_as_one_that_does_not_exist(autojump_clock, no_connections, after):
    """Same fault, same moment: whoever asks name after name learns none that only our name servers know."""
    private, public = ip_address("10.0.0.1"), ip_network("8.8.8.0/24")
    zone = {"internal.example.test": [private], "crowd.example.test": [*public]}

    async def lookup(host):
        if host in zone:
            return zone[host]
        await trio.sleep(after)
        raise LookupFailed("NXDOMAIN")

    told = set()
    for host in (*zone, "nothing.example.test"):
        began = trio.current_time()
        fault = await fault_of(Dialer(NetworkPolicy(), Resolver(lookup=lookup)), host, 993, equal_times=True)
        took = trio.current_time() - began
        assert took % 2.0 == 0.0
        told.add((fault.kind, fault.reason, fault.disposition, fault.retry_after, took if after < 2.0 else None))
    assert len(told) == 1


async def test_an_account_whose_name_is_gone_waits_for_no_step(autojump_clock):
    """Only whoever asks and waits is told late; the attempts of many accounts would hold up the others."""
    async def lookup(host):
        await trio.sleep(0.1)
        raise LookupFailed("NXDOMAIN")

    began = trio.current_time()
    fault = await fault_of(Dialer(NetworkPolicy(), Resolver(lookup=lookup)), "gone.example.test", 993)
    assert fault.reason == NOT_FOUND
    assert trio.current_time() - began < 0.2


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "mail.localhost", "ｌｏｃａｌｈｏｓｔ", "10.0.0.1", "::1"])
async def test_what_shows_in_the_words_is_said_without_asking_anybody(no_connections, host):
    async def lookup(host):
        pytest.fail(f"asked for {host}")

    fault = await fault_of(Dialer(NetworkPolicy(), Resolver(lookup=lookup)), host, 993)
    assert (fault.kind, fault.disposition) == (FaultKind.HOST_NOT_ALLOWED, Disposition.PARK)


@pytest.mark.parametrize("network", ["127.0.0.0/8", "::1/128"])
async def test_localhost_is_asked_for_where_the_operator_opens_it(network):
    async def lookup(host):
        return [ip_address("127.0.0.1" if "." in network else "::1")]

    policy = NetworkPolicy(allow=(ip_network(network),))
    assert len(await Dialer(policy, Resolver(lookup=lookup)).allowed_addresses("localhost", 993)) == 1


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "2130706433", "user@mail.example.test", "a\r\nb", "", "x."])
async def test_a_host_in_another_form_is_refused_before_it_is_resolved(host, no_connections):
    fault = await fault_of(dialer_knowing("8.8.8.8"), host, 993)
    assert fault.kind is FaultKind.HOST_NOT_ALLOWED


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "10.1.2.3", "169.254.169.254", "localhost"])
async def test_literals_and_localhost_are_judged_by_the_real_resolver(host, no_connections):
    assert (await fault_of(Dialer(NetworkPolicy(), Resolver()), host, 993)).kind is FaultKind.HOST_NOT_ALLOWED


@pytest.mark.parametrize("port", [22, 80, 5432, 6379, 0, -1, 70000])
async def test_only_mail_ports(port, no_connections):
    fault = await fault_of(dialer_knowing("8.8.8.8"), "mail.example.test", port)
    assert fault.kind is FaultKind.HOST_NOT_ALLOWED
    assert "port" in fault.reason


async def test_the_address_connected_to_is_the_one_judged():
    """A name server that answers otherwise the second time is not asked a second time."""
    answers = iter([["127.0.0.3"], ["127.0.0.2"]])
    peers = []

    async def lookup(host):
        return [ip_address(text) for text in next(answers)]

    async def note(stream):
        peers.append(stream.socket.getsockname()[0])
        await trio.sleep_forever()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.3")
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, note, listeners)
        dialer = Dialer(NetworkPolicy(allow=LOOPBACK, ports=frozenset({port})), Resolver(lookup=lookup))
        stream = await dialer.dial("mail.example.test", port, Security.STARTTLS)
        await trio.testing.wait_all_tasks_blocked(0.02)
        await stream.aclose()
        nursery.cancel_scope.cancel()
    assert peers == ["127.0.0.3"]
    assert next(answers) == ["127.0.0.2"]


async def test_rebinding_by_a_real_name_server_is_refused():
    zone = {("rebind.example.test", "A"): ["127.0.0.1", "8.8.8.8"]}
    async with dns_server(zone) as server:
        fault = await fault_of(Dialer(NetworkPolicy(), Resolver([server.address])), "rebind.example.test", 993)
    assert (fault.kind, fault.reason) == (FaultKind.CONNECT_FAILED, NOT_FOUND)


async def test_a_name_found_by_a_real_name_server_is_dialled():
    async with serving(silence) as port, dns_server({("mail.example.test", "A"): ["127.0.0.1"]}) as server:
        policy = NetworkPolicy(allow=LOOPBACK, ports=frozenset({port}))
        dialer = Dialer(policy, Resolver([server.address]))
        stream = await dialer.dial("MAIL.example.test", port, Security.STARTTLS)
        await stream.aclose()
        statistics = dialer.statistics()
        assert (statistics.dialled, statistics.connected) == (1, 1)


async def test_refused_and_unreachable_read_the_same(monkeypatch):
    with socket.socket() as probe, socket.socket() as deaf, socket.socket() as filler:
        probe.bind(("127.0.0.1", 0))
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        filler.connect(deaf.getsockname())
        ports = probe.getsockname()[1], deaf.getsockname()[1]
        monkeypatch.setattr(dialer_module, "CONNECT", 0.3)
        faults = [await fault_of(dialer_to(*ports), "127.0.0.1", port) for port in ports]
    assert {(fault.kind, fault.reason, fault.disposition) for fault in faults} == {
        (FaultKind.CONNECT_FAILED, "No server answers at that host and port.", Disposition.RETRY)}


async def test_a_name_without_addresses_is_a_fault_to_retry():
    fault = await fault_of(dialer_to(993), "name.invalid", 993)
    assert (fault.kind, fault.disposition) == (FaultKind.CONNECT_FAILED, Disposition.RETRY)


async def test_the_callers_deadline_ends_a_dial_and_nothing_stays_open():
    with socket.socket() as deaf, socket.socket() as filler:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        filler.connect(deaf.getsockname())
        port = deaf.getsockname()[1]
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.2):
            await dialer_to(port).dial("127.0.0.1", port, Security.TLS)
