"""Bad mail servers, hundreds at once: dead, deaf, flooding, lying, throttling; in a process of their own.

Each has an address of its own in 127/8, so that to a client they are hundreds of hosts.  What each does is in
`hostile_talk` (deaf), `hostile_floods`, `hostile_lies` and `hostile_gate`; `hostile_child` is the program.

    with Hostile(["exists", "exists", "uidvalidity", "dead", "dropped"], authority=authority) as hostile:
        for behaviour, host, port in hostile.hosts: ...
"""

import json
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from .process import Owner, Server, ServerFailed, ServerProcess, free_ports, short_directory
from .tls import Authority

DEAD: Final = ("dead", "dropped")
"""Nobody listens; or packets vanish."""

_NICE: Final = 10
"""Their niceness: real ones run on machines of their own, and must not take ours from what is measured."""


class Hostile(Server):
    """The process and its hosts; a context manager.

    Args:
        behaviours: one for each host: a name of `hostile_child.BEHAVIOURS`, `deaf_tls`, `dead` or `dropped`.
        authority: signs the certificate that names all of them.
        gate: for a provider that throttles, at `gate_port`: `backend` (a plain port) and `rate` (logins a second).
    """

    def __init__(
        self, behaviours: Sequence[str], *, authority: Authority, gate: dict[str, Any] | None = None
    ) -> None:
        self._owner = Owner.ourselves()
        self.base = short_directory("ho-", self._owner)
        self.port, self.drop_port, self._dead_port, self.gate_port, self._control_port = free_ports(5)
        addresses = [f"127.40.{number // 250}.{number % 250 + 1}" for number in range(len(behaviours))]
        ports = {"dead": self._dead_port, "dropped": self.drop_port}
        self.hosts = [(what, at, ports.get(what, self.port)) for what, at in zip(behaviours, addresses, strict=True)]
        chain, key = authority.issue("localhost", *addresses).write(self.base)
        self._config = self.base / "config.json"
        self._config.write_text(json.dumps({
            "chain": str(chain), "key": str(key), "port": self.port, "drop_port": self.drop_port, "nice": _NICE,
            "control_port": self._control_port, "hosts": dict(zip(addresses, behaviours, strict=True)),
            "gate": gate, "gate_port": self.gate_port,
        }))  # fmt: skip
        super().__init__()

    @property
    def ports(self) -> list[int]:
        """All that a client must be allowed to dial."""
        return [self.port, self.drop_port, self._dead_port, self.gate_port]

    def start(self) -> None:
        """Start it; blocks until it serves.  Raises `ServerFailed`."""
        root = Path(__file__).parents[2]
        self._process = ServerProcess(
            ["/usr/bin/env", f"PYTHONPATH={root}", sys.executable, "-P", "-m", "ops.testservers.hostile_child",
             str(self._config)],
            log=self.base / "hostile.log", owner=self._owner, directory=self.base, name="the hostile servers",
        )  # fmt: skip
        self._process.wait_until(self._serves)

    def seen(self) -> dict[str, Any]:
        """Connections by behaviour, and what the gate saw; blocks.  Raises OSError."""
        with socket.create_connection(("127.0.0.1", self._control_port), timeout=10) as connection:
            data = b"".join(iter(lambda: connection.recv(65536), b""))
        said: dict[str, Any] = json.loads(data)
        return said

    def last_words(self) -> str:
        """The end of its log.  Raises `ServerFailed` when it was never started."""
        if self._process is None:
            raise ServerFailed("the hostile servers do not run")
        return self._process.last_words()

    def _serves(self) -> bool:
        try:
            return bool(self.seen())
        except (OSError, ValueError):
            return False
