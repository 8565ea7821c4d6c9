from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.network import NetworkPolicy, Refusal, judge, judge_port
from daemon.network.guard import Ground, targets

PUBLIC = NetworkPolicy()


def refused(text: str, policy: NetworkPolicy = PUBLIC) -> bool:
    return judge([ip_address(text)], policy) is not None


@pytest.mark.parametrize("text", [
    "8.8.8.8", "1.1.1.1", "9.255.255.255", "11.0.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255",
    "100.63.255.255", "100.128.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "192.0.1.1",
    "2606:4700::1111", "2a00:1450::1",
    "2001:4860:4860::8888", "2001:200::1", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8", "2002:808:808::1",
])
def test_public_addresses_pass(text):
    assert not refused(text)


@pytest.mark.parametrize("text", [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "100.100.100.200", "127.0.0.1",
    "127.255.255.254", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.0.170", "192.0.2.1",
    "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1",
    "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16",
    "::", "::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1",
    "100::1", "2001::1", "2001:10::1", "2001:20::1", "3fff::1", "5f00::1", "4000::1", "8000::1", "64:ff9b:1::1",
    "64:ff9b:2::1", "1::1",
    # IPv4 inside: mapped, compatible, NAT64, 6to4, Teredo
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:100.64.0.1", "::ffff:169.254.169.254", "::ffff:224.0.0.1",
    "::ffff:0:127.0.0.1", "::127.0.0.1", "::7f00:1", "::8.8.8.8", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::8.8.8.8",
    "2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:a00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001::80ff:fffe",
])
def test_what_is_ours_or_nobodys_is_refused(text):
    assert refused(text)


def test_one_bad_address_refuses_the_answer():
    good, bad = ip_address("8.8.8.8"), ip_address("10.0.0.1")
    for answer in ([good, bad], [bad, good], [good, good, bad]):
        assert judge(answer, PUBLIC) == Refusal(Ground.ADDRESS, "10.0.0.1")
    assert judge([good, good], PUBLIC) is None


def test_the_operator_opens_networks_and_no_more():
    policy = NetworkPolicy(allow=(ip_network("10.1.0.0/16"), ip_network("fd12::/16"), ip_network("127.0.0.0/8")))
    for text in ("10.1.0.1", "::ffff:10.1.2.3", "fd12::1", "64:ff9b::10.1.2.3", "127.0.0.1", "8.8.8.8"):
        assert not refused(text, policy), text
    # a relay's own address must be open as well as the one inside
    for text in ("10.2.0.1", "fd13::1", "::10.1.2.3", "64:ff9b:1::10.1.2.3", "::1", "192.168.0.1"):
        assert refused(text, policy), text


def test_no_network_is_wide_enough_for_metadata_and_multicast():
    policy = NetworkPolicy(allow=(ip_network("0.0.0.0/0"), ip_network("::/0")))
    for text in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "0.0.0.0", "::", "224.0.0.1",
                 "255.255.255.255", "ff02::1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::",
                 "64:ff9b:1::169.254.169.254", "64:ff9b:1:a9fe:a9:fe00::"):
        assert refused(text, policy), text
    for text in ("169.254.0.1", "10.0.0.1", "::1", "240.0.0.1", "::ffff:127.0.0.1"):
        assert not refused(text, policy), text


@given(st.ip_addresses(v=4))
def test_no_wrapping_makes_a_refused_address_pass(inner: IPv4Address):
    number = int(inner)
    wrapped = {
        "mapped": 0xFFFF << 32 | number, "compatible": number, "nat64": 0x64FF9B << 96 | number,
        "6to4": 0x2002 << 112 | number << 80, "local nat64": 0x64FF9B0001 << 80 | number,
        "teredo": 0x20010000 << 96 | number ^ 0xFFFFFFFF,
    }
    for name, value in wrapped.items():
        outer = IPv6Address(value)
        if name != "compatible" or number > 1:
            assert inner in set(targets(outer)), name
        if judge([inner], PUBLIC) is not None:
            assert judge([outer], PUBLIC) is not None, name


@given(st.ip_addresses())
def test_what_passes_the_standard_library_would_not_call_private(address):
    if judge([address], PUBLIC) is None:
        assert not any((address.is_loopback, address.is_link_local, address.is_multicast, address.is_unspecified))
        assert not any(target.is_private for target in targets(address) if target != address)


def test_ports():
    assert all(judge_port(port, PUBLIC) is None for port in (25, 143, 465, 587, 993, 2525))
    assert judge_port(22, PUBLIC) == Refusal(Ground.PORT, "22")
    only = NetworkPolicy(ports=frozenset({1993}))
    assert judge_port(1993, only) is None
    assert judge_port(993, only) is not None
