"""May we connect there?  Pure: addresses and the operator's policy in, a refusal or nothing out.

Users name the hosts, so a host may be ours: the loopback interface, the private network, a cloud's metadata service.
An answer is judged whole, for whoever puts one private address among public ones is no mail provider.  What is judged
is every address that a packet could end at: IPv6 that carries IPv4 is unwrapped first.

The lists are written out from the IANA special-purpose registries (RFC 6890) rather than asked of `ipaddress`:
Python 3.11 calls `::ffff:100.64.0.1`, `64:ff9b::a9fe:a9fe`, `::7f00:1`, `2002::/16`, `fec0::/10`, `224.0.0.0/4` and
`192.0.0.8` global, and other versions differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

DEFAULT_PORTS: Final = frozenset({25, 143, 465, 587, 993, 2525})
"""IMAP, IMAPS, SMTP, submissions, submission (RFC 8314 section 7) and the customary 2525."""


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


_NEVER: Final = _networks(
    "0.0.0.0/8",            # "this host": connecting to 0.0.0.0 reaches our own loopback interface
    "224.0.0.0/4",          # multicast
    "255.255.255.255/32",   # broadcast
    "100.100.100.200/32",   # Alibaba's metadata service, inside the shared space of RFC 6598
    "168.63.129.16/32",     # Azure's host services, a public address that is not public
    "169.254.169.254/32",   # everybody's metadata service
    "::/128", "ff00::/8",
    "fd00:ec2::254/128",    # Amazon's metadata service
)
"""No mail server lives there: the widest network an operator allows does not open them."""

_DENIED: Final = _networks(
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",            # RFC 1918
    "100.64.0.0/10",                                            # RFC 6598, carriers' NAT
    "127.0.0.0/8", "169.254.0.0/16",                            # loopback, link-local
    "192.0.0.0/24",                                             # RFC 6890, protocol assignments
    "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24",        # RFC 5737, documentation
    "192.31.196.0/24", "192.52.193.0/24", "192.175.48.0/24",    # AS112, AMT
    "192.88.99.0/24",                                           # RFC 7526, 6to4 relays
    "198.18.0.0/15",                                            # RFC 2544, benchmarks
    "240.0.0.0/4",                                              # RFC 1112, reserved
    "2001::/23",                                                # RFC 2928; Teredo, ORCHID and others within
    "2001:db8::/32", "3fff::/20",                               # RFC 3849, RFC 9637, documentation
    "2620:4f:8000::/48",                                        # AS112
)  # fmt: skip
_GLOBAL_V6: Final = IPv6Network("2000::/3")
"""All that IANA has assigned as global unicast.  ::1, ::/96, 100::/64, 64:ff9b:1::/48, 5f00::/16, fc00::/7, fe80::/10
and fec0::/10 are outside it."""

_NAT64: Final = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64: Final = IPv6Network("64:ff9b:1::/48")
_COMPATIBLE: Final = IPv6Network("::/96")
_LOWEST_32: Final = 0xFFFFFFFF
_LOOPBACK: Final = (IPv4Address("127.0.0.1"), IPv6Address("::1"))


class Ground(StrEnum):
    """Why the guard refused."""

    ADDRESS = "address"
    PORT = "port"


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was refused; for the operator's log.  The owner is told only that the host is not allowed."""

    ground: Ground
    subject: str
    """The address or the port."""


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """What the operator lets users' hosts be."""

    allow: tuple[Network, ...] = ()
    """Networks that are reachable although they are not public."""
    ports: frozenset[int] = DEFAULT_PORTS
    """All ports that may be dialled."""


def judge(addresses: Iterable[Address], policy: NetworkPolicy) -> Refusal | None:
    """Judge a whole answer: the first address that is not allowed refuses it all."""
    for address in addresses:
        if not all(_allowed(target, policy) for target in targets(address)):
            return Refusal(Ground.ADDRESS, str(address))
    return None


def judge_name(name: str, policy: NetworkPolicy) -> Refusal | None:
    """Judge a name by itself: localhost and all below it are the loopback interface (RFC 6761 section 6.3).

    It is refused without asking, so that the refusal, which says that there is such a host, is no answer of the DNS.
    """
    if name != "localhost" and not name.endswith(".localhost"):
        return None
    refusals = [judge((address,), policy) for address in _LOOPBACK]
    return refusals[0] if all(refusals) else None


def judge_port(port: int, policy: NetworkPolicy) -> Refusal | None:
    """Judge a port against the policy's list."""
    return None if port in policy.ports else Refusal(Ground.PORT, str(port))


def targets(address: Address) -> Iterator[Address]:
    """Every address that a packet to *address* could end at.

    An IPv4-mapped address is its IPv4 address, for so the kernel sends it.  The others may reach a translator or relay
    (RFC 6052 section 2.2, RFC 8215, RFC 3056, RFC 4380) and are judged as themselves too.
    """
    if isinstance(address, IPv4Address):
        yield address
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
        return
    yield address
    number = int(address)
    # :: and ::1 lie among the IPv4-compatible addresses and are none (RFC 4291 section 2.5.5.1).
    compatible = address in _COMPATIBLE and number > 1
    if compatible or address in _NAT64 or address in _LOCAL_NAT64:
        yield IPv4Address(number & _LOWEST_32)
    if address in _LOCAL_NAT64:
        # With a prefix of 48 bits the IPv4 address lies around bits 64 to 71, which are zero.
        yield IPv4Address((number >> 64 & 0xFFFF) << 16 | number >> 40 & 0xFFFF)
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo


def _allowed(address: Address, policy: NetworkPolicy) -> bool:
    if _within(address, _NEVER):
        return False
    if _within(address, policy.allow):
        return True
    if isinstance(address, IPv6Address) and address not in _GLOBAL_V6 and address not in _NAT64:
        return False
    return not _within(address, _DENIED)


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
