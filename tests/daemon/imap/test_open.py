"""Opening sessions: with a real Dovecot, and with servers that would have our password in plain text, or our time."""

import base64
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from daemon.errors import Disposition, Fault, FaultKind
from daemon.imap.authenticate import login, login_oauth
from daemon.imap.open import Timeouts, open_session, verify_login
from daemon.imap.session import Session
from daemon.imap.wire import Wire
from daemon.network import Endpoint, Security
from daemon.vault.secret import Secret
from ops.testservers.dovecot import Dovecot
from ops.testservers.tls import Authority
from tests.daemon.imap.conftest import DialTo, LoginTo
from tests.daemon.imap.scripted import Peer, Script, scripted, talk
from tests.fix_dovecot import MailUser

SECRET = Secret("hunter2-pässwört")


async def try_login(
    port: int, dial_to: DialTo, security: Security = Security.STARTTLS, timeouts: Timeouts | None = None,
    username: str = "ann@example.test", password: Secret = SECRET,
) -> frozenset[bytes]:  # fmt: skip
    endpoint = Endpoint("localhost", port, security)
    return await verify_login(dial_to(port), endpoint, username, password, timeouts=timeouts or Timeouts())


async def fault_of(script: Script, dial_to: DialTo, timeouts: Timeouts | None = None) -> Fault:
    """The fault that a STARTTLS server with this script ends in."""
    async with scripted(script) as port:
        with pytest.raises(Fault) as caught:
            await try_login(port, dial_to, timeouts=timeouts)
    return caught.value


# Dovecot


@pytest.mark.parametrize("security", Security)
async def test_login_with_a_real_server(
    dovecot: Dovecot, mail_user: MailUser, login_to: LoginTo, security: Security
) -> None:
    async with login_to(dovecot, mail_user, security) as session:
        assert {b"IDLE", b"QRESYNC", b"CONDSTORE"} <= session.capabilities
        assert not any(capability.startswith(b"AUTH=") for capability in session.capabilities)
        await session.noop()
    assert session.dirty


async def test_verifying_a_login_tells_what_the_server_offers(
    dovecot: Dovecot, mail_user: MailUser, dial_to: DialTo
) -> None:
    offered = await try_login(
        dovecot.imaps_port, dial_to, Security.TLS, username=mail_user.name, password=Secret(mail_user.password)
    )
    assert b"IDLE" in offered


@pytest.mark.parametrize("security", Security)
async def test_a_wrong_password_parks(
    dovecot: Dovecot, mail_user: MailUser, dial_to: DialTo, security: Security
) -> None:
    port = dovecot.imaps_port if security is Security.TLS else dovecot.imap_port
    with pytest.raises(Fault) as caught:
        await try_login(port, dial_to, security, username=mail_user.name, password=Secret("no"))
    assert (caught.value.kind, caught.value.disposition) == (FaultKind.AUTH_FAILED, Disposition.PARK)


async def test_names_and_passwords_need_not_be_ascii(dovecot: Dovecot, dial_to: DialTo) -> None:
    password = Secret(dovecot.password)
    assert await try_login(dovecot.imaps_port, dial_to, Security.TLS, username="üser@example.test", password=password)
    with pytest.raises(Fault) as caught:
        await try_login(dovecot.imaps_port, dial_to, Security.TLS, username="üser@example.test", password=SECRET)
    assert caught.value.kind is FaultKind.AUTH_FAILED


@pytest.mark.parametrize("good", [True, False])
@pytest.mark.parametrize("mechanism", [b"AUTH=OAUTHBEARER", b"AUTH=XOAUTH2"])
async def test_oauth_tokens(
    dovecot: Dovecot, mail_user: MailUser, dial_to: DialTo, mechanism: bytes, good: bool
) -> None:
    token = Secret(dovecot.oauth2_token(mail_user.name, lifetime=3600 if good else -60))
    stream = await dial_to(dovecot.imaps_port).dial("localhost", dovecot.imaps_port, Security.TLS)
    session = Session(Wire(stream, "localhost"))
    try:
        assert (await session.read()).kind == b"OK"  # the greeting
        session.capabilities = session.capabilities - {b"AUTH=OAUTHBEARER"} | {mechanism}
        if good:
            await login_oauth(session, mail_user.name, token, dovecot.imaps_port)
            await session.select("INBOX")
        else:
            with pytest.raises(Fault) as caught:
                await login_oauth(session, mail_user.name, token, dovecot.imaps_port)
            assert caught.value.kind is FaultKind.AUTH_FAILED
            assert not session.dirty
    finally:
        await session.aclose()


async def test_a_certificate_of_somebody_else_parks(tmp_path: Path, authority: Authority, dial_to: DialTo) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()

    context = authority.wrong_name().server_context(tmp_path)
    async with scripted(script, context) as port:
        with pytest.raises(Fault) as caught:
            await try_login(port, dial_to, Security.TLS)
    assert (caught.value.kind, caught.value.disposition) == (FaultKind.TLS_FAILED, Disposition.PARK)


