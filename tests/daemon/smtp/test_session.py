"""Opening: against the real servers, and against servers that lie."""

from ipaddress import ip_address

import pytest
import trio

from daemon.errors import Disposition, Fault, FaultKind
from daemon.network import Dialer, Endpoint, NetworkPolicy, Resolver, Security, client_context
from daemon.smtp import Timeouts, open_submission, verify_login
from daemon.vault.secret import Secret
from ops.testservers.smtp import SmtpOptions
from tests.daemon.network.loopback import LOOPBACK, dialer_to

from .servers import PASSWORD, USER, endpoint_of

PARK, RETRY = Disposition.PARK, Disposition.RETRY


def endpoints(server):
    return [Endpoint(server.host, server.tls_port, Security.TLS),
            Endpoint(server.host, server.starttls_port, Security.STARTTLS)]


async def verify(server, ca_file, endpoint=None, *, user=USER, password=None, **options):
    endpoint = endpoint or endpoints(server)[0]
    dialer = dialer_to(endpoint.port, ca_file=ca_file)
    return await verify_login(dialer, endpoint, user, Secret(password or server.password), **options)


async def refused(script, context, ca_file, *, security=Security.TLS, timeouts=None, password=PASSWORD) -> Fault:
    async with endpoint_of(script, context, ca_file, security=security) as (dialer, endpoint):
        opening = open_submission(dialer, endpoint, USER, password, timeouts=timeouts or Timeouts())
        with pytest.raises(Fault) as caught:
            await opening.__aenter__()
    return caught.value


@pytest.mark.parametrize("security", [0, 1], ids=["tls", "starttls"])
async def test_a_login_at_aiosmtpd(security, smtp_server, ca_file):
    extensions = await verify(smtp_server, ca_file, endpoints(smtp_server)[security])
    assert {"auth", "size", "8bitmime", "smtputf8"} <= extensions


@pytest.mark.parametrize("security", [0, 1], ids=["tls", "starttls"])
async def test_a_login_at_dovecot(security, submission, ca_file, new_user):
    extensions = await verify(submission, ca_file, endpoints(submission)[security], user=new_user)
    assert {"auth", "size"} <= extensions


async def test_a_wrong_password_parks_at_both(smtp_server, submission, ca_file, new_user):
    for server in (smtp_server, submission):
        for endpoint in endpoints(server):
            with pytest.raises(Fault) as caught:
                await verify(server, ca_file, endpoint, user=new_user, password="wrong")
            assert (caught.value.kind, caught.value.disposition) == (FaultKind.AUTH_FAILED, PARK)


@pytest.mark.parametrize(("smtp_server", "password"), [
    (SmtpOptions(password="pässwörd → 密码 '\"\\ %"), "pässwörd → 密码 '\"\\ %")], indirect=["smtp_server"])
async def test_credentials_beyond_ascii(smtp_server, ca_file, password):
    await verify(smtp_server, ca_file, user="jürgen@example.test", password=password)
    with pytest.raises(Fault):
        await verify(smtp_server, ca_file, user="jürgen@example.test", password=password + "x")


@pytest.mark.parametrize("smtp_server", [SmtpOptions(mechanisms=("LOGIN",))], indirect=True)
async def test_login_where_plain_is_not_offered(smtp_server, ca_file):
    await verify(smtp_server, ca_file)
    with pytest.raises(Fault) as caught:
        await verify(smtp_server, ca_file, password="wrong")
    assert caught.value.kind is FaultKind.AUTH_FAILED


@pytest.mark.parametrize("smtp_server", [SmtpOptions(hide_auth=True)], indirect=True)
async def test_no_login_offered(smtp_server, ca_file):
    with pytest.raises(Fault) as caught:
        await verify(smtp_server, ca_file)
    assert (caught.value.kind, caught.value.disposition) == (FaultKind.PASSWORD_UNSUPPORTED, PARK)


@pytest.mark.parametrize("smtp_server", [SmtpOptions(starttls=False)], indirect=True)
async def test_a_real_server_without_starttls_gets_no_credentials(smtp_server, ca_file):
    with pytest.raises(Fault) as caught:
        await verify(smtp_server, ca_file, endpoints(smtp_server)[1])
    assert caught.value.kind is FaultKind.TLS_FAILED


@pytest.mark.parametrize(("user", "kind"), [
    ("say-454-4.7.0@example.test", FaultKind.UNAVAILABLE),
    ("say-534-5.7.9@example.test", FaultKind.PASSWORD_UNSUPPORTED),
    ("say-550-5.7.30@example.test", FaultKind.PASSWORD_UNSUPPORTED), ("say-535@example.test", FaultKind.AUTH_FAILED)])
