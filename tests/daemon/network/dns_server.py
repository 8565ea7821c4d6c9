"""A name server on the loopback interface, UDP and TCP, that answers what a test writes down.

    async with dns_server({("mail.example.test", "A"): ["192.0.2.1"], ("slow.example.test", "A"): None}) as server:
        Resolver([server.address])

A list is the answer (records' text), "NXDOMAIN" and the like a response code, None no answer at all; what is not
written down has no records of that type.  `CNAME` entries are added to an answer in order.  Names in `truncated` are
answered over TCP only.
"""

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import trio

from .loopback import background

Zone = dict[tuple[str, str], list[str] | str | None]


@dataclass
class DnsServer:
    zone: Zone
    truncated: frozenset[str] = frozenset()
    port: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)
    over_tcp: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def answer(self, wire: bytes, *, tcp: bool) -> bytes | None:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        self.over_tcp += tcp
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        if name in self.truncated and not tcp:
            reply.flags |= dns.flags.TC
            return reply.to_wire()
        owner = name
        while isinstance(alias := self.zone.get((owner, "CNAME")), str):
            reply.answer.append(dns.rrset.from_text(f"{owner}.", 60, "IN", "CNAME", f"{alias}."))
            if len(reply.answer) > 64:
                break
            owner = alias
        records = self.zone.get((owner, kind), [])
        if records is None:
            return None
        if isinstance(records, str):
            reply.set_rcode(dns.rcode.from_text(records))
        elif records:
            reply.answer.append(dns.rrset.from_text(f"{owner}.", 60, "IN", kind, *records))
        return reply.to_wire(max_size=65535)


@asynccontextmanager
async def dns_server(zone: Zone, truncated: frozenset[str] = frozenset()) -> AsyncIterator[DnsServer]:
    server = DnsServer(zone, truncated)

    async def over_udp(sock):
        while True:
            wire, peer = await sock.recvfrom(4096)
            if (reply := server.answer(wire, tcp=False)) is not None:
                await sock.sendto(reply, peer)

    async def over_tcp(stream):
        async with stream:
            size = await stream.receive_some(2)
            wire = await stream.receive_some(struct.unpack("!H", size)[0])
            if (reply := server.answer(bytes(wire), tcp=True)) is not None:
                await stream.send_all(struct.pack("!H", len(reply)) + reply)

    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sock:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        server.port = listener.socket.getsockname()[1]
        await sock.bind(("127.0.0.1", server.port))
        async with background() as nursery:
            nursery.start_soon(over_udp, sock)
            nursery.start_soon(trio.serve_listeners, over_tcp, [listener])
            yield server
