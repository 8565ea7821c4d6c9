"""Certificates for servers on the loopback interface: one authority, and every kind of wrong certificate."""

import datetime as dt
import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "127.0.0.2", "imap.example.test", "smtp.example.test", "mail.example.test")
"""What a certificate names unless told otherwise: `example.test` never exists in the DNS (RFC 6761 section 6.2)."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A private key and the chain that goes with it, PEM."""

    key: bytes
    chain: bytes

    def write(self, directory: Path, stem: str = "server") -> tuple[Path, Path]:
        """Write both below `directory`; the paths of (chain, key). The key is readable by its owner only."""
        chain, key = directory / f"{stem}.crt", directory / f"{stem}.key"
        chain.write_bytes(self.chain)
        key.touch(mode=0o600)
        key.write_bytes(self.key)
        return chain, key

    def server_context(self, directory: Path, stem: str = "server") -> ssl.SSLContext:
        """A server's TLS context with this certificate; its files stay below `directory`."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self.write(directory, stem))
        return context


class Authority:
    """A certificate authority that exists for this run only."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    @property
    def ca_pem(self) -> bytes:
        """What a client must trust."""
        return self._ca.cert_pem.bytes()

    def write_ca(self, path: Path) -> Path:
        """Write `ca_pem` to `path`, readable by all."""
        path.write_bytes(self.ca_pem)
        path.chmod(0o644)
        return path

    def client_context(self) -> ssl.SSLContext:
        """A client's TLS context that trusts this authority alone."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.ca_pem.decode())
        return context

    def issue(self, *names: str) -> Certificate:
        """A good certificate for `names` (host names or addresses; `LOOPBACK_NAMES` when none are given)."""
        return _certificate(self._ca.issue_cert(*(names or LOOPBACK_NAMES)))

    def expired(self, *names: str) -> Certificate:
        """The same, but it ended yesterday."""
        now = dt.datetime.now(dt.UTC)
        return _certificate(self._ca.issue_cert(
            *(names or LOOPBACK_NAMES),
            not_before=now - dt.timedelta(days=30), not_after=now - dt.timedelta(days=1),
        ))

    def wrong_name(self) -> Certificate:
        """A good certificate, but of somebody else."""
        return self.issue("elsewhere.example.test")

    @staticmethod
    def untrusted(*names: str) -> Certificate:
        """Issued by an authority nobody trusts, which is what a self-signed certificate comes to."""
        return Authority().issue(*names)


def _certificate(leaf: trustme.LeafCert) -> Certificate:
    return Certificate(leaf.private_key_pem.bytes(), b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
