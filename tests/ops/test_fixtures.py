"""The fixtures that tests stand on: proxy, scripted server, key server. Real sockets, so real time."""

import imaplib
import json
import socket
import urllib.error
import urllib.request

import jwt
import pytest
import trio

from tests.fix_scripted_imap import Close, Forever, On, Say, StartTls, Swallow


async def greeting_of(port):
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    return stream, await stream.receive_some(4096)


async def until_reset(stream):
    """What comes until the connection is reset; the test fails when it ends in any other way."""
    got = b""
    with trio.fail_after(5):
        try:
            while data := await stream.receive_some(100):
                got += data
        except trio.BrokenResourceError:
            return got
    pytest.fail("the connection was closed, not reset")


# --- proxy ---------------------------------------------------------------------------------------------------------


async def test_what_goes_through_the_proxy_is_unchanged(proxy, dovecot, mail_user):
    await trio.to_thread.run_sync(dovecot.seed, mail_user.name, [b"Subject: x\r\n\r\n" + b"y" * 300_000])
    link = await proxy(dovecot.imaps_port)

    def read():
        with imaplib.IMAP4_SSL("localhost", link.port, ssl_context=dovecot.authority.client_context()) as client:
            client.login(mail_user.name, mail_user.password)
            client.select()
            return client.fetch("1", "(BODY.PEEK[])")[1][0][1]

    assert len(await trio.to_thread.run_sync(read)) == 300_014
    assert link.bytes_down > 300_014
    assert link.accepted == 1


async def test_the_proxy_cuts_with_rst_or_fin(proxy, dovecot):
    link = await proxy(dovecot.imap_port)
    stream, _ = await greeting_of(link.port)
    link.cut()
    with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
        await stream.receive_some(10)
    await stream.aclose()
    stream, _ = await greeting_of(link.port)
    link.cut(reset=False)
    with trio.fail_after(5):
        assert await stream.receive_some(10) == b""
    await stream.aclose()


async def test_the_proxy_cuts_in_the_middle(proxy, dovecot):
    link = await proxy(dovecot.imap_port)
    link.cut_after(7)
    stream = await trio.open_tcp_stream("127.0.0.1", link.port)
    assert b"* OK [C".startswith(await until_reset(stream))
    await stream.aclose()


@pytest.mark.parametrize("how", ["deafen", "swallow", "half_open"])
async def test_a_silent_proxy_keeps_the_connection_and_says_nothing(proxy, dovecot, how):
    link = await proxy(dovecot.imap_port)
    stream, _ = await greeting_of(link.port)
    getattr(link, how)()
    await stream.send_all(b"a NOOP\r\n")
    with trio.move_on_after(0.3) as waited:
        await stream.receive_some(100)
    assert waited.cancelled_caught
    assert link.open == 1
    if how == "deafen":
        link.hear()
        with trio.fail_after(5):
            assert (await stream.receive_some(100)).startswith(b"a OK")
    await stream.aclose()


async def test_the_proxy_delays(proxy, dovecot):
    link = await proxy(dovecot.imap_port)
    stream, _ = await greeting_of(link.port)
    link.delay = 0.1
    began = trio.current_time()
    await stream.send_all(b"a NOOP\r\n")
    await stream.receive_some(100)
    assert trio.current_time() - began >= 0.2
    await stream.aclose()


async def test_the_proxy_refuses_and_accepts_again_on_its_port(proxy, dovecot):
    link = await proxy(dovecot.imap_port)
    port = link.port
    link.refuse()
    with trio.fail_after(5):
        while True:
            try:
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
            except OSError:
                break
    await link.accept()
    assert link.port == port
    stream, greeting = await greeting_of(port)
    assert greeting.startswith(b"* OK")
    await stream.aclose()


async def test_the_proxy_floods_a_client_that_does_not_read(proxy, dovecot):
    link = await proxy(dovecot.imap_port)
    stream, _ = await greeting_of(link.port)
    link.flood(b"* 1 EXISTS\r\n" * 1000)
    await trio.sleep(0.1)
    await stream.send_all(b"a NOOP\r\n")
    assert b"EXISTS" in await stream.receive_some(65536)
    await stream.aclose()


# --- scripted IMAP server ------------------------------------------------------------------------------------------


def conversation(port, user, password, context):
    """What imaplib sees of a server: what a client could compare."""
    seen = {}
    with imaplib.IMAP4("localhost", port, timeout=10) as client:
        client.starttls(ssl_context=context)
        seen["login"] = client.login(user, password)[0]
        seen["select"] = client.select(readonly=True)
        seen["fetch"] = client.uid("FETCH", "1:*", "(FLAGS BODY.PEEK[])")
        seen["noop"] = client.noop()[0]
        seen["nonsense"] = client.uid("SEARCH", "UID", "999")
        seen["logout"] = client.logout()[0]
    return seen


