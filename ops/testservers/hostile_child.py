"""The program of `hostile`: every bad host at one port, told apart by the loopback address that was dialled.

    python -P -m ops.testservers.hostile_child config.json

Answers on its control port with what it has seen, as one JSON document.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import trio

from .hostile_floods import FLOODS
from .hostile_gate import Gate
from .hostile_lies import LIES
from .hostile_talk import DEAF, Gone, Honest, Talk

BEHAVIOURS: Final[dict[str, type[Honest]]] = {**DEAF, **FLOODS, **LIES}
BACKLOG: Final = 1024
_ANY: Final = "0.0.0.0"  # noqa: S104  # all of 127/8: whichever host is dialled


class Hosts:
    """All of them."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self._wanted = wanted
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(wanted["chain"], wanted["key"])
        self._memories: dict[str, dict[str, Any]] = {}
        self._connections: dict[str, int] = {}
        self._gate = Gate(self._context, **wanted["gate"]) if wanted["gate"] else None

    async def run(self) -> None:
        """Serve until killed."""
        async with trio.open_nursery() as nursery:
            everywhere = await _listening(_ANY, self._wanted["port"])
            nursery.start_soon(trio.serve_listeners, self._serve, [everywhere])
            if self._gate is not None:
                listener = await _listening("127.0.0.1", self._wanted["gate_port"])
                nursery.start_soon(trio.serve_listeners, self._gate.serve, [listener])
            with await _full(self._wanted["drop_port"]):
                control = await _listening("127.0.0.1", self._wanted["control_port"])
                await trio.serve_listeners(self._control, [control])

    async def _serve(self, stream: trio.SocketStream) -> None:
        address = stream.socket.getsockname()[0]
        behaviour = self._wanted["hosts"].get(address)
        self._connections[str(behaviour)] = self._connections.get(str(behaviour), 0) + 1
        try:
            if behaviour == "deaf_tls":
                await trio.sleep_forever()
            if behaviour is None:
                return
            tls = trio.SSLStream(stream, self._context, server_side=True, https_compatible=True)
            memory = self._memories.setdefault(address, {})
            with suppress(Gone, trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                await tls.do_handshake()
                await BEHAVIOURS[behaviour](Talk(tls), memory).run()
        finally:
            stream.socket.close()

    async def _control(self, stream: trio.SocketStream) -> None:
        said = {"connections": self._connections, "gate": self._gate.seen() if self._gate is not None else None}
        with suppress(trio.BrokenResourceError):
            await stream.send_all(json.dumps(said).encode())
        await stream.aclose()


async def _listening(host: str, port: int) -> trio.SocketListener:
    """A listener; the port may still be closing."""
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    await sock.bind((host, port))
    sock.listen(BACKLOG)
    return trio.SocketListener(sock)


async def _full(port: int) -> socket.socket:
    """A listener that accepts nobody and whose queue is full: the kernel drops what else comes, as a firewall does."""
    await trio.lowlevel.checkpoint()
    sock = socket.socket()
    sock.bind((_ANY, port))
    sock.listen(0)
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(("127.0.0.1", port))
        _FILLERS.append(filler)
    return sock


_FILLERS: Final[list[socket.socket]] = []


def main() -> None:
    """Run them."""
    wanted = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    os.nice(wanted["nice"])
    trio.run(Hosts(wanted).run)


if __name__ == "__main__":
    main()
