"""Names to addresses, with a bound on time and on size.

Given name servers, dnspython asks them over Trio, A and AAAA at once; the operator chose them, so they are exempt from
the address guard.  Given none, the system's resolver is asked in a thread, so that /etc/hosts and the local set-up
count.  Either way the whole answer goes to the guard; a name with more addresses than any mail provider has is refused
rather than cut, for what was cut would not be judged.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Final, Protocol

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.rdatatype
import dns.resolver
import structlog
import trio

from daemon.errors import Fault, FaultKind

from .endpoint import ip_literal
from .guard import Address

RESOLVE: Final = 10.0
"""Seconds for one name: two rounds of the 5 s that resolvers customarily wait for a server."""

QUERY: Final = 5.0
"""Seconds for one record type, retries included: a lost AAAA answer must not cost the A answer its time."""

MOST_ADDRESSES: Final = 32
"""Addresses of one name, both families together; big providers publish up to 16."""

MOST_THREADS: Final = 16
"""Look-ups in threads at once; a cancelled one keeps its thread until the system gives up, and counts until then."""

log = structlog.get_logger(__name__)


class Lookup(Protocol):
    """Asks somebody for a name's addresses."""

    async def __call__(self, host: str) -> list[Address]:
        """All addresses of *host*.  Raises LookupFailed."""
        ...


class LookupFailed(Exception):
    """The name has no address, or nobody could be asked."""


def not_found() -> Fault:
    """The fault of a name that leads nowhere; also of one that leads where we may not go (see `dialer`)."""
    return Fault(FaultKind.CONNECT_FAILED, "The host name could not be resolved to an address we may connect to.")


@dataclass(frozen=True, slots=True)
class ResolverStatistics:
    """What a resolver was asked, since it was made."""

    asked: int
    failed: int
    waiting: int
    """Look-ups under way."""


class Resolver:
    """Asks the given name servers ("address" or "address:port", IPv6 with a port in brackets), or the system."""

    def __init__(self, name_servers: Sequence[str] = (), *, lookup: Lookup | None = None) -> None:
        """*lookup* replaces both ways.  Raises ValueError for a name server that is no address."""
        self._lookup: Lookup = lookup or (DnsLookup(name_servers) if name_servers else SystemLookup())
        self._asked = self._failed = self._waiting = 0

    async def resolve(self, host: str) -> tuple[Address, ...]:
        """All addresses of a canonical host, at least one; an IP literal is its own address.

        Raises Fault(CONNECT_FAILED) when there is none, too many, or no answer within `RESOLVE` seconds.
        """
        if (literal := ip_literal(host)) is not None:
            await trio.lowlevel.checkpoint()
            return (literal,)
        self._asked += 1
        self._waiting += 1
        try:
            with trio.fail_after(RESOLVE):
                addresses = tuple(dict.fromkeys(await self._lookup(host)))
        except trio.TooSlowError:
            self._failed += 1
            raise Fault(FaultKind.CONNECT_FAILED, "The name servers did not answer in time.") from None
        except LookupFailed as exc:
            self._failed += 1
            log.debug("network.lookup_failed", host=host, error=str(exc))
            raise not_found() from exc
        finally:
            self._waiting -= 1
        if not 1 <= len(addresses) <= MOST_ADDRESSES:
            self._failed += 1
            log.debug("network.lookup_refused", host=host, addresses=len(addresses))
            raise not_found()
        return addresses

    def statistics(self) -> ResolverStatistics:
        """What it was asked so far."""
        return ResolverStatistics(self._asked, self._failed, self._waiting)


class SystemLookup:
    """`getaddrinfo` in a thread; it cannot be cancelled, so a cancelled look-up is left behind."""

    def __init__(self) -> None:
        self._threads = trio.CapacityLimiter(MOST_THREADS)

    async def __call__(self, host: str) -> list[Address]:
        """See Lookup."""
        ask = partial(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
        try:
            found = await trio.to_thread.run_sync(ask, abandon_on_cancel=True, limiter=self._threads)
        except (OSError, UnicodeError) as exc:
            raise LookupFailed(f"getaddrinfo: {exc}") from exc
        # An IPv6 zone ("fe80::1%eth0") is no part of the address that the guard judges.
        return [ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found]


class DnsLookup:
    """A and AAAA from the given name servers, over UDP and, where an answer is cut, TCP.

    dnspython follows at most 16 aliases within one answer and asks for the name as it is, with no search list.
    """

    def __init__(self, name_servers: Sequence[str]) -> None:
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        self._resolver.nameservers = [_name_server(text) for text in name_servers]
        self._resolver.timeout = 2.0  # seconds for one server, before the next is asked
        self._resolver.lifetime = QUERY

    async def __call__(self, host: str) -> list[Address]:
        """See Lookup.  One family that fails does not fail the other: we connect only where we have judged."""
        answers: list[Address] = []
        errors: list[str] = []

        async def ask(kind: dns.rdatatype.RdataType) -> None:
            try:
                answer = await self._resolver.resolve(f"{host}.", kind, search=False, raise_on_no_answer=False)
            except dns.exception.DNSException as exc:
                errors.append(f"{kind.name}: {type(exc).__name__}")
            except OSError as exc:
                errors.append(f"{kind.name}: {exc.strerror}")
            else:
                answers.extend(ip_address(str(record.address)) for record in answer.rrset or ())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, dns.rdatatype.AAAA)
            nursery.start_soon(ask, dns.rdatatype.A)
        if not answers:
            raise LookupFailed(", ".join(errors) or "no address")
        return sorted(answers, key=lambda address: -address.version)


def _name_server(text: str) -> dns.nameserver.Nameserver:
    """"192.0.2.1", "192.0.2.1:5353", "2001:db8::1" or "[2001:db8::1]:5353"."""
    if ip_literal(text) is not None:
        return dns.nameserver.Do53Nameserver(text)
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if ip_literal(host) is None or not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"a name server must be an address, or address:port: {text!r:.100}")
    return dns.nameserver.Do53Nameserver(host, int(port))
