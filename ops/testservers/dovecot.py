"""A private Dovecot 2.3: IMAP over STARTTLS and TLS, LMTP, and submission where a relay is given.

It lives in a short directory of its own below /tmp, listens on free loopback ports, takes any user name with one
password and keeps everything in memory's neighbourhood (no fsync). `Dovecot` starts and stops it, fills mailboxes,
delivers mail, plays another mail client that flags and expunges, and reads a mailbox back for comparison.

    with Dovecot() as dovecot:
        dovecot.seed("ann@example.test", messages(300))
        dovecot.deliver("ann@example.test", b"Subject: hello\\r\\n\\r\\nworld\\r\\n")
"""

import base64
import grp
import imaplib
import smtplib
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path

from . import mailbox
from .dovecot_conf import DovecotOptions, Ports, configuration
from .mailbox import Seed, Stored
from .process import Owner, Server, ServerFailed, ServerProcess, answers, find_program, on_free_ports, short_directory
from .tls import Authority, Certificate

_TOKEN_KEY = b"test-secret-test-secret-test-sec!"
"""What Dovecot checks OAuth tokens with: HS256, known to everybody, good on this server only."""


class Dovecot(Server):
    """One server. A context manager, or `start()` and `stop()`; `stop()` keeps the mail, `close()` does not."""

    def __init__(
        self, options: DovecotOptions | None = None, *, authority: Authority | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        self.options = options or DovecotOptions()
        self.authority = authority or Authority()
        self._certificate = certificate or self.authority.issue()
        self._owner = Owner.unprivileged()
        self.base = short_directory("dv-", self._owner)
        self.ca_pem = self.authority.write_ca(self.base / "ca.pem")
        super().__init__()
        self._ports: Ports | None = None
        self._prepare()

    def start(self) -> None:
        """Start it, and return when it greets. Started again, it has the same ports and the same mail.

        Raises `ServerFailed` with the end of its log.
        """
        if self._process is None:
            known = astuple(self._ports) if self._ports is not None else None
            self._ports = Ports(*on_free_ports(5, known, lambda ports: self._launch(Ports(*ports))))

    def log_text(self) -> str:
        """What Dovecot wrote to its log so far."""
        log = self.base / "dovecot.log"
        return log.read_text(errors="replace") if log.exists() else ""

    # --- where it is -----------------------------------------------------------------------------------------

    host = "localhost"
    """What its certificate names; it listens on 127.0.0.1."""

    strict_host = "127.0.0.2"
    """Named by its certificate too; who connects there is a stranger to Dovecot (see `DovecotOptions.plaintext`)."""

    @property
    def ports(self) -> Ports:
        """Where it listens. Raises `ServerFailed` before the first start."""
        if self._ports is None:
            raise ServerFailed("dovecot was not started yet")
        return self._ports

    @property
    def imap_port(self) -> int:
        """IMAP with STARTTLS."""
        return self.ports.imap

    @property
    def imaps_port(self) -> int:
        """IMAP over TLS from the first byte."""
        return self.ports.imaps

    @property
    def submission_port(self) -> int:
        """Submission with STARTTLS; only with the option `relay`."""
        return self.ports.submission

    @property
    def submissions_port(self) -> int:
        """Submission over TLS from the first byte; only with the option `relay`."""
        return self.ports.submissions

    @property
    def password(self) -> str:
        """Everybody's password."""
        return self.options.password

    # --- who may in ------------------------------------------------------------------------------------------

    def refuse(self, *users: str) -> None:
        """From the next login on these users' passwords are wrong; connections that are logged in stay."""
        for user in users:
            path = self._denied / user.lower()
            path.write_text('{"password": "{PLAIN}nobody knows", "nodelay": "yes"}')
            self._owner.own(path)

    def accept(self, *users: str) -> None:
        """Take `refuse` back."""
        for user in users:
            (self._denied / user.lower()).unlink(missing_ok=True)

    def oauth2_token(self, user: str, *, lifetime: float = 3600) -> str:
        """An access token for XOAUTH2 and OAUTHBEARER, good for `lifetime` seconds (may be negative: expired)."""
        import jwt

        now = int(time.time())
        claims = {"sub": user, "iat": now, "nbf": now - 5, "exp": now + int(lifetime)}
        return jwt.encode(claims, _TOKEN_KEY, algorithm="HS256")

    # --- mail ------------------------------------------------------------------------------------------------

    def deliver(self, user: str, message: bytes, *, sender: str = "sender@example.test") -> None:
        """Deliver by LMTP; returns when Dovecot said 250: the message is in INBOX. Raises `smtplib.SMTPException`."""
        with smtplib.LMTP("127.0.0.1", self.ports.lmtp, local_hostname="localhost", timeout=30) as lmtp:
            lmtp.sendmail(sender, [user], message, mail_options=["BODY=8BITMIME"])

    def seed(self, user: str, messages: Iterable[bytes | Seed], folder: str = "INBOX") -> int:
        """Put messages in a folder (created where missing), in order; the number of them.

        By MULTIAPPEND, so flags and internal dates are as given and 20,000 messages take seconds.
        """
        with self.client(user) as client:
            return mailbox.append_all(client, folder, messages)

    def clone(self, user: str, others: Iterable[str], *, at: "Dovecot | None" = None) -> None:
        """Give the others, who have no mail yet (here or *at* another server), a copy of all that the user has.

        By their files, which name nobody, while none of them is logged in: ten thousand mailboxes in seconds.  The
        copies have the same UIDs and UIDVALIDITY.
        """
        server = at or self
        home = mail_directory(self, user).parent
        tree = [(path.relative_to(home), path.read_bytes() if path.is_file() else None) for path in home.rglob("*")]
        tree.sort(key=lambda entry: entry[0])  # a directory before what is in it
        for other in others:
            copy = mail_directory(server, other).parent
            copy.mkdir()
            for name, data in tree:
                if data is None:
                    (copy / name).mkdir()
                else:
                    (copy / name).write_bytes(data)
            self._owner.own(copy, *(copy / name for name, _ in tree))

    @contextmanager
    def client(self, user: str) -> Iterator[imaplib.IMAP4]:
        """Another mail client, logged in over TLS: imaplib's, closed at the end."""
        client = imaplib.IMAP4_SSL(
            "127.0.0.1", self.imaps_port, ssl_context=self.authority.client_context(), timeout=60)
        try:
            client.authenticate("PLAIN", lambda _: f"\0{user}\0{self.password}".encode())
            yield client
        finally:
            client.shutdown()

    def flag(self, user: str, uids: Iterable[int], *flags: str, folder: str = "INBOX", remove: bool = False) -> None:
        """Set (or remove) flags, as another mail client would."""
        with self.client(user) as client:
            mailbox.store_flags(client, folder, uids, flags, remove=remove)

    def expunge(self, user: str, uids: Iterable[int], folder: str = "INBOX") -> None:
        """Delete messages for good, as another mail client would."""
        with self.client(user) as client:
            mailbox.expunge(client, folder, uids)

    def move(self, user: str, uids: Iterable[int], to: str, folder: str = "INBOX") -> None:
        """Move messages to another folder (created where missing), as another mail client would."""
        with self.client(user) as client:
            mailbox.move(client, folder, uids, to)

    def uids(self, user: str, folder: str = "INBOX") -> list[int]:
        """The UIDs in a folder, ascending."""
        with self.client(user) as client:
            return mailbox.all_uids(client, folder)

    def dump(self, user: str, folder: str = "INBOX") -> dict[int, Stored]:
        """Everything in a folder, read by plain IMAP: what any synced copy must agree with."""
        with self.client(user) as client:
            return mailbox.dump(client, folder)

    def recreate(self, user: str, folder: str) -> None:
        """Delete a folder and create it anew, empty: its UIDVALIDITY changes. INBOX cannot be (RFC 3501 6.3.4)."""
        with self.client(user) as client:
            mailbox.recreate(client, folder)

    def __repr__(self) -> str:
        return f"<Dovecot {self.base} {self._ports} {self.options}>"

    # --- inside ----------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        keys = self.base / "oauth2/default/HS256"
        keys.mkdir(parents=True)
        (keys / "default").write_bytes(base64.b64encode(_TOKEN_KEY))
        (self.base / "oauth2.conf").write_text(
            "introspection_mode = local\nusername_attribute = sub\n"
            f"local_validation_key_dict = fs:posix:prefix={self.base}/oauth2/\n")
        (self.base / "home").mkdir()
        (self.base / "state").mkdir()
        self._certificate.write(self.base)
        self._denied = self.base / "denied"
        self._denied.mkdir()
        # Not a password file: Dovecot reads those once a second only, a dictionary at each login.
        (self.base / "denied.conf").write_text(
            f"uri = fs:posix:prefix={self._denied}/\npassdb_objects = denied\n"
            "key denied {\n  key = %u\n  format = json\n}\n")
        self._owner.own(*self.base.rglob("*"))

    def _launch(self, ports: Ports) -> None:
        group = grp.getgrgid(self._owner.gid).gr_name
        conf = self.base / "dovecot.conf"
        conf.write_text(configuration(self.base, self._owner.user, group, ports, self.options))
        self._owner.own(conf)
        process = ServerProcess(
            [find_program("dovecot", "dovecot-imapd"), "-F", "-c", str(conf)],
            log=self.base / "dovecot.log", owner=self._owner, directory=self.base, name="dovecot")
        try:
            self._owner.own(self.base / "dovecot.log")
            process.wait_until(lambda: answers(ports.imap, b"* OK"))
        except BaseException:
            process.stop()
            raise
        self._process = process


def mail_directory(dovecot: Dovecot, user: str) -> Path:
    """Where the user's mail lies on disk, for tests that break it."""
    return dovecot.base / "home" / user.lower() / "mail"
