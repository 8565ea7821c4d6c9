"""An SMTP server that takes mail by AUTH over STARTTLS or TLS and shows what it took.

It is aiosmtpd in a process of its own (`smtp_child`, whose docstring says which addresses make it answer what).
Dovecot's submission service, the real server beside it, relays to its third port.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from .process import Owner, Server, ServerProcess, answers, on_free_ports, short_directory
from .tls import Authority, Certificate


@dataclass(frozen=True, slots=True)
class SmtpOptions:
    """How this server differs from the usual one. `size_limit` in bytes (what EHLO announces as SIZE)."""

    password: str = "pw"  # noqa: S105  # the one password of a server that ends with the test
    starttls: bool = True
    hide_auth: bool = False
    mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN")
    smtputf8: bool = True
    size_limit: int = 33_554_432


@dataclass(frozen=True, slots=True)
class ReceivedMail:
    """A message the server took. `connection` numbers the connections, so that reuse shows."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    user: str | None
    connection: int
    tls: bool


class SmtpServer(Server):
    """One server. A context manager, or `start()` and `close()`; everybody has the same password."""

    host = "localhost"
    """What its certificate names; it listens on 127.0.0.1."""

    def __init__(
        self, options: SmtpOptions | None = None, *, authority: Authority | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        self.options = options or SmtpOptions()
        self.authority = authority or Authority()
        # As ourselves, not as nobody: this Python may lie where nobody else can read it.
        self._owner = Owner.ourselves()
        self.base = short_directory("sm-", self._owner)
        self.ca_pem = self.authority.write_ca(self.base / "ca.pem")
        self._mails = self.base / "mails"
        self._mails.mkdir()
        self._chain, self._key = (certificate or self.authority.issue()).write(self.base)
        self._ports: tuple[int, ...] = ()
        super().__init__()

    def start(self) -> None:
        """Start it, and return when all its ports answer. Started again, it has the same ports.

        Raises `ServerFailed` with the end of its log.
        """
        if self._process is None:
            self._ports = on_free_ports(3, self._ports, self._launch)

    @property
    def starttls_port(self) -> int:
        """AUTH after STARTTLS, as on 587."""
        return self._ports[0]

    @property
    def tls_port(self) -> int:
        """TLS from the first byte, as on 465."""
        return self._ports[1]

    @property
    def relay_port(self) -> int:
        """No TLS, no AUTH: for a relay in front of it."""
        return self._ports[2]

    @property
    def password(self) -> str:
        """Everybody's password."""
        return self.options.password

    def mails(self) -> list[ReceivedMail]:
        """What was taken so far, in order."""
        return [_read(facts) for facts in sorted(self._mails.glob("*.json"))]

    def mails_to(self, recipient: str) -> list[ReceivedMail]:
        """What was taken for one recipient, in order: tests that share the server tell their mail apart by it."""
        return [mail for mail in self.mails() if recipient in mail.recipients]

    def wait_for_mail_to(self, recipient: str, count: int = 1, patience: float = 10.0) -> list[ReceivedMail]:
        """Wait (blocking) until so many were taken for the recipient. Raises `TimeoutError`."""
        deadline = time.monotonic() + patience
        while len(mails := self.mails_to(recipient)) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(mails)} instead of {count} messages for {recipient} in {patience:g} s")
            time.sleep(0.02)
        return mails

    def log_text(self) -> str:
        """What the server printed so far."""
        return (self.base / "smtp.log").read_text(errors="replace")

    def _launch(self, ports: tuple[int, ...]) -> None:
        config = self.base / "config.json"
        config.touch(mode=0o600)
        config.write_text(json.dumps(asdict(self.options) | {
            "starttls_port": ports[0], "tls_port": ports[1], "relay_port": ports[2],
            "certificate": str(self._chain), "key": str(self._key), "directory": str(self._mails),
        }))
        process = ServerProcess(
            [sys.executable, "-P", "-W", "ignore", str(Path(__file__).with_name("smtp_child.py")), str(config)],
            log=self.base / "smtp.log", owner=self._owner, directory=self.base, name="the SMTP server")
        try:
            # The relay port is opened last.
            process.wait_until(lambda: answers(ports[2], b"220 "))
        except BaseException:
            process.stop()
            raise
        self._process = process


def _read(facts: Path) -> ReceivedMail:
    said = json.loads(facts.read_text())
    return ReceivedMail(
        sender=said["sender"], recipients=tuple(said["recipients"]), content=facts.with_suffix(".eml").read_bytes(),
        user=said["user"], connection=said["connection"], tls=said["tls"])
