"""What we use of aiosmtplib beyond its documentation; a new version must pass here before it is pinned."""

import asyncio
import inspect
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import aiosmtplib
import pytest
from aiosmtplib import email, protocol
from aiosmtplib.response import SMTPResponse

from daemon.smtp.stream import TrioSMTP

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


class Silent:
    """A stream and a protocol that remembers what it was asked for."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []
        self.is_connected = True

    async def execute_command(self, *args, **options):
        self.asked.append((args, options["timeout"]))
        return self.answers.pop(0)

    def is_closing(self):
        return not self.is_connected

    def close(self):
        self.is_connected = False

    def get_extra_info(self, key):
        return None

    async def aclose(self):
        pass


def client(*answers):
    smtp = TrioSMTP(Silent(), host="localhost", local_hostname="[127.0.0.1]", patience=7.0)
    smtp.protocol = smtp.transport = Silent(*answers)
    return smtp, smtp.protocol


def test_the_version_is_the_pinned_one():
    dependencies = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    (pinned,) = [re.fullmatch(r"aiosmtplib==(.+)", line)[1] for line in dependencies if line.startswith("aiosmtplib")]
    assert version("aiosmtplib") == pinned


async def test_no_event_loop_is_asked_for(monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("asked for asyncio's loop")

    for name in ("get_event_loop", "get_running_loop", "new_event_loop", "to_thread", "wait_for", "Lock"):
        monkeypatch.setattr(asyncio, name, forbidden)
    smtp, _ = client(SMTPResponse(250, "a\nAUTH PLAIN"), *[SMTPResponse(250, "ok")] * 2, SMTPResponse(235, "ok"))
    await smtp.ehlo()
    await smtp.mail("a@example.test", options=["SIZE=1"], encoding="ascii")
    await smtp.rcpt("b@example.test", encoding="ascii")
    await smtp.auth_plain("u", "p")


async def test_commands_go_through_one_method_of_the_protocol():
    welcome = SMTPResponse(235, "ok")
    smtp, wire = client(*[SMTPResponse(250, "x")] * 3, welcome, SMTPResponse(334, ""), welcome)
    await smtp.ehlo()
    await smtp.mail("a@example.test", options=["SIZE=1", "SMTPUTF8"], encoding="utf-8")
    await smtp.rcpt("ü@example.test", encoding="utf-8")
    await smtp.auth_plain("ü", "p")
    await smtp.auth_login("u", "p")
    assert wire.asked == [
        ((b"EHLO", b"[127.0.0.1]"), 7.0),
        ((b"MAIL", b"FROM:<a@example.test>", b"SIZE=1", b"SMTPUTF8"), 7.0),
        ((b"RCPT", "TO:<ü@example.test>".encode()), 7.0),
        ((b"AUTH", b"PLAIN", b"AMO8AHA="), 7.0),
        ((b"AUTH", b"LOGIN", b"dQ=="), 7.0),
        ((b"cA==",), 7.0),
    ]


async def test_ehlo_fills_the_tables_and_reset_empties_them():
    smtp, _ = client(SMTPResponse(250, "me\nSIZE 10\nAUTH PLAIN xoauth2\nAUTH=LOGIN\nSmtpUTF8"))
    await smtp.ehlo()
    assert {"size", "auth", "smtputf8"} <= set(smtp.esmtp_extensions)
    assert smtp.esmtp_extensions["size"] == "10"
    assert set(smtp.server_auth_methods) == {"plain", "xoauth2", "login"}
    smtp._reset_server_state()
    assert (smtp.esmtp_extensions, smtp.server_auth_methods) == ({}, [])
    assert smtp.is_ehlo_or_helo_needed


@pytest.mark.parametrize(("call", "error"), [
    (lambda smtp: smtp.ehlo(), aiosmtplib.SMTPHeloError),
    (lambda smtp: smtp.mail("a@b.example"), aiosmtplib.SMTPSenderRefused),
    (lambda smtp: smtp.rcpt("a@b.example"), aiosmtplib.SMTPRecipientRefused),
    (lambda smtp: smtp.auth_plain("u", "p"), aiosmtplib.SMTPAuthenticationError),
    (lambda smtp: smtp.auth_login("u", "p"), aiosmtplib.SMTPAuthenticationError),
    (lambda smtp: smtp.auth_crammd5("u", "p"), aiosmtplib.SMTPAuthenticationError),
])
async def test_refusals_carry_code_and_text(call, error):
    smtp, _ = client(SMTPResponse(550, "no"))
    smtp.last_helo_response = SMTPResponse(250, "")
    with pytest.raises(error) as caught:
        await call(smtp)
    assert (caught.value.code, caught.value.message) == (550, "no")


async def test_421_closes_and_what_follows_is_disconnected():
    smtp, wire = client(SMTPResponse(421, "bye"))
    await smtp.execute_command(b"NOOP")
    assert not wire.is_connected
    assert not smtp.is_connected
    with pytest.raises(aiosmtplib.SMTPServerDisconnected):
        await smtp.execute_command(b"NOOP")


def test_helpers():
    assert protocol.normalize_message_line_endings(b"a\nb\rc") == b"a\r\nb\r\nc\r\n"
    assert protocol.PERIOD_REGEX.sub(b"..", b".\r\n.a\r\nb.") == b"..\r\n..a\r\nb."
    assert email.parse_address("a@b.example") == "a@b.example"
    assert "timeout" in inspect.signature(protocol.SMTPProtocol.execute_command).parameters
