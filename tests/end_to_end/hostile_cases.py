"""The table of wrong servers: what each does, and what the caller of POST /mail/accounts is told.

The sentences are written out here once more, for what a person reads is part of the contract.  `ONE_CAUSE` lists those
that several cases share, with the reason; all others belong to one case of a service.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.fix_daemon import PASSWORD
from tests.fix_scripted_imap import Close, Forever, On, Pause, Say, StartTls, Step, Swallow

WRONG = "Red-heron-12-listens"
"""A password that no server takes; some repeat it."""

NO_NAME = "The host name could not be resolved to an address we may connect to."
NOT_PUBLIC = "The host is not on the public internet, or not one we may connect to."
NO_PORT = "The port is not one that mail servers are reached at."
NO_ANSWER = "No server answers at that host and port."
NO_TLS = "The server does not speak TLS at this port."
OLD_TLS = "The server offers only outdated encryption; TLS 1.2 or later is required."
SILENT = "The server accepts connections but does not greet; it may expect another encryption at this port."
NO_IMAP = "The server greeted with something that is no IMAP."
NO_SMTP = "The server greeted with something that is no SMTP."
PREAUTH = "The mail server claims that we are logged in already; that is refused."
WRONG_PASSWORD = "The mail server refused the user name or password."
NO_PASSWORDS = "The mail server does not take this password; it asks for an app password or another way to log in."
BUSY = "The mail server cannot serve now."

ONE_CAUSE = {
    NO_NAME: "whether there is no such name or no address of it that may be connected to is not told",
    NOT_PUBLIC: "which of the addresses that are not public is for the operator's log",
    NO_ANSWER: "the server is not there, be it that somebody says so or nobody",
    NO_TLS: "no TLS, whatever is spoken instead",
    OLD_TLS: "two versions that are both too old",
    SILENT: "who waits for us to begin keeps silent, for whatever reason",
    NO_IMAP: "another protocol, whichever",
    NO_SMTP: "another protocol, whichever",
    PREAUTH: "the same claim inside TLS and before",
    WRONG_PASSWORD: "with a code and without one",
    NO_PASSWORDS: "offered no mechanism, or told so",
    BUSY: "at the greeting or at the login",
}


@dataclass(frozen=True)
class Case:
    """What to connect to, and what is said of it.

    `tls` is the kind of certificate of a server that speaks TLS at once. `changes` are members of the body; a port may
    be the name of one ("closed", "deaf", "dovecot").  Without steps and a port the server is as it should be.
    """

    service: str
    name: str
    code: str
    sentence: str
    steps: tuple[Step, ...]
    tls: str | None
    changes: dict[str, Any]

    @property
    def told(self) -> str:
        """The sentence as it is answered."""
        return f"{self.service.upper()}: {self.sentence}"


def case(
    service: str, name: str, code: str, sentence: str, *steps: Step, tls: str | None = None, **changes: Any
) -> Case:
    """A case; `port`, `host` and `security` are those of the service, a `code` without it is the service's."""
    named = {f"{service}_{key}" if key in ("port", "host", "security") else key: changes[key] for key in changes}
    whole = code if "_" in code else f"{service}_{code}_failed"
    return Case(service, f"{service} {name}", whole, sentence, steps, tls, named)


