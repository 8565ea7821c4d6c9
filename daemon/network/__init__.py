"""Every outbound connection to a mail server goes through here: resolve, guard, dial.

`endpoint` says where a server is, `guard` (pure) whether we may go there, `resolver` asks the DNS, `attempts` connects,
`stream`, `keepalive` and `tls` are the connection, and `dialer` puts them together.  `opening` bounds the wait for a
greeting and a login, `lookout` waits on thousands of quiet connections at once.  No domain is known here.
"""

from .dialer import Dialer, DialerStatistics
from .endpoint import Endpoint, InvalidHost, Security, canonical_host, default_security
from .guard import DEFAULT_PORTS, NetworkPolicy, Refusal, judge, judge_name, judge_port
from .lookout import Lookout
from .resolver import Resolver, ResolverStatistics
from .stream import ByteStream, PlainSocket, TLSSocket, WatchedSocket
from .tls import client_context

__all__ = [
    "DEFAULT_PORTS",
    "ByteStream",
    "Dialer",
    "DialerStatistics",
    "Endpoint",
    "InvalidHost",
    "Lookout",
    "NetworkPolicy",
    "PlainSocket",
    "Refusal",
    "Resolver",
    "ResolverStatistics",
    "Security",
    "TLSSocket",
    "WatchedSocket",
    "canonical_host",
    "client_context",
    "default_security",
    "judge",
    "judge_name",
    "judge_port",
]