async def test_the_same_conversation_with_the_script_and_with_dovecot(scripted_imap, dovecot, mail_user):
    message = b"Subject: same\r\n\r\nbody\r\n"
    await trio.to_thread.run_sync(dovecot.seed, mail_user.name, [message])
    context = dovecot.authority.client_context()
    scripted = await scripted_imap(
        Say(b"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] ready\r\n", pieces=3),
        On(rb"CAPABILITY", b"* CAPABILITY IMAP4rev1 STARTTLS\r\n<tag> OK done\r\n"),
        On(rb"STARTTLS", b"<tag> OK begin\r\n"),
        StartTls(),
        On(rb"CAPABILITY", b"* CAPABILITY IMAP4rev1\r\n<tag> OK done\r\n"),
        On(rb"LOGIN .*pw", b"<tag> OK in\r\n"),
        On(rb"EXAMINE INBOX", b"* FLAGS (\\Seen)\r\n* 1 EXISTS\r\n* 1 RECENT\r\n<tag> OK [READ-ONLY] done\r\n"),
        On(rb"UID FETCH 1:\*", b"* 1 FETCH (UID 1 FLAGS (\\Recent) BODY[] {%d}\r\n%s)\r\n<tag> OK done\r\n"
           % (len(message), message)),
        On(rb"NOOP", b"<tag> OK done\r\n"),
        On(rb"UID SEARCH UID 999", b"* SEARCH\r\n<tag> OK done\r\n"),
        On(rb"LOGOUT", b"* BYE bye\r\n<tag> OK done\r\n"),
        Close(),
    )
    real, script = [
        await trio.to_thread.run_sync(conversation, port, mail_user.name, mail_user.password, context)
        for port in (dovecot.imap_port, scripted.port)
    ]
    assert real == script


async def test_a_client_off_the_script_is_a_failure(scripted_imap):
    server = await scripted_imap(Say(b"* OK\r\n"), On(rb"LOGIN"))
    stream, _ = await greeting_of(server.port)
    await stream.send_all(b"a NOOP\r\n")
    with trio.fail_after(5):
        assert await stream.receive_some(10) == b""
    await stream.aclose()
    [failure] = server.take_failures()
    assert "NOOP" in failure


async def test_scripts_take_turns_literals_are_read_and_lines_recorded(scripted_imap):
    busy = [Say(b"* BYE busy\r\n"), Close(reset=True)]
    server = await scripted_imap(scripts=[busy, [Say(b"* OK\r\n"), On(b"LOGIN", b"<tag> OK done\r\n")]])
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    await until_reset(stream)
    await stream.aclose()
    stream, greeting = await greeting_of(server.port)
    assert greeting == b"* OK\r\n"
    await stream.send_all(b"a LOGIN {3}\r\n")
    assert (await stream.receive_some(100)).startswith(b"+ ")
    await stream.send_all(b"ann {2+}\r\npw\r\n")
    with trio.fail_after(5):
        assert await stream.receive_some(100) == b"a OK done\r\n"
    assert server.lines == [b"a LOGIN {3}\r\nann {2+}\r\npw"]
    await stream.aclose()


async def test_it_talks_for_ever_and_it_keeps_silent(scripted_imap):
    server = await scripted_imap(scripts=[[Forever(b"* OK still here\r\n" * 1000)], [Swallow()]])
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    total = 0
    with trio.fail_after(10):
        while total < 1_000_000:
            total += len(await stream.receive_some(65536))
    await stream.aclose()
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    await stream.send_all(b"x" * 1_000_000)
    with trio.move_on_after(0.2) as waited:
        await stream.receive_some(1)
    assert waited.cancelled_caught
    await stream.aclose()


# --- key server ----------------------------------------------------------------------------------------------------


def published(server):
    with urllib.request.urlopen(server.url, timeout=10) as answer:
        return {key["kid"]: jwt.PyJWK(key) for key in json.load(answer)["keys"]}


@pytest.mark.parametrize("alg", ["ES256", "RS256", "HS256"])
def test_tokens_verify_with_what_is_published(jwks_server, alg):
    token = jwks_server.make_token(alg=alg, sub="ann", is_anonymous=None)
    key = jwks_server.secret if alg == "HS256" else published(jwks_server)[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key, algorithms=[alg], audience="authenticated", issuer=jwks_server.issuer)
    assert claims["sub"] == "ann"
    assert "is_anonymous" not in claims


def test_rotated_keys_are_gone_and_tokens_expire(jwks_server):
    old = jwks_server.make_token()
    jwks_server.rotate()
    assert jwt.get_unverified_header(old)["kid"] not in published(jwks_server)
    expired = jwks_server.make_token(lifetime=-10)
    with pytest.raises(jwt.ExpiredSignatureError):
        jwt.decode(expired, published(jwks_server)[jwt.get_unverified_header(expired)["kid"]], algorithms=["ES256"],
                   audience="authenticated")


def test_the_key_server_can_be_down_slow_and_wrong(jwks_server):
    jwks_server.down = True
    with pytest.raises(urllib.error.HTTPError) as caught:
        published(jwks_server)
    assert caught.value.code == 503
    caught.value.close()
    jwks_server.down, jwks_server.body = False, b"not json"
    with pytest.raises(json.JSONDecodeError):
        published(jwks_server)
    assert jwks_server.requests == 2
    jwks_server.slow = 60.0
    with socket.create_connection(("127.0.0.1", int(jwks_server.url.split(":")[2].split("/")[0]))) as asking:
        asking.sendall(b"GET /auth/v1/.well-known/jwks.json HTTP/1.0\r\n\r\n")
        asking.settimeout(0.2)
        with pytest.raises(TimeoutError):
            asking.recv(10)
