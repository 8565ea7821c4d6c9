"""The SMTP test servers, seen by the standard library's client."""

import smtplib
from contextlib import contextmanager

import pytest

from ops.testservers.smtp import SmtpOptions

MESSAGE = b"Subject: hello\r\n\r\n.dot\r\nlast\r\n"


@contextmanager
def connected(server, authority, how):
    context = authority.client_context()
    if how == "tls":
        client = smtplib.SMTP_SSL("localhost", server.tls_port, local_hostname="localhost", timeout=10, context=context)
    else:
        client = smtplib.SMTP("localhost", server.starttls_port, local_hostname="localhost", timeout=10)
        client.starttls(context=context)
    try:
        yield client
    finally:
        client.close()


@pytest.mark.parametrize("how", ["starttls", "tls"])
@pytest.mark.parametrize("kind", ["smtp_server", "submission"])
def test_mail_sent_is_mail_taken(request, authority, new_user, how, kind):
    server = request.getfixturevalue(kind)
    with connected(server, authority, how) as client:
        client.login(new_user, server.password)
        refused = client.sendmail("ann@example.org", [new_user, "say-550-5.1.1@example.org"], MESSAGE)
    assert refused["say-550-5.1.1@example.org"][0] == 550
    recorder = server.relay if kind == "submission" else server
    [mail] = recorder.wait_for_mail_to(new_user)
    assert mail.recipients == (new_user,)
    assert mail.content.endswith(MESSAGE)
    if kind == "smtp_server":
        assert (mail.user, mail.tls) == (new_user, True)


@pytest.mark.parametrize("kind", ["smtp_server", "submission"])
def test_a_wrong_password_is_refused(request, authority, kind):
    server = request.getfixturevalue(kind)
    with connected(server, authority, "tls") as client, pytest.raises(smtplib.SMTPAuthenticationError) as caught:
        client.login("ann", "wrong")
    assert caught.value.smtp_code == 535


def test_no_login_before_tls(smtp_server):
    with smtplib.SMTP("localhost", smtp_server.starttls_port, local_hostname="localhost", timeout=10) as client:
        client.ehlo()
        assert not client.has_extn("auth")
        assert client.docmd("AUTH", "PLAIN AGFubgBwdw==")[0] == 530


@pytest.mark.parametrize(("address", "taken"), [("drop", True), ("lost", False)])
def test_a_connection_can_break_where_the_reply_should_come(smtp_server, authority, new_user, address, taken):
    with connected(smtp_server, authority, "tls") as client:
        client.login("ann", smtp_server.password)
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.sendmail("ann@example.org", [new_user, f"{address}@example.org"], MESSAGE)
    assert bool(smtp_server.mails_to(new_user)) is taken


def test_a_reply_after_the_message_can_be_asked_for(smtp_server, authority, new_user):
    with connected(smtp_server, authority, "tls") as client:
        client.login("ann", smtp_server.password)
        with pytest.raises(smtplib.SMTPDataError, match=r"4\.3\.1") as caught:
            client.sendmail("ann@example.org", [new_user, "data-452-4.3.1@example.org"], MESSAGE)
    assert caught.value.smtp_code == 452
    assert smtp_server.mails_to(new_user) == []


def test_connections_are_told_apart(smtp_server, authority, new_user):
    for _ in range(2):
        with connected(smtp_server, authority, "starttls") as client:
            client.login("ann", smtp_server.password)
            for _ in range(2):
                client.sendmail("ann@example.org", [new_user], MESSAGE)
    first, second, third, fourth = [mail.connection for mail in smtp_server.mails_to(new_user)]
    assert first == second != third == fourth


@pytest.mark.parametrize(
    ("smtp_server", "missing"), [(SmtpOptions(starttls=False), "starttls"), (SmtpOptions(hide_auth=True), "auth")],
    indirect=["smtp_server"])
def test_extensions_can_be_left_out(smtp_server, missing):
    with smtplib.SMTP("localhost", smtp_server.starttls_port, local_hostname="localhost", timeout=10) as client:
        client.ehlo()
        assert not client.has_extn(missing)


def test_started_again_it_keeps_its_ports_and_its_mail(private_smtp_server, authority):
    ports = private_smtp_server.starttls_port, private_smtp_server.tls_port
    with connected(private_smtp_server, authority, "tls") as client:
        client.login("ann", private_smtp_server.password)
        client.sendmail("ann@example.org", ["bob@example.org"], MESSAGE)
    private_smtp_server.stop()
    private_smtp_server.start()
    assert (private_smtp_server.starttls_port, private_smtp_server.tls_port) == ports
    assert len(private_smtp_server.mails()) == 1
