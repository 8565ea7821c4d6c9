"""The program behind `smtp.SmtpServer`: aiosmtpd on three ports, recording what it takes.

Run by path, never imported: a process of its own keeps asyncio, its warnings and its log out of the tests' process.
Its one argument is a JSON file with what `smtp.SmtpServer` writes there.

What it is to say is in the address, so that one server plays every fate (the enhanced code may be left out):

    MAIL FROM / RCPT TO   say-450-4.2.1@any     that reply to this command
    RCPT TO               data-452-4.3.1@any    this reply after the message was sent
                          hang@any              recorded, and then no reply ever
                          drop@any              recorded, and then the connection is reset without a reply
                          lost@any              not recorded, and the connection is reset without a reply
    AUTH user name        say-454-4.7.0@any     that reply to AUTH
"""

import asyncio
import json
import re
import signal
import ssl
import sys
from itertools import count
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

_SAID = re.compile(r"(say|data)-([2-5]\d\d)(?:-(\d\.\d{1,3}\.\d{1,3}))?@")
_NEVER = 3600.0
"""Seconds a hanging reply takes: longer than any test."""


def reply_in(address: str, kind: str) -> str | None:
    """The reply an address asks for, or None."""
    match = _SAID.match(address)
    if match is None or match[1] != kind:
        return None
    return " ".join(filter(None, [match[2], match[3], "as you asked"]))


class Recorder:
    """aiosmtpd's handler and authenticator: decides by the addresses, and writes accepted mail down."""

    def __init__(self, directory: Path, password: str, *, starttls: bool, hide_auth: bool) -> None:
        self._directory = directory
        self._password = password
        self._starttls = starttls
        self._hide_auth = hide_auth
        self._numbers = count(1)
        self._connection_numbers = count(1)
        self._connections: WeakKeyDictionary[SMTP, int] = WeakKeyDictionary()

    def authenticate(self, server: SMTP, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:  # noqa: ANN401, ARG002  # aiosmtpd's signature
        """Anybody with the password; or the reply the user name asks for."""
        if not isinstance(data, LoginPassword):
            return AuthResult(success=False, handled=False)
        user = data.login.decode(errors="replace")
        reply = reply_in(user, "say")
        if reply is not None:
            return AuthResult(success=False, handled=False, message=reply)
        good = data.password == self._password.encode()
        return AuthResult(success=good, handled=False, auth_data=data)

    async def handle_EHLO(  # noqa: N802  # aiosmtpd's name
        self, server: SMTP, session: Any, envelope: Any, hostname: str, responses: list[str],  # noqa: ANN401, ARG002
    ) -> list[str]:
        """Announce no more than the options allow."""
        session.host_name = hostname
        if server not in self._connections:
            self._connections[server] = next(self._connection_numbers)
        kept = [line for line in responses if not (self._hide_auth and line[4:].startswith("AUTH"))]
        return kept if self._starttls else [line for line in kept if line[4:] != "STARTTLS"]

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, session: Any, envelope: Any, address: str, options: list[str],  # noqa: ANN401, ARG002
    ) -> str:
        """The reply the sender asks for."""
        if (reply := reply_in(address, "say")) is not None:
            return reply
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 Sender OK"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Any, envelope: Any, address: str, options: list[str],  # noqa: ANN401, ARG002
    ) -> str:
        """The reply the recipient asks for."""
        if (reply := reply_in(address, "say")) is not None:
            return reply
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 Recipient OK"

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:  # noqa: N802, ANN401
        """Record the message, or meet the fate a recipient asks for."""
        fates = {address.partition("@")[0] for address in envelope.rcpt_tos}
        for address in envelope.rcpt_tos:
            if (reply := reply_in(address, "data")) is not None:
                return reply
        if "lost" not in fates:
            number = self._record(server, session, envelope)
        if fates & {"drop", "lost"}:
            transport: Any = server.transport
            transport.abort()
            return "250 2.0.0 never heard"
        if "hang" in fates:
            await asyncio.sleep(_NEVER)
        return f"250 2.0.0 Recorded as {number}"

    def _record(self, server: SMTP, session: Any, envelope: Any) -> int:  # noqa: ANN401
        number = next(self._numbers)
        transport: Any = server.transport
        facts = {
            "sender": envelope.mail_from, "recipients": envelope.rcpt_tos, "options": envelope.mail_options,
            "user": session.auth_data.login.decode(errors="replace") if session.authenticated else None,
            "connection": self._connections[server], "helo": session.host_name,
            "tls": transport.get_extra_info("sslcontext") is not None,
        }
        (self._directory / f"{number:08}.eml").write_bytes(envelope.original_content)
        new = self._directory / f"{number:08}.new"
        new.write_text(json.dumps(facts))
        new.rename(new.with_suffix(".json"))      # its appearance says that both files are complete
        return number


async def serve(config: dict[str, Any]) -> None:
    """Serve until terminated. Connections: STARTTLS with AUTH, TLS with AUTH, and neither (for a relay)."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(config["certificate"], config["key"])
    recorder = Recorder(
        Path(config["directory"]), config["password"], starttls=config["starttls"], hide_auth=config["hide_auth"])
    common: dict[str, Any] = {
        "handler": recorder, "enable_SMTPUTF8": config["smtputf8"], "data_size_limit": config["size_limit"],
        "hostname": "smtp.example.test", "authenticator": recorder.authenticate,
        "auth_exclude_mechanism": sorted({"PLAIN", "LOGIN"} - set(config["mechanisms"])),
    }
    loop = asyncio.get_running_loop()
    kinds: list[tuple[int, ssl.SSLContext | None, dict[str, Any]]] = [
        (config["starttls_port"], None, {"tls_context": context, "require_starttls": True, "auth_required": True}),
        # aiosmtpd knows of TLS only what it began itself: here it must not ask for it
        (config["tls_port"], context, {"auth_required": True, "auth_require_tls": False}),
        (config["relay_port"], None, {}),
    ]
    for port, tls, options in kinds:
        await loop.create_server(
            lambda options=options: SMTP(**common, **options, loop=loop), "127.0.0.1", port, ssl=tls)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


if __name__ == "__main__":
    asyncio.run(serve(json.loads(Path(sys.argv[1]).read_text())))