async def test_the_password_is_in_no_log_and_no_traceback(
    dovecot: Dovecot, mail_user: MailUser, dial_to: DialTo
) -> None:
    with capture_logs() as logs, pytest.raises(Fault) as caught:
        await try_login(dovecot.imaps_port, dial_to, Security.TLS, username=mail_user.name)
    assert [entry["event"] for entry in logs if entry["event"] == "imap.refused"]
    sasl = base64.b64encode(f"\0{mail_user.name}\0{SECRET.reveal()}".encode()).decode()
    for text in (repr(logs), repr(caught.value), str(caught.value)):
        assert SECRET.reveal() not in text
        assert sasl not in text
        assert mail_user.name not in text


# Before TLS


@pytest.mark.parametrize("greeting", [b"* PREAUTH welcome back", b"* PREAUTH [CAPABILITY IMAP4rev1] hello"])
async def test_preauth_before_tls_is_refused(dial_to: DialTo, greeting: bytes) -> None:
    heard = []

    async def script(peer: Peer) -> None:
        await peer.say(greeting)
        heard.append(await peer.hear_out())

    assert (await fault_of(script, dial_to)).kind is FaultKind.TLS_FAILED
    assert heard == [b""]


async def test_preauth_inside_tls_is_refused_too(tmp_path: Path, authority: Authority, dial_to: DialTo) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(b"* PREAUTH welcome back")
        await peer.hear_out()

    async with scripted(script, authority.issue().server_context(tmp_path)) as port:
        with pytest.raises(Fault) as caught:
            await try_login(port, dial_to, Security.TLS)
    assert caught.value.kind is FaultKind.TLS_FAILED


@pytest.mark.parametrize("status", [b"NO", b"BAD"])
async def test_stripped_starttls_gets_no_password(dial_to: DialTo, status: bytes) -> None:
    heard = []

    async def script(peer: Peer) -> None:
        await peer.greet(b"IMAP4rev1 AUTH=PLAIN SASL-IR")  # STARTTLS is not in it, and that changes nothing
        tag = await peer.expect(b"STARTTLS")
        await peer.say(tag + b" " + status + b" not here")
        heard.append(await peer.hear_out())

    fault = await fault_of(script, dial_to)
    assert (fault.kind, fault.disposition) == (FaultKind.TLS_FAILED, Disposition.RETRY)
    assert heard == [b""]


@pytest.mark.parametrize(
    "injected", [b"* OK injected\r\n", b"A2 OK [CAPABILITY IMAP4rev1] you are in\r\n", b"x", b"\x16\x03\x01"]
)
async def test_any_byte_behind_starttls_aborts(dial_to: DialTo, injected: bytes) -> None:
    heard = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        tag = await peer.expect(b"STARTTLS")
        await peer.raw(tag + b" OK go ahead\r\n" + injected)
        heard.append(await peer.hear_out())

    assert (await fault_of(script, dial_to)).kind is FaultKind.TLS_FAILED
    assert heard == [b""]


async def test_bytes_that_follow_starttls_later_are_read_as_tls_and_end_it(dial_to: DialTo) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        tag = await peer.expect(b"STARTTLS")
        await peer.say(tag + b" OK go ahead")
        await peer.stream.receive_some(1)  # the client has begun its handshake
        await peer.say(b"* OK injected")
        await peer.hear_out()

    assert (await fault_of(script, dial_to)).kind is FaultKind.TLS_FAILED


async def test_what_was_said_before_tls_is_forgotten(tmp_path: Path, authority: Authority, dial_to: DialTo) -> None:
    """The plain text claims a capability, a mailbox and an alert; none of it outlives the handshake."""
    context = authority.issue().server_context(tmp_path)

    async def script(peer: Peer) -> None:
        await peer.greet(b"IMAP4rev1 LOGINDISABLED X-EVIL STARTTLS")
        tag = await peer.expect(b"STARTTLS")
        await peer.say(b"* 66 EXISTS", b"* OK [ALERT] call this number", tag + b" OK go ahead")
        await peer.start_tls(context)
        tag = await peer.expect(b"CAPABILITY")
        await peer.say(b"* CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR", tag + b" OK")
        tag = await peer.expect(rb"AUTHENTICATE PLAIN \S+")
        await peer.say(tag + b" OK in")
        tag = await peer.expect(b"CAPABILITY")  # the login may have changed them, and its answer did not say
        await peer.say(b"* CAPABILITY IMAP4rev1 IDLE", tag + b" OK")
        tag = await peer.expect(b"LOGOUT")
        await peer.say(b"* BYE", tag + b" OK")

    async with scripted(script) as port:
        endpoint = Endpoint("localhost", port, Security.STARTTLS)
        async with open_session(dial_to(port), endpoint, "ann", SECRET) as session:
            news = session.take_news()
            assert (news.exists, news.alerts) == (None, ())
            assert session.capabilities == {b"IMAP4REV1", b"IDLE"}