async def test_a_real_servers_replies_to_auth(user, kind, smtp_server, ca_file):
    with pytest.raises(Fault) as caught:
        await verify(smtp_server, ca_file, user=user)
    assert caught.value.kind is kind
    assert "as you asked" not in caught.value.reason


@pytest.mark.parametrize("bad", ["a\0b", "a\r\nQUIT", "a\n"])
async def test_credentials_with_line_breaks_never_leave(bad, smtp_server, ca_file):
    for user, password in ((bad, "pw"), (USER, bad)):
        with pytest.raises(ValueError, match="line break") as caught:
            await verify(smtp_server, ca_file, user=user, password=password)
        assert bad not in str(caught.value)


async def test_the_certificate_must_name_the_host(smtp_server, ca_file):
    """`localhost` and 127.0.0.1 are in it, the loopback interface's own name is not."""
    async def lookup(host):
        return [ip_address("127.0.0.1")]

    port = smtp_server.starttls_port
    dialer = Dialer(NetworkPolicy(LOOPBACK, frozenset({port})), Resolver(lookup=lookup), tls=client_context(ca_file))
    endpoint = Endpoint("elsewhere.example.test", port, Security.STARTTLS)
    with pytest.raises(Fault) as caught:
        await verify_login(dialer, endpoint, USER, PASSWORD)
    assert (caught.value.kind, caught.value.disposition) == (FaultKind.TLS_FAILED, PARK)


async def test_a_stripped_starttls_sends_nothing_more(server_context, ca_file):
    heard = []

    async def script(peer):
        await peer.greet(b"AUTH PLAIN")
        heard.append(await peer.wait_for_end())

    fault = await refused(script, server_context, ca_file, security=Security.STARTTLS)
    assert fault.kind is FaultKind.TLS_FAILED
    assert heard == [b""]


async def test_a_refused_starttls_ends_it(server_context, ca_file):
    async def script(peer):
        await peer.greet(b"STARTTLS", b"AUTH PLAIN")
        await peer.expect(b"STARTTLS")
        await peer.say(b"454 4.7.0 TLS not available")
        await peer.wait_for_end()

    fault = await refused(script, server_context, ca_file, security=Security.STARTTLS)
    assert (fault.kind, fault.disposition) == (FaultKind.TLS_FAILED, RETRY)


@pytest.mark.parametrize("injected", [b"250 injected\r\n", b"x", b"235 2.7.0 welcome\r\n"])
async def test_any_byte_behind_the_starttls_reply_aborts(injected, server_context, ca_file):
    heard = []

    async def script(peer):
        await peer.greet(b"STARTTLS")
        await peer.expect(b"STARTTLS")
        await peer.stream.send_all(b"220 go ahead\r\n" + injected)
        heard.append(await peer.wait_for_end())

    fault = await refused(script, server_context, ca_file, security=Security.STARTTLS)
    assert (fault.kind, fault.disposition) == (FaultKind.TLS_FAILED, RETRY)
    assert "attack" in fault.reason
    assert heard == [b""]  # not even a TLS greeting


async def test_what_was_announced_in_plain_text_counts_for_nothing(server_context, ca_file):
    async def script(peer):
        await peer.greet(b"STARTTLS", b"AUTH PLAIN")
        await peer.expect(b"STARTTLS")
        await peer.say(b"220 go")
        peer.stream = trio.SSLStream(peer.stream, server_context, server_side=True, https_compatible=True)
        await peer.hello(b"AUTH XOAUTH2")
        assert not (await peer.wait_for_end()).startswith(b"AUTH")

    fault = await refused(script, server_context, ca_file, security=Security.STARTTLS)
    assert fault.kind is FaultKind.PASSWORD_UNSUPPORTED


async def test_refused_credentials_are_not_tried_twice(server_context, ca_file):
    async def script(peer):
        await peer.greet(b"AUTH PLAIN LOGIN CRAM-MD5")
        await peer.expect(rb"AUTH PLAIN \S+")
        await peer.say(b"535 5.7.8 no")
        assert b"AUTH" not in await peer.wait_for_end()

    assert (await refused(script, server_context, ca_file)).kind is FaultKind.AUTH_FAILED


async def test_a_mechanism_refused_is_followed_by_the_next(server_context, ca_file):
    async def script(peer):
        await peer.greet(b"AUTH=PLAIN LOGIN")
        await peer.expect(rb"AUTH PLAIN \S+")
        await peer.say(b"504 5.5.4 unrecognized")
        await peer.expect(rb"AUTH LOGIN \S+")
        await peer.say(b"334 UGFzc3dvcmQ6")
        await peer.expect(b"cHc=")
        await peer.say(b"235 welcome")
        await peer.expect(b"QUIT")
        await peer.say(b"221 bye")

    async with endpoint_of(script, server_context, ca_file) as (dialer, endpoint):
        await verify_login(dialer, endpoint, USER, PASSWORD)