def alike(service: str, greeting: bytes, begin: tuple[Step, ...], agree: bytes) -> Iterator[Case]:
    """What goes wrong in both protocols alike; `begin` is the talk up to STARTTLS, `agree` the answer to it."""

    def one(name: str, code: str, sentence: str, *steps: Step, **more: Any) -> Case:
        return case(service, name, code, sentence, *steps, **more)

    hello = Say(greeting)
    yield one("name that does not exist", "connect", NO_NAME, host="nothing.example.test", port="closed")
    yield one("name without address", "connect", NO_NAME, host="empty.example.test", port="closed")
    yield one("name of an address inside", "connect", NO_NAME, host="inside.example.test", port="closed")
    for host in ("10.0.0.1", "169.254.169.254", "::1", "64:ff9b:1::7f00:1"):
        yield one(f"host {host}", "host_not_allowed", NOT_PUBLIC, host=host, port="closed")
    yield one("port 22", "host_not_allowed", NO_PORT, port=22)
    yield one("closed port", "connect", NO_ANSWER, port="closed")
    yield one("nobody behind the port", "connect", NO_ANSWER, port="deaf")
    yield one("HTTP, TLS asked", "tls", NO_TLS, Say(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Swallow(), security="tls")
    yield one("plain text, TLS asked", "tls", NO_TLS, hello, Swallow(), security="tls")
    yield one("TLS, STARTTLS asked", "connect", SILENT, Swallow(), tls="good")
    yield one("silence", "connect", SILENT, Swallow())
    yield one("silence in TLS", "connect", SILENT, Swallow(), tls="good", security="tls")
    silent = "The server did not finish the TLS handshake in time."
    yield one("silence, TLS asked", "tls", silent, Swallow(), security="tls")
    lost = "The connection was lost in the TLS handshake."
    yield one("reset, TLS asked", "tls", lost, Pause(0.3), Close(reset=True), security="tls")
    unfinished = "The server began its greeting and did not finish it in time."
    yield one("greeting by drops", "connect", unfinished, Say(greeting[:3]), Forever(b"0", 0.5))
    yield one("greeting without end", "connect", "The server's greeting has no end.", Forever(b"x" * 65536))
    yield one("closed unsaid", "connect", "The server closed the connection without a greeting.", Close())
    injected = "Unencrypted data came where encryption should begin; that is an attack."
    yield one("bytes behind STARTTLS", "tls", injected, *begin, On(rb"STARTTLS", agree + b"* OK hi\r\n"), Swallow())
    for kind, sentence in {
        "expired": "The server's certificate has expired.",
        "wrong name": "The server's certificate is for another host name.",
        "self-signed": "The server's certificate is self-signed.",
        "untrusted": "The server's certificate is not issued by a trusted authority.",
        "TLSv1": OLD_TLS,
        "TLSv1_1": OLD_TLS,
    }.items():
        yield one(kind, "tls", sentence, Swallow(), tls=kind, security="tls")


def imap_cases() -> Iterator[Case]:
    """What only IMAP servers say."""

    def imap(name: str, code: str, sentence: str, *steps: Step, **more: Any) -> Case:
        return case("imap", name, code, sentence, *steps, **more)

    def inside(capabilities: bytes, *steps: Step) -> tuple[Step, ...]:
        offer = b"* CAPABILITY IMAP4rev1 " + capabilities + b"\r\n<tag> OK done\r\n"
        return (hello, On(rb"STARTTLS$", b"<tag> OK go\r\n"), StartTls(), On(rb"CAPABILITY$", offer), *steps)

    def login(answer: bytes, *steps: Step) -> tuple[Step, ...]:
        return inside(b"AUTH=PLAIN SASL-IR", On(rb"AUTHENTICATE PLAIN \S+$", answer), *steps)

    hello, welcome = Say(b"* OK ready\r\n"), Say(b"* PREAUTH welcome\r\n")
    yield from alike("imap", b"* OK ready\r\n", (hello,), b"<tag> OK go\r\n")
    yield imap("Dovecot, wrong password", "auth", WRONG_PASSWORD, port="dovecot", security="tls", password=WRONG)
    yield imap("HTTP", "connect", NO_IMAP, Say(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Swallow())
    yield imap("SMTP", "connect", NO_IMAP, Say(b"220 smtp.example.test\r\n"), Swallow())
    yield imap("BYE", "connect", "The mail server refuses connections from here.", Say(b"* BYE no\r\n"), Close())
    announced = Say(b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready\r\n")
    stripped = "The mail server does not offer encryption (STARTTLS)."
    yield imap("STARTTLS stripped", "tls", stripped, announced, On(rb"STARTTLS$", b"<tag> BAD what\r\n"), Swallow())
    refused = "The mail server refused to begin encryption."
    yield imap("STARTTLS refused", "tls", refused, hello, On(rb"STARTTLS$", b"<tag> NO not now\r\n"), Swallow())
    yield imap("PREAUTH", "tls", PREAUTH, welcome, Swallow())
    yield imap("PREAUTH in TLS", "tls", PREAUTH, welcome, Swallow(), tls="good", security="tls")
    off = "The mail server has switched off signing in with a password."
    yield imap("LOGINDISABLED", "password_login_unsupported", off, *inside(b"LOGINDISABLED", Swallow()))
    oauth = "The mail server takes no passwords, only sign-in through its provider (OAuth)."
    only = b"LOGINDISABLED AUTH=XOAUTH2"
    yield imap("OAuth only", "password_login_unsupported", oauth, *inside(only, Swallow()))
    yield imap("login cut off", "connect", "The mail server closed the connection.", *login(b"", Close()))
    for said, code, sentence in (
        ("NO [AUTHENTICATIONFAILED] no", "auth", WRONG_PASSWORD),
        (f"NO {WRONG} {PASSWORD}", "auth", WRONG_PASSWORD),
        ("NO [EXPIRED] old", "auth", "The mail server says that the password has expired."),
        ("NO [ALERT] Application-specific password required", "auth",
         "The provider wants an app password instead of the account's own."),
        ("NO [THROTTLED] x", "connect", "The mail server asks us to slow down."),
        ("NO [UNAVAILABLE] x", "connect", "The mail server cannot serve this account just now."),
        ("NO [SERVERBUG] x", "connect", "The mail server reports an error of its own."),
        ("BAD what", "connect", "The mail server refused a command."),
        ("PERHAPS so", "connect", "The mail server ended a command with neither OK, NO nor BAD."),
    ):  # fmt: skip
        yield imap(f"login: {said[:20]}", code, sentence, *login(f"<tag> {said}\r\n".encode(), Swallow()))


def smtp_cases() -> Iterator[Case]:
    """What only SMTP servers say."""

    def smtp(name: str, code: str, sentence: str, *steps: Step, **more: Any) -> Case:
        return case("smtp", name, code, sentence, *steps, **more)

    def inside(offer: bytes, *steps: Step) -> tuple[Step, ...]:
        extensions = b"250-smtp.example.test\r\n250 " + offer + b"\r\n"
        return (hello, ehlo, On(rb"STARTTLS$", b"220 go\r\n"), StartTls(), On(rb"EHLO ", extensions), *steps)

    def login(answer: bytes, *steps: Step) -> tuple[Step, ...]:
        return inside(b"AUTH PLAIN", On(rb"AUTH PLAIN \S+$", answer), *steps)

    hello, ehlo = Say(b"220 ready\r\n"), On(rb"EHLO ", b"250-smtp.example.test\r\n250 STARTTLS\r\n")
    yield from alike("smtp", b"220 ready\r\n", (hello, ehlo), b"220 go\r\n")
    yield smtp("aiosmtpd, refused", "auth", WRONG_PASSWORD, username="say-535-5.7.8@example.test")
    yield smtp("HTTP", "connect", NO_SMTP, Say(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Swallow())
    yield smtp("IMAP", "connect", NO_SMTP, Say(b"* OK ready\r\n"), Swallow())
    yield smtp("554", "connect", "The mail server refuses connections from here.", Say(b"554 not you\r\n"), Close())
    yield smtp("421", "connect", BUSY, Say(b"421 later\r\n"), Close())
    plain = On(rb"EHLO ", b"250-smtp.example.test\r\n250 AUTH PLAIN\r\n")
    stripped = "The mail server does not offer encryption (STARTTLS)."
    yield smtp("STARTTLS stripped", "tls", stripped, hello, plain, Swallow())
    refused = "The mail server refused to begin encryption."
    yield smtp("STARTTLS refused", "tls", refused, hello, ehlo, On(rb"STARTTLS$", b"454 not now\r\n"), Swallow())
    unsupported = "password_login_unsupported"
    yield smtp("OAuth only", unsupported, NO_PASSWORDS, *inside(b"AUTH XOAUTH2", Swallow()))
    yield smtp("no login", unsupported, "The mail server offers no login at this port.", *inside(b"HELP", Swallow()))
    yield smtp("login cut off", "connect", "The mail server closed the connection.", *login(b"", Close()))
    for said, code, sentence in (
        ("535 5.7.8 no", "auth", WRONG_PASSWORD),
        (f"550 {WRONG} {PASSWORD}", "auth", "The mail server refused the login, but not for the password."),
        ("534 5.7.9 Application-specific password required", unsupported, NO_PASSWORDS),
        ("454 4.7.0 later", "connect", BUSY),
        ("454 4.7.28 too much", "connect", "The mail server asks to slow down."),
        ("250 what", "connect", "The mail server answered the login with something that is no answer."),
        ("perhaps", "connect", "The mail server answered with something that is no SMTP reply."),
    ):
        yield smtp(f"login: {said[:20]}", code, sentence, *login(f"{said}\r\n".encode(), Swallow()))


CASES = {found.name: found for found in (*imap_cases(), *smtp_cases())}