# Greetings


@pytest.mark.parametrize(
    "greeting",
    [b"220 smtp.example.test ESMTP\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"* NO thanks\r\n", b"",
     b"\0" * 100 + b"\r\n", b"* 5 EXISTS\r\n", b"A1 OK\r\n", b"+ go\r\n"],
)  # fmt: skip
async def test_what_is_no_imap_server_is_none(dial_to: DialTo, greeting: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.raw(greeting)

    assert (await fault_of(script, dial_to)).kind is FaultKind.CONNECT_FAILED


async def test_an_endless_greeting_ends(dial_to: DialTo) -> None:
    async def script(peer: Peer) -> None:
        await peer.raw(b"* OK ")
        while True:
            await peer.raw(b"x" * 65536)

    assert (await fault_of(script, dial_to)).kind is FaultKind.CONNECT_FAILED


async def test_no_greeting_in_time_is_no_server(dial_to: DialTo) -> None:
    async def script(peer: Peer) -> None:
        await peer.hear_out()

    fault = await fault_of(script, dial_to, Timeouts(greeting=0.2))
    assert fault.kind is FaultKind.CONNECT_FAILED


async def test_a_goodbye_as_greeting_tells_why(dial_to: DialTo) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(b"* BYE [UNAVAILABLE] come back later")

    assert (await fault_of(script, dial_to)).kind is FaultKind.UNAVAILABLE


async def test_one_deadline_holds_for_all_of_it(dial_to: DialTo) -> None:
    """Each answer comes in good time, and there is no end of them."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.expect(b"STARTTLS")
        while True:
            await peer.say(b"* OK wait")
            await trio.sleep(0.02)

    fault = await fault_of(script, dial_to, Timeouts(login=0.3))
    assert fault.kind is FaultKind.UNAVAILABLE


# Login


async def test_a_login_without_sasl_ir_and_a_refusal_of_it() -> None:
    async def script(peer: Peer) -> None:
        tag = await peer.expect(b"AUTHENTICATE PLAIN")
        await peer.say(b"+ ")
        said.append(base64.b64decode(await peer.line()).decode())
        await peer.say(tag + b" NO nothing more to say")
        await peer.hear_out()

    said: list[str] = []
    async with talk(script, b"AUTH=PLAIN") as session:
        session._capabilities_told = True
        with pytest.raises(Fault) as caught:
            await login(session, "ännchen", SECRET)
    assert said == [f"\0ännchen\0{SECRET.reveal()}"]
    assert (caught.value.kind, caught.value.disposition) == (FaultKind.AUTH_FAILED, Disposition.RETRY)


async def test_the_login_command_takes_any_character() -> None:
    async def script(peer: Peer) -> None:
        assert await peer.line() == b'A1 LOGIN "an\\"n" {%d}' % len(SECRET.reveal().encode())
        await peer.say(b"+ ")
        assert await peer.line() == SECRET.reveal().encode()
        await peer.say(b"A1 OK [CAPABILITY IMAP4rev1] in")
        await peer.hear_out()

    async with talk(script, b"IMAP4REV1") as session:
        session._capabilities_told = True
        await login(session, 'an"n', SECRET)
        assert session.capabilities == {b"IMAP4REV1"}


@pytest.mark.parametrize("bad", ["a\r\nA2 LOGOUT", "a\nb", "a\0b"])
async def test_line_breaks_in_credentials_never_leave(dovecot: Dovecot, dial_to: DialTo, bad: str) -> None:
    for username, password in ((bad, "x"), ("x", bad)):
        with pytest.raises(ValueError, match="password"):
            await try_login(
                dovecot.imaps_port, dial_to, Security.TLS, username=username, password=Secret(password)
            )


async def test_a_server_that_takes_no_passwords_gets_none() -> None:
    heard = []

    async def script(peer: Peer) -> None:
        heard.append(await peer.hear_out())

    async with talk(script, b"IMAP4REV1 LOGINDISABLED AUTH=XOAUTH2") as session:
        session._capabilities_told = True
        with pytest.raises(Fault) as caught:
            await login(session, "ann", SECRET)
        await session.aclose()
    assert caught.value.kind is FaultKind.PASSWORD_UNSUPPORTED
    assert heard in ([], [b""])


async def test_who_leaves_by_an_exception_says_no_goodbye(
    dovecot: Dovecot, mail_user: MailUser, login_to: LoginTo
) -> None:
    with pytest.raises(RuntimeError, match="ours"):
        async with login_to(dovecot, mail_user) as session:
            raise RuntimeError("ours")
    assert session.dirty