async def test_cram_md5_alone(server_context, ca_file):
    async def script(peer):
        await peer.greet(b"AUTH CRAM-MD5")
        await peer.expect(b"AUTH CRAM-MD5")
        # RFC 2195 section 2 has this challenge
        await peer.say(b"334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+")
        await peer.expect(b"dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw")
        await peer.say(b"235 welcome")

    async with endpoint_of(script, server_context, ca_file) as (dialer, endpoint):
        await verify_login(dialer, endpoint, "tim", Secret("tanstaaftanstaaf"))


@pytest.mark.parametrize(("greeting", "kind"), [
    (b"554 5.7.1 go away\r\n", FaultKind.CONNECT_FAILED),
    (b"421 4.7.0 Too many connections\r\n", FaultKind.THROTTLED),
    (b"421 busy\r\n", FaultKind.UNAVAILABLE),
    (b"* OK IMAP4rev1 here\r\n", FaultKind.CONNECT_FAILED),
    (b"SSH-2.0-OpenSSH_9.2\r\n", FaultKind.CONNECT_FAILED),
    (b"220-hello\r\n" * 5000, FaultKind.CONNECT_FAILED),
    (b"x" * 100_000, FaultKind.CONNECT_FAILED),
    (b"", FaultKind.CONNECT_FAILED),
    (b"250 hello\r\n", FaultKind.CONNECT_FAILED),
    (b"354 go\r\n", FaultKind.CONNECT_FAILED),
])
async def test_greetings_that_are_none(greeting, kind, server_context, ca_file):
    async def script(peer):
        await peer.stream.send_all(greeting)

    fault = await refused(script, server_context, ca_file)
    assert (fault.kind, fault.disposition) == (kind, RETRY)
    assert b"go away" not in fault.reason.encode()


async def test_a_silent_greeting_has_its_own_bound(server_context, ca_file):
    async def script(peer):
        await trio.sleep_forever()

    fault = await refused(script, server_context, ca_file, timeouts=Timeouts(greeting=0.1))
    assert fault.kind is FaultKind.CONNECT_FAILED


async def test_one_deadline_over_a_server_that_drips(server_context, ca_file):
    async def script(peer):
        await peer.say(b"220 hello")
        await peer.expect(b"EHLO.*")
        while True:
            await peer.say(b"250-x")
            await trio.sleep(0.02)

    fault = await refused(script, server_context, ca_file, timeouts=Timeouts(login=0.5))
    assert fault.kind is FaultKind.UNAVAILABLE


async def test_verify_has_one_deadline_and_quit_is_within(server_context, ca_file):
    async def script(peer):
        await peer.log_in()
        await peer.expect(b"QUIT")
        await trio.sleep_forever()

    async with endpoint_of(script, server_context, ca_file) as (dialer, endpoint):
        with trio.fail_after(4):  # QUIT alone would wait 5 s
            assert "auth" in await verify_login(dialer, endpoint, USER, PASSWORD, deadline=1.0)


async def test_lost_while_logging_in(server_context, ca_file):
    async def script(peer):
        await peer.greet(b"AUTH PLAIN")
        await peer.expect(b"AUTH.*")

    assert (await refused(script, server_context, ca_file)).kind is FaultKind.LOST


async def test_a_server_that_echoes_the_password_is_not_quoted(server_context, ca_file, capsys):
    async def script(peer):
        await peer.greet(b"AUTH PLAIN")
        line = await peer.expect(rb"AUTH PLAIN \S+")
        await peer.say(b"535 5.7.8 cannot do " + line + b" with password open-sesame")

    fault = await refused(script, server_context, ca_file, password=Secret("open-sesame"))
    said = repr(fault) + str(fault) + repr(fault.__cause__) + "".join(capsys.readouterr())
    assert fault.kind is FaultKind.AUTH_FAILED
    assert "open-sesame" not in said
    assert "b3Blbi1zZXNhbW" not in said


async def test_cancelled_at_any_step_nothing_stays_open(server_context, ca_file):
    async def script(peer):
        await peer.greet(b"AUTH PLAIN")
        await trio.sleep_forever()

    with trio.move_on_after(0.2) as scope:
        await refused(script, server_context, ca_file)
    assert scope.cancelled_caught  # and the leak check sees the rest
