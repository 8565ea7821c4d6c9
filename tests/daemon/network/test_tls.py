import datetime as dt
import socket
import ssl
import warnings
from functools import partial

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from daemon.errors import Disposition, Fault, FaultKind
from daemon.network import Security, client_context
from daemon.network import tls as tls_module
from daemon.network.tls import judge_handshake
from ops.testservers.tls import Authority, Certificate

from .loopback import dialer_to, serving
from .test_stream import reset, silence


def self_signed() -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + dt.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256()))
    pem = serialization.Encoding.PEM
    return Certificate(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        certificate.public_bytes(pem))


def not_yet_valid(authority: Authority) -> Certificate:
    now = dt.datetime.now(dt.UTC)
    leaf = authority._ca.issue_cert(
        "localhost", not_before=now + dt.timedelta(days=1), not_after=now + dt.timedelta(days=2))
    return Certificate(leaf.private_key_pem.bytes(), b"".join(pem.bytes() for pem in leaf.cert_chain_pems))


async def fault_of(script, ca_file, tls=None, host="localhost", starttls=False):
    async with serving(script, tls) as port:
        dialer = dialer_to(port, ca_file=ca_file)
        if starttls:
            plain = await dialer.dial(host, port, Security.STARTTLS)
            dial = partial(dialer.start_tls, plain, host)
        else:
            dial = partial(dialer.dial, host, port, Security.TLS)
        with pytest.raises(Fault) as caught:
            await dial()
        assert dialer.statistics().tls_failed == 1
    assert caught.value.kind is FaultKind.TLS_FAILED
    return caught.value


@pytest.mark.parametrize(("kind", "sentence"), [
    ("expired", "expired"), ("wrong_name", "another host name"), ("untrusted", "not issued by a trusted"),
    ("self_signed", "self-signed"), ("not_yet", "not valid yet")])
@pytest.mark.parametrize("starttls", [False, True])
async def test_a_wrong_certificate_parks(kind, sentence, starttls, authority, ca_file, tmp_path):
    certificate = {
        "expired": authority.expired, "wrong_name": authority.wrong_name, "untrusted": Authority.untrusted,
        "self_signed": self_signed, "not_yet": lambda: not_yet_valid(authority)}[kind]()
    context = certificate.server_context(tmp_path)

    async def refused(stream):
        tls = trio.SSLStream(stream, context, server_side=True)
        await tls.do_handshake()
        await tls.receive_some(1)  # with TLS 1.3 the client's refusal comes after the server's handshake

    fault = await fault_of(refused, ca_file, starttls=starttls)
    assert fault.disposition is Disposition.PARK
    assert sentence in fault.reason


async def test_the_address_has_to_be_named_too(authority, ca_file, tmp_path):
    context = authority.issue("localhost").server_context(tmp_path)
    fault = await fault_of(silence, ca_file, context, host="127.0.0.1")
    assert "another host name" in fault.reason


async def test_an_address_that_is_named_verifies(authority, ca_file, tmp_path):
    async with serving(silence, authority.issue("127.0.0.1").server_context(tmp_path)) as port:
        stream = await dialer_to(port, ca_file=ca_file).dial("127.0.0.1", port, Security.TLS)
        assert stream.version() == "TLSv1.3"
        await stream.aclose()


async def test_the_common_name_counts_for_nothing(authority, ca_file, tmp_path):
    context = authority.issue("other.example.test").server_context(tmp_path)
    assert "another host name" in (await fault_of(silence, ca_file, context)).reason


async def test_without_the_operators_authority_the_systems_decide(authority, tmp_path):
    context = authority.issue().server_context(tmp_path)
    assert "trusted authority" in (await fault_of(silence, None, context)).reason


