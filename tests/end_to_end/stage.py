"""All that a campaign by hand needs, without pytest: mail servers, a database server, daemons; all gone at the end."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon.vault import generate_key_file
from ops.testservers.dovecot import Dovecot
from ops.testservers.dovecot_conf import DovecotOptions
from ops.testservers.smtp import SmtpOptions, SmtpServer
from ops.testservers.tls import Authority
from tests.fix_daemon import PASSWORD, DaemonProcess, MailServers, loopback_settings
from tests.fix_postgres import Server


@dataclass
class Stage:
    """Where a campaign plays."""

    mail: MailServers
    postgres: Server
    ca_file: Path
    home: Path
    stack: contextlib.ExitStack
    daemons: list[DaemonProcess] = field(default_factory=list)

    def daemon(self, **sections: dict[str, Any]) -> DaemonProcess:
        """Start another node."""
        keys = self.home / "vault-keys"
        if not keys.exists():
            generate_key_file(keys)
        settings = loopback_settings(self.postgres.dsn, self.ca_file, self.mail.ports)
        for section, values in (sections | {"vault": {"key_file": str(keys)}}).items():
            settings.setdefault(section, {}).update(values)
        daemon = DaemonProcess(self.home / f"daemon-{len(self.daemons)}", settings)
        self.daemons.append(daemon)
        self.stack.callback(daemon.close)
        return daemon.start()


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """A Dovecot, an SMTP server and a PostgreSQL for the length of the block."""
    authority = Authority()
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="campaign-")))
        imap = stack.enter_context(Dovecot(DovecotOptions(password=PASSWORD), authority=authority))
        smtp = stack.enter_context(SmtpServer(SmtpOptions(password=PASSWORD), authority=authority))
        postgres = Server("embedded")
        stack.callback(postgres.remove)
        postgres.start()
        yield Stage(MailServers(imap, smtp), postgres, authority.write_ca(home / "ca.pem"), home, stack)


def say(text: str) -> None:
    """One line, now."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
