"""Servers that do what no real one does, in a thread beside blocking tests; and names that no real DNS has.

    with HostileServers(authority, directory) as servers:
        port = servers.play(Say(b"* PREAUTH hello\\r\\n"))               # a script of `fix_scripted_imap`, for SMTP too
        port = servers.play(..., tls="expired")                          # TLS at once, with this certificate
        port = servers.play(..., addresses=("127.0.0.2", "127.0.0.3"))   # one port on several addresses
        servers.connections(port) -> {"127.0.0.2": 1, "127.0.0.3": 0}
    with Names({("mail.example.test", "A"): ["192.0.2.1"]}) as names:    # for `[network] nameservers`
        names.address, names.asked
        names.then["mail.example.test", "A"] = ["10.0.0.1"]              # what it answers after the first time
"""

import os
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Self

import trio

from ops.testservers.tls import Authority
from tests.daemon.network.dns_server import DnsServer, Zone
from tests.daemon.network.test_tls import legacy, self_signed
from tests.fix_scripted_imap import Connection, Do, ScriptedImap, Step

LEGACY = ("TLSv1", "TLSv1_1")
"""Versions that RFC 8996 ended; a server of nothing else."""


def server_context(authority: Authority, kind: str, directory: Path) -> ssl.SSLContext:
    """A server's TLS context that is wrong in one way, or "good"."""
    if kind in LEGACY:
        return legacy(authority.issue().server_context(directory), ssl.TLSVersion[kind])
    certificate = {
        "good": authority.issue, "expired": authority.expired, "wrong name": authority.wrong_name,
        "untrusted": Authority.untrusted, "self-signed": self_signed,
    }[kind]  # fmt: skip
    return certificate().server_context(directory)


async def refuse_handshake(context: ssl.SSLContext, connection: Connection) -> None:
    """Fail at the handshake on the socket itself: trio.SSLStream would keep its alert back."""
    with socket.socket(fileno=os.dup(connection.socket.fileno())) as own:
        own.settimeout(10)
        with suppress(OSError):
            await trio.to_thread.run_sync(partial(context.wrap_socket, own, server_side=True))


class HostileServers:
    """A thread that plays scripts to whoever connects."""

    def __init__(self, authority: Authority, directory: Path) -> None:
        self._authority = authority
        self._directory = directory
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._servers: dict[tuple[str, int], ScriptedImap] = {}
        self._running = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._thread = threading.Thread(target=trio.run, args=(self._run,), name="hostile servers")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._running.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._nursery is not None
        self._in_thread(self._nursery.cancel_scope.cancel)
        self._thread.join()

    def play(self, *steps: Step, tls: str | None = None, addresses: Sequence[str] = ("127.0.0.1",)) -> int:
        """Play the steps to each connection at these addresses; the port, the same at all of them."""
        context = self._context(tls or "good")
        if tls in LEGACY:
            tls, steps = None, (Do(partial(refuse_handshake, context)),)
        port = 0
        for address in addresses:
            listening = socket.create_server(
                (address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET, backlog=64
            )  # fmt: skip
            port = listening.getsockname()[1]
            server = ScriptedImap(
                port, [steps], self._authority, self._directory, tls=tls is not None, _contexts={None: context}
            )  # fmt: skip
            self._servers[address, port] = server
            self._in_thread(lambda server=server, listening=listening: self._serve(server, listening))
        return port

    def _context(self, kind: str) -> ssl.SSLContext:
        if kind not in self._contexts:
            directory = self._directory / f"hostile-{len(self._contexts)}"
            directory.mkdir()
            self._contexts[kind] = server_context(self._authority, kind, directory)
        return self._contexts[kind]

    def connections(self, port: int) -> dict[str, int]:
        """How many came to each address of a port so far."""
        return {address: server.connections for (address, own), server in self._servers.items() if own == port}

    def lines(self, port: int) -> list[bytes]:
        """What clients said at a port, TLS taken off."""
        return [line for (_, own), server in self._servers.items() if own == port for line in server.lines]

    def failures(self) -> list[str]:
        """What clients said that was not in the script."""
        return [failure for server in self._servers.values() for failure in server.failures]

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as self._nursery:
            self._running.set()
            await trio.sleep_forever()

    def _in_thread(self, function: Callable[[], object]) -> None:
        trio.from_thread.run_sync(function, trio_token=self._token)

    def _serve(self, server: ScriptedImap, listening: socket.socket) -> None:
        assert self._nursery is not None
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
        self._nursery.start_soon(trio.serve_listeners, server.serve, [listener])


class Names:
    """A name server on UDP (see `dns_server` for its zone)."""

    def __init__(self, zone: Zone) -> None:
        self.then: Zone = {}
        self._dns = DnsServer(zone)
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._dns.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, name="name server")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as caller:
            caller.sendto(b"", ("127.0.0.1", self._dns.port))
        self._thread.join()
        self._socket.close()

    @property
    def address(self) -> str:
        """Where to ask, as the setting has it."""
        return self._dns.address

    @property
    def asked(self) -> list[tuple[str, str]]:
        """All questions so far: name and type."""
        return self._dns.asked

    def _serve(self) -> None:
        while True:
            wire, peer = self._socket.recvfrom(4096)
            if not wire:
                return
            if (reply := self._dns.answer(wire, tcp=False)) is not None:
                self._socket.sendto(reply, peer)
            question = self._dns.asked[-1]
            if question in self.then:
                self._dns.zone[question] = self.then.pop(question)