def legacy(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # else OpenSSL 3 itself refuses to serve it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = version
        context.maximum_version = version
    return context


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
async def test_old_tls_parks(version, authority, ca_file, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context = legacy(authority.issue().server_context(tmp_path), ssl.TLSVersion[version])

    async def refuse(stream):  # on the socket itself: trio.SSLStream would keep its alert back
        sock = socket.socket(fileno=stream.socket.detach())
        sock.settimeout(10)
        with sock, pytest.raises(ssl.SSLError):
            await trio.to_thread.run_sync(partial(context.wrap_socket, sock, server_side=True))

    fault = await fault_of(refuse, ca_file)
    assert fault.disposition is Disposition.PARK
    assert "TLS 1.2" in fault.reason


async def test_tls_1_2_is_enough(authority, ca_file, tmp_path):
    context = authority.issue().server_context(tmp_path)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(silence, context) as port:
        stream = await dialer_to(port, ca_file=ca_file).dial("localhost", port, Security.TLS)
        assert stream.version() == "TLSv1.2"
        await stream.aclose()


async def test_plain_text_where_tls_should_be_parks(ca_file):
    async def greet(stream):
        await stream.send_all(b"* OK IMAP4rev1 ready\r\n")
        await trio.sleep_forever()

    fault = await fault_of(greet, ca_file)
    assert fault.disposition is Disposition.PARK
    assert "does not speak TLS" in fault.reason
    assert "IMAP4rev1" not in fault.reason


@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_a_connection_lost_in_the_handshake_is_tried_again(how, ca_file):
    async def lose(stream):
        await stream.receive_some(1)
        if how == "reset":
            reset(stream)

    fault = await fault_of(lose, ca_file)
    assert fault.disposition is Disposition.RETRY
    assert "lost in the TLS handshake" in fault.reason


async def test_a_silent_handshake_is_bounded(ca_file, monkeypatch):
    monkeypatch.setattr(tls_module, "HANDSHAKE", 0.1)
    fault = await fault_of(silence, ca_file)
    assert fault.disposition is Disposition.RETRY
    assert "in time" in fault.reason


async def test_a_handshake_can_be_cancelled_and_closes(ca_file):
    begun, ended = trio.Event(), trio.Event()

    async def watch(stream):
        try:
            while await stream.receive_some(1000):
                begun.set()
        except trio.BrokenResourceError:
            pass
        ended.set()

    async with serving(watch) as port, trio.open_nursery() as nursery:
        nursery.start_soon(dialer_to(port, ca_file=ca_file).dial, "localhost", port, Security.TLS)
        await begun.wait()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await ended.wait()


async def test_start_tls_keeps_the_connection_and_closes_the_plain_stream(authority, ca_file, tmp_path):
    context = authority.issue().server_context(tmp_path)

    async def script(stream):
        await stream.send_all(b"plain\r\n")
        assert await stream.receive_some(100) == b"STARTTLS\r\n"
        await stream.send_all(b"go\r\n")
        tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        await tls.send_all(b"secret\r\n")
        await trio.sleep_forever()

    async with serving(script) as port:
        dialer = dialer_to(port, ca_file=ca_file)
        plain = await dialer.dial("localhost", port, Security.STARTTLS)
        assert await plain.receive_some(100) == b"plain\r\n"
        await plain.send_all(b"STARTTLS\r\n")
        assert await plain.receive_some(100) == b"go\r\n"
        stream = await dialer.start_tls(plain, "LocalHost")
        assert await stream.receive_some(100) == b"secret\r\n"
        with pytest.raises(trio.ClosedResourceError):
            await plain.receive_some(1)
        with pytest.raises(TypeError):
            await dialer.start_tls(stream, "localhost")
        await stream.aclose()


async def test_plain_text_before_the_handshake_never_reaches_the_caller(ca_file):
    """Injection that arrives after the last plain read is read as TLS, and ends it."""
    async def inject(stream):
        await stream.send_all(b"250 AUTH PLAIN\r\n" * 10)
        await trio.sleep_forever()

    await fault_of(inject, ca_file, starttls=True)


def test_unknown_failures_are_the_networks_mood():
    for exc in (ssl.SSLError(1, "odd"), ConnectionResetError(), OSError(), ssl.SSLEOFError(8, "EOF"), TimeoutError()):
        fault = judge_handshake(exc)
        assert (fault.kind, fault.disposition) == (FaultKind.TLS_FAILED, Disposition.RETRY)


def test_an_authority_file_must_be_usable(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        client_context(tmp_path / "absent.pem")
    (tmp_path / "empty.pem").write_text("nothing\n")
    with pytest.raises(ssl.SSLError):
        client_context(tmp_path / "empty.pem")


def test_the_context_verifies():
    context = client_context()
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
