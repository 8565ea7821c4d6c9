"""Who the caller is when trusted proxies stand before us: pure.

`X-Forwarded-For` is read from its right end, where the nearest proxy wrote, and only for as long as the address that
vouches for an entry is a trusted proxy.  What lies further left was written by a stranger and is never looked at.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

from daemon.settings import IPNetwork

MAX_HOPS: Final = 16
"""Entries looked at; real chains have one to three."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def client_address(peer: str, forwarded_for: Iterable[str], trusted: Sequence[IPNetwork]) -> str:
    """The address of the client: the connection's peer, or what trusted proxies say it is."""
    address = _parse(peer)
    if address is None or not _trusts(trusted, address):
        return peer
    entries = [entry.strip() for header in forwarded_for for entry in header.split(",")]
    for entry in reversed(entries[-MAX_HOPS:]):
        named = _parse(entry)
        if named is None:
            break
        address = named
        if not _trusts(trusted, address):
            break
    return str(address)


def _parse(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped  # a dual-stack socket shows IPv4 peers this way
        return ipaddress.IPv6Address(int(address))  # without a zone (RFC 4007), which may be any text
    return address


def _trusts(trusted: Sequence[IPNetwork], address: _Address) -> bool:
    return any(network.version == address.version and address in network for network in trusted)
